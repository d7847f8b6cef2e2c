"""Reviews: a person says that a sample must not be kept, and the next settle does so.

Owns recording them and what they do to a shard's rows. Leaves loosening to `overrides.py`.

- A review only tightens: the stricter of its action and of all others holds, for the sample and for all copies of
  its images. It withholds nothing.
- The records are bound to each other, and their head to the decide plan: a new one makes another settle.
- Who decided and why stands in the restricted record alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manifests import schema
from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.features import ShardFeatures
from manifests.lifetime import REVIEW_KEYS, append, read_chain
from manifests.records import Action
from pipeline.errors import ConfigError
from pipeline.verdicts import SPREAD_REASONS, RowMarks

ACTIONS = (Action.QUARANTINE.name, Action.REMOVE.name)
_REVIEW = SPREAD_REASONS.index("review")


def reviews_digest(collection: Collection) -> str:
    """Return the head of the records, "" for none.

    Raises:
        RecordError: the records are not as they were written.
    """
    return read_chain(collection.reviews, REVIEW_KEYS)[1][-1]


def read_reviews(collection: Collection) -> dict[str, Action]:
    """Return the strictest action that a review asks for each sample (shard/key).

    Raises:
        RecordError: the records are not as they were written.
    """
    found: dict[str, Action] = {}
    for one in read_chain(collection.reviews, REVIEW_KEYS)[0]:
        found[one["key"]] = max(found.get(one["key"], Action.KEEP), Action[one["action"]])
    return found


def review_marks(shard: str, features: ShardFeatures, reviews: Mapping[str, Action]) -> RowMarks:
    """Return what reviews ask for the rows of a shard: for every row of a sample that they name."""
    marks = RowMarks.none(features.table.num_rows)
    if reviews:
        marks.actions[:] = [reviews.get(f"{shard}/{key}", Action.KEEP) for key in features.strings("key")]
        marks.why[marks.actions > Action.KEEP] = _REVIEW
    return marks


def record_reviews(collection: Collection, keys: Sequence[str], *, action: str, by: str, why: str, on: str) -> int:
    """Record one decision on several samples, all or none; return how many were not recorded before.

    Raises:
        ConfigError: the action is none that a review can ask for, or a key is of no sample (told by position).
        RecordError, TableError: the collection's records or features are damaged or destroyed.
    """
    if action not in ACTIONS:
        raise ConfigError(
            f"--action: expected {' or '.join(ACTIONS)}: a review only tightens; what loosens is an override of "
            "two people ([policy] overrides in docs/operating.md)"
        )
    names = dict.fromkeys(collection.committed_shards(), frozenset[str]())
    for position, key in enumerate(keys, start=1):
        shard, _, name = key.partition("/")
        if shard in names and not names[shard]:
            commit = ExamineCommit.read(collection.commit(shard))
            table = schema.read(collection.examined / commit.features.name, sha256=commit.features.sha256)
            names[shard] = frozenset(table["key"].to_pylist())
        if name not in names.get(shard, ()):
            raise ConfigError(f"KEY {position}: no sample of this collection; a KEY is written shard/key")
    before, same = read_chain(collection.reviews, REVIEW_KEYS)[0], {"action": action, "by": by, "why": why}
    known = {one["key"] for one in before if same.items() <= one.items()}
    wanted = [{"key": key, "on": on, **same} for key in dict.fromkeys(keys) if key not in known]
    if wanted:
        append(collection.reviews, wanted)
    return len(wanted)
