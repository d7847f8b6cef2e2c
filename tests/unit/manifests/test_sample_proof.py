"""Proofs of single samples: every one can be made, shows no other, and nothing in it can be changed."""

from __future__ import annotations

import base64
import json
import shutil
from random import Random

import pyarrow as pa
import pytest
from audit_kit import KEYS, ORIGIN, SIGNER, made_signer
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import call, message
from made_releases import settle

from manifests import schema
from manifests.audit import merkle
from manifests.audit.entries import encode_entry, records_root, sample_records
from manifests.audit.log import Log
from manifests.audit.proof import LogProof, make_proof
from manifests.audit.sample_proof import SampleProofError, check_sample, prove_sample
from manifests.audit.tiles import LogError
from manifests.collection import Collection
from manifests.commits import Evidence
from manifests.keyed import read_secret
from manifests.records import FilesError, canonical_json
from manifests.signers import vkey

VKEY = vkey(SIGNER.name, SIGNER.public_key)
WORDS = ("keep", "remove", "withhold", "keep", "remove")
FATES = {"a": WORDS, "b": WORDS * 60, "c": ("keep",)}
SECRET_WORDS = (b"REMOVE", b"withheld", b"action", b"reason")


def write_entries(home: Collection, number: int, fates) -> None:
    """As the close of a settle logs them, the other entries aside."""
    log = Log.open(home.log, ORIGIN, KEYS)
    log.append(encode_entry("policy", settle=number, value=f"{at:064x}") for at in range(300))
    for shard, words in fates.items():
        table = schema.read(home.settled(number) / "decisions" / f"{shard}.parquet")
        records = sample_records(table, shard=shard, settle=number, secret=read_secret(home))
        counts = {"in": len(words), "kept": words.count("keep"), "not_kept": len(words) - words.count("keep")}
        about = {"details": "0" * 64, "input": None, "manifest": None, "settle": number, "shard": shard}
        log.append([encode_entry("shard-commit", **counts, **about, records=records_root(records))])
    log.append([encode_entry("settle", settle=number, shards=len(fates))])
    evidence = Evidence(number=number, close="", log_size=log.size, files=())
    evidence.write(home.settled(number) / "evidence.json", replace=False, mode=0o600)
    log.append([encode_entry("run-close", settle=number)])
    log.publish(SIGNER)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample_proof") / "collection"
    for number in (1, 2):
        settle(root, number, FATES)
        write_entries(Collection(root), number, FATES)
    (root / "examine_plan.json").write_text("{}")
    return Collection(root)


def prove(home, shard, index, *, outcome=False, number=None):
    return prove_sample(home, shard, f"k{index}", settle=number, index=None, outcome=outcome)


def shown(data):
    return json.loads(LogProof.parse(data).extra)


def with_extra(data, **changes):
    """The proof with other extra data, in the form that they have to have."""
    proof = LogProof.parse(data)
    value = {**json.loads(proof.extra), **changes}
    kept = {name: one for name, one in value.items() if one is not None}
    return LogProof(proof.index, proof.hashes, proof.checkpoint, canonical_json(kept)).encode()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_sample_proves_and_says_what_became_of_it(home, data):
    shard = data.draw(st.sampled_from(sorted(FATES)))
    index = data.draw(st.integers(0, len(FATES[shard]) - 1))
    number, outcome = data.draw(st.sampled_from([1, 2])), data.draw(st.booleans())
    word = FATES[shard][index]
    if word == "withhold" and outcome:
        with pytest.raises(SampleProofError, match="outcome of this sample is not shown"):
            prove(home, shard, index, number=number, outcome=True)
        return
    proof = prove(home, shard, index, number=number, outcome=outcome)
    lines = check_sample(proof, VKEY)
    told = "kept" if word == "keep" else "not kept"
    action = f"; action {'KEEP' if word == 'keep' else 'REMOVE'}, reason none"
    assert lines == [
        f"sample    k{index}, the one with index {index} of shard {shard}",
        f"settle    000{number}",
        f"was       {told}{action if outcome else ''}",
        f"log       {ORIGIN}, 610 entries, signed by this key",
    ]


def test_without_its_outcome_a_withheld_sample_looks_like_any_other_that_was_not_kept(home):
    removed, withheld = (prove(home, "a", index) for index in (1, 2))
    for proof in (removed, withheld):
        assert shown(proof).keys() == {"entry", "record", "key", "path"}
        assert not any(word in LogProof.parse(proof).extra for word in SECRET_WORDS)
    forms = [
        {name: type(one) for name, one in json.loads(shown(one)["record"]).items()} for one in (removed, withheld)
    ]
    assert forms[0] == forms[1]
    assert len(removed) == len(withheld)


def test_what_a_later_settle_withholds_is_shown_of_no_earlier_one(home, tmp_path):
    shutil.copytree(home.root, tmp_path / "later")
    settle(tmp_path / "later", 3, {"a": ("keep", "withhold", "remove", "keep", "remove")})
    later = Collection(tmp_path / "later")
    with pytest.raises(SampleProofError, match="not shown"):
        prove(later, "a", 1, outcome=True)
    assert check_sample(prove(later, "a", 4, outcome=True), VKEY)[1] == "settle    0002"


