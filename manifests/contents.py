"""What a manifest says of the images of a sample: the first one's digest, their number, one digest over them all.

- Images come in member order: by extension, then place in the tar, as ingest sorts them.
- A sample with one image has no digest over all: that image's own says all.
- Where a release encoded images anew, what it holds of them is another column; the others are of the originals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schema
from manifests.features import ShardFeatures, fixed_binary


def digest_images(digests: Sequence[bytes]) -> bytes:
    """Return what stands for the SHA-256 of all images of a sample: SHA-256 over them, or the only one."""
    return hashlib.sha256(b"".join(digests)).digest() if len(digests) > 1 else digests[0]


def contents_in_tar(manifest: pa.Table) -> list[bytes]:
    """Return of each sample what stands for its images (`digest_images`) as the tar of the release holds them."""
    names = [name for name in (schema.IN_TAR, "images_sha256", "sha256") if name in manifest.column_names]
    return list(pc.coalesce(*(manifest[name] for name in names)).to_pylist())


def images_sha256(index: NDArray[np.int32], digests: NDArray[np.uint8], samples: NDArray[np.int32]) -> pa.Array:
    """Return the column of that name, null for samples of fewer than two images.

    Args:
        index: the sample of each image, ascending [N].
        digests: their SHA-256 [N, 32].
        samples: those wanted [M].
    """
    first, last = np.searchsorted(index, samples), np.searchsorted(index, samples, side="right")
    several, found = last - first > 1, np.zeros((len(samples), 32), np.uint8)
    for row in np.flatnonzero(several):
        one = hashlib.sha256(digests[first[row] : last[row]].tobytes())
        found[row] = np.frombuffer(one.digest(), np.uint8)
    return fixed_binary(found, several)


def content_columns(features: ShardFeatures, samples: NDArray[np.int32]) -> dict[str, pa.Array]:
    """Return the columns of a manifest that name the images of `samples` (indices), each of which has one."""
    images = np.flatnonzero(features.table["role"].to_numpy() == "image")
    index, digests = features.indices()[images], features.digests["sha256"][images]
    first = np.searchsorted(index, samples)
    return {
        "sha256": fixed_binary(digests[first]),
        "uid": fixed_binary(digests[first, :16]),
        "images": pa.array(np.searchsorted(index, samples, side="right") - first, pa.int32()),
        "images_sha256": images_sha256(index, digests, samples),
    }


def content_judged(features: ShardFeatures, manifest: pa.Table) -> bool:
    """Say whether a manifest names the images that were judged, all of them, and each as its sample's."""
    samples = manifest["index"].to_numpy()
    if not np.isin(samples, features.indices()[features.table["role"].to_numpy() == "image"]).all():
        return False
    columns = content_columns(features, samples)
    return all(manifest[name] == pa.chunked_array([columns[name]]) for name in columns if name != "uid")
