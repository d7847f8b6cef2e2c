"""What is written down about a list in clear: manifests of versions, and what is left of removed ones.

Holds counts, digests of sets and of files, and the user's own words; never an entry. How records are written and
read is `manifests.commits.Record`'s; what is wrong with one is a `ListError` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import ClassVar

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.stored import Effect
from manifests.commits import Record, RecordError, RecordT

PURPOSES = ("csam", "exploitative", "ncii", "terrorism", "opt-out", "erasure", "internal")

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the user says of a list: what it is for, whose it is, and what may be done with it."""

    purpose: str
    received_from: str = ""
    agreement: str = ""
    permitted_uses: tuple[str, ...] = ()
    territory: str = ""
    expires: str | None = None  # YYYY-MM-DD, the last day
    contact: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "permitted_uses", tuple(self.permitted_uses))  # JSON knows lists only
        if self.purpose not in PURPOSES:
            raise ListError(f"purpose: expected one of {', '.join(PURPOSES)}, found {self.purpose!r}")
        try:
            is_day = self.expires is None or date.fromisoformat(self.expires).isoformat() == self.expires
        except ValueError:
            is_day = False
        if not is_day:
            raise ListError(f"expires: expected a date as YYYY-MM-DD, found {self.expires!r}")

    def expired(self, today: date) -> bool:
        """Say whether the last day on which the list may be used has passed."""
        return self.expires is not None and date.fromisoformat(self.expires) < today


@dataclass(frozen=True, slots=True, kw_only=True)
class ListManifest(About, Record):
    """One version of a list, without its entries.

    entries: stored ones by algorithm, without canaries. entries_by_category and entries_by_effect: of all distinct
    entries that were read, those with the effect `ignore` included; one with several categories counts in each.
    records = taken + the sum of `fates`. reasons: by "fate: reason". delivery: digest of the files, by which a
    night knows what was imported.
    """

    kind: ClassVar[str] = "list"
    id: str
    version: int
    imported_at: str
    format: str
    encrypted: bool
    entries: Counts
    entries_by_category: Mapping[str, Counts]
    entries_by_effect: Mapping[str, Counts]
    effects: Mapping[str, Effect]
    records: int
    taken: int
    fates: Counts
    reasons: Counts
    duplicates: int
    stated_count: int | None
    tolerance: float
    set_digest: str
    file_sha256: str
    delivery: str
    canaries: Counts

    def __post_init__(self) -> None:
        About.__post_init__(self)  # `super()` does not know the class that slots make of this one
        texts = [self.received_from, self.agreement, self.territory, self.contact, self.delivery]
        tables = [*self.entries_by_category.values(), *self.entries_by_effect.values()]
        tables += [self.entries, self.fates, self.reasons, self.canaries]
        counts = [self.version, self.records, self.taken, self.duplicates]
        counts += [count for table in tables for count in table.values()]
        if {type(text) for text in (*texts, *self.permitted_uses)} != {str} or type(self.encrypted) is not bool:
            raise ListError("expected text where the user has a say")
        if any(type(count) is not int or count < 0 for count in counts):
            raise ListError("expected whole numbers, none of them negative")
        if set(self.effects) != set(self.entries_by_category):
            raise ListError("expected an effect for every category")
        if datetime.fromisoformat(self.imported_at).tzinfo is None:
            raise ListError("imported_at: expected a time with its zone")

    @property
    def name(self) -> str:
        """The version as it is written: id@version."""
        return f"{self.id}@{self.version}"

    def age_days(self, now: datetime) -> int:
        """Return how many whole days ago the version was imported."""
        return (now - datetime.fromisoformat(self.imported_at)).days


@dataclass(frozen=True, slots=True)
class Removed(Record):
    """What is left of a removed version; the digest is None where its manifest could not be read."""

    kind: ClassVar[str] = "removed-list"
    version: int
    set_digest: str | None


@dataclass(frozen=True, slots=True)
class Withdrawn(Record):
    """What is left of a withdrawn list. versions: their set digests by number, None as in `Removed`."""

    kind: ClassVar[str] = "withdrawn-list"
    id: str
    withdrawn_at: str
    why: str
    versions: dict[str, str | None]


def utc_now() -> datetime:
    """Return the time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Read a record.

    Raises:
        ListError: it is missing, of another schema, or damaged.
    """
    try:
        return kind.read(path)
    except (RecordError, RecursionError) as error:
        detail = str(error).removeprefix(f"{path}: ")
        again = "restore it from a backup, or remove this version and import it again"
        raise ListError(f"{path}: damaged ({detail}); {again}") from None
