"""What a release says of itself: signed statements, `croissant.json`, a bill of materials, a signed folder.

Owns in-toto statements (SLSA provenance v1, SVR v0.2) in DSSE envelopes and OpenSSF model-signing. Leaves Croissant
to `croissant.py`, CycloneDX to `cyclonedx.py`, and what the facts are to whoever closes a settle.

- A release knows in, kept, not kept and faults: no list, no reason, no count of any stands in what is written here.
- The property says that samples were processed under a policy, and no more; no SLSA level is claimed.
- The same facts and key give the same bytes, but for ECDSA signatures, which are left alone once they are there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from manifests import durable
from manifests.commits import FileDigest
from manifests.croissant import Dataset, croissant
from manifests.cyclonedx import UsedModel, cyclonedx
from manifests.records import canonical_json, readable_json
from manifests.signers import Signer, read_private_key, vkey

STATEMENTS, CROISSANT, FOLDER_SIGNATURE = "shardscrub.intoto.jsonl", "croissant.json", "model.sig"
MATERIALS = "bom.cdx.json"
PROPERTY = "shardscrub/processed-under-policy"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
_PROVENANCE, _RESULT = "https://slsa.dev/provenance/v1", "https://in-toto.io/attestation/svr/v0.2"


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What statements about a release are made of; nothing else goes into them.

    files: all files of the release so far, by name in it. checkpoint: the signed one that has the settle's entries
    in it. started, finished: RFC 3339, UTC. model_key: EC key (PEM, 0600) for the signature of the folder. models:
    for a bill of materials, None for none.
    """

    number: int
    files: tuple[FileDigest, ...]
    samples: int
    kept: int
    faults: int
    examine_plan: str
    decide_plan: str
    policy: str
    stamps: tuple[str, ...]
    checkpoint: bytes
    tool_version: str
    started: str
    finished: str
    dataset: Dataset | None = None
    model_key: Path | None = None
    models: tuple[UsedModel, ...] | None = None

    def counts(self) -> dict[str, int]:
        """Return what a release knows of how many."""
        return {"in": self.samples, "kept": self.kept, "not_kept": self.samples - self.kept, "faults": self.faults}


def write_attestations(release: Path, facts: ReleaseFacts, signer: Signer) -> tuple[FileDigest, ...]:
    """Write all that a release says of itself, after everything else in its folder.

    Returns:
        The files written: `croissant.json` where the facts name a data set, the bill of materials where they have
        models, the statements, and the signature of the folder where there is a key for it.

    Raises:
        SignerError: a key is not usable.
        OSError: a file cannot be written.
    """
    durable.sweep(release)
    written, described = list[FileDigest](), dict[str, dict[str, Any]]()
    if facts.dataset is not None:
        described[CROISSANT] = croissant(facts, facts.dataset)
    if facts.models is not None:
        described[MATERIALS] = cyclonedx(facts, facts.models, signer.name)
    for name, value in described.items():
        text = readable_json(value)
        durable.write(release / name, text, replace=True)
        written.append(FileDigest.of(name, text))
    files = (*facts.files, *written)
    lines = b"".join(sign_statement(one, signer) for one in statements(facts, files, signer.name))
    durable.write(release / STATEMENTS, lines, replace=True)
    written.append(FileDigest.of(STATEMENTS, lines))
    if facts.model_key is not None:
        written.append(_sign_folder(release, facts.model_key))
    return tuple(written)


def statements(facts: ReleaseFacts, files: tuple[FileDigest, ...], origin: str) -> Iterator[dict[str, Any]]:
    """Yield provenance and verification result of a release (in-toto Statement v1), signed by the key of a log."""
    log, subject = quote(origin, safe="/"), [_resource(one.name, one.sha256) for one in files]
    summary = [{**one, "annotations": facts.counts()} for one in subject if one["name"] == "summary.json"]
    cited = _resource("checkpoint", FileDigest.of("", facts.checkpoint).sha256)
    cited["content"] = base64.b64encode(facts.checkpoint).decode()
    plans = {"examine-plan": facts.examine_plan, "decide-plan": facts.decide_plan, "policy": facts.policy}
    sources = [*(_resource(name, digest) for name, digest in plans.items()), cited]
    provenance = {
        "buildDefinition": {
            "buildType": "urn:shardscrub:settle:v1",
            "externalParameters": {"settle": facts.number, "stamps": list(facts.stamps)},
            "resolvedDependencies": sources,
        },
        "runDetails": {
            "builder": {"id": f"urn:shardscrub:log:{log}", "version": {"shardscrub": facts.tool_version}},
            "metadata": {
                "invocationId": f"urn:shardscrub:settle:{log}:{facts.number:04d}",
                "startedOn": facts.started,
                "finishedOn": facts.finished,
            },
            "byproducts": summary,
        },
    }
    result = {
        "verifier": {"id": f"urn:shardscrub:verifier:{facts.tool_version}", "policies": [sources[2]]},
        "timeCreated": facts.finished,
        "properties": [PROPERTY],
        "shardscrub_stamps": list(facts.stamps),
        "shardscrub_checkpoint": cited,
    }
    for kind, predicate in ((_PROVENANCE, provenance), (_RESULT, result)):
        yield {"_type": STATEMENT, "subject": subject, "predicateType": kind, "predicate": predicate}


def sign_statement(statement: dict[str, Any], signer: Signer) -> bytes:
    """Return a statement as one line: a signed DSSE v1 envelope."""
    payload = canonical_json(statement)
    return envelope(payload, vkey(signer.name, signer.public_key), signer.sign(authenticated(payload)))


def authenticated(payload: bytes) -> bytes:
    """Return what is signed of a payload: DSSE v1's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def envelope(payload: bytes, verifier_key: str, signature: bytes) -> bytes:
    """Return the line that carries a payload and its signature."""
    signatures = [{"keyid": verifier_key.rpartition("+")[0], "sig": base64.b64encode(signature).decode()}]
    carried = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": signatures}
    return canonical_json(carried) + b"\n"


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def _sign_folder(release: Path, key: Path) -> FileDigest:
    """Sign every file of the release by OpenSSF model-signing, which reads them all."""
    from model_signing import hashing, signing  # noqa: PLC0415 - not in the plain install

    read_private_key(key, EllipticCurvePrivateKey, outside=release)  # type: ignore[type-abstract]
    path = release / FOLDER_SIGNATURE
    with TemporaryDirectory() as folder:
        new = Path(folder, FOLDER_SIGNATURE)
        hashed = hashing.Config()  # type: ignore[no-untyped-call] # theirs has no types
        hashed.add_ignored_paths(model_path=release, paths=[path])
        config = signing.Config().set_hashing_config(hashed)  # type: ignore[no-untyped-call] # as above
        config.use_elliptic_key_signer(private_key=key).sign(release, new)
        data = new.read_bytes()
    if path.is_file() and _payload(path.read_bytes()) == _payload(data):
        data = path.read_bytes()  # a close that is resumed finds what its log entry may already name
    durable.write(path, data, replace=True)
    return FileDigest.of(FOLDER_SIGNATURE, data)


def _payload(bundle: bytes) -> object:
    return json.loads(bundle)["dsseEnvelope"]["payload"]
