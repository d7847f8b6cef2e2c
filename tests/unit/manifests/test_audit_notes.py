"""Notes and checkpoints: those that others signed verify, and there is one way to write each."""

from __future__ import annotations

import base64

import pytest
from audit_kit import KEYS, ORIGIN, SIGNER, made_signer

from manifests.audit.note import (
    COSIGNATURE,
    Checkpoint,
    NoteError,
    NoteKey,
    cosigned,
    open_checkpoint,
    open_note,
    sign_note,
    signature_line,
)
from manifests.signers import SignerError, vkey

TESSERA = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
BY_PETER = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
BY_ENOCH = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
REKOR = (
    "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l"
    "+smGNM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="
)
BY_REKOR = (
    "rekor.sigstore.dev - 2605736670972794746\n21428036\nrxnoKyFZlJ7/R6bMh/d3lcqwKqAy5CL1LcNBJP17kgQ=\n"
    "Timestamp: 1688058656037355364\n\n— rekor.sigstore.dev wNI9ajBFAiEAuDk7uu5Ae8Own/MjhSZNuVzbLuYH2jBMxbSA0WaNDNA"
    "CIDV4reKpYiOpkwtvazCClnpUuduF2o/th2xR3gRZAUU4\n"
)
COSIGNED = (
    "arche2025h1.staging.ct.transparency.dev\n1432088532\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n"
    "— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g"
    "8Ei59RA23oHP7Ry1k3ZFWwQ=\n— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aV"
    "CIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n"
)
COSIGNED_BY = (
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
)
POINT = Checkpoint(ORIGIN, 123, bytes(range(32)))


@pytest.mark.shared_data
def test_all_checkpoints_of_a_foreign_log_verify(shared_data):
    notes = [(shared_data / "tlog" / f"checkpoint.{size}").read_bytes() for size in range(16)]
    found = [open_checkpoint(note, "example.com/log/testdata", [NoteKey.parse(TESSERA)]) for note in notes]
    assert [one.size for one in found] == list(range(16))
    for note, checkpoint in zip(notes, found, strict=True):
        assert note.decode().startswith(checkpoint.text() + "\n— ")
        with pytest.raises(NoteError, match="of another log"):
            open_checkpoint(note, ORIGIN, [NoteKey.parse(TESSERA)])


def test_notes_of_others_open_with_either_key_or_both():
    peter, enoch, note = NoteKey.parse(PETER), NoteKey.parse(ENOCH), f"{TEXT}\n{BY_PETER}{BY_ENOCH}".encode()
    assert open_note(note, [peter]) == (TEXT, {peter: None})
    assert open_note(note, [peter, enoch]) == (TEXT, {peter: None, enoch: None})
    with pytest.raises(NoteError, match="not signed by any"):
        open_note(note, [NoteKey.parse(TESSERA)])
    with pytest.raises(SignerError, match="PeterNeumann"):
        open_note(note.replace(b"think", b"thank"), [peter, enoch])


def test_a_signature_that_does_not_verify_spoils_a_note_that_another_key_signed():
    note = f"{TEXT}\n{BY_PETER}{BY_ENOCH[:60]}ABCD{BY_ENOCH[60:]}".encode()
    assert open_note(note, [NoteKey.parse(PETER)])
    with pytest.raises(SignerError, match="EnochRoot"):
        open_note(note, [NoteKey.parse(PETER), NoteKey.parse(ENOCH)])


@pytest.mark.parametrize(
    "note",
    [
        TEXT,
        TEXT + "\n",
        TEXT + "\n" + BY_PETER[:-1],
        "\x01" + TEXT + "\n" + BY_PETER,
        "\r" + TEXT + "\n" + BY_PETER,
        TEXT + "\n" + BY_PETER.replace("PeterNeumann", "Bad Name"),
        TEXT + "\n" + BY_PETER.replace("PeterNeumann", "Bad+Name"),
        TEXT + "\n" + BY_PETER + "Unexpected line.\n",
        TEXT + "\n" + BY_PETER + "\n",
        TEXT + "\n" + BY_PETER.replace("M=\n", "N=\n"),
        TEXT + "\n" + BY_PETER.replace("=", ""),
        TEXT + "\n" + BY_PETER * 101,
        "\n\n" + BY_PETER,
        "",
    ],
)
def test_a_malformed_note_is_refused(note):
    with pytest.raises(SignerError):
        open_note(note.encode(), [NoteKey.parse(PETER)])
    with pytest.raises(NoteError):
        open_note(b"\xff" + note.encode(), [NoteKey.parse(PETER)])


