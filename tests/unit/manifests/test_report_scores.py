"""Counts of decisions and scores: what is withheld is not counted, and every bar counts as a rule compares."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_reports import SIGNALS, make_decisions, make_plan

from manifests import schema
from manifests.charts import Html, histogram, join, share_bar, tag
from manifests.commits import Counts, RecordError
from manifests.report_scores import Decided


def count(tmp_path, *tables):
    decided = Decided(make_plan()["decide"])
    for number, table in enumerate(tables):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(schema.encode(table))
        decided.add(path, hashlib.sha256(path.read_bytes()).hexdigest())
    return decided


@pytest.fixture
def table():
    return make_decisions("00000", 3000, np.random.default_rng(5))


def test_the_distributions_are_those_that_slow_counting_gives(tmp_path, table):
    found = {one.signal: one for one in count(tmp_path, table, table).distributions()}
    rows = [row for row in table.to_pylist() if not row["withheld"]] * 2
    for name in SIGNALS:
        values = [row[f"signal.{name}"] for row in rows]
        finite = [value for value in values if value is not None and value != np.inf]
        one = found[name]
        assert (one.unknown, one.none_near) == (values.count(None), values.count(np.inf))
        assert one.known == len(finite) == sum(one.bins)
        assert sum(one.kept) == sum(
            row["action"] == "KEEP" and row[f"signal.{name}"] not in (None, np.inf) for row in rows
        )
        scale = 1 if name.startswith("list.") else 40
        assert one.bins[3] == sum(3 <= np.float32(value) * np.float32(scale) < 4 for value in finite)


def test_bars_count_what_reaches_them_through_aliases_and_in_every_source(tmp_path, table):
    found = {one.signal: one for one in count(tmp_path, table).distributions()}
    rows = [row for row in table.to_pylist() if not row["withheld"]]
    nsfw = {(bar.rule, bar.op, bar.bar): (bar.reached, bar.kept) for bar in found["nsfw@1"].bars}
    assert nsfw.keys() == {("sexual", ">=", 0.6), ("both", ">=", 0.1), ("sexual", ">=", 0.45)}
    over = [row for row in rows if row["signal.nsfw@1"] is not None and row["signal.nsfw@1"] >= np.float32(0.45)]
    assert nsfw["sexual", ">=", 0.45] == (len(over), sum(row["action"] == "KEEP" for row in over))
    assert {bar.rule for bar in found["caption.minor"].bars} == {"both"}
    near = found["list.other.pdq_distance"]
    assert near.bars[0].reached == sum(near.bins[:32])


def test_scores_of_withheld_samples_enter_nothing_even_where_a_file_holds_them(tmp_path, table):
    withheld = table["withheld"].to_numpy()
    leaked = table.set_column(
        table.column_names.index("signal.nsfw@1"),
        "signal.nsfw@1",
        pa.array(np.where(withheld, 0.97, 0.01).astype(np.float32)),
    )
    one = next(one for one in count(tmp_path, leaked).distributions() if one.signal == "nsfw@1")
    assert sum(one.bins) == one.bins[0] == int((~withheld).sum())
    assert all(bar.reached == 0 for bar in one.bars)


def test_decisions_that_count_otherwise_than_the_close_are_refused(tmp_path, table):
    decided, actions = count(tmp_path, table), table["action"].to_pylist()
    counts = Counts(
        samples=3000, keep=actions.count("KEEP"), remove=actions.count("REMOVE"),
        quarantine=actions.count("QUARANTINE"), withheld=actions.count(None),
        reasons={"rule:sexual": actions.count("REMOVE"), "fault:truncated": actions.count("QUARANTINE")},
    )  # fmt: skip
    assert sum(samples for *_, samples in decided.actions(counts, source=Path("s"))) == 3000 - counts.withheld
    with pytest.raises(RecordError, match="not what the settle counted"):
        decided.actions(Counts(keep=1), source=Path("s"))


def test_every_text_is_escaped_and_markup_is_not():
    assert tag("b", "<i>&", Html("<br>"), title='a"b') == '<b title="a&quot;b">&lt;i&gt;&amp;<br></b>'
    assert join("<", 3) == "&lt;3"
    assert "<i>" not in histogram("<i>", [1, 2, 9], [0, 1, 2], [(0.5, "<i>")], is_score=True)


def test_charts_of_nothing_and_of_one_bin_can_be_drawn():
    assert 'width="0.000"' in share_bar(0, 0, 0)
    assert histogram("none", [0] * 40, [0] * 40, [], is_score=True).count("<rect") == 0
    assert ">1M<" in histogram("one", [10**6, *[0] * 63], [0] * 64, [(31.0, "<= 31")], is_score=False)
