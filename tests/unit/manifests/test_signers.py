"""Keys that sign: files that only their owner reads, commands whose answers are checked, one key after another."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manifests.audit.note import NoteKey, open_note, sign_note
from manifests.key_rotation import read_rotation, rotation
from manifests.signers import (
    COSIGNATURE,
    CommandSigner,
    FileSigner,
    SignerError,
    check_signature,
    new_key,
    parse_vkey,
    vkey,
)

ORIGIN = "example.org/log"
# A command as a KMS has one: it reads the message and writes 64 raw bytes.
SIGN = (
    "import sys; from cryptography.hazmat.primitives.serialization import load_pem_private_key as load; "
    "key = load(open({path!r}, 'rb').read(), None); sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))"
)


@pytest.fixture
def key(tmp_path):
    new_key(tmp_path / "keys/log.pem")
    return tmp_path / "keys/log.pem"


@pytest.fixture
def signer(key, tmp_path):
    return FileSigner.read(ORIGIN, key, outside=tmp_path / "collection")


def command(text: str, public: bytes, timeout_s: float = 30.0) -> CommandSigner:
    return CommandSigner(ORIGIN, public, (sys.executable, "-c", text), timeout_s)


def test_a_new_key_is_its_owners_alone_signs_and_is_never_written_over(key, signer):
    assert key.stat().st_mode & 0o777 == 0o600
    check_signature(signer.public_key, signer.sign(b"text"), b"text", "it")
    name, public = parse_vkey(vkey(ORIGIN, signer.public_key))
    assert (name, public) == (ORIGIN, signer.public_key)
    with pytest.raises(SignerError, match="never written over"):
        new_key(key)


def test_a_key_that_others_read_or_that_lies_in_the_collection_or_is_no_such_key_is_refused(key, tmp_path):
    with pytest.raises(SignerError, match="must not lie in the collection"):
        FileSigner.read(ORIGIN, key, outside=tmp_path / "keys")
    (tmp_path / "link").symlink_to(key)
    with pytest.raises(SignerError, match="must not lie in the collection"):
        FileSigner.read(ORIGIN, tmp_path / "link", outside=tmp_path / "keys")
    key.chmod(0o640)
    with pytest.raises(SignerError, match="expected mode 0600, found 0640"):
        FileSigner.read(ORIGIN, key, outside=tmp_path / "collection")
    other = tmp_path / "other.pem"
    for text in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        other.write_bytes(text)
        other.chmod(0o600)
        with pytest.raises(SignerError, match="not an unencrypted private key"):
            FileSigner.read(ORIGIN, other, outside=tmp_path / "collection")
    with pytest.raises(SignerError, match="cannot be read"):
        FileSigner.read(ORIGIN, tmp_path / "none", outside=tmp_path / "collection")


def test_a_command_signs_notes_as_a_file_does(key, signer):
    by_command = command(SIGN.format(path=str(key)), signer.public_key)
    note = sign_note(f"{ORIGIN}\n0\nAAAA\n", by_command)
    assert note == sign_note(f"{ORIGIN}\n0\nAAAA\n", signer)
    assert open_note(note, [NoteKey.of(signer)])[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys; print('secret', file=sys.stderr); sys.exit(3)", "ended with code 3"),
        ("print('secret')", "expected 64 raw bytes"),
        ("import sys; sys.stdout.buffer.write(bytes(64))", "does not verify"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
)
def test_what_a_command_says_is_checked_and_never_shown(signer, text, told, capfd):
    with pytest.raises(SignerError, match=told) as error:
        command(text, signer.public_key, 0.5 if "sleep" in text else 30.0).sign(b"text")
    assert "secret" not in f"{error.value}{capfd.readouterr()}"


def test_a_command_that_is_not_there_or_signs_with_another_key_is_refused(key, signer):
    with pytest.raises(SignerError, match="cannot be started"):
        replace(command("", signer.public_key), command=("/no/such/command",)).sign(b"text")
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(SignerError, match="does not verify"):
        command(SIGN.format(path=str(key)), other).sign(b"text")


def test_a_key_is_followed_by_another_one_only_when_both_say_so(signer, tmp_path):
    new_key(tmp_path / "next.pem")
    follower = FileSigner.read(ORIGIN, tmp_path / "next.pem", outside=tmp_path / "collection")
    statement = rotation(signer, follower)
    assert read_rotation(statement) == (vkey(ORIGIN, signer.public_key), vkey(ORIGIN, follower.public_key))
    text, _, lines = statement.decode().partition("\n\n")
    first, second = lines.splitlines(keepends=True)
    stated = json.loads(text)
    swapped = json.dumps(
        {**stated, "old": stated["new"], "new": stated["old"]}, sort_keys=True, separators=(",", ":")
    )
    for changed in (
        "", "{}", "[]\n\nx", text, f"{text}\n\n{first}", f"{text}\n\n{second}", f"{swapped}\n\n{lines}",
        sign_note(f"{json.dumps(stated)}\n", signer, follower).decode(),
        sign_note(f"{text}\nmore\n", signer, follower).decode(),
        statement.decode().replace("key-rotation", "key-rotatiom"),
    ):  # fmt: skip
        with pytest.raises(SignerError):
            read_rotation(changed.encode())
    with pytest.raises(SignerError, match="followed by another key"):
        rotation(signer, signer)
    with pytest.raises(SignerError, match="of the same log"):
        rotation(signer, FileSigner("example.org/other", follower.public_key, follower._key))


@pytest.mark.parametrize("text", ["", "a", "a+b+c", "a b+00000000+AQ==", "++", "a+12345678+AQID"])
def test_what_is_no_verifier_key_is_refused(text, signer):
    with pytest.raises(SignerError, match="not a verifier key"):
        parse_vkey(text)
    good = vkey(ORIGIN, signer.public_key)
    with pytest.raises(SignerError, match="signature type 0x04"):
        parse_vkey(good, COSIGNATURE)
    with pytest.raises(SignerError, match="not a verifier key"):
        parse_vkey(good.replace("+", "+0", 1))
