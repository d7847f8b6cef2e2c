"""The kinds of nets that a configuration can name. A new kind is one file and one line here.

A runtime (torch, onnxruntime) is loaded with a net only: its full name can be had without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from classifiers.image.preprocessing import (
    FACE_AGE,
    NSFWJS,
    OPEN_NSFW,
    Preprocessing,
    Published,
    net_full_name,
)
from classifiers.image.protocol import PixelNet
from classifiers.weights import WeightsError, check_name, check_pin


@dataclass(frozen=True, slots=True)
class NetSettings:
    """What a configuration says of a net; sha256 is the pin of `file`, a file or a folder."""

    name: str
    file: Path
    sha256: str
    kind: str = "onnx"
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True, slots=True)
class NetKind:
    """How a net is named in full, and how it is loaded for so many threads; both raise WeightsError."""

    full_name: Callable[[NetSettings], str]
    load: Callable[[NetSettings, int], PixelNet]


def full_name_of(net: NetSettings) -> str:
    """Return the full name of a net whose file is the pinned one.

    Raises:
        WeightsError: there is no such kind, the file is another, or the settings are not those of the kind.
    """
    if net.kind not in KINDS:
        raise WeightsError(f"net {net.name!r}: kind: expected {' | '.join(KINDS)}, found {net.kind!r}")
    check_name(net.name, stand_in=False)
    check_pin(net.file, net.sha256, what=f"net {net.name!r}")
    return KINDS[net.kind].full_name(net)


def load_net(net: NetSettings, *, threads: int) -> PixelNet:
    """Load a net of known kind.

    Raises:
        WeightsError: it is missing, not the pinned one, or not what its kind expects.
    """
    return KINDS[net.kind].load(net, threads)


def _onnx_name(net: NetSettings) -> str:
    return net_full_name(net.name, net.sha256, net.preprocessing or OPEN_NSFW)


def _load_onnx(net: NetSettings, threads: int) -> PixelNet:
    from classifiers.image.onnx_net import OnnxNet  # noqa: PLC0415 - loads onnxruntime

    wants = net.preprocessing or OPEN_NSFW
    return OnnxNet(net.file, name=net.name, sha256=net.sha256, preprocessing=wants, threads=threads)


def _published_name(published: Published, net: NetSettings) -> str:
    for key, wanted in (("name", published.name), ("sha256", published.sha256), ("preprocessing", None)):
        found = getattr(net, key)
        if found != wanted:
            expected = "it to be left out" if wanted is None else repr(wanted)
            raise WeightsError(f"net {net.name!r}: {key}: kind {net.kind!r} expects {expected}, found {found!r}")
    return published.full_name


def _load_nsfwjs(net: NetSettings, _threads: int) -> PixelNet:
    from classifiers.image.nsfwjs import NsfwJs  # noqa: PLC0415 - loads torch

    return NsfwJs(net.file, sha256=net.sha256)


def _load_face_age(net: NetSettings, _threads: int) -> PixelNet:
    from classifiers.image.face_age import FaceAge  # noqa: PLC0415 - loads torch

    return FaceAge(net.file, sha256=net.sha256)


KINDS: dict[str, NetKind] = {
    "onnx": NetKind(_onnx_name, _load_onnx),
    "nsfwjs": NetKind(partial(_published_name, NSFWJS), _load_nsfwjs),
    "face-age": NetKind(partial(_published_name, FACE_AGE), _load_face_age),
}
