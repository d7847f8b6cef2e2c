"""Withheld samples decided again, on the machine of those who hold the key: `settle --identity`.

Owns which of them come back into the clear features. What stays withheld stays sealed; their exact list hits are
seeds for what is searched around.

- Nothing comes back whose own signals withhold it under today's lists and policy, nor a copy of such a sample.
- A sample that comes back is decided by the settle that follows, like any other; its old sealed record stays.
- Who opened what, and why, stands in the access record before anything is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import durable
from manifests.case_access import append_access
from manifests.cases import SealError, open_sealed, recipients_of
from manifests.commits import ExamineCommit
from manifests.features import ShardFeatures, decode_features, encode_features, replace_samples
from manifests.keyed import Keyed, read_secret, write_keyed
from pipeline.around import Seeds, exact_rows, take_seeds
from pipeline.commit import commit_shard, facts_of
from pipeline.errors import ConfigError, RunError
from pipeline.settle import load_features
from pipeline.setup import Setup
from pipeline.spread import Keys, Spread, keyed_of, merge


@dataclass(frozen=True, slots=True)
class Opening:
    """Who opens sealed files with which key, why, and where that is recorded."""

    identity: Path
    by: str
    why: str
    record: Path

    def read_key(self) -> str:
        """Return the text of the identity file.

        Raises:
            ConfigError: it holds no key, or `by` or `why` says nothing.
        """
        for name, text in (("--by", self.by), ("--why", self.why)):
            if not text.strip() or not text.isprintable():
                raise ConfigError(f"{name}: expected words on one line, for the access record")
        secret = self.identity.read_text(encoding="utf-8", errors="replace")
        if not recipients_of(secret):
            raise ConfigError(f"{self.identity}: holds no age identity (a line AGE-SECRET-KEY-...)")
        return secret


@dataclass(frozen=True, slots=True, repr=False)
class _Opened:
    """One shard with all its rows. hidden: indices of the samples that were withheld."""

    commit: ExamineCommit
    features: ShardFeatures
    hits: pa.Table
    hidden: NDArray[np.int32]
    keys: Keys


def unseal(setup: Setup, commits: Sequence[ExamineCommit], opening: Opening, *, number: int) -> list[Seeds]:
    """Bring back what nothing withholds any more; return the seeds among the withheld samples that stay so.

    Raises:
        ConfigError: the opening is not usable.
        RunError: a sealed file cannot be opened, or a withheld sample is in none of them; nothing came back.
    """
    key = opening.read_key()
    holding = [commit for commit in commits if commit.withheld]
    _record(setup, holding, opening)
    opened = [_open(setup, commit, key) for commit in holding]
    seeds, still = [], []
    for one in opened:
        rows = setup.decider.judge(one.features, one.hits).content()
        exact = exact_rows(one.hits)
        seeds.append(take_seeds(one.features, exact, rows.withheld[exact]))
        still.append(one.keys.withheld(rows))
    for one in opened:
        _bring_back(setup, one, Spread(merge(still)), number)
    return seeds


def _record(setup: Setup, holding: Sequence[ExamineCommit], opening: Opening) -> None:
    folder, files = setup.collection.sealed, []
    for name in (item.name for commit in holding for item in commit.sealed):
        files.append(
            {"name": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(), "records": 0}
        )
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": opening.by, "why": opening.why}
    durable.make_folder(opening.record.parent, mode=0o700)
    # Nothing is written in clear by itself: no output, and the records are not counted.
    append_access(opening.record, {**entry, "files": files, "records": 0, "output_sha256": ""})


def _open(setup: Setup, commit: ExamineCommit, key: str) -> _Opened:
    """Return a shard with what its newest sealed records say of each withheld sample."""
    collection = setup.collection
    stored = load_features(collection, commit)
    hidden = stored.indices()[stored.withheld()]
    table = encode_features(stored).schema.empty_table()
    for item in commit.sealed:
        path = collection.sealed / item.name
        try:
            records = open_sealed(path.read_bytes(), identity=key, source=str(path))
        except SealError as error:
            raise RunError(f"{error}; the key is another's, or the file was changed") from None
        records = records.filter(pc.is_in(records["index"], value_set=pa.array(hidden, pa.int32())))
        older = table.filter(pc.invert(pc.is_in(table["index"], value_set=records["index"])))
        table = pa.concat_tables([older, records.select(table.schema.names).cast(table.schema)])
    place = table.schema.get_field_index("withheld")
    table = table.set_column(place, table.schema.field(place), pa.array(np.zeros(table.num_rows, np.bool_)))
    table = table.sort_by("index")
    if not np.array_equal(np.unique(table["index"].to_numpy()), np.unique(hidden)):
        raise RunError(f"shard {commit.shard}: what it withheld is not in the sealed files that its record names")
    features = replace_samples(stored, decode_features(table.combine_chunks()), hidden)
    keys = Keys.of(features, read_secret(collection))
    return _Opened(commit, features, setup.decider.match(features), hidden, keys)


def _bring_back(setup: Setup, one: _Opened, still: Spread, number: int) -> None:
    collection, decider = setup.collection, setup.decider
    decisions = decider.decide(one.features, one.hits, one.keys.marks(still))
    stay = decisions.index[decisions.withheld]
    if np.isin(one.hidden, stay).all():
        return
    commit_shard(
        one.features,
        one.hits,
        facts=facts_of(one.commit),
        collection=collection,
        plan=setup.plan,
        decider=decider,
        settle=number,
        before=one.commit,
        why="unseal",
        decisions=decisions,
    )
    # A kill before this leaves keys by which what came back is withheld again: the strict side.
    keys: Keyed = keyed_of(one.keys.withheld(decisions.rows))
    write_keyed(collection, one.commit.shard, keys, read_secret(collection))
