"""What a screen needs: the configuration's policy, lists, terms and recipients, and the columns of the tables.

Owns the wiring, and what may not screen. Leaves deciding to `screen.py` and files to `screen_run.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.shared import attach_lists, read_about, share_lists
from classifiers.text.terms import TermsError
from classifiers.weights import WeightsError
from manifests.cases import SealError, check_recipients
from manifests.collection import Collection
from manifests.records import SCHEMA_VERSION
from manifests.screens import part_file
from pipeline.case_owner import check_owner, reads_a_recipient
from pipeline.config import PolicyConfig, load_config
from pipeline.errors import ConfigError
from pipeline.executors.protocol import WorkerOptions
from pipeline.mirroring import join
from pipeline.plan import software_versions
from pipeline.policy import PolicyError
from pipeline.resolve import (
    HISTORIC_STAMP,
    PLAIN_LISTS_STAMP,
    READABLE_STAMP,
    check_releasable,
    load_named,
    read_text_terms,
)
from pipeline.run_lists import read_lists
from pipeline.screen import Screener, screen_specs
from pipeline.screen_tables import Part, Table, find_tables, with_metadata
from pipeline.setup import with_options
from pipeline.withheld import Withheld


@dataclass(frozen=True, slots=True)
class ScreenOptions:
    """What the command line says. lists_fd: lists and known keys in shared memory, once they are read."""

    tables: tuple[Path, ...]
    config: Path
    to: Path
    policy: str = ""
    lists: tuple[str, ...] = ()
    collection: Path | None = None
    lists_fd: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """All that a part needs. plan: what goes into plan.json, less the digests of the tables.

    logged: the collection whose log says what was screened; None where none is kept.
    """

    options: ScreenOptions
    tables: tuple[Table, ...]
    screener: Screener
    recipients: tuple[str, ...]
    stamps: tuple[str, ...]
    plan: dict[str, object]
    lists_fd: int
    logged: Collection | None

    def parts(self) -> list[tuple[Table, Part]]:
        """Return all parts of all tables, in order."""
        return [(table, part) for table in self.tables for part in table.parts]

    def path(self, kind: str, table: Table, part: Part) -> Path:
        """Return the place of a file of a part."""
        return part_file(self.options.to, kind, table.name, part.number)


def load_job(options: ScreenOptions, *, worker: bool = False) -> Job:
    """Read the configuration, the lists and what the tables look like.

    Raises:
        ConfigError: something is not usable; nothing was written.
    """
    config = with_options(load_config(options.config), WorkerOptions(options.config, lists=options.lists))
    named, base = options.policy or config.screen.policy, Path.cwd() if options.policy else options.config.parent
    is_file = named.endswith(".toml")
    config = replace(config, policy=PolicyConfig(base / named) if is_file else PolicyConfig(profile=named))
    tables = find_tables(options.tables, config.screen)
    if not (worker or options.collection):
        join(config)
    home = Collection(options.collection or config.collection, {} if options.collection else config.roots)
    try:
        fd = options.lists_fd
        if fd is None:
            read = read_lists(config, now=datetime.now(UTC))
            found = Withheld.read(home)
            internal = None if found is None else found.record()
            fd = share_lists(read.feeds, {"lists": [asdict(item) for item in read.plans], "internal": internal})
        lists, terms = attach_lists(fd), read_text_terms(config)
        specs = screen_specs(config, lists, terms, digests=all(table.digests for table in tables))
        policy = load_named(config.policy, specs)
        check_recipients(config.sealed.recipients)
    except (ListError, TermsError, WeightsError, PolicyError, SealError) as error:
        raise ConfigError(str(error)) from None
    about = read_about(fd)
    known = None if about["internal"] is None else Withheld.of(about["internal"])
    if known is not None and not known.count and not config.sealed.recipients:
        known = None  # nothing can be, or was, withheld
    stamps = [PLAIN_LISTS_STAMP] if config.lists.unsafe_plain_lists else []
    if policy.sources:
        raise ConfigError(f"policy {policy.name!r}: [[source]] is of shards, and tables have none; take it out")
    if (policy.can_withhold or known is not None) and not config.sealed.recipients:
        what = f"policy {policy.name!r}" if policy.can_withhold else f"{home.root}: what it knows"
        raise ConfigError(f"{what} can withhold rows, and [sealed] recipients is empty; fill it")
    if not worker:
        check_owner(config, policy)
        check_releasable(config, policy)
        if reads_a_recipient(config, options.config.absolute().parent):
            stamps.append(READABLE_STAMP)
    if policy.historic:
        stamps.append(HISTORIC_STAMP)
    captions = any(name.startswith("caption.") for name in policy.signals)
    scores = [item for item in config.metadata if item.signal in policy.signals]
    tables = tuple(with_metadata(table, scores, captions=captions) for table in tables)
    plan: dict[str, object] = {
        "schema": SCHEMA_VERSION,
        "policy": policy.name,
        "policy_digest": policy.digest,
        "policy_text": policy.text,
        "lists": about["lists"],
        "internal": None if known is None else known.digest(),
        "columns": [[table.name, table.url, table.caption, list(table.digests)] for table in tables],
        "every_term": config.screen.every_term,
        "software": list(software_versions()),
        "stamps": stamps,
    }
    screener = Screener(policy, lists, terms, known, every_term=config.screen.every_term)
    logged = home if config.log is not None else None
    return Job(options, tables, screener, config.sealed.recipients, tuple(stamps), plan, fd, logged)
