"""From the members of a shard to its samples: the inventory that everything later is held against.

Owns grouping, roles, captions and the join with img2dataset's sidecar table. Decodes nothing.

- `in` = sample names in the tar plus sidecar rows with status success: what a row promises and the tar lacks
  is a sample too (fault `missing_from_shard`).
- Members of one sample may lie anywhere in the tar. Order: first appearance in the tar, then sidecar order.
- Images are known by their first bytes, whatever the extension says. Each is judged, unless its extension is
  configured as left out of the release; nothing else can free an image from being judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from manifests.records import FaultKind
from manifests.tars import HEAD_BYTES, Member, index_tar, is_image, read_member
from pipeline.config import MembersConfig
from pipeline.ingest.sidecars import crawl_digests, read_sidecar
from pipeline.ingest.sources import ShardSource

Role = Literal["image", "unjudged", "copied", "text", "left_out"]
MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SampleMember:
    """A member with the part it plays in its sample."""

    member: Member
    role: Role
    fault: FaultKind | None


@dataclass(frozen=True, slots=True, repr=False)
class Sample:
    """One sample: its place, its key, its members by extension, what is known about it, and its own fault."""

    index: int
    key: str
    members: tuple[SampleMember, ...]
    fault: FaultKind | None
    url: str | None
    caption: str | None
    metadata: str | None
    screened: str | None  # every caption of the sample, wherever it stands, for term lists
    crawl: Mapping[str, bytes]  # digests that the crawl recorded, by algorithm
    record: Mapping[str, Any]  # all that is known by name: the row of the sidecar, else the JSON member

    @property
    def examined(self) -> tuple[SampleMember, ...]:
        """Members whose bytes are digested: images, unjudged and copied ones."""
        return tuple(item for item in self.members if item.role in ("image", "unjudged", "copied"))


@dataclass(frozen=True, slots=True)
class Inventory:
    """All samples of one shard, and the state of the shard itself."""

    samples: tuple[Sample, ...]
    damage: str | None
    sha256: str | None
    sidecar_sha256: str | None
    size: int


def take_inventory(source: ShardSource, members: MembersConfig) -> Inventory:
    """Read the index of one shard and its sidecar.

    Raises:
        OSError: a file cannot be read.
    """
    rows, sidecar_damage = read_sidecar(source)
    if source.missing:
        return _assemble({}, rows, None, damage="the shard is missing", source=source)
    if source.is_table:
        return _assemble({}, rows, None, damage=sidecar_damage, source=source)
    index, made = index_tar(source.path), source.contents
    groups: dict[str, list[SampleMember]] = {}
    with source.path.open("rb") as file:
        for member in index.members:
            groups.setdefault(member.key, []).append(_give_role(file, member, members))
        damage = "; ".join(text for text in (made and made.damage, index.damage, sidecar_damage) if text) or None
        return _assemble(groups, rows, file, damage=damage, source=source)


def _assemble(
    groups: dict[str, list[SampleMember]],
    rows: dict[str, dict[str, Any]],
    file: BinaryIO | None,
    *,
    damage: str | None,
    source: ShardSource,
) -> Inventory:
    samples, made = [], source.contents
    faults = {} if made is None else made.faults
    promised = dict.fromkeys([*groups, *rows, *(() if made is None else made.promised)])
    for index, key in enumerate(promised):
        ordered = tuple(sorted(groups.get(key, ()), key=lambda item: (item.member.extension, item.member.offset)))
        url, caption, metadata, screened, record = _describe(file, ordered, rows.get(key))
        fault = faults.get(key) or (FaultKind.NO_IMAGE if source.is_table else _sample_fault(ordered))
        crawl = crawl_digests(record if made is not None and made.rows else rows.get(key, {}))
        samples.append(Sample(index, key, ordered, fault, url, caption, metadata, screened, crawl, record))
    sha256, sidecar_sha256 = source.digests()
    size = 0 if source.missing else source.path.stat().st_size
    return Inventory(tuple(samples), damage, sha256, sidecar_sha256, size)


def _give_role(file: BinaryIO, member: Member, members: MembersConfig) -> SampleMember:
    file.seek(member.offset)
    head = file.read(min(member.size, HEAD_BYTES))
    role: Role
    if member.extension in members.left_out:
        role = "left_out"
    elif is_image(member.extension, head):
        role = "image"
    elif member.extension in members.copied:
        role = "copied"
    elif member.extension in members.text and member.size <= MAX_TEXT_BYTES:
        role = "text"
    else:
        role = "unjudged"
    return SampleMember(member, role, member.fault or (FaultKind.UNJUDGED_MEMBER if role == "unjudged" else None))


def _sample_fault(members: tuple[SampleMember, ...]) -> FaultKind | None:
    if not members:
        return FaultKind.MISSING_FROM_SHARD
    for item in members:
        if item.member.fault is not None:
            return item.member.fault
    extensions = [item.member.extension for item in members]
    if len(set(extensions)) < len(extensions):
        return FaultKind.AMBIGUOUS
    if any(item.role == "unjudged" for item in members):
        return FaultKind.UNJUDGED_MEMBER
    if not any(item.role == "image" for item in members):
        return FaultKind.NO_IMAGE
    return None


def _describe(
    file: BinaryIO | None, members: tuple[SampleMember, ...], row: Mapping[str, Any] | None
) -> tuple[str | None, str | None, str | None, str | None, Mapping[str, Any]]:
    """Return url, caption and metadata: from the sidecar where there is one, else from the sample's own text.

    Fourth, all captions there are: a release copies the text members, so that none may go unscreened. What is no
    text counts as it is written, and JSON that cannot be read counts whole. Fifth, where all the others are from.
    """
    texts = {
        item.member.extension: read_member(file, item.member).decode("utf-8", "replace")
        for item in members
        if file is not None and item.role == "text" and item.member.extension in ("txt", "json")
    }
    own = _parse(texts.get("json"))
    found: Mapping[str, Any] = row if row is not None else own
    url, caption = found.get("url", found.get("URL")), found.get("caption", found.get("TEXT", texts.get("txt")))
    rest = {
        name: value
        for name, value in found.items()
        if name not in ("url", "caption", "key", "URL", "TEXT") and value is not None
    }
    captions = [source.get(name) for source in (row or {}, own) for name in ("caption", "TEXT")]
    captions += [texts.get("txt"), None if own else texts.get("json")]
    screened = "\n".join(one if isinstance(one, str) else _to_json(one) for one in captions if one is not None)
    return _text(url), _text(caption), _text(_to_json(rest)) if rest else None, _text(screened), found


def _text(value: object) -> str | None:
    """Return what Arrow can hold: JSON can spell halves of surrogate pairs, which UTF-8 cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _parse(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text is not None else {}
        _to_json(value)  # what is nested almost too deeply to be read is nested too deeply to be written
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
