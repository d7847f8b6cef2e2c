"""A night: import new lists, find new shards, screen, download, examine, settle all, verify, report, anchor.

Owns the order, what is new, and one line of JSON for each stage. Leaves the work to what the commands call, and
what one night tells the next to `night_state.py`.

- What was done is not done again. A night with nothing new says so, stage by stage.
- A stage that fails ends the night with its exit code; the next night goes on from there, as after a kill.
- Lines and metrics know in, kept, not kept and faults; `docs/operating.md` says what each stage counts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.records import FilesError
from manifests.report_page import write_reports
from manifests.verify import verify as verify_files
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, ExitCode, ScrubError, VerificationError
from pipeline.evidence import finish_settle
from pipeline.executors.protocol import WorkerOptions
from pipeline.ingest.shards import find_sources
from pipeline.lists.report import import_days
from pipeline.lists.store import ListStore
from pipeline.mirroring import join
from pipeline.night_lists import arrived, import_arrived
from pipeline.night_metrics import oldest_list_age_s, write_metrics
from pipeline.night_state import NightState, open_state
from pipeline.night_tables import Counts, NightTables
from pipeline.prepare import prepare, require_examined, require_released
from pipeline.runs import Part, examine_all
from pipeline.settles import settle_all
from pipeline.setup import Setup
from pipeline.status import newest_close

STAGES = ("lists", "find", "screen", "download", "examine", "settle", "verify", "report", "anchor")  # methods below
ONCE = ("verify", "report", "anchor")  # for each settle


@dataclass(frozen=True, slots=True)
class Tally:
    """How a stage went. skipped: not configured. counts: in, kept, not kept, faults."""

    state: Literal["done", "nothing", "skipped", "failed"]
    counts: Counts = (0, 0, 0, 0)

    @classmethod
    def of(cls, counts: Counts | int | None) -> Tally:
        """Return the tally of a stage that went through these, or did all of so many; without any, of nothing."""
        if not counts:
            return cls("nothing")
        return cls("done", (counts, counts, 0, 0) if isinstance(counts, int) else counts)

    def line(self, stage: str, began: float, code: ExitCode) -> str:
        """Return what a scheduler is told."""
        counts = dict(zip(("in", "kept", "not_kept", "faults"), self.counts, strict=True))
        seconds = round(time.monotonic() - began, 3)
        return json.dumps({"stage": stage, "state": self.state, **counts, "seconds": seconds, "exit": int(code)})


def run_night(path: Path, *, workers: int | None, device: str, say: Callable[[str], None]) -> None:
    """Go through the stages of a night; `say` takes a line of JSON for each.

    Raises:
        BusyError: another night is at work in the collection; nothing was done.
        ScrubError: a stage failed; the next night goes on from there.
    """
    config = load_config(path)
    collection = Collection(config.collection, config.roots)
    with open_state(collection) as state:
        join(config)
        night = Night(path.absolute(), config, collection, state, workers, device)
        code = ExitCode.FAILED
        try:
            for name in STAGES:
                began = time.monotonic()
                try:
                    tally = night.go_through(name)
                except BaseException as error:
                    other = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.FAILED
                    code = error.exit_code if isinstance(error, ScrubError) else other
                    say(Tally("failed").line(name, began, code))
                    raise
                say(tally.line(name, began, ExitCode.FINISHED))
            code = ExitCode.FINISHED
        finally:
            night.end(code)


@dataclass(slots=True)
class Night:
    """The stages of one night, each of which does what is new. rate: samples that were examined in a second."""

    path: Path
    config: Config
    collection: Collection
    state: NightState
    workers: int | None
    device: str
    rate: float = 0.0
    tables: NightTables | None = None
    prepared: tuple[Setup, WorkerOptions, int] | None = None

    def go_through(self, stage: str) -> Tally:
        """Do a stage, if there is anything to do; those that are done once a settle leave a note of it."""
        done, number = self.state.notes.done, max(self.collection.closed_settles(), default=0)
        if stage in ONCE and done.get(stage, 0) == number:
            return Tally("nothing")
        tally: Tally = getattr(self, stage)()
        if stage in ONCE and tally.state == "done":
            done[stage] = number
        self.state.keep()
        return tally

    def end(self, code: ExitCode) -> None:
        """Write down how the night ended, for the next one and for Prometheus."""
        now, counts = datetime.now(UTC), None
        if code == ExitCode.FINISHED:
            self.state.notes.succeeded_at = now.timestamp()
        self.state.keep()
        if self.config.nightly.metrics is None:
            return
        with suppress(ConfigError, FilesError):  # nothing is settled yet, or the stage that failed has told why
            close = newest_close(self.collection)
            kept = close.counts.keep if close.released else 0
            counts = (close.counts.samples, kept, close.counts.samples - kept, close.counts.faults)
        ended = (self.rate, oldest_list_age_s(self.config, now), self.state.notes.succeeded_at, int(code))
        write_metrics(self.config.nightly.metrics, counts or (None,) * 4, ended)

    def lists(self) -> Tally:
        """Import the deliveries of lists that were not imported before. Counts deliveries."""
        if not self.config.nightly.lists:
            return Tally("skipped")
        return Tally.of(import_arrived(self.path.parent, self.config, self.state))

    def find(self) -> Tally:
        """Count the shards that are not examined yet; a download may add to them. Counts shards."""
        sources = find_sources(self.config, base=self.path.parent)
        return Tally.of(len({source.name for source in sources} - set(self.collection.committed_shards())))

    def screen(self) -> Tally:
        """Screen tables that arrived. Counts rows."""
        if not (named := self.config.nightly.tables):
            return Tally("skipped")
        found = {path for one in named for path in arrived(self.path.parent, one, "[nightly] tables")}
        self.tables = NightTables(self.path, self.config, self.state)
        return Tally.of(self.tables.screen(sorted(found)))

    def download(self) -> Tally:
        """Download what screening left. Counts rows."""
        if self.tables is None or self.config.nightly.staging is None:
            return Tally("skipped")
        return Tally.of(self.tables.download())

    def examine(self) -> Tally:
        """Examine new shards. Counts shards."""
        before, began = set(self.collection.committed_shards()), time.monotonic()
        setup, options, workers = self.prepared = prepare(self.path, self.workers, self.device)
        examined = examine_all(setup, options, workers=workers, part=Part())
        new = set(self.collection.committed_shards()) - before
        samples = sum(ExamineCommit.read(self.collection.commit(name)).samples for name in new)
        self.rate = samples / (time.monotonic() - began)
        require_examined(examined)
        return Tally.of(examined.done)

    def settle(self) -> Tally:
        """Decide all that was examined. Counts samples."""
        assert self.prepared is not None  # `examine` comes before
        setup, options, workers = self.prepared
        if not self.collection.committed_shards():
            return Tally("nothing")  # inputs are optional, and none has come yet
        close, before = settle_all(setup, options, workers=workers)
        require_released(close)
        counts = close.counts
        told = (counts.samples, counts.keep, counts.samples - counts.keep, counts.faults)
        return Tally("nothing" if before else "done", told)

    def verify(self) -> Tally:
        """Check the collection from its files. Counts shards."""
        report = verify_files(self.collection.root)
        if report.problems:
            raise VerificationError("\n".join(report.problems))
        return Tally.of(len(newest_close(self.collection).shards))

    def report(self) -> Tally:
        """Write the reports of the newest settle. Counts files."""
        number = newest_close(self.collection).number
        to = self.state.folder / "reports" / f"{number:04d}"
        shutil.rmtree(to, ignore_errors=True)  # of a night that was killed, with other days of import perhaps
        store = self.config.lists.store
        imported = import_days(ListStore(store)) if store else {}
        return Tally.of(len(write_reports(self.collection, number, to=to, imported=imported)))

    def anchor(self) -> Tally:
        """See that others vouch for the newest checkpoint; the close of a settle asks them. Counts anchors."""
        if self.config.log is None:
            return Tally("skipped")
        assert self.prepared is not None  # `examine` comes before
        close, asked = newest_close(self.collection), max(1, len(self.config.log.anchors))
        finish_settle(self.prepared[0], close)
        kept = len(list((self.collection.journal / f"anchors-{close.number:04d}").iterdir()))
        return Tally.of((asked, kept, asked - kept, 0))
