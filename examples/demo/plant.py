"""Plants what the scrub must find: copies of listed pictures, and damaged files.

Owns which picture becomes what, the two hash lists, and what is expected of each. Only drawings are listed, and
only drawings without a mark are planted, so that a plant that is found was found by its list or its damage.

- Plants go round the shards, so no shard holds more damage than the next.
- What is planted depends on the drawings and the seed alone.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from draw import Drawing, encode, paint
from PIL import Image, ImageOps

from classifiers.hashes.pdq import Pdq

PAGE = b"<!doctype html><title>Moved</title><p>This picture is no longer here.\n"
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(4096)
BORDER_SHARE = 0.08
DIGESTS = ("md5", "sha1", "sha256")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of plant: what the table calls it, how many, what the scrub must do with it.

    reason: for QUARANTINE, the fault it must name. required: False where a miss does not fail the demo.
    """

    text: str
    count: int
    action: str
    reason: str = ""
    required: bool = True


KINDS = {
    "exact": Kind("exact copy (md5, sha1, sha256)", 12, "SEAL"),
    "exact-cut": Kind("exact copy of a listed file that is cut in half", 2, "SEAL"),
    "re-encoded": Kind("re-encoded as JPEG of quality 60 and 30", 12, "SEAL"),
    "resized": Kind("resized to 50 %", 8, "SEAL", required=False),
    "turned": Kind("mirrored or turned by 90 degrees", 8, "SEAL", required=False),
    "bordered": Kind("white border", 6, "SEAL", required=False),
    "second-image": Kind("listed picture as second image of a sample", 1, "SEAL"),
    "other-list": Kind("exact copy from a list of other harm", 6, "REMOVE"),
    "cut": Kind("JPEG cut in half", 10, "QUARANTINE", "fault:truncated"),
    "empty": Kind("no bytes", 5, "QUARANTINE", "fault:empty"),
    "page": Kind("web page named .jpg", 3, "QUARANTINE", "fault:not_an_image"),
    "animated": Kind("animated GIF", 2, "QUARANTINE", "fault:animated"),
    "archive": Kind("JPEG with a zip archive behind it", 2, "QUARANTINE", "fault:trailing_bytes"),
    "video": Kind("video beside the picture", 1, "QUARANTINE", "fault:unjudged_member"),
}


def choose(drawings: list[Drawing], shards: int, seed: int) -> dict[int, str]:
    """Choose which drawing becomes which kind of plant.

    Returns:
        Kind by index of the drawing.
    """
    per_shard = len(drawings) // shards
    random = np.random.default_rng([seed, 2])
    plain = [d.index for d in drawings if d.format == "jpeg" and d.kind in ("scene", "tall")]
    free = [[i for i in random.permutation(plain).tolist() if i // per_shard == shard] for shard in range(shards)]
    wanted = [name for name, kind in KINDS.items() for _ in range(kind.count)]
    return {free[turn % shards].pop(): name for turn, name in enumerate(wanted)}


def plant_files(chosen: dict[int, str], drawings: list[Drawing], folder: Path, lists: Path, seed: int) -> None:
    """Change the served files that were chosen, and write `planted.csv` and `other.csv` into `lists`."""
    entries: dict[str, list[str]] = {"planted": [], "other": []}
    numbers = dict.fromkeys(KINDS, 0)
    for index, name in chosen.items():
        path = folder / drawings[index].name
        number = numbers[name]
        numbers[name] += 1
        if name in CHANGES:
            path.write_bytes(CHANGES[name](path.read_bytes()))
        if name in COPIES:
            original = paint(drawings[index], seed)[0]
            entries["planted"].append(_pdq_entry(original))
            path.write_bytes(COPIES[name](original, number))
        if name in ("exact", "exact-cut"):
            entries["planted"].append(_digest_entry(DIGESTS[number % 3], path.read_bytes()))
        if name == "other-list":
            entries["other"].append(_digest_entry(DIGESTS[number % 3], path.read_bytes()))
        if name == "second-image":
            entries["planted"].append(_digest_entry("sha256", second_image(index, seed)))
    lists.mkdir(parents=True)
    for name, lines in entries.items():
        (lists / f"{name}.csv").write_text("\n".join(["algorithm,value", *lines]) + "\n")


def plant_members(chosen: dict[int, str], keys: dict[int, str], shards: Path, seed: int) -> None:
    """Append members to downloaded samples, at the end of their tar: far from the sample they belong to.

    Args:
        chosen: kind by index of the drawing.
        keys: `shard/key` by index of the drawing.
        shards: the folder of the tars.
        seed: that of the drawings.
    """
    for index, name in chosen.items():
        if name == "second-image":
            _append(shards, keys[index], "png", second_image(index, seed))
        elif name == "video":
            _append(shards, keys[index], "mp4", VIDEO)


def second_image(index: int, seed: int) -> bytes:
    """Return the listed picture that goes into a sample as its second image; it is in no other sample."""
    return encode(paint(Drawing(index, "none", False, "png"), seed + 1)[0], "png")


def _append(shards: Path, key: str, extension: str, data: bytes) -> None:
    shard, _, name = key.partition("/")
    with tarfile.open(shards / f"{shard}.tar", "a", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(f"{name}.{extension}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _digest_entry(algorithm: str, data: bytes) -> str:
    return f"{algorithm},{hashlib.new(algorithm, data).hexdigest()}"


def _pdq_entry(picture: Image.Image) -> str:
    code = Pdq().encode(np.asarray(picture))
    assert code is not None
    assert code.usable
    return f"pdq,{code.codes[0].tobytes().hex()}"


def _halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _animate(data: bytes) -> bytes:
    first = Image.open(io.BytesIO(data))
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=[ImageOps.mirror(first)], duration=200)
    return out.getvalue()


def _add_archive(data: bytes) -> bytes:
    out = io.BytesIO(data)
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(zipfile.ZipInfo("notes.txt"), "nobody judges what lies here\n")
    return out.getvalue()


def _re_encode(original: Image.Image, number: int) -> bytes:
    return encode(original, "jpeg", quality=(60, 30)[number % 2])


def _resize(original: Image.Image, _: int) -> bytes:
    half = (original.width // 2, original.height // 2)
    return encode(original.resize(half, Image.Resampling.LANCZOS), "jpeg")


def _turn(original: Image.Image, number: int) -> bytes:
    ways = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90)
    return encode(original.transpose(ways[number % 2]), "jpeg")


def _border(original: Image.Image, _: int) -> bytes:
    return encode(ImageOps.expand(original, round(BORDER_SHARE * original.width), "white"), "jpeg")


# What becomes of the bytes of a file.
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": _halve,
    "exact-cut": _halve,
    "empty": lambda _: b"",
    "page": lambda _: PAGE,
    "animated": _animate,
    "archive": _add_archive,
}
# What is served in the place of a listed original, which is itself nowhere in the scrape.
COPIES: dict[str, Callable[[Image.Image, int], bytes]] = {
    "re-encoded": _re_encode,
    "resized": _resize,
    "turned": _turn,
    "bordered": _border,
}
