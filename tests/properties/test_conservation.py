"""Conservation: what goes in comes out, exactly once, from the inventory to the decisions, for any shard."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_lists import decided, made_list
from scrapes import draw, encode

from classifiers.hashes.digests import take_digests
from manifests.decisions import prove_conservation
from manifests.features import encode_features, withhold
from manifests.records import identities_digest, split_member_name
from pipeline.config import MembersConfig
from pipeline.decode import DecodeLimits, Decoder
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.samples import take_inventory
from pipeline.ingest.shards import ShardSource
from pipeline.list_signals import list_signal_specs
from pipeline.measure import digest_members, measure
from pipeline.policy import load_policy, shipped_policy
from pipeline.sheet import Models
from pipeline.verdicts import blank_withheld

IMAGE = encode(draw(1, size=(24, 18)), "PNG")
LISTED = encode(draw(2, size=(24, 18)), "PNG")
CONTENTS = st.sampled_from(
    [IMAGE, IMAGE, LISTED, IMAGE[:-20], b"", b"a text", b'{"url": "u", "caption": "c"}', b"\0" * 40]
)
KEYS = st.sampled_from(["a", "b", "c", "d/a", "é"])
EXTENSIONS = st.sampled_from(["jpg", "png", "txt", "json", "mp4", "vtt", "npy", "JPG", "tar.gz", ""])
NAMES = st.builds(
    lambda key, extension: f"{key}.{extension}" if extension else key, KEYS, EXTENSIONS
) | st.sampled_from(["../a.jpg", "/a.jpg", "a\udcff.jpg", ".jpg", "a..jpg"])
MEMBERS = st.lists(st.tuples(NAMES, CONTENTS), max_size=12)
STATUS = st.sampled_from(["success", "success", "failed_to_download", "failed_to_resize"])
ROWS = st.none() | st.lists(
    st.tuples(KEYS | st.sampled_from(["x", "y"]), STATUS), max_size=8, unique_by=lambda row: row[0]
)
CONFIG = MembersConfig(copied=("vtt",), left_out=("npy",))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("conservation") / "a.tar"


def write(place, members, rows) -> ShardSource:
    with tarfile.open(place, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    if rows is None:
        return ShardSource("a", place, None)
    keys, status = [row[0] for row in rows], [row[1] for row in rows]
    sidecar = place.with_suffix(".parquet")
    pq.write_table(pa.table({"key": pa.array(keys, pa.string()), "status": pa.array(status, pa.string())}), sidecar)
    return ShardSource("a", place, sidecar)


def readable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@settings(max_examples=150, deadline=None)
@given(members=MEMBERS, rows=ROWS)
def test_in_is_the_names_of_the_tar_and_the_promises_of_the_sidecar_each_once(place, members, rows):
    inventory = take_inventory(write(place, members, rows), CONFIG)
    in_tar = list(dict.fromkeys(split_member_name(readable(name))[0] for name, _ in members))
    promised = [key for key, status in rows or () if status == "success"]
    keys = [sample.key for sample in inventory.samples]
    assert keys == in_tar + [key for key in promised if key not in in_tar]
    assert [sample.index for sample in inventory.samples] == list(range(len(keys)))
    placed = [(item.member.name, item.member.size) for sample in inventory.samples for item in sample.members]
    assert sorted(placed) == sorted((readable(name), len(data)) for name, data in members)
    for sample in inventory.samples:
        judged = any(item.role == "image" and item.fault is None for item in sample.members)
        assert sample.fault is not None or judged


@settings(max_examples=150, deadline=None)
@given(members=MEMBERS, rows=ROWS, data=st.data())
def test_no_order_of_the_members_changes_a_sample_but_for_its_place(place, members, rows, data):
    def samples(order):
        found = {}
        for sample in take_inventory(write(place, order, rows), CONFIG).samples:
            parts = sorted((item.member.name, item.member.size, item.role, item.fault) for item in sample.members)
            found[sample.key] = (parts, sample.fault is None, (sample.url, sample.caption, sample.metadata))
        return found

    before, after = samples(members), samples(data.draw(st.permutations(members)))
    assert before.keys() == after.keys()
    for key, (parts, is_fine, texts) in before.items():
        assert after[key][:2] == (parts, is_fine)
        extensions = [split_member_name(part[0])[1] for part in parts]
        if len(set(extensions)) == len(extensions):  # of two members with one name either may give the caption
            assert after[key][2] == texts


LISTS = (
    made_list([("md5", take_digests(LISTED).md5), ("pdq", b"\x33" * 32)], list_id="known", feed="csam"),
    made_list([("sha1", take_digests(b"a text").sha1)], list_id="other", feed="other"),
)
POLICY = load_policy(shipped_policy("lists-only"), source="lists-only", known=list_signal_specs(LISTS))


@pytest.fixture(scope="module")
def decoder():
    with Decoder(DecodeLimits(max_pixels=10_000)) as made:
        yield made


@settings(max_examples=120, deadline=None)
@given(members=MEMBERS, rows=ROWS, share=st.floats(0.3, 1), batch=st.integers(1, 5))
def test_every_sample_of_any_shard_ends_in_one_decision_and_none_is_kept_unjudged(
    place, decoder, members, rows, share, batch
):
    source = write(place, members, rows)
    whole = place.read_bytes()
    place.write_bytes(whole[: max(1, int(len(whole) * share))] if share < 1 else whole)
    inventory = take_inventory(source, CONFIG)
    identities = identities_digest((sample.index, sample.key) for sample in inventory.samples)
    models = Models(PictureHashes((), ()), None, (), (), None, batch)
    features = measure(source, digest_members(source, inventory), models, decoder, on_rows=lambda _: None)
    assert identities_digest(features.identities()) == identities
    decisions = decided(features, LISTS, POLICY)
    table = blank_withheld(decisions)
    tally = prove_conservation(table, shard="a", samples=len(inventory.samples), identities=identities)
    assert tally.keep + tally.remove + tally.quarantine + tally.withheld == len(inventory.samples)
    # Nothing was hashed here, so a required signal is silent and nothing at all may be kept.
    assert tally.keep == 0

    listed = {sample.index for sample in inventory.samples for item in sample.examined if is_listed(place, item)}
    assert listed == {int(i) for i in decisions.index[decisions.withheld]}
    clear, sealed = withhold(encode_features(features), np.array(sorted(listed), np.int32))
    assert set(sealed["index"].to_pylist()) == listed
    assert list(dict.fromkeys(clear["index"].to_pylist())) == list(range(len(inventory.samples)))


def is_listed(place, item) -> bool:
    data = place.read_bytes()[item.member.offset : item.member.offset + item.member.size]
    return data == LISTED
