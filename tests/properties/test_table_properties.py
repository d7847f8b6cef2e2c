"""Conservation for tables with images: every row is a sample, whatever stands in it."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapes import draw, encode

from manifests.records import FaultKind, identities_digest
from manifests.tars import read_member
from pipeline.config import MembersConfig
from pipeline.ingest.readers import MadeSource
from pipeline.ingest.samples import MAX_TEXT_BYTES, take_inventory
from pipeline.ingest.spool import Spool
from pipeline.input_config import ColumnsConfig

IMAGE = encode(draw(1, size=(24, 18)), "PNG")
OTHER = encode(draw(2, size=(24, 18)), "JPEG")
IMAGES = st.sampled_from([IMAGE, IMAGE, OTHER, IMAGE[:-20], b"", b"text"]) | st.none()
NAMES = ("a", "b", "0007", "a.b", "a%2Eb", "d/a", "d/", "../a", "/a", "..", "é", "x\0y", "%row000000001", "")
KEYS = st.sampled_from(NAMES) | st.text(max_size=3) | st.none()
TOO_LONG = b"more bytes than a text may have"  # stands for them: an example that holds them can't be printed
CAPTIONS = st.sampled_from([b"a caption", b"", b"\xff\xfe", "é".encode(), TOO_LONG]) | st.none()
STATUS = st.sampled_from(["success", "success", "failed_to_download", None])
ROWS = st.lists(st.tuples(KEYS, IMAGES, CAPTIONS, STATUS), max_size=8)
TEXT = st.sampled_from([pa.string(), pa.large_string()])


def text(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    """A column of text whose bytes need not be UTF-8."""
    wide = pa.large_binary() if kind == pa.large_string() else pa.binary()
    plain = pa.array(values, wide)
    return pa.Array.from_buffers(kind, len(plain), plain.buffers(), plain.null_count)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "a.parquet"


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, kind=TEXT, group=st.integers(1, 4))
def test_in_is_the_rows_of_the_table_each_once_and_a_sample_without_a_fault_is_its_row(place, rows, kind, group):
    long = b"x" * (MAX_TEXT_BYTES + 1)
    rows = [(key, image, long if caption == TOO_LONG else caption, status) for key, image, caption, status in rows]
    keys = [key and key.encode("utf-8", "surrogatepass") for key, _, _, _ in rows]
    columns = {
        "key": text(keys, kind),
        "image": pa.array([image for _, image, _, _ in rows], pa.binary()),
        "caption": text([caption for _, _, caption, _ in rows], kind),
        "status": pa.array([status for *_, status in rows], pa.string()),
    }
    pq.write_table(pa.table(columns), place, row_group_size=group)
    source = MadeSource("a", place, None, "parquet", ColumnsConfig(), Spool(None))
    inventory = take_inventory(source, MembersConfig())
    wanted = [row for row in rows if row[1] is not None or row[3] in ("success", None)]
    assert inventory.damage is None
    assert len(inventory.samples) == len(wanted)
    assert len({sample.key for sample in inventory.samples}) == len(wanted)
    assert [sample.index for sample in inventory.samples] == list(range(len(wanted)))
    with source.path.open("rb") as file:
        for sample, (key, image, caption, _) in zip(inventory.samples, wanted, strict=True):
            images = [read_member(file, item.member) for item in sample.members if item.role == "image"]
            assert images == ([] if image is None else [image])
            times = [other for other, *_ in rows].count(key)
            if key is None or not key.rpartition("/")[2]:
                assert sample.fault is FaultKind.BAD_NAME
            elif times > 1:
                assert sample.fault is FaultKind.AMBIGUOUS
            elif image is None:
                assert sample.fault is not None
            elif caption is not None and len(caption) > MAX_TEXT_BYTES:
                assert sample.fault in (FaultKind.UNJUDGED_MEMBER, FaultKind.UNSAFE_NAME)
                assert sample.caption is None
            elif sample.fault is None:
                assert sample.caption == (None if caption is None else caption.decode("utf-8", "replace"))
            else:
                assert sample.fault is FaultKind.UNSAFE_NAME
    again = take_inventory(source.opened(), MembersConfig())
    identities = [[(one.index, one.key) for one in taken.samples] for taken in (inventory, again)]
    assert identities_digest(identities[0]) == identities_digest(identities[1])
    assert inventory.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
