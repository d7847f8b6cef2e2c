"""The keys of the audit log as its operator handles them: made, shown, changed, and configured."""

from __future__ import annotations

import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from in_process import call, message

from manifests.anchors import AuditorCopy
from manifests.audit.note import Checkpoint, sign_note
from manifests.key_rotation import read_rotation
from manifests.rekor import Rekor
from manifests.signers import COSIGNATURE, vkey
from manifests.timestamps import Timestamp
from manifests.witness import Witness
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.log_config import open_anchors, open_signer

ORIGIN = "example.org/log"
SMALLEST = 'collection = "c"\n[[input]]\nshards = "a.tar"\n[policy]\nprofile = "lists-only"\n'
LOG = f'[log]\norigin = "{ORIGIN}"\ncheckpoint_store = "state/log.checkpoint"\n'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "scrub.toml"
    path.write_text(f'{SMALLEST}{LOG}key = "log.pem"\n')
    return path


def test_a_key_is_made_shown_and_changed_and_only_public_text_is_printed(config, tmp_path):
    made = call("keys", "new", tmp_path / "log.pem", "--origin", ORIGIN)
    assert call("keys", "show", config).out == made.out
    changed = call("keys", "rotate", config, tmp_path / "next.pem", "--statement", tmp_path / "note")
    assert read_rotation((tmp_path / "note").read_bytes()) == (made.out.strip(), changed.out.strip())
    config.write_text(f'{SMALLEST}{LOG}key = "next.pem"\nrotation = "note"\n')
    assert call("keys", "show", config).out == changed.out
    for name in ("log.pem", "next.pem"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        secret = (tmp_path / name).read_text().splitlines()[1]
        assert secret not in made.out + changed.out + (tmp_path / "note").read_text()


def test_a_command_is_shown_after_it_has_signed(config, tmp_path):
    made = call("keys", "new", tmp_path / "log.pem", "--origin", ORIGIN).out.strip()
    text = (
        "import sys; from cryptography.hazmat.primitives.serialization import load_pem_private_key as load; "
        f"key = load(open({str(tmp_path / 'log.pem')!r}, 'rb').read(), None); "
        "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))"
    )
    command = f'signer = ["{sys.executable}", "-c", """{text}"""]\n'
    config.write_text(f'{SMALLEST}{LOG}{command}public_key = "{made}"\n')
    assert call("keys", "show", config).out.strip() == made
    (tmp_path / "log.pem").unlink()
    refused = call("keys", "show", config)
    assert "ended with code 1; run it by hand" in message(refused)
    assert "log.pem" not in refused.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("new", "log.pem", "--origin", ORIGIN), "never written over"),
        (("new", "other.pem", "--origin", "two words"), "the name of a log"),
        (("rotate", "scrub.toml", "c/next.pem", "--statement", "note"), "must not lie in the collection"),
        (("rotate", "scrub.toml", "next.pem", "--statement", "log.pem"), "exists already"),
        (("rotate", "scrub.toml", "--statement", "note"), "expected either FILE"),
        (("rotate", "scrub.toml", "next.pem", "--to", "scrub.toml", "--statement", "note"), "expected either FILE"),
        (("rotate", "scrub.toml", "--to", "scrub.toml", "--statement", "note"), "followed by another key"),
        (("show", "none.toml"), "no such file"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(config, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    call("keys", "new", "log.pem", "--origin", ORIGIN)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = call("keys", *arguments)
    assert done.code in (1, 2)
    assert told in message(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_configuration_without_a_log_or_with_a_key_that_others_read_is_refused(config, tmp_path):
    call("keys", "new", tmp_path / "log.pem", "--origin", ORIGIN)
    (tmp_path / "log.pem").chmod(0o644)
    assert "expected mode 0600" in message(call("keys", "show", config))
    config.write_text(SMALLEST)
    assert "no [log]" in message(call("keys", "show", config))


def test_anchors_are_those_configured_and_copies_where_none_is(config, tmp_path):
    call("keys", "new", tmp_path / "log.pem", "--origin", ORIGIN)
    log, collection = load_config(config).log, tmp_path / "c"
    signer = open_signer(log, collection)
    (anchor,) = open_anchors(log, collection, lambda *_: ())
    receipt = anchor.anchor(checkpoint := sign_note(Checkpoint(ORIGIN, 3, bytes(32)).text(), signer))
    assert (tmp_path / "state/log.checkpoint.copies/3.checkpoint").read_bytes() == checkpoint
    assert "is the same" in anchor.verify(receipt, checkpoint)

    secret = ec.generate_private_key(ec.SECP256R1())
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(secret.private_bytes(*form))
    (tmp_path / "ec.pem").chmod(0o600)
    (tmp_path / "roots.pem").write_text("")
    cosigner, other = (vkey("w", signer.public_key, COSIGNATURE), vkey("rekor", signer.public_key))
    text = (
        f'{config.read_text()}[[log.anchors]]\nkind = "auditor-copy"\nfolder = "copies"\n'
        '[[log.anchors]]\nkind = "rfc3161"\nurl = "https://tsa.example.org"\nroots = "roots.pem"\n'
        f'[[log.anchors]]\nkind = "witness"\nurl = "https://w.example.org"\nvkey = "{cosigner}"\n'
        f'[[log.anchors]]\nkind = "rekor"\nurl = "https://r.example.org"\nvkey = "{other}"\nkey = "ec.pem"\n'
    )
    config.write_text(text)
    anchors = open_anchors(load_config(config).log, collection, lambda *_: ())
    assert [type(anchor) for anchor in anchors] == [AuditorCopy, Timestamp, Witness, Rekor]
    config.write_text(text.replace('key = "ec.pem"', 'key = "log.pem"'))
    with pytest.raises(ConfigError, match="expected a key of kind EllipticCurvePrivateKey"):
        open_anchors(load_config(config).log, collection, lambda *_: ())
