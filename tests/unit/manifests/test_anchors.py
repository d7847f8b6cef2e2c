"""Checkpoints kept and vouched for elsewhere: by responders that run here, each held to its own specification."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from manifests.anchors import AnchorError, AuditorCopy, CheckpointStore, anchor_all, post
from manifests.audit import merkle
from manifests.audit.note import (
    COSIGNATURE,
    Checkpoint,
    NoteKey,
    cosigned,
    open_checkpoint,
    sign_note,
    signature_line,
)
from manifests.rekor import Rekor
from manifests.signers import FileSigner, vkey
from manifests.timestamps import Timestamp
from manifests.witness import Witness

ORIGIN, OTHER = "example.org/log", "rekor.example.org"
AT = 1_800_000_000


def signer(name: str, byte: int) -> FileSigner:
    key = Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32)
    return FileSigner(name, key.public_key().public_bytes_raw(), key)


class Log:
    """A log in memory."""

    def __init__(self, size: int, word: bytes = b"entry") -> None:
        self.leaves = [merkle.leaf_hash(b"%s %d" % (word, number)) for number in range(size)]

    def checkpoint(self, size: int, by=None) -> bytes:
        by = by or signer(ORIGIN, 1)
        return sign_note(Checkpoint(by.name, size, merkle.root_of(self.leaves[:size])).text(), by)

    def prove(self, old: int, new: int) -> list[bytes]:
        return merkle.prove_consistency(old, new, merkle.nodes_of(self.leaves))


LOG, REWRITTEN = Log(9), Log(9, b"other")


@contextmanager
def served(answer):
    """Serve `answer(path, body) -> (status, body)` on a port of this machine; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, data = answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 302:
                self.send_header("Location", data.decode())
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_an_address_that_points_to_another_one_is_not_followed():
    with served(lambda *_: (302, b"/elsewhere")) as url:
        assert post(f"{url}/here", b"body", "text/plain") == (302, b"/elsewhere")


def sizes(checkpoint: bytes) -> int:
    return open_checkpoint(checkpoint, ORIGIN, [NoteKey.of(signer(ORIGIN, 1))]).size


def test_the_store_goes_forward_only_and_misses_nothing_that_was_there(tmp_path):
    store = CheckpointStore(tmp_path / "state/log.checkpoint")
    asked = []

    def consistent(old: bytes, new: bytes) -> bool:
        asked.append((sizes(old), sizes(new)))
        return sizes(old) <= sizes(new)

    with pytest.raises(AnchorError, match="missing, though the log has checkpoints"):
        store.advance(LOG.checkpoint(3), begun=True, consistent=consistent)
    assert store.read() is None
    for size in (3, 3, 5):
        store.advance(LOG.checkpoint(size), begun=size > 3, consistent=consistent)
    with pytest.raises(AnchorError, match="rewritten or cut short"):
        store.advance(LOG.checkpoint(4), begun=True, consistent=consistent)
    assert store.read() == LOG.checkpoint(5)
    assert asked == [(3, 5), (5, 4)]
    assert [path.name for path in store.path.parent.iterdir()] == ["log.checkpoint"]


