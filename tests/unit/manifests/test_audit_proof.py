"""Proofs as files: made from a log, read in one form only, checked with the key alone."""

from __future__ import annotations

import base64
import hashlib

import pytest
from audit_kit import KEYS, ORIGIN, SIGNER, made_entries, made_signer, write_log

from manifests.audit.log import read_checkpoint
from manifests.audit.merkle import ProofError
from manifests.audit.note import Checkpoint, NoteError, NoteKey, sign_note
from manifests.audit.proof import LogProof, check_proof, make_proof
from manifests.audit.tiles import LogError
from manifests.records import FilesError

SIZE = 600
HASHES = [hashlib.sha256(text).digest() for text in (b"hash1", b"hash2")]
LINES = [base64.b64encode(one).decode() for one in HASHES]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof") / "log"
    write_log(folder, SIZE)
    return folder


def made(log, index, **options):
    return make_proof(log, index, *read_checkpoint(log, ORIGIN, KEYS), **options)


@pytest.mark.parametrize("index", [0, 255, 256, 511, 512, 598, 599])
def test_a_proof_shows_its_entry_and_no_other(log, index):
    proof, entry = made(log, index)
    assert entry == made_entries(index, index + 1)[0]
    read = LogProof.parse(proof.encode())
    assert read == proof
    assert check_proof(read, entry, ORIGIN, KEYS).size == SIZE
    for other, origin, keys in (
        (entry + b"x", ORIGIN, KEYS),
        (entry, "example.com/other", KEYS),
        (entry, ORIGIN, [NoteKey.of(made_signer(seed=2))]),
    ):
        with pytest.raises(FilesError):
            check_proof(read, other, origin, keys)


def test_no_character_of_a_proof_is_idle_but_for_the_extra_data(log):
    proof, entry = made(log, 300, extra=b"of no weight")
    text = proof.encode()
    for at in range(len(text)):
        spoilt = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
        try:
            read = LogProof.parse(spoilt)
            check_proof(read, entry, ORIGIN, KEYS)
        except FilesError:
            continue
        assert read.extra != b"of no weight"
        assert read.hashes == proof.hashes


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (LogProof(5, tuple(HASHES), b"note\n"), f"index 5\n{LINES[0]}\n{LINES[1]}\n\nnote\n"),
        (LogProof(10, (HASHES[0],), b"note\n", b"more"), f"extra bW9yZQ==\nindex 10\n{LINES[0]}\n\nnote\n"),
        (LogProof(0, (), b"note\n"), "index 0\n\nnote\n"),
        (LogProof(0, (), b"note\n", b""), "extra \nindex 0\n\nnote\n"),
    ],
)
def test_the_text_is_that_of_the_format(proof, text):
    assert proof.encode().decode() == f"c2sp.org/tlog-proof@v1\n{text}"
    assert LogProof.parse(proof.encode()) == proof


@pytest.mark.parametrize(
    "text",
    [
        "wrong-header\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra bW9yZQ==\n\nnote\n",
        "c2sp.org/tlog-proof@v1\n\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex notanumber\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex -5\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 05\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(64)).decode()}\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(31)).decode()}\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{LINES[0]} {LINES[1]}\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{LINES[0]}\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + f"{LINES[0]}\n" * 65 + "\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + "a" * 65 * 1024 + "\n",
        "c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\nnote\r\n",
        "",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(NoteError):
        LogProof.parse(text.encode())
    with pytest.raises(NoteError):
        LogProof.parse(text.encode() + b"\xff")


def test_a_damaged_log_gives_no_proof_and_names_the_file(tmp_path):
    write_log(tmp_path, 300)
    path = tmp_path / "tile" / "0" / "000"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(LogError, match=r"tile/0/000: "):
        made(tmp_path, 3)
    with pytest.raises(ProofError, match="entry 300 is not in"):
        made(tmp_path, 300)


def test_a_checkpoint_that_the_key_signed_for_another_tree_does_not_carry_the_proof(log):
    proof, entry = made(log, 7)
    note = sign_note(Checkpoint(ORIGIN, SIZE, bytes(32)).text(), SIGNER)
    with pytest.raises(ProofError, match="does not lead"):
        check_proof(LogProof(7, proof.hashes, note), entry, ORIGIN, KEYS)
