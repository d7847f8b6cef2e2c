"""The words of the record: actions, faults, sample identities, canonical JSON.

Owns the vocabulary that is written to disk. Does no I/O and knows no models.

- `Action` is ordered by strictness, so the strictest of several is their maximum.
- A `FaultKind` is a value, never an exception: a sample that could not be handled is still accounted for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

SCHEMA_VERSION = 1
TOOL_VERSION = "0.1.0"  # that of pyproject.toml, which is not at hand where the tool runs from a checkout


class FilesError(ValueError):
    """Files that were written down are missing, damaged, or do not agree with each other."""


class Action(IntEnum):
    """What happens to a sample, mildest first. KEEP is earned: no rule can grant it."""

    KEEP = 0
    QUARANTINE = 1
    REMOVE = 2
    SEAL = 3


class FaultKind(StrEnum):
    """Why a sample, or one of its image members, could not be judged in full. The sample is never kept."""

    # The shard and its members.
    MISSING_FROM_SHARD = "missing_from_shard"  # the sidecar promises it, the tar does not hold it
    CUT_SHORT = "cut_short"  # the tar ends inside this member
    NO_IMAGE = "no_image"
    AMBIGUOUS = "ambiguous"  # two members with one extension, or rows with one key
    UNJUDGED_MEMBER = "unjudged_member"  # another media type that the configuration does not name
    UNSAFE_NAME = "unsafe_name"  # absolute, or climbs out of the folder
    BAD_NAME = "bad_name"  # not UTF-8, or a row without a key
    LINK_MEMBER = "link_member"  # a link, device or sparse member instead of bytes
    BAD_URL = "bad_url"  # of a row to be downloaded: none, or none that http and https know
    # The bytes of one image, or of a text.
    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    NOT_AN_IMAGE = "not_an_image"  # named as an image, but of no allowed format
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    TRAILING_BYTES = "trailing_bytes"  # something lies after the end of the image
    ANIMATED = "animated"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_MANY_PIXELS = "too_many_pixels"
    # The decoder.
    CPU_LIMIT = "cpu_limit"
    WALL_LIMIT = "wall_limit"
    MEMORY_LIMIT = "memory_limit"
    DECODER_CRASH = "decoder_crash"
    # The models.
    NO_SCORE = "no_score"  # an embedding or a score came out as NaN or infinity


@dataclass(frozen=True, slots=True, order=True)
class SampleId:
    """Where a sample stands in the input: shard name and position. Never invented, stable across reruns."""

    shard: str
    index: int


# webdataset's own split: folders may hold dots, the extension is all after the first dot of the base name.
_MEMBER_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


def split_member_name(name: str) -> tuple[str, str]:
    """Return the sample key and the extension (lower case) of a tar member's name."""
    split = _MEMBER_NAME.fullmatch(name)
    return (split[1], split[2].lower()) if split else (name, "")


def canonical_json(value: object) -> bytes:
    """Return the one JSON encoding of `value`: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: the value holds a NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def readable_json(value: object) -> bytes:
    """Return the one JSON encoding of `value` that is also read by people: sorted keys, indented."""
    plain = json.loads(canonical_json(value))
    return json.dumps(plain, indent=2, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def digest_json(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def identities_digest(identities: Iterable[tuple[int, str]]) -> str:
    """Return the digest of a sequence of (index, key): equal only for the same samples in the same order."""
    digest = hashlib.sha256()
    for index, key in identities:
        digest.update(json.dumps([index, key]).encode() + b"\n")
    return digest.hexdigest()
