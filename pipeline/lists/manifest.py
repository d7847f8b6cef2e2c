"""What is written down about a list in clear: manifests of versions, and what is left of removed ones.

Owns the records and their one way in and out (JSON with a schema number). Holds counts, digests of sets and of
files, and the user's own words; never an entry.

- A record with a missing, unknown or ill-typed key is refused with the name of its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.stored import Effect
from manifests import durable
from manifests.records import SCHEMA_VERSION, readable_json

PURPOSES = ("csam", "exploitative", "ncii", "terrorism", "opt-out", "erasure", "internal")
FILE_MODE = 0o600

Counts = Mapping[str, int]
R = TypeVar("R")


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
        if self.purpose not in PURPOSES:
            raise ListError(f"purpose: expected one of {', '.join(PURPOSES)}, found {self.purpose!r}")
        if self.expires is not None and not _is_date(self.expires):
            raise ListError(f"expires: expected a date as YYYY-MM-DD, found {self.expires!r}")

    def expired(self, today: date) -> bool:
        """Say whether the last day on which the list may be used has passed."""
        return self.expires is not None and date.fromisoformat(self.expires) < today


@dataclass(frozen=True, slots=True, kw_only=True)
class ListManifest(About):
    """One version of a list, without its entries.

    entries: stored ones by algorithm, without canaries. entries_by_category and entries_by_effect: of all distinct
    entries that were read, those with the effect `ignore` included; one with several categories counts in each.
    records = taken + the sum of `fates`. reasons: by "fate: reason".
    """

    id: str
    version: int
    imported_at: str
    format: str
    sealed: bool
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
    file_bytes: int
    canaries: Counts

    @property
    def name(self) -> str:
        """The version as it is written: id@version."""
        return f"{self.id}@{self.version}"

    def age_days(self, now: datetime) -> int:
        """Return how many whole days ago the version was imported."""
        return (now - datetime.fromisoformat(self.imported_at)).days


@dataclass(frozen=True, slots=True)
class Gone:
    """What is left of a removed version; the digest is None where its manifest could not be read."""

    version: int
    set_digest: str | None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What is left of a withdrawn list."""

    id: str
    withdrawn_at: str
    why: str
    versions: tuple[Gone, ...]


def utc_now() -> datetime:
    """Return the time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def write_record(path: Path, record: ListManifest | Gone | Withdrawn) -> None:
    """Write a record; it appears whole, and is never written over."""
    data = readable_json({"schema": SCHEMA_VERSION, **asdict(record)})
    durable.write(path, data, replace=False, mode=FILE_MODE)


def read_record(path: Path, kind: type[R]) -> R:
    """Read a record.

    Raises:
        ListError: it is missing, of another schema, or damaged.
    """
    try:
        raw = json.loads(path.read_bytes())
        if not isinstance(raw, dict) or raw.pop("schema", None) != SCHEMA_VERSION:
            raise ValueError(f"expected schema {SCHEMA_VERSION}")
        return _record(kind, raw)
    except FileNotFoundError:
        raise ListError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        detail = "not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else error
        raise ListError(
            f"{path}: damaged ({detail}); restore it from a backup, or remove this version and import it again"
        ) from None


def _record(kind: type[R], raw: dict[str, object]) -> R:
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type] # every kind is a dataclass
    for name in sorted(names ^ set(raw)):
        raise ValueError(f"{name}: {'missing' if name in names else 'unknown key'}")
    hints = get_type_hints(kind)
    made = kind(**{name: _value(hints[name], value, name) for name, value in raw.items()})
    if isinstance(made, ListManifest) and datetime.fromisoformat(made.imported_at).tzinfo is None:
        raise ValueError("imported_at: expected a time with its zone")
    return made


def _value(kind: Any, raw: object, name: str) -> Any:  # noqa: ANN401 - a value of type `kind`
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        kind = NoneType if raw is None else next(item for item in arguments if item is not NoneType)
    elif origin is tuple and isinstance(raw, list):
        return tuple(_value(arguments[0], item, name) for item in raw)
    elif origin is Mapping and isinstance(raw, dict):
        return {key: _value(arguments[1], value, name) for key, value in raw.items()}
    elif is_dataclass(kind) and isinstance(kind, type) and isinstance(raw, dict):
        return _record(kind, raw)
    fits = type(raw) is kind or (origin is not None and raw in arguments)
    if not fits or (isinstance(raw, int | float) and not raw >= 0):
        raise ValueError(f"{name}: a value of the wrong kind")
    return raw


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
