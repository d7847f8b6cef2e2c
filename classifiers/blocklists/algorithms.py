"""What an entry of a list can be: the algorithms, and how many bytes a value of each takes.

Owns the names. A list of values of unequal width (URLs, domains) is held as digests too, so that every list is a
set of rows of fixed width.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.hashes.digests import DIGEST_WIDTHS

Feed: TypeAlias = Literal["csam", "other"]
Rows: TypeAlias = NDArray[np.uint8]  # N x width; in a list sorted as bytes, no two alike

CODE_ALGORITHM = "pdq"
CODE_BYTES = 32
ALGORITHMS_64 = ("phash", "dhash", "whash", "ahash")
BYTES_64 = 8
CODE_WIDTHS: Mapping[str, int] = MappingProxyType(
    {CODE_ALGORITHM: CODE_BYTES} | dict.fromkeys(ALGORITHMS_64, BYTES_64)
)
# MD5 and SHA-256 of a URL as its owner wrote it, SHA-256 of a URL and of a domain in our own canonical form.
URL_WIDTHS: Mapping[str, int] = MappingProxyType({"url_md5": 16, "url_sha256": 32, "url": 32, "domain": 32})
UID = "uid"  # the first 16 bytes of an image's SHA-256, as releases name contents
WIDTHS: Mapping[str, int] = MappingProxyType({**DIGEST_WIDTHS, **CODE_WIDTHS, **URL_WIDTHS, UID: 16})
MAX_RADIUS = 127  # two unrelated codes differ in 128 bits
DEFAULT_RADIUS = 31  # the threshold of PDQ (facebook/ThreatExchange, pdq/README.md)
MAX_RADIUS_64 = 31  # two unrelated codes of 64 bits differ in 32
DEFAULT_RADIUS_64 = 4  # ours: 64 bits hold little, so that what is not nearly equal is not taken for a match


class ListError(ValueError):
    """A list cannot be used as it is. The message holds no entry."""