def test_two_writers_at_once_cannot_both_replace_the_same_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path / "log.checkpoint")
    store.advance(LOG.checkpoint(2), begun=False, consistent=lambda *_: False)
    refused, ready = [], threading.Barrier(2)

    def replace(new: bytes) -> None:
        ready.wait()
        try:
            store.advance(new, begun=True, consistent=lambda old, _: old == LOG.checkpoint(2))
        except AnchorError:
            refused.append(new)

    rivals = [LOG.checkpoint(3), REWRITTEN.checkpoint(3)]
    threads = [threading.Thread(target=replace, args=[new]) for new in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([*refused, store.read()]) == sorted(rivals)


def test_an_auditors_copy_is_made_once_and_a_rewritten_log_is_found_by_it(tmp_path):
    copies = AuditorCopy(tmp_path / "auditor")
    for _ in range(2):
        receipt = copies.anchor(LOG.checkpoint(5))
    assert "size 5 is the same" in copies.verify(receipt, LOG.checkpoint(5))
    with pytest.raises(AnchorError, match="another checkpoint of this size"):
        copies.anchor(REWRITTEN.checkpoint(5))
    for checkpoint in (REWRITTEN.checkpoint(5), LOG.checkpoint(6)):
        with pytest.raises(AnchorError, match="not a copy"):
            copies.verify(receipt, checkpoint)


def test_one_anchor_that_vouches_is_enough_and_none_is_an_error(tmp_path):
    silent = Witness("http://127.0.0.1:1", vkey("w", signer("w", 2).public_key, COSIGNATURE), LOG.prove)
    receipts, failed = anchor_all([silent, AuditorCopy(tmp_path)], LOG.checkpoint(5))
    assert list(receipts) == ["1.auditor-copy"]
    assert len(failed) == 1
    assert "no answer" in failed[0]
    with pytest.raises(AnchorError, match="no anchor vouches"):
        anchor_all([silent], LOG.checkpoint(5))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"a\n5\n", b"a\n05\nAAAA\n\nx", LOG.checkpoint(5)[:60]])
def test_what_is_no_checkpoint_is_not_anchored(data, tmp_path):
    with pytest.raises(AnchorError, match="not a signed checkpoint"):
        AuditorCopy(tmp_path).anchor(data)


# A witness, as C2SP tlog-witness says it must be.


class LocalWitness:
    name = "witness.example.org/w1"

    def __init__(self) -> None:
        self.signer, self.last = signer(self.name, 2), None
        self.vkey = vkey(self.name, self.signer.public_key, COSIGNATURE)

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        head, _, note = body.partition(b"\n\n")
        old, *proof = head.decode().split("\n")
        assert path == "/add-checkpoint"
        new = open_checkpoint(note, ORIGIN, [NoteKey.of(signer(ORIGIN, 1))])
        size, root = (self.last.size, self.last.root) if self.last else (0, b"")
        if old != f"old {size}" or (new.size == size and new.root != root):
            return 409, f"{size}\n".encode()
        try:
            if 0 < size < new.size:
                merkle.check_consistency(size, root, new.size, new.root, [base64.b64decode(one) for one in proof])
            else:
                assert proof == []
        except merkle.ProofError:
            return 422, b""
        self.last = new
        signed = AT.to_bytes(8) + self.signer.sign(cosigned(new.text().encode(), AT))
        stranger = NoteKey("somebody.example.org", COSIGNATURE, bytes(32))
        key = NoteKey(self.name, COSIGNATURE, self.signer.public_key)
        return 200, (signature_line(stranger, signed) + signature_line(key, signed)).encode()


def test_a_witness_cosigns_a_log_that_grows_and_none_that_was_cut_or_rewritten():
    local = LocalWitness()
    with served(local.answer) as url:
        witness = Witness(f"{url}/", local.vkey, LOG.prove)
        receipts = [witness.anchor(LOG.checkpoint(size)) for size in (1, 4, 4, 9)]
        with pytest.raises(AnchorError, match="has seen more than 8 entries"):
            witness.anchor(LOG.checkpoint(8))
        with pytest.raises(AnchorError, match="refuses the checkpoint"):
            witness.anchor(REWRITTEN.checkpoint(9))
        rewritten = Log(12, b"other")
        with pytest.raises(AnchorError, match="status 422"):
            Witness(url, local.vkey, rewritten.prove).anchor(rewritten.checkpoint(12))
    assert receipts[1] == receipts[2]
    assert witness.verify(receipts[3], LOG.checkpoint(9)).endswith("had seen it on 2027-01-15T08:00:00+00:00")
    for receipt, checkpoint in [
        (receipts[3], LOG.checkpoint(8)),
        (receipts[3].replace(b"A", b"B"), LOG.checkpoint(9)),
        (receipts[3].splitlines(keepends=True)[0], LOG.checkpoint(9)),
        (b"", LOG.checkpoint(9)),
    ]:
        with pytest.raises(AnchorError, match="holds no cosignature"):
            witness.verify(receipt, checkpoint)