@pytest.mark.parametrize("text", ["a\x01b\n", "a\tb\n", "a\r\n", "no end of line"])
def test_a_text_that_no_note_has_is_refused_though_it_was_signed(text):
    with pytest.raises(NoteError, match="not a signed note"):
        open_note(sign_note(text, SIGNER), KEYS)


def test_every_bit_of_a_note_counts():
    note = sign_note(POINT.text(), SIGNER)
    assert open_checkpoint(note, ORIGIN, KEYS) == POINT
    for bit in range(len(note) * 8):
        spoilt = bytearray(note)
        spoilt[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignerError):
            open_checkpoint(bytes(spoilt), ORIGIN, KEYS)


@pytest.mark.parametrize(("text", "begin"), [(PETER, 0), (TESSERA, 0), (REKOR, len("rekor.sigstore.dev"))])
def test_a_verifier_key_is_read_in_one_form_only(text, begin):
    """The id of an ECDSA key does not depend on its name."""
    key = NoteKey.parse(text)
    assert text.split("+")[1] == key.id.hex()
    for at in range(begin, len(text)):
        for spoilt in (text[:at], text[at + 1 :], text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :]):
            with pytest.raises(SignerError):
                NoteKey.parse(spoilt)


@pytest.mark.parametrize(
    "text",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # wrong length
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # unknown type
        "bananas.sigstore.dev+12344556",
        "rekor.sigstore.dev+12345678+AwEB",
        "rekor.sigstore.dev+c0d23d6a+AgEB",
        "",
    ],
)
def test_other_verifier_keys_are_refused(text):
    with pytest.raises(SignerError):
        NoteKey.parse(text)


def test_an_ecdsa_note_with_an_extension_line_opens():
    key = NoteKey.parse(REKOR)
    found = open_checkpoint(BY_REKOR.encode(), "rekor.sigstore.dev - 2605736670972794746", [key])
    assert (found.size, found.extension) == (21428036, ("Timestamp: 1688058656037355364",))
    with pytest.raises(NoteError, match="does not verify"):
        open_note(BY_REKOR.replace("21428036", "21428037").encode(), [key])


def test_a_checkpoint_that_a_witness_cosigned_opens_with_its_time():
    log, witness = keys = [NoteKey.parse(text) for text in COSIGNED_BY]
    text, signed = open_note(COSIGNED.encode(), keys)
    assert (Checkpoint.parse(text).size, signed) == (1432088532, {log: None, witness: 0x6A122120})
    with pytest.raises(SignerError, match="remora"):
        open_note(COSIGNED.replace("1432088532", "1432088533").encode(), [witness])


def test_a_cosignature_carries_its_time_and_signs_it():
    witness, text, time = made_signer("witness.example/w", 7), POINT.text(), 1_679_315_147
    key = NoteKey(witness.name, COSIGNATURE, witness.public_key)
    assert NoteKey.parse(vkey(witness.name, witness.public_key, COSIGNATURE)) == key

    def noted(stated):
        signature = stated.to_bytes(8) + witness.sign(cosigned(text.encode(), time))
        return sign_note(text, SIGNER) + signature_line(key, signature).encode()

    assert open_note(noted(time), [*KEYS, key]) == (text, {KEYS[0]: None, key: time})
    assert open_note(noted(time), KEYS) == (text, {KEYS[0]: None})
    with pytest.raises(SignerError, match=r"witness\.example"):
        open_note(noted(time + 1), [*KEYS, key])
    plain = sign_note(text, SIGNER) + signature_line(key, witness.sign(text.encode())).encode()
    with pytest.raises(SignerError, match=r"witness\.example"):
        open_note(plain, [key])


@pytest.mark.parametrize(
    "text",
    [
        "Log\n123\n",
        "\n123\n{root}\n",
        "Log\n123\n{root}",
        "Log\nbananas\n{root}\n",
        "Log\n-34\n{root}\n",
        "Log\n007\n{root}\n",
        "Log\n+7\n{root}\n",
        "Log\n٣\n{root}\n",
        "Log\n3438945738945739845734895735\n{root}\n",
        "Log\n123\nThisIsn'tBase64\n",
        "Log\n123\nYmFuYW5hcw==\n",
        "Log\n123\n{root}\n\n",
        "Log\n123\n{root}\n\nmore\n",
        "Log\n123\n{loose}\n",
        "",
    ],
)
def test_text_that_is_no_checkpoint_is_refused(text):
    root = base64.b64encode(bytes(32)).decode()
    with pytest.raises(NoteError):
        Checkpoint.parse(text.format(root=root, loose=root[:-2] + "B="))
    assert Checkpoint.parse(f"Log\n0\n{root}\nmore\n") == Checkpoint("Log", 0, bytes(32), ("more",))
