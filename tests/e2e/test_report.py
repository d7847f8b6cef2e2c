"""`shardscrub report`: figures of the records, two versions, nothing that a page must not hold."""

import dataclasses
import html
import json
import re
import shutil
import subprocess

import html5lib
import pytest
from finished import make_finished
from in_process import call, files, message
from made_reports import KEY_MARK, POLICY, SIGNALS, make_plan, make_settled
from unit.test_report_words import claims

from manifests.commits import Close
from manifests.lifetime import destroy
from manifests.report import gather
from manifests.report_page import release_page, restricted_page, write_reports


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_settled(tmp_path_factory.mktemp("made"), 5, 400)


@pytest.fixture(scope="module")
def pages(made):
    facts = gather(made, 1, imported={"list0@1": "2026-10-01"})
    return restricted_page(facts), release_page(facts.public)


def text_of(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.partition("</style>")[2])))


def test_the_pages_are_valid_and_ask_nothing_of_a_network(pages):
    for page in pages:
        html5lib.HTMLParser(strict=True).parse(page)
        assert re.findall(r"<(?:script|link|img|iframe|object|embed|form)\b", page) == []
        assert re.findall(r"(?:\bsrc|\burl\(|@import|https?:|//[a-z])", page) == []
        assert set(re.findall(r'href="([^"]*)"', page)) <= {f"#{one}" for one in re.findall(r'id="([^"]*)"', page)}


def test_every_figure_is_that_of_the_summary(made, pages, tmp_path):
    summary = json.loads((made.settled(1) / "summary.json").read_bytes())
    write_reports(made, 1, to=tmp_path)
    twin = json.loads((tmp_path / "settled/0001/report.json").read_bytes())
    assert {"number": twin["close"]["number"], **twin["close"]["counts"]} == summary
    public = twin["public"]
    assert (public["samples"], public["kept"], public["faults"]) == tuple(
        summary[name] for name in ("samples", "keep", "faults")
    )
    assert public["not_kept"] == summary["remove"] + summary["quarantine"] + summary["withheld"]
    assert sum(samples for _, _, samples in twin["actions"]) == summary["samples"] - summary["withheld"]
    for page in map(text_of, pages):
        assert f"{summary['keep']:,} of {summary['samples']:,} samples" in page
    for name in ("remove", "quarantine", "withheld"):
        assert f"({summary[name]:,} {name.removesuffix('e')}" in text_of(pages[0])


def test_the_release_version_knows_what_law_5_allows_and_no_more(pages, made):
    page = text_of(pages[1])
    for word in (
        *SIGNALS,
        "rule",
        "withheld",
        "removed",
        "quarantine",
        "list0",
        "cut",
        "tested",
        "threshold",
        "#17",
    ):
        assert word not in page, word
    counts = Close.read(made.settled(1) / "close.json").counts
    numbers = {int(found.replace(",", "")) for found in re.findall(r"\b\d[\d,]*\b(?!\.|%)", page)}
    assert not numbers & ({counts.remove, counts.quarantine, counts.withheld} - {counts.faults})


def test_the_restricted_version_tells_all_of_it(pages):
    page = text_of(pages[0])
    for text in (
        "list0@1", "2026-10-01", "csam", "1,234", "made & <tested>", "fault:truncated", "sexual >= 0.45",
        "museum-*", "tower@1#12345678", "the archive is cut", "unsafe_stand_in_models", "8 canary pictures",
        "1 override", "Names in rules whose bars could not be drawn: unheard.", "section 3.2", "AB 2013",
    ):  # fmt: skip
        assert text in page, text


def test_no_text_of_the_data_and_no_claim_reaches_a_page(pages, made, tmp_path):
    written = write_reports(made, 1, to=tmp_path)
    for text in (*pages, *((tmp_path / file.name).read_text() for file in written)):
        assert KEY_MARK not in html.unescape(text)
        assert POLICY.splitlines()[2] not in html.unescape(text)
        assert claims(text) == []


def test_the_texts_for_disclosure_hold_no_list_threshold_or_link(made, tmp_path):
    write_reports(made, 1, to=tmp_path)
    twin = json.loads((tmp_path / "settled/0001/report.json").read_bytes())
    plan = make_plan()
    hidden = [one["id"] for one in plan["decide"]["lists"]] + [
        "0.45",
        "0.2",
        "http",
        "sexual >=",
        "withheld",
        "&amp;",
    ]
    for line in (*twin["texts"]["eu"], *twin["texts"]["california"]):
        assert not [word for word in hidden if word in line]
        assert re.search(r"\d", line)


