"""Tables of URLs that arrived: which of them are new, screening these, and downloading what screening left.

    <collection>.nightly/screened/<table>/<screened by>/    what `shardscrub screen` writes
    <staging>/<table>-<downloaded by>/                      what `shardscrub download` writes

- A table is known by its bytes. One that is not downloaded yet when another list or policy comes is screened again,
  and what was staged of it goes: nothing that is listed today is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from manifests.records import digest_json
from pipeline.config import Config
from pipeline.night_state import NightState
from pipeline.screen_job import ScreenOptions, load_job
from pipeline.screen_run import screen_all

Counts = tuple[int, ...]  # in, kept, not kept, faults
_SHORT = 12  # digits of a digest in a name


@dataclass(slots=True)
class NightTables:
    """The tables of one night. path: of the configuration. left: screens to download, by the names of tables."""

    path: Path
    config: Config
    state: NightState
    left: dict[str, Path] = field(default_factory=dict)

    def screen(self, tables: Sequence[Path]) -> Counts | None:
        """Screen what is new among all tables; returns rows in, kept, not kept and faults, None where nothing is.

        Raises:
            ScrubError: as `screen_all`.
        """
        homes = {path: self._home(path) for path in tables}
        new = {path: home for path, home in homes.items() if not any(self._ends(home))}
        if not new:
            return None
        options = ScreenOptions(tuple(new), self.path, self.state.folder)
        job = load_job(options)  # all of them, before any, and the lists once
        by = digest_json({name: value for name, value in job.plan.items() if name != "columns"})[:_SHORT]
        self.left = {home.name: home / by for home in new.values()}
        screened = []
        for path, home in new.items():
            if not (home / by / "screen.json").exists():
                ours = replace(options, tables=(path,), to=home / by, lists_fd=job.lists_fd)
                screened.append(screen_all(ours, workers=len(os.sched_getaffinity(0))))
        return _counts(screened)

    def download(self) -> Counts | None:
        """Download what the screens of tonight left; returns as `screen`.

        Raises:
            ScrubError: as `download_all`.
        """
        from pipeline.download.run import DownloadOptions, download_all  # noqa: PLC0415 - loads an HTTP client

        assert self.config.nightly.staging is not None  # the caller looks
        downloaded = []
        for name, screened in self.left.items():
            by = digest_json([screened.name, self.config.download.outcome()])[:_SHORT]
            to = self.config.nightly.staging / f"{name}-{by}"
            for other in to.parent.glob(f"{name}-*"):  # begun under other lists or caps, and never finished
                if other != to:
                    shutil.rmtree(other)
            downloaded.append(download_all(DownloadOptions((screened,), self.path, to)))
        return _counts(downloaded)

    def _home(self, table: Path) -> Path:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", table.stem)
        return self.state.folder / "screened" / f"{stem}-{self.state.digest(table)[:_SHORT]}"

    def _ends(self, home: Path) -> Iterator[Path]:
        """Yield the closes of downloads of a table, of its screens where nothing is downloaded here."""
        if self.config.nightly.staging is None:
            return home.glob("*/screen.json")
        return self.config.nightly.staging.glob(f"{home.name}-*/download.json")


def _counts(summaries: Sequence[Mapping[str, int]]) -> Counts | None:
    names = ("in", "kept", "not_kept", "faults")
    return tuple(sum(one[name] for one in summaries) for name in names) if summaries else None