def test_every_flipped_bit_is_refused(home):
    proof = prove(home, "b", 121, outcome=True)
    random, extra = Random(8), LogProof.parse(proof).extra
    for _ in range(300):
        for whole in (proof, extra):
            bit = random.randrange(len(whole) * 8)
            spoilt = whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
            if whole is extra:
                spoilt = proof.replace(base64.b64encode(extra), base64.b64encode(spoilt))
            with pytest.raises(FilesError) as error:
                check_sample(spoilt, VKEY)
            assert "\n" not in str(error.value)


def test_no_part_of_another_proof_fits(home):
    proof, other = prove(home, "b", 121, outcome=True), prove(home, "b", 124, outcome=True)
    others = [other, prove(home, "a", 1, outcome=True), prove(home, "b", 121, outcome=True, number=1)]
    for name in shown(proof):
        for value in (*(shown(one)[name] for one in others), None, "", 3, [], "[" * 100_000):
            if value == shown(proof)[name]:
                continue
            with pytest.raises(FilesError):
                check_sample(with_extra(proof, **{name: value}), VKEY)
    record, key = json.loads(shown(proof)["record"]), shown(proof)["key"]
    changed = [
        {"kept": True},
        {"kept": 0},
        {"index": 120},
        {"index": True},
        {"settle": 1},
        {"shard": "a"},
        {"key": "x"},
    ]
    texts = [canonical_json({**record, **one}).decode() for one in changed]
    for text in (*texts, shown(proof)["record"] + " ", json.dumps(record)):
        with pytest.raises(FilesError):
            check_sample(with_extra(proof, record=text), VKEY)
    hidden = {"outcome": '{"withheld":true}', "outcome_key": key}
    for change in ({"key": key.upper()}, {"key": key + "00"}, {"more": 1}, {"outcome_key": None}, hidden):
        with pytest.raises(FilesError):
            check_sample(with_extra(proof, **change), VKEY)
    assert check_sample(with_extra(proof, outcome=None, outcome_key=None), VKEY) == check_sample(
        prove(home, "b", 121), VKEY
    )


def test_an_owner_of_the_key_cannot_give_one_sample_two_records(home, tmp_path):
    """Leaf 1 of the tree says that it is sample 0: refused, though all of it is signed."""
    shutil.copytree(home.root, tmp_path / "forged")
    forged = Collection(tmp_path / "forged")
    table = schema.read(forged.settled(2) / "decisions" / "a.parquet").slice(0, 2)
    table = table.set_column(1, table.schema.field(1), pa.array([0, 0], pa.int32()))
    records = sample_records(table, shard="a", settle=2, secret=read_secret(forged))
    true = shown(prove(forged, "a", 1))
    log = Log.open(forged.log, ORIGIN, KEYS)
    entry = {**json.loads(true["entry"]), "in": 2, "records": records_root(records)}
    log.append([canonical_json(entry)])
    note = log.publish(SIGNER)

    leaves = [merkle.leaf_hash(one.commitment) for one in records]
    for place, holds in ((0, True), (1, False)):
        path = [one.hex() for one in merkle.prove_inclusion(place, 2, merkle.nodes_of(leaves))]
        parts = {"entry": canonical_json(entry).decode(), "record": records[place].record.decode()}
        extra = canonical_json({**parts, "key": records[place].key.hex(), "path": path})
        proof = make_proof(forged.log, log.size - 1, log.checkpoint, note, extra=extra)[0].encode()
        if holds:
            check_sample(proof, VKEY)
        else:
            with pytest.raises(FilesError):
                check_sample(proof, VKEY)


def test_other_decisions_than_the_logged_ones_are_not_proved(home, tmp_path):
    shutil.copytree(home.root, tmp_path / "changed")
    changed = Collection(tmp_path / "changed")
    changed.secret.write_text("7" * 64)
    with pytest.raises(LogError, match="not the decisions that the log commits to"):
        prove(changed, "a", 1)


def test_the_commands_write_one_new_file_and_check_it_alone(home, tmp_path):
    out = tmp_path / "sample.tlog-proof"
    assert call("prove", home.root, "a/k1", "--out", out, "--settle", 1, "--outcome", "--index", 1).code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    done = call("check-proof", out, "--public-key", VKEY)
    assert (done.code, "was       not kept; action REMOVE" in done.out) == (0, True)
    bad = made_signer(seed=2)
    for key in (vkey(bad.name, bad.public_key), vkey("example.com/other", SIGNER.public_key), "none"):
        refused = call("check-proof", out, "--public-key", key)
        assert (refused.code, str(out) in message(refused)) == (3, True)
    refusals = {
        ("a/k1", out): "new file outside",
        ("a/k1", home.releases / "p"): "new file outside",
        ("a/k1", home.log / "p"): "new file outside",
        ("a/k9", tmp_path / "p"): "0 samples of settle 0002",
        ("d/k1", tmp_path / "p"): "0 samples of settle 0002",
        ("a/k2", tmp_path / "p"): "not shown",
    }
    for (key, place), said in refusals.items():
        refused = call("prove", home.root, key, "--out", place, "--outcome")
        assert (refused.code, said in message(refused)) == (2, True)
    assert not (tmp_path / "p").exists()
    out.write_bytes(b"x")
    assert call("check-proof", out, "--public-key", VKEY).code == 3
