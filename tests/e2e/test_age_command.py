"""A sealed file opens with the age command alone, as the documents say."""

from __future__ import annotations

import shutil
import subprocess

import pyarrow as pa
import pytest

from manifests import cases, schema

HEADER_BYTES = 28


@pytest.mark.skipif(shutil.which("age") is None, reason="the age command is not installed (Debian: age)")
def test_the_age_command_opens_a_sealed_file(tmp_path):
    records = pa.table({"index": pa.array([1, 2], pa.int32()), "key": ["a", "b"]})
    secret, public = cases.new_identity()
    data, _ = cases.seal(records, samples=10, recipients=[public])
    (tmp_path / "key").write_text(f"# public key: {public}\n{secret}\n")
    (tmp_path / "sealed.age").write_bytes(data)
    opened = subprocess.run(
        ["age", "-d", "-i", tmp_path / "key", tmp_path / "sealed.age"], capture_output=True, check=True, timeout=60
    ).stdout
    length = int.from_bytes(opened[HEADER_BYTES - 8 : HEADER_BYTES], "big")
    assert opened.startswith(b"shardscrub-sealed/1\n")
    payload = opened[HEADER_BYTES : HEADER_BYTES + length]
    assert schema.decode(payload, source="opened").equals(records)
    assert opened[HEADER_BYTES + length :].count(0) == len(opened) - HEADER_BYTES - length
