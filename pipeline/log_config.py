"""The table `[log]`: who signs, where the newest checkpoint is kept, who vouches for it.

Owns its keys, and makes signers and anchors of them. Leaves how those work to `manifests`.

- A private key is given as a path, or as a command that signs; no value here is a secret.
- Keys, the checkpoint store and the auditor's copies lie outside of the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from manifests import signers
from manifests.anchors import Anchor, AuditorCopy
from manifests.signers import CommandSigner, FileSigner, Signer, SignerError
from pipeline.errors import ConfigError

_NEEDS = {"auditor-copy": {"folder"}, "rfc3161": {"url", "roots"}, "witness": {"url", "vkey"}}
_NEEDS["rekor"] = {"url", "vkey", "key"}
Prove = Callable[[int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class AnchorConfig:
    """Where checkpoints are anchored; each kind needs its own keys and no other.

    roots: PEM certificates that the time-stamping authority answers to. vkey: of the witness, or of the Rekor log.
    key: an ECDSA P-256 key, as Rekor takes no other of ours.
    """

    kind: Literal["auditor-copy", "rfc3161", "witness", "rekor"]
    folder: Path | None = None
    url: str = ""
    vkey: str = ""
    roots: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        given = {name for name in ("folder", "url", "vkey", "roots", "key") if getattr(self, name)}
        if given != _NEEDS[self.kind]:
            raise ValueError(f"kind {self.kind!r} needs {', '.join(sorted(_NEEDS[self.kind]))} and nothing else")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url: expected http:// or https://")
        if self.vkey:
            signers.parse_vkey(self.vkey, *([signers.COSIGNATURE] if self.kind == "witness" else []))


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The audit log: its name, who signs it, where its newest checkpoint is kept, where that is anchored.

    public_key: the verifier key that `signer` answers to. rotation: the statement by which this key follows the one
    that signed the log before. model_key: an EC key that signs releases by OpenSSF model-signing. cyclonedx: a
    release has a bill of materials, which names the models.
    """

    origin: str
    checkpoint_store: Path
    key: Path | None = None
    signer: tuple[str, ...] = ()
    public_key: str = ""
    signer_timeout_s: float = 30.0
    rotation: Path | None = None
    model_key: Path | None = None
    cyclonedx: bool = False
    anchors: tuple[AnchorConfig, ...] = ()

    def __post_init__(self) -> None:
        signers.check_name(self.origin)
        if not (self.key is not None) == (not self.signer) == (not self.public_key):
            raise ValueError("needs either `key`, or `signer` and the `public_key` that it answers to")
        if self.public_key and signers.parse_vkey(self.public_key)[0] != self.origin:
            raise ValueError(f"public_key: expected a verifier key of the name {self.origin!r}")


def check_log(path: Path, log: LogConfig, folders: Collection[Path]) -> None:
    """Refuse places in the folders of a collection for what must outlive it or keep it honest.

    Raises:
        ConfigError: one lies there; `path` is the configuration that says so.
    """
    places = [
        log.checkpoint_store,
        log.key,
        log.model_key,
        *(p for one in log.anchors for p in (one.folder, one.key)),
    ]
    for place in filter(None, places):
        if any(place.resolve().is_relative_to(folder.resolve()) for folder in folders):
            raise ConfigError(f"{path}: [log]: {place} lies in the collection; it must lie outside of it")


def open_signer(log: LogConfig, collection: Path) -> Signer:
    """Return what signs the log.

    Raises:
        ConfigError: the key is not usable.
    """
    if log.key is None:
        key = signers.parse_vkey(log.public_key)[1]
        return CommandSigner(log.origin, key, log.signer, log.signer_timeout_s)
    try:
        return FileSigner.read(log.origin, log.key, outside=collection)
    except SignerError as error:
        raise ConfigError(f"[log] key: {error}") from None


def open_anchors(log: LogConfig, collection: Path, prove: Prove) -> tuple[Anchor, ...]:
    """Return where checkpoints are anchored; copies beside the checkpoint store where nothing is configured.

    Args:
        log: the table.
        collection: no key may lie in it.
        prove: gives the hashes of the log's consistency proof from one size to a later one.

    Raises:
        ConfigError: a key is not usable, or certificates are not.
    """
    copies = AnchorConfig("auditor-copy", log.checkpoint_store.with_name(f"{log.checkpoint_store.name}.copies"))
    return tuple(_open_anchor(anchor, collection, prove) for anchor in log.anchors or (copies,))


def _open_anchor(anchor: AnchorConfig, collection: Path, prove: Prove) -> Anchor:
    from manifests.rekor import Rekor  # noqa: PLC0415 - few logs need these
    from manifests.timestamps import Timestamp  # noqa: PLC0415
    from manifests.witness import Witness  # noqa: PLC0415

    try:
        if anchor.folder:
            return AuditorCopy(anchor.folder)
        if anchor.roots:
            return Timestamp(anchor.url, anchor.roots.read_bytes())
        if anchor.key:
            kind = EllipticCurvePrivateKey
            key = signers.read_private_key(anchor.key, kind, outside=collection)  # type: ignore[type-abstract]
            return Rekor(anchor.url, anchor.vkey, key.public_key(), key)
    except (SignerError, OSError) as error:
        raise ConfigError(f"[[log.anchors]] of kind {anchor.kind!r}: {error}") from None
    return Witness(anchor.url, anchor.vkey, prove)
