"""Statements that `verify` checks again: signed behind commands, whose key changed, and folders that are signed."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from in_process import call, message
from scrapes import Scrape, write_list, write_plain_shards

from manifests.attest import sign_statement
from manifests.audit.entries import Committer, encode_entry
from manifests.audit.log import Log
from manifests.audit.note import NoteKey
from manifests.audit.tiles import Tiles
from manifests.collection import Collection
from manifests.commits import Evidence, FileDigest
from manifests.keyed import read_secret
from manifests.signers import FileSigner, vkey

ORIGIN, STATEMENTS = "example.org/scrub", "shardscrub.intoto.jsonl"
SIGNER = """
import sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
with open(sys.argv[1], "rb") as file:
    key = load_pem_private_key(file.read(), None)
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))
"""


def command(made, name):
    """A key that only a command has, as a KMS would: what [log] says of it."""
    (made.root / "sign.py").write_text(SIGNER)
    made.root.joinpath("kms").mkdir(exist_ok=True)
    key = made.root / "kms" / name
    done = call("keys", "new", key, "--origin", ORIGIN)
    return {"signer": [sys.executable, str(made.root / "sign.py"), str(key)], "public_key": done.out.strip()}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    """Two settles, the second one under the key that followed; then a review and no settle."""
    made = Scrape.make(tmp_path_factory.mktemp("statements"))
    write_plain_shards(made.shards, 2, 3)
    key = ec.generate_private_key(ec.SECP256R1())
    (made.root / "model.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (made.root / "model.pem").chmod(0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (made.root / "model.pub").write_bytes(public)
    log = {"origin": ORIGIN, "checkpoint_store": "state/checkpoint", "model_key": "model.pem", "cyclonedx": True}
    made.settings["log"] = log | command(made, "first")
    made.write()
    assert run(made).code == 0
    shutil.copy(made.root / "state" / "checkpoint", made.root / "older")
    shutil.copy(made.config, made.root / "old.toml")
    made.settings["log"] = log | command(made, "second") | {"rotation": "rotation.note"}
    made.write()
    note = made.root / "rotation.note"
    done = call("keys", "rotate", made.root / "old.toml", "--to", made.config, "--statement", note)
    assert (done.code, done.out.strip()) == (0, made.settings["log"]["public_key"]), done.err
    write_list(made.root / "lists" / "known.csv", [("md5", b"9" * 16), ("pdq", b"7" * 32)])
    assert run(made).code == 0
    why = ("--action", "REMOVE", "--by", "A. Reader", "--why", "a drawing")
    assert call("review", made.collection, "00000/00000000", *why).code == 0
    return made


@pytest.fixture
def copy(scrape, tmp_path):
    shutil.copytree(scrape.collection, tmp_path / "collection", symlinks=True)
    return tmp_path / "collection"


def run(made):
    done = call("run", made.config, "--workers", 1)
    assert done.code in (0, 2), done.err
    return done


def keys(made):
    """The verifier keys, first and second, as signers."""
    return [
        FileSigner.read(ORIGIN, made.root / "kms" / name, outside=made.collection) for name in ("first", "second")
    ]


def verify(made, collection, *options, key=1):
    signer = keys(made)[key]
    return call("verify", collection, "--public-key", vkey(ORIGIN, signer.public_key), *options)


def bound_again(copy, signer):
    """As the log's own holder would forge: changed files of the newest release are bound by a new close entry."""
    home = Collection(copy)
    number = home.closed_settles()[-1]
    path = home.settled(number) / "evidence.json"
    evidence, inside = Evidence.read(path), f"releases/{number:04d}/"
    files = tuple(FileDigest.of(one.name, (copy / one.name).read_bytes()) for one in evidence.files)
    evidence = replace(evidence, files=files)
    evidence.write(path, replace=True, mode=0o600)
    size = int((copy / "log" / "checkpoint").read_text().splitlines()[1])
    entries = list(Tiles(copy / "log", size).all_entries())[:-1]
    committed = Committer(read_secret(home), number).commit("evidence", FileDigest.of("", evidence.encode()).sha256)
    named = {one.name.removeprefix(inside): one.sha256 for one in files if one.name.startswith(inside)}
    close = encode_entry("run-close", at="2026-11-24T00:00:00Z", evidence=committed, files=named, settle=number)
    shutil.rmtree(copy / "log")
    log = Log.open(copy / "log", ORIGIN, [NoteKey.of(signer)])
    log.append([*entries, close])
    log.publish(signer)


def payloads(path):
    return [json.loads(base64.b64decode(json.loads(one)["payload"])) for one in path.read_bytes().splitlines()]


