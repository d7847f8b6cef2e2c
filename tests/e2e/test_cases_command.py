"""Opening sealed files, its access record and the draft of a summary, as a case owner meets them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
from in_process import call, message
from scrapes import Scrape, jpeg, write_list, write_tar

from classifiers.hashes.digests import take_digests
from manifests.cases import new_identity
from pipeline.case_export import DRAFT

POLICY = """
name = "three"
required = ["list.csam.exact", "caption.sexual"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "hidden"
when = "caption.sexual >= 1 and caption.minor >= 1"
action = "REMOVE"
[sensitive]
rules = ["hidden"]
"""
URL = "http://example.invalid/urlmark`](x).jpg"
CAPTION = "captionmark of a drawing"
MARKS = ("urlmark", "captionmark", take_digests(jpeg(1)).md5.hex(), take_digests(jpeg(1)).sha256.hex())
WRITTEN_AT = 1_700_000_000  # 2023-11-14T22:13:20Z


def sample(key, seed, caption, url):
    return [
        (f"{key}.jpg", jpeg(seed)),
        (f"{key}.json", json.dumps({"url": url, "caption": caption, "licence": "none"}).encode()),
    ]


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    """One case, one sample withheld by the sensitive rule, and two that are kept."""
    scrape = Scrape.make(
        tmp_path_factory.mktemp("cases") / "scrape",
        policy={"file": "policy.toml"},
        text={"concepts": ["minor", "sexual"]},
    )
    (scrape.root / "policy.toml").write_text(POLICY)
    plain = "http://example.invalid/plain.jpg"
    members = [
        *sample("a", 1, CAPTION, URL),
        *sample("b", 2, "a nude child", f"{plain}?b"),
        *sample("c", 3, "", plain),
    ]
    write_tar(scrape.shards / "00.tar", members)
    write_tar(scrape.shards / "01.tar", sample("d", 4, "", f"{plain}?d"))
    write_list(scrape.root / "lists/known.csv", [("md5", take_digests(jpeg(1)).md5)])
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    for path in (scrape.collection / "sealed").iterdir():
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
    (scrape.root.parent / "case").write_text(f"# public key: see below\n{scrape.identity}\n")
    return scrape


@pytest.fixture
def desk(settled, tmp_path):
    """The sealed files and the key, away from the collection."""
    shutil.copytree(settled.collection / "sealed", tmp_path / "sealed")
    shutil.copy(settled.root.parent / "case", tmp_path / "case")
    return tmp_path


def open_all(desk, *more, out="opened.jsonl", by="A. Person", why="a first look", key="case", files=None):
    files = sorted((desk / "sealed").glob("*.age")) if files is None else files
    about = ("--identity", desk / key, "--out", desk / out, "--by", by, "--why", why)
    return call("cases", "open", *files, *about, "--access-record", desk / "access.jsonl", *more)


def opened(desk, out="opened.jsonl"):
    return [json.loads(line) for line in (desk / out).read_text().splitlines()]


def names(desk):
    return sorted(path.name for path in desk.iterdir())


def quiet(done):
    return not any(mark in done.out + done.err for mark in MARKS)


def test_records_hold_what_a_case_needs_and_go_to_one_file_of_their_owner(desk, settled):
    done = open_all(desk)
    assert (done.code, done.out, done.err) == (0, "2 files opened, 2 records\n", "")
    assert names(desk) == ["access.jsonl", "case", "opened.jsonl", "sealed"]
    assert {oct((desk / name).stat().st_mode & 0o777) for name in ("access.jsonl", "opened.jsonl")} == {"0o600"}
    case, other = opened(desk)
    file = desk / "sealed/00.0001.age"
    assert {name: case[name] for name in ("url", "caption", "shard", "key", "action", "rule", "sha256")} == {
        "url": URL, "caption": CAPTION, "shard": "00", "key": "a", "action": "SEAL", "rule": "listed",
        "sha256": take_digests(jpeg(1)).sha256.hex(),
    }  # fmt: skip
    (hit,) = case["hits"]
    assert (hit["list"], hit["version"], hit["basis"], hit["entry"]) == ("known", 2, "listed-exact", 0)
    assert json.loads(case["metadata"])["licence"] == "none"
    assert case["detected_at"] == "2023-11-14T22:13:20+00:00"
    assert case["sealed"] == {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    close = json.loads((settled.collection / "settled/0001/close.json").read_text())
    assert case["plan"] == close["examine_plan"]
    examined = json.loads((settled.collection / "examined/00.json").read_text())
    assert case["judged_under"] == examined["judged_under"]
    assert any(text.startswith("pillow==") for text in case["software"])
    assert (other["key"], other["action"], other["rule"]) == ("b", "REMOVE", "hidden")
    member = (settled.shards / "00.tar").read_bytes()[case["offset"] :][: case["size"]]
    assert member == jpeg(1)


def test_embeddings_and_codes_are_written_on_demand_only(desk):
    open_all(desk)
    open_all(desk, "--with-features", out="with.jsonl")
    more = opened(desk, "with.jsonl")[0].keys() - opened(desk)[0].keys()
    assert "pdq:fullres.oriented" in more
    assert all(name.startswith("pdq:") for name in more)


def test_the_access_record_says_who_opened_what_and_why(desk):
    open_all(desk)
    open_all(desk, out="again.jsonl", by="B. Person", why="zweite Durchsicht", files=[desk / "sealed/01.0001.age"])
    lines = [json.loads(line) for line in (desk / "access.jsonl").read_text().splitlines()]
    assert [(line["by"], line["why"], line["records"], len(line["files"])) for line in lines] == [
        ("A. Person", "a first look", 2, 2), ("B. Person", "zweite Durchsicht", 0, 1),
    ]  # fmt: skip
    first, second = (desk / "access.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[1]["previous"] == hashlib.sha256(first).hexdigest()
    assert lines[0]["output_sha256"] == hashlib.sha256((desk / "opened.jsonl").read_bytes()).hexdigest()
    assert lines[0]["files"][0]["sha256"] == opened(desk)[0]["sealed"]["sha256"]
    shown = call("cases", "access-record", desk / "access.jsonl")
    assert shown.code == 0
    assert "A. Person: 2 records of 2 files; a first look" in shown.out
    assert hashlib.sha256(second).hexdigest() in shown.out
    assert quiet(shown)


def edited(lines):
    return [lines[0].replace(b"A. Person", b"Z. Person"), *lines[1:]]


CHANGES = {
    "edited": edited,
    "removed": lambda lines: [lines[0], lines[2]],
    "first removed": lambda lines: lines[1:],
    "reordered": lambda lines: [lines[0], lines[2], lines[1]],
    "cut short": lambda lines: [*lines[:2], lines[2][:-20]],
    "not JSON": lambda lines: [*lines, b"?\n"],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_record_whose_lines_were_touched_is_refused_and_nothing_is_opened(desk, change):
    for number in range(3):
        open_all(desk, out=f"opened-{number}.jsonl")
    record = desk / "access.jsonl"
    record.write_bytes(b"".join(change(record.read_bytes().splitlines(keepends=True))))
    before, data = names(desk), record.read_bytes()
    for done in (open_all(desk, out="later.jsonl"), call("cases", "access-record", record)):
        assert done.code == 3
        assert "access.jsonl: line" in message(done)
    assert (names(desk), record.read_bytes()) == (before, data)


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:1], lambda lines: [lines[0], lines[1].replace(b"A.", b"Z.")]]
)
def test_a_noted_digest_shows_what_became_of_the_end_of_a_record(desk, change):
    record = desk / "access.jsonl"
    open_all(desk)
    open_all(desk, out="again.jsonl")
    noted = call("cases", "access-record", record).out.split()[-1]
    assert call("cases", "access-record", record, "--last", noted).code == 0
    record.write_bytes(b"".join(change(record.read_bytes().splitlines(keepends=True))))
    done = call("cases", "access-record", record, "--last", noted)
    assert done.code == 3
    assert "the digest that was noted" in message(done)


def wrong_key(desk):
    (desk / "case").write_text(new_identity()[0])


def flipped_bit(desk):
    path = desk / "sealed/00.0001.age"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def other_format(desk):
    (desk / "sealed/00.0001.age").write_bytes(b"not a sealed file")


REFUSED = [
    (lambda desk: None, {"by": "  "}, 2, "--by: expected words"),
    (lambda desk: None, {"why": ""}, 2, "--why: expected words"),
    (lambda desk: None, {"why": "a\nline"}, 2, "--why: expected words"),
    (lambda desk: (desk / "opened.jsonl").write_text(""), {}, 2, "exists already"),
    (lambda desk: (desk / "opened.jsonl").symlink_to("nowhere"), {}, 2, "exists already"),
    (lambda desk: (desk / "case").write_text("no key"), {}, 2, "holds no age identity"),
    (wrong_key, {}, 3, "cannot be opened with this identity"),
    (flipped_bit, {}, 3, "cannot be opened with this identity"),
    (other_format, {}, 3, "cannot be opened with this identity"),
]


@pytest.mark.parametrize(("change", "how", "code", "text"), REFUSED)
def test_what_is_refused_leaves_no_file_and_no_line(desk, change, how, code, text):
    change(desk)
    before = names(desk)
    done = open_all(desk, **how)
    assert done.code == code
    assert text in message(done)
    assert quiet(done)
    assert names(desk) == before


def test_the_output_may_not_be_the_terminal(desk):
    done = open_all(desk, out="/dev/stdout")
    assert (done.code, done.out) == (2, "")
    assert not (desk / "access.jsonl").exists()


def test_a_line_that_cannot_be_recorded_keeps_the_records_hidden(desk):
    (desk / "access.jsonl").mkdir()
    before = names(desk)
    assert open_all(desk).code != 0
    assert names(desk) == before


def export(desk, *more, out="draft.md"):
    return call("cases", "export", desk / "opened.jsonl", "--out", desk / out, *more)


EXPECTED = f"""# {DRAFT}: list matches in candidate training data

Nothing here was sent to anybody, and nobody is said to have viewed anything unless a review was recorded. Whether,
where and when to report is for a person to decide, with counsel. Do not fetch the URLs.

    origin: candidate training data from a public crawl; not uploaded by a user; not generated by us
    cases: 1
    withheld samples that are no cases: 1

## {DRAFT}: case 1 of 1

    key: "00/a"
    rule: "listed"
    reason: "rule:listed"
    detected_at: "2023-11-14T22:13:20+00:00"
    plan: "P"
    judged_under: "J"
    recipe: 1
    software: ["s==1"]
    stamps: []
    sealed: {{"name": "00.0001.age", "sha256": "S"}}
    viewed_by: "VB"
    viewed_on: "VO"
    filed_by: "RB"
    reported_at: "RA"
    preserve_until: "PU"
    member: "jpg"
    url: "http://example.invalid/urlmark`](x).jpg"
    shard: "00"
    offset: 512
    size: SIZE
    md5: "MD5"
    sha1: "SHA1"
    sha256: "SHA2"
    match: {{"algorithm": "md5", "basis": "listed-exact", "capped": false, "categories": ["(none)"], \
"distance": null, "entry": 0, "feed": "csam", "list": "known", "purpose": "csam", "variant": null, \
"version": 2, "view": null}}
"""


def expected(**notes):
    values = dict.fromkeys(("VB", "VO", "RB", "RA", "PU"), "unset") | notes
    digests = take_digests(jpeg(1))
    values |= {"MD5": digests.md5.hex(), "SHA1": digests.sha1.hex(), "SHA2": digests.sha256.hex()}
    text = EXPECTED.replace("SIZE", str(len(jpeg(1))))
    for name, value in values.items():
        text = text.replace(f'"{name}"', json.dumps(value))
    return text


def fix_what_varies(desk):
    """Digests of plans and of what age makes differ from run to run and machine to machine."""
    rows = opened(desk)
    for row in rows:
        row |= {"plan": "P", "judged_under": "J", "recipe": 1, "software": ["s==1"]}
        row["sealed"] |= {"sha256": "S"}
    (desk / "opened.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_summary_is_a_draft_of_the_cases_alone_and_says_unset_where_nobody_said_more(desk):
    open_all(desk)
    fix_what_varies(desk)
    done = export(desk)
    assert (done.code, done.out, done.err) == (0, "1 cases drafted, 1 withheld samples that are none\n", "")
    text = (desk / "draft.md").read_text()
    assert text == expected()
    assert all(DRAFT in line for line in text.splitlines() if line.startswith("#"))
    assert oct((desk / "draft.md").stat().st_mode & 0o777) == "0o600"
    assert "exists already" in message(export(desk))
    assert (desk / "draft.md").read_text() == text


VIEWED = '[[viewed]]\nkey = "00/a"\nby = "A. Person"\non = 2026-03-01\n'
FILED = '[[filed]]\nkey = "00/a"\nby = "C"\nreported_at = 2026-03-01T12:00:00Z\npreserve_until = 2027-03-01\n'


def test_what_was_viewed_and_filed_stands_there_as_people_wrote_it(desk):
    open_all(desk)
    fix_what_varies(desk)
    (desk / "viewed.toml").write_text(VIEWED)
    (desk / "filed.toml").write_text(FILED)
    assert export(desk, "--viewed", desk / "viewed.toml", "--filed", desk / "filed.toml").code == 0
    filed = {"RB": "C", "RA": "2026-03-01 12:00:00+00:00", "PU": "2027-03-01"}
    assert (desk / "draft.md").read_text() == expected(VB="A. Person", VO="2026-03-01", **filed)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--viewed", VIEWED + VIEWED),
        ("--viewed", VIEWED.replace("00/a", "00/b")),  # withheld, and no case
        ("--viewed", VIEWED.replace("00/a", "nowhere")),
        ("--viewed", VIEWED.replace("A. Person", " ")),
        ("--viewed", VIEWED.replace("2026-03-01", '"yesterday"')),
        ("--viewed", VIEWED + 'more = "x"\n'),
        ("--viewed", VIEWED.replace("by", "who")),
        ("--viewed", "viewed = 1\n"),
        ("--viewed", "not TOML"),
        ("--viewed", FILED),
        ("--filed", FILED.replace("preserve_until = 2027-03-01\n", "")),
        ("--filed", FILED.replace("2026-03-01T12:00:00Z", "2026-03-01")),
    ],
)
def test_a_note_that_is_not_quite_one_is_refused(desk, option, text):
    open_all(desk)
    (desk / "notes.toml").write_text(text)
    done = export(desk, option, desk / "notes.toml")
    assert done.code == 2
    assert "notes.toml: " in message(done)
    assert not (desk / "draft.md").exists()
    assert quiet(done)


@pytest.mark.parametrize("line", ["{}", "[]", "3", "?", '{"shard": "00", "key": "a"}'])
def test_what_cases_open_did_not_write_is_refused(desk, line):
    open_all(desk)
    with (desk / "opened.jsonl").open("a") as file:
        file.write(line + "\n")
    done = export(desk)
    assert done.code == 3
    assert "opened.jsonl: line 3" in message(done)
    assert not (desk / "draft.md").exists()


def test_two_collections_are_not_mixed_in_one_summary(desk):
    open_all(desk)
    rows = opened(desk)
    other = {**rows[0], "sealed": {"name": "00.0001.age", "sha256": "0" * 64}}
    (desk / "opened.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, other)))
    done = export(desk)
    assert done.code == 2
    assert "open a collection by itself" in message(done)