def test_standard_tools_print_the_digest_of_the_listing(pages, made):
    command = html.unescape(re.search(r"<pre><code>(.*?)</code>", pages[1], re.DOTALL)[1])
    done = subprocess.run(["bash", "-c", command], cwd=made.release(1), capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in pages[1]


def test_the_same_records_give_the_same_bytes_and_stay_as_they_are(made, tmp_path):
    before = files(made.root)
    copy = shutil.copytree(made.root, tmp_path / "elsewhere")
    first = write_reports(made, 1, to=tmp_path / "a")
    assert write_reports(made, 1, to=tmp_path / "a") == first
    assert write_reports(type(made)(copy), 1, to=tmp_path / "b") == first
    assert files(made.root) == before


def test_a_settle_that_released_nothing_has_no_release_version(tmp_path):
    home = make_settled(tmp_path / "made", 2, 50, released=False)
    written = write_reports(home, 1)
    assert [file.name for file in written] == ["settled/0001/report.html", "settled/0001/report.json"]
    page = text_of((home.root / written[0].name).read_text())
    assert "This settle released nothing of 100 samples." in page
    assert "0 of 100 samples kept" in page
    assert "shard 00000: the archive is cut" in page


def test_destroyed_decisions_are_told_and_not_counted(tmp_path):
    home = make_settled(tmp_path / "made", 3, 50)
    gone = [home.settled(1) / "decisions" / "00001.parquet"]
    destroy(home, gone, tier="restricted", settle=1, on="2026-11-01", by="A", agreed="", why="w")
    facts = gather(home, 1)
    assert facts.destroyed == 1
    counts = facts.close.counts
    assert facts.actions[0] == ("KEEP", "", counts.keep)
    assert {(reason, samples) for _, reason, samples in facts.actions[1:]} == set(counts.reasons.items())
    assert sum(samples for _, _, samples in facts.actions) + counts.withheld == counts.samples
    assert "not counted, of 1 shard" in text_of(restricted_page(facts))


@pytest.mark.parametrize("data", [b"{}", b"{", b""])
@pytest.mark.parametrize("name", ["summary.json", "decisions/00001.json", "decisions/00001.parquet", "plan.json"])
def test_records_that_do_not_agree_are_refused(tmp_path, name, data):
    home = make_settled(tmp_path / "made", 2, 50)
    (home.settled(1) / name).write_bytes(data)
    done = call("report", home.root, "--to", tmp_path / "out")
    assert done.code == 1
    assert name.rpartition("/")[2].partition(".")[0] in message(done)


def test_a_close_whose_decisions_count_otherwise_is_refused(tmp_path):
    home = make_settled(tmp_path / "made", 2, 50)
    path = home.settled(1) / "close.json"
    close = Close.read(path)
    counts = dataclasses.replace(close.counts, keep=close.counts.keep - 1, remove=close.counts.remove + 1)
    dataclasses.replace(close, counts=counts).write(path, replace=True, mode=0o600)
    text = (home.settled(1) / "summary.json").read_text()
    text = text.replace(f'"keep": {close.counts.keep}', f'"keep": {counts.keep}')
    (home.settled(1) / "summary.json").write_text(
        text.replace(f'"remove": {close.counts.remove}', f'"remove": {counts.remove}')
    )
    assert "not what the settle counted" in message(call("report", home.root, "--to", tmp_path / "out"))


def test_the_command_reports_a_real_run_and_leaves_it_as_it_was(tmp_path):
    scrape = make_finished(tmp_path)
    before = files(scrape.collection)
    for number in (1, 2):
        out = tmp_path / f"out{number}"
        done = call(
            "report", scrape.collection, "--settle", number, "--to", out, "--lists", tmp_path / "list-store"
        )
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1] == f"wrote {out}/releases/{number:04d}/report.html"
        for path in (out / f"settled/{number:04d}/report.html", out / f"releases/{number:04d}/report.html"):
            html5lib.HTMLParser(strict=True).parse(path.read_text())
    assert oct((out / "settled/0002/report.json").stat().st_mode)[-3:] == "600"
    assert "Examined again since this settle, and not described here: 2 shards" in text_of(
        (tmp_path / "out1/settled/0001/report.html").read_text()
    )
    assert files(scrape.collection) == before
    assert call("report", scrape.collection, "--to", scrape.collection / "out").code == 2
    assert call("report", scrape.collection, "--settle", 3, "--to", tmp_path / "o").code == 2