def test_each_settle_is_checked_under_the_key_of_its_time_whichever_of_them_is_trusted(scrape):
    for key in (0, 1):
        done = verify(
            scrape, scrape.collection, "--since", scrape.root / "older", "--model-key", scrape.root / "model.pub",
            key=key,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert ("the key that follows yours" in done.out) == (key == 0)
        assert "2 releases: statements, signed by the log's key, say what its entries say" in done.out
        assert "2 releases: model.sig names the files that are there, its signature was checked" in done.out
    stranger = vkey(ORIGIN, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    done = call("verify", scrape.collection, "--public-key", stranger)
    assert done.code == 3
    assert "log/checkpoint: not signed by any of the keys that are known" in message(done)


def test_a_bill_of_materials_is_bound_by_the_close_entry_and_by_the_statements(scrape):
    release = scrape.collection / "releases" / "0001"
    data = (release / "bom.cdx.json").read_bytes()
    bom = json.loads(data)
    assert (bom["metadata"]["component"]["name"], bom["components"]) == (ORIGIN, [])  # no model in this run
    size = int((scrape.collection / "log" / "checkpoint").read_text().splitlines()[1])
    entries = [json.loads(one) for one in Tiles(scrape.collection / "log", size).all_entries()]
    close = next(one for one in entries if one["kind"] == "run-close")
    digest = FileDigest.of("", data).sha256
    assert close["files"]["bom.cdx.json"] == digest
    for one in payloads(release / STATEMENTS):
        assert {"name": "bom.cdx.json", "digest": {"sha256": digest}} in one["subject"]


def test_what_was_done_since_the_newest_settle_is_told_as_not_logged_yet(scrape, copy):
    done = call("verify", scrape.collection)
    assert done.code == 0, done.err
    assert "log: not logged yet, but with the next settle: 1 review" in done.out
    assert "signatures of log, statements and folders not checked" in done.out
    settled = call("run", scrape.config, "--workers", 1)
    assert settled.code == 0, settled.err
    done = verify(scrape, scrape.collection)
    assert (done.code, "not logged yet" in done.out) == (0, False), done.err
    shutil.copytree(scrape.collection, copy, dirs_exist_ok=True)
    (copy / "reviews.jsonl").unlink()
    done = call("verify", copy)
    assert done.code == 3
    assert "reviews.jsonl: does not begin with what settle 0003 logged of it" in done.err


def test_statements_of_another_key_or_of_other_words_are_refused_by_the_name_of_their_file(scrape, copy):
    first, second = keys(scrape)
    number = f"{Collection(copy).closed_settles()[-1]:04d}"
    path = copy / "releases" / number / STATEMENTS
    good = payloads(path)
    other = json.loads(json.dumps(good).replace(good[0]["subject"][0]["digest"]["sha256"], "0" * 64))
    path.with_name("model.sig").unlink()  # it could not be forged, but be left out
    evidence = copy / "settled" / number / "evidence.json"
    read = Evidence.read(evidence)
    files = tuple(one for one in read.files if not one.name.endswith("model.sig"))
    replace(read, files=files).write(evidence, replace=True, mode=0o600)
    for statements, signer, told in (
        (good, second, None),
        (good, first, "line 1: the signature does not verify"),
        (other, second, "is about other files, or files otherwise"),
        (good[:1], second, "missing, or not the two statements of a release"),
        ([good[0], {**good[1], "subject": []}], second, "does not say what the log's entries of this settle say"),
    ):
        path.write_bytes(b"".join(sign_statement(one, signer) for one in statements))
        bound_again(copy, second)
        done = verify(scrape, copy)
        assert done.code == (3 if told else 0), done.err
        assert told is None or f"{path}: {told}" in message(done)


def test_a_stranger_with_log_and_releases_checks_tars_and_the_folder_by_what_is_signed(scrape, copy, tmp_path):
    got = tmp_path / "got"
    for name in ("log", "releases"):
        shutil.copytree(copy / name, got / name)
    assert verify(scrape, got, "--model-key", scrape.root / "model.pub").code == 0
    tar, extra = got / "releases" / "0001" / "shards" / "00001.tar", got / "releases" / "0002" / "more.bin"
    tar.write_bytes(tar.read_bytes() + bytes(512))
    extra.write_bytes(b"more")
    done = verify(scrape, got)
    assert done.code == 3
    assert f"{tar}: missing, or not what the statements name" in done.err
    assert f"{extra}: named by no statement" in done.err
    shutil.rmtree(got / "releases" / "0001")
    assert "release 0001: not at hand, not checked" in verify(scrape, got).out
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    (tmp_path / "other.pub").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = verify(scrape, copy, "--model-key", tmp_path / "other.pub")
    assert done.code == 3
    assert "0002/model.sig: the signature does not verify under --model-key" in message(done)


def test_a_settle_is_finished_by_the_key_that_began_it_and_a_statement_about_another_key_is_refused(
    scrape, tmp_path
):
    made = replace(scrape, root=tmp_path / "made", settings=dict(scrape.settings))
    shutil.copytree(scrape.root, made.root, symlinks=True)
    second = keys(made)[1]
    folder, number = made.collection / "log", Collection(made.collection).closed_settles()[-1]
    size = int((folder / "checkpoint").read_text().splitlines()[1])
    entries = list(Tiles(folder, size).all_entries())
    shutil.rmtree(folder)  # as a kill leaves it: with the settle's entries, and without the close entry
    log = Log.open(folder, ORIGIN, [NoteKey.of(second)])
    log.append(entries[:-1])
    (made.root / "state" / "checkpoint").write_bytes(log.publish(second))
    for name in ("current", f"settled/{number:04d}/evidence.json"):
        (made.collection / name).unlink()
    began = made.settings["log"]
    third = {**began, **command(made, "third"), "rotation": "third.note"}
    made.settings["log"] = third
    shutil.copy(made.config, made.root / "old.toml")
    made.write()
    note = made.root / "third.note"
    assert call("keys", "rotate", made.root / "old.toml", "--to", made.config, "--statement", note).code == 0
    done = call("run", made.config, "--workers", 1)
    assert done.code == 2
    assert "was begun with the key before; run again with that key" in message(done)
    made.settings["log"] = {**began, "rotation": "third.note"}
    made.write()
    done = call("run", made.config, "--workers", 1)
    assert done.code == 2
    assert "third.note: is about another key than the one that [log] names" in message(done)
    made.settings["log"] = began
    made.write()
    assert run(made).code == 0
    assert verify(made, made.collection).code == 0