# A time-stamping authority: `openssl ts` behind a socket.

OPENSSL = """[tsa]
serial = {0}/serial
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command, which answers as the authority")
    folder = tmp_path_factory.mktemp("tsa")
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "tsa")}
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.TIME_STAMPING])
    for name, extension in (("root", x509.BasicConstraints(True, None)), ("tsa", usage)):
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, "root")
        )
        made = x509.CertificateBuilder(
            issuer, subject, keys[name].public_key(), x509.random_serial_number(),
            datetime.now(UTC) - timedelta(1), datetime.now(UTC) + timedelta(9),
        ).add_extension(extension, critical=True)  # fmt: skip
        certificate = made.sign(keys["root"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    secret = keys["tsa"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "tsa.key").write_bytes(secret)
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(OPENSSL.format(folder))
    return folder


def stamp(folder, body: bytes) -> tuple[int, bytes]:
    (folder / "request").write_bytes(body)
    command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "tsa", "-queryfile", "request"]
    subprocess.run([*command, "-out", "reply"], cwd=folder, check=True, capture_output=True)
    return 200, (folder / "reply").read_bytes()


def test_a_time_stamp_of_a_checkpoint_holds_for_us_and_for_openssl(authority, tmp_path):
    roots, checkpoint = (authority / "root.pem").read_bytes(), LOG.checkpoint(7)
    with served(lambda _, body: stamp(authority, body)) as url:
        receipt = Timestamp(url, roots).anchor(checkpoint)
        with pytest.raises(AnchorError, match="not a time stamp of this checkpoint"):
            Timestamp(url, b"").anchor(checkpoint)
    (tmp_path / "checkpoint").write_bytes(checkpoint)
    (tmp_path / "receipt").write_bytes(receipt)
    command = [
        "openssl",
        "ts",
        "-verify",
        "-in",
        "receipt",
        "-data",
        "checkpoint",
        "-CAfile",
        authority / "root.pem",
    ]
    assert b"Verification: OK" in subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    stamped = Timestamp("", roots)
    assert stamped.verify(receipt, checkpoint).startswith("it was there on 20")
    stranger = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    now = datetime.now(UTC)
    other = x509.CertificateBuilder(name, name, stranger.public_key(), 1, now - timedelta(1), now + timedelta(9))
    other = other.add_extension(x509.BasicConstraints(True, None), critical=True).sign(stranger, hashes.SHA256())
    middle = len(receipt) // 2
    for by, what, about in [
        (stamped, receipt, LOG.checkpoint(8)),
        (stamped, receipt[:-9], checkpoint),
        (stamped, receipt[:middle] + bytes([receipt[middle] ^ 1]) + receipt[middle + 1 :], checkpoint),
        (stamped, b"", checkpoint),
        (Timestamp("", other.public_bytes(Encoding.PEM)), receipt, checkpoint),
    ]:
        with pytest.raises(AnchorError, match="not a time stamp of this checkpoint"):
            by.verify(what, about)


def test_an_old_answer_of_an_authority_is_not_taken_for_a_new_one(authority):
    checkpoint, old = LOG.checkpoint(7), []

    def replay(_: str, body: bytes) -> tuple[int, bytes]:
        old.append(stamp(authority, body))
        return old[0]

    with served(replay) as url:
        authority_here = Timestamp(url, (authority / "root.pem").read_bytes())
        authority_here.anchor(checkpoint)
        with pytest.raises(AnchorError, match="not a time stamp of this checkpoint"):
            authority_here.anchor(checkpoint)


# Rekor v2: a log of others.


class LocalRekor:
    def __init__(self) -> None:
        self.log, self.signer = Log(5, b"of others"), signer(OTHER, 3)

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        request = json.loads(body)["hashedRekordRequestV002"]
        key = load_der_public_key(base64.b64decode(request["signature"]["verifier"]["publicKey"]["rawBytes"]))
        digest, signature = base64.b64decode(request["digest"]), base64.b64decode(request["signature"]["content"])
        key.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        return 201, self.entry(request)

    def entry(self, request) -> bytes:
        said = {"data": {"algorithm": "SHA2_256", "digest": request["digest"]}, "signature": request["signature"]}
        body = {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": said}}
        data = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
        self.log.leaves.append(merkle.leaf_hash(data))
        size = len(self.log.leaves)
        proof = merkle.prove_inclusion(size - 1, size, merkle.nodes_of(self.log.leaves))
        state = {"envelope": self.log.checkpoint(size, self.signer).decode()}
        said_proof = {"logIndex": str(size - 1), "treeSize": str(size), "checkpoint": state}
        said_proof["hashes"] = [base64.b64encode(one).decode() for one in proof]
        entry = {"logIndex": str(size - 1), "inclusionProof": said_proof}
        return json.dumps({**entry, "canonicalizedBody": base64.b64encode(data).decode()}).encode()


def test_an_entry_in_rekor_is_about_this_checkpoint_signed_by_us_and_proven():
    local, key = LocalRekor(), ec.generate_private_key(ec.SECP256R1())
    verifier_key = vkey(OTHER, local.signer.public_key)
    with served(local.answer) as url:
        receipt = Rekor(url, verifier_key, key.public_key(), key).anchor(LOG.checkpoint(4))
    auditor = Rekor("", verifier_key, key.public_key())
    assert auditor.verify(receipt, LOG.checkpoint(4)) == f"entry 5 of {OTHER}"
    with pytest.raises(AnchorError, match="no key"):
        auditor.anchor(LOG.checkpoint(4))
    with pytest.raises(AnchorError, match="not signed by our key"):
        auditor.verify(receipt, LOG.checkpoint(5))
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(AnchorError, match="not signed by our key"):
        Rekor("", verifier_key, stranger).verify(receipt, LOG.checkpoint(4))
    raw = json.loads(receipt)
    moved = {**raw["inclusionProof"], "logIndex": "4"}
    for value in ({**raw, "inclusionProof": moved}, {**raw, "canonicalizedBody": "e30="}, {}, [], "x"):
        with pytest.raises(AnchorError, match="not an entry of"):
            auditor.verify(json.dumps(value).encode(), LOG.checkpoint(4))
    with pytest.raises(AnchorError, match="not an entry of"):
        Rekor("", vkey(OTHER, signer(OTHER, 4).public_key), key.public_key()).verify(receipt, LOG.checkpoint(4))
    digest = hashlib.sha256(LOG.checkpoint(4)).digest()
    said = json.loads(base64.b64decode(raw["canonicalizedBody"]))["spec"]["hashedRekordV002"]["data"]["digest"]
    assert base64.b64decode(said) == digest


def test_an_answer_without_end_and_a_refusal_are_errors():
    checkpoint = LOG.checkpoint(4)
    key = ec.generate_private_key(ec.SECP256R1())
    with served(lambda *_: (500, b"no")) as url:
        for anchor in (
            Timestamp(url, b""),
            Rekor(url, vkey(OTHER, signer(OTHER, 3).public_key), key.public_key(), key),
            Witness(url, LocalWitness().vkey, LOG.prove),
        ):
            with pytest.raises(AnchorError, match="status 500"):
                anchor.anchor(checkpoint)
    with (
        served(lambda *_: (200, bytes(3 << 20))) as url,
        pytest.raises(AnchorError, match=r"longer than|no answer"),
    ):
        Timestamp(url, b"").anchor(checkpoint)
