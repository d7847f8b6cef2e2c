"""The signed statements of a release, checked again: who signed them, and that each word is as the log has it.

Owns what the statements of `attest.py` must agree with. Leaves files and the log's own entries to `verify_log.py`.

- They are made anew from the entries of their settle, and must be the same; only the digest of the policy and the
  end of the settle, which the log has not in clear, are taken from them.
- The checkpoint that they cite is signed by the same key, and a begin of the log.
- The signature of the folder (OpenSSF model-signing) is checked with `cryptography`; its key is nobody's but the
  reader's: no record holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manifests import attest
from manifests.audit.log import check_extends
from manifests.audit.note import Checkpoint, NoteKey, decode, open_checkpoint
from manifests.commits import FileDigest
from manifests.records import FilesError, canonical_json
from manifests.signers import check_signature, vkey

_FOLDER_SIGNED = "https://model_signing/signature/v1.0"
_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}  # model-signing's, by the curve's bits


class StatementError(FilesError):
    """What a release says of itself is not signed by whom it should be, or not what its log says."""


def check_statements(
    release: Path, entries: Mapping[str, Mapping[str, Any]], end: int, key: NoteKey, log: Path, newest: Checkpoint
) -> dict[str, str]:
    """Refuse statements that the key did not sign, or that say anything else than the entries of their settle.

    Args:
        release: the folder.
        entries: of the settle, by kind.
        end: how many entries of the log the statements rest on.
        key: that signed the log then.
        log: its folder.
        newest: the checkpoint that it was checked against.

    Returns:
        The files that they are about, by name, with their SHA-256.

    Raises:
        StatementError: they are refused; the message names the file.
    """
    path, opened, total = release / attest.STATEMENTS, entries["run-open"], entries["settle"]
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        payloads = [_open_envelope(line, key, f"{path}: line {at}") for at, line in enumerate(lines, 1)]
        build, result = (json.loads(payload)["predicate"] for payload in payloads)
        subject = json.loads(payloads[0])["subject"]
        cited = decode(result["shardscrub_checkpoint"]["content"], "checkpoint")
        plans = {name: total[name] for name in ("examine_plan", "decide_plan")}
        facts = attest.ReleaseFacts(
            **plans, number=total["settle"], samples=total["in"], kept=total["kept"], faults=total["faults"],
            files=tuple(FileDigest(one["name"], one["digest"]["sha256"], 0) for one in subject),
            policy=result["verifier"]["policies"][0]["digest"]["sha256"], stamps=tuple(total["stamps"]),
            checkpoint=cited, tool_version=opened["tool"], started=opened["at"],
            finished=build["runDetails"]["metadata"]["finishedOn"],
        )  # fmt: skip
        if [canonical_json(one) for one in attest.statements(facts, facts.files, key.name)] != payloads:
            raise StatementError(f"{path}: does not say what the log's entries of this settle say")
        checkpoint = open_checkpoint(cited, key.name, [key])
        if checkpoint.size != end:
            raise StatementError(f"{path}: cites {checkpoint.size} entries of the log, expected {end}")
        check_extends(log, checkpoint, newest)
    except FilesError as error:
        raise StatementError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (OSError, ValueError, LookupError, TypeError):
        raise StatementError(f"{path}: missing, or not the two statements of a release") from None
    return {one.name: one.sha256 for one in facts.files}


def _open_envelope(line: bytes, key: NoteKey, what: str) -> bytes:
    carried = json.loads(line)
    payload, signature = decode(carried["payload"], "payload"), decode(carried["signatures"][0]["sig"], "signature")
    check_signature(key.public, signature, attest.authenticated(payload), what)
    if line != attest.envelope(payload, vkey(key.name, key.public), signature):
        raise StatementError(f"{what}: not in the one form that statements are written in")
    return payload


def check_folder_signature(release: Path, files: Mapping[str, str], public: Path | None) -> None:
    """Refuse a signature of the folder that is about other files than these, or by another key if one is given.

    `public`: an EC public key in PEM form.

    Raises:
        StatementError: it is refused; the message names the file.
    """
    path = release / attest.FOLDER_SIGNATURE
    try:
        carried = json.loads(path.read_bytes())["dsseEnvelope"]
        payload = decode(carried["payload"], "payload")
        about = json.loads(payload)
        signed = {one["name"]: one["digest"] for one in about["predicate"]["resources"]}
        kind = (carried["payloadType"], about["predicateType"])
        signature = decode(carried["signatures"][0]["sig"], "signature")
    except (OSError, ValueError, LookupError, TypeError):
        raise StatementError(f"{path}: missing, or no bundle of OpenSSF model-signing") from None
    if kind != (attest.PAYLOAD_TYPE, _FOLDER_SIGNED) or signed != files:
        raise StatementError(f"{path}: signs other files, or files otherwise, than the release has")
    try:
        key = None if public is None else serialization.load_pem_public_key(public.read_bytes())
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, attest.authenticated(payload), ec.ECDSA(_HASHES[key.curve.key_size]))
        elif key is not None:
            raise ValueError
    except (OSError, ValueError, LookupError):
        raise StatementError(f"{public}: expected an EC public key (P-256, P-384 or P-521) in PEM form") from None
    except InvalidSignature:
        raise StatementError(f"{path}: the signature does not verify under --model-key") from None
