from __future__ import annotations

import dataclasses
import hashlib

import pytest

from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests

CHUNK_BYTES = 1 << 16


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17])
def test_every_digest_is_that_of_hashlib_whatever_the_size(size):
    data = bytes(i * 7 % 256 for i in range(size))
    digests = take_digests(data)
    for name in DIGEST_WIDTHS:
        assert getattr(digests, name) == hashlib.new(name, data).digest()
        assert len(getattr(digests, name)) == DIGEST_WIDTHS[name]


def test_a_view_gives_the_digests_of_its_bytes():
    data = bytes(range(256)) * 600
    assert take_digests(memoryview(data)[5:140_000]) == take_digests(data[5:140_000])
    assert take_digests(memoryview(data).cast("H")) == take_digests(data)


def test_the_uid_is_the_first_half_of_the_sha256():
    digests = take_digests(b"a picture")
    assert digests.uid == hashlib.sha256(b"a picture").digest()[:16]


def test_the_repr_shows_no_digest():
    digests = take_digests(b"a picture")
    for name in DIGEST_WIDTHS:
        value = getattr(digests, name)
        assert value.hex() not in repr(digests)
        assert repr(value) not in repr(digests)


def test_digests_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        take_digests(b"").md5 = b""
