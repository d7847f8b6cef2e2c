"""LAION's NSFW heads against a second, slow reading of the same files, and against damage."""

from __future__ import annotations

import hashlib
import itertools
import re
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from classifiers.heads.laion import LaionNsfwHead
from classifiers.weights import WeightsError

EMBEDDER = "openai-b32@1#1a2b3c4d/bicubic224/fp32"
BACKBONES = frozenset({"1a2b3c4d" + "0" * 56})
MODES = ("faithful", "mean_impute")


@dataclass(frozen=True)
class Published:
    folder: str
    sha256: str
    widths: tuple[int, ...]
    columns: tuple[int, ...]


PUBLISHED = {
    768: Published(
        "clip_autokeras_binary_nsfw",
        "905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
        (768, 64, 512, 256, 1),
        (180, 316, 413, 440, 644),
    ),
    512: Published(
        "clip_autokeras_nsfw_b32",
        "78715ab9d64485167e8c9ade3b8e6761a17a16c24d114bd47431ac1dab46462b",
        (512, 32, 32, 1),
        (92, 133, 312),
    ),
}


def load(path, dims=512, mode="faithful", **others):
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    options = {"sha256": pin, "embedder_name": EMBEDDER, "dims": dims, "backbones": BACKBONES, "mode": mode}
    return LaionNsfwHead.load(path, **(options | others))


def real(shared_data, dims, mode="faithful"):
    path = shared_data / "weights" / "laion" / f"{PUBLISHED[dims].folder}.zip"
    return load(path, dims, mode, sha256=PUBLISHED[dims].sha256)


def unit_rows(dims, count, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def slow_scores(path, dims, mode, rows):
    """Evaluate in float64, by the layout of the file and one dictionary a column: shares no code with the head."""
    published = PUBLISHED[dims]
    archive = zipfile.ZipFile(path)
    values = archive.read(f"{published.folder}/variables/variables.data-00000-of-00001")
    graph = archive.read(f"{published.folder}/saved_model.pb")
    mean, variance = np.frombuffer(values, "<f4", 2 * dims).reshape(2, dims).astype(np.float64)
    offset = 8 * dims + 8  # a count lies between
    runs = re.findall(rb"(?:B[\x08\x09]-?\d\.\d{6}){3,}", graph)
    vocabularies = [re.findall(r"-?\d\.\d{6}", run.decode()) for run in runs]
    columns = np.array(rows, np.float64)
    for column, texts in zip(published.columns, vocabularies, strict=True):
        lookup = {text: number for number, text in enumerate(texts, start=1)}
        for row in range(len(rows)):
            known = lookup.get(f"{float(rows[row, column]):.6f}", 0)
            columns[row, column] = mean[column] if mode == "mean_impute" else known
    hidden = (columns - mean) / np.maximum(np.sqrt(variance), 1e-7)
    for inputs, outputs in itertools.pairwise(published.widths):
        kernel = np.frombuffer(values, "<f4", inputs * outputs, offset).reshape(inputs, outputs)
        bias = np.frombuffer(values, "<f4", outputs, offset + 4 * inputs * outputs)
        offset += 4 * (inputs + 1) * outputs
        hidden = hidden @ kernel.astype(np.float64) + bias
        hidden = hidden if outputs == 1 else np.maximum(hidden, 0)
    return 1 / (1 + np.exp(-hidden[:, 0]))


def likely_rows(head, count, seed=0):
    """Draw rows with the training set's mean and variance, the categories among the values seen in training."""
    random = np.random.default_rng(seed)
    rows = (head.mean + head.scale * random.normal(size=(count, len(head.mean)))).astype(np.float16)
    for table, column in zip(head.tables, head.columns, strict=True):
        ranks = table * head.scale[column] + head.mean[column]
        known = np.flatnonzero(ranks > 0.5)
        weights = np.exp(-ranks[known] / head.mean[column])
        drawn = random.choice(known, size=count, p=weights / weights.sum())
        rows[:, column] = drawn.astype(np.uint16).view(np.float16)
    return rows


def share_of_flips(head, rows, threshold=0.5):
    """Return the share of rows that a port feeding raw numbers into the columns of categories decides otherwise."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves[~np.isfinite(halves)] = 0
    raw = np.array([(halves - head.mean[column]) / head.scale[column] for column in head.columns])
    naive = replace(head, tables=raw).score(rows)
    return float(np.mean((head.score(rows) >= threshold) != (naive >= threshold)))


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, body):
    return bytes([number << 3 | 2]) + varint(len(body)) + body


def stand_in_members(seed=0, dims=512):
    """Return index, values and graph of random numbers, laid out as TensorFlow does."""
    random = np.random.default_rng(seed)
    widths, texts = PUBLISHED[dims].widths, ["0.125000", "-0.062500", "0.000000"]
    values, entries = b"", {}

    def add(name, tensor):
        nonlocal values
        shape = b"".join(field(2, b"\x08" + varint(size)) for size in tensor.shape)
        place = (b"\x20" + varint(len(values)) if values else b"") + b"\x28" + varint(4 * tensor.size)
        entries[f"layer_with_weights-{name}/.ATTRIBUTES/VARIABLE_VALUE"] = (
            b"\x08\x01" + field(2, shape) + place + b"\x35crc?"
        )
        values += tensor.astype("<f4").tobytes()

    add("1/mean", random.normal(size=dims) / 30)
    add("1/variance", np.full(dims, 1 / dims))
    values += b"\0" * 8  # a count
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), 2):
        add(f"{number}/kernel", random.normal(size=(inputs, outputs)) / inputs**0.5)
        add(f"{number}/bias", random.normal(size=outputs) / 10)
    block = b"".join(
        varint(0) + varint(len(key)) + varint(len(entry)) + key.encode() + entry
        for key, entry in sorted(entries.items())
    )
    ranks = np.arange(1, len(texts) + 1, dtype="<i8").tobytes()
    shape = field(2, field(2, b"\x08" + varint(len(texts))))
    strings = b"".join(field(8, text.encode()) for text in texts)
    constants = field(8, b"\x08\x07" + shape + strings) + field(8, b"\x08\x09" + shape + field(4, ranks))
    return [block, values, constants * len(PUBLISHED[dims].columns)]


def write_zip(path, members, dims=512):
    folder = PUBLISHED[dims].folder
    names = ("variables/variables.index", "variables/variables.data-00000-of-00001", "saved_model.pb")
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in zip(names, members, strict=True):
            archive.writestr(f"{folder}/{name}", member)
    return path


@pytest.fixture
def stand_in(tmp_path):
    return write_zip(tmp_path / "head.zip", stand_in_members())


@pytest.mark.shared_data
@pytest.mark.parametrize("dims", PUBLISHED)
@pytest.mark.parametrize("mode", MODES)
def test_the_published_heads_score_as_a_slow_float64_evaluation_does(shared_data, dims, mode, record_property):
    head = real(shared_data, dims, mode)
    path = shared_data / "weights" / "laion" / f"{PUBLISHED[dims].folder}.zip"
    rows = np.concatenate([unit_rows(dims, 10_000), likely_rows(real(shared_data, dims), 2_000)])
    difference = np.abs(head.score(rows) - slow_scores(path, dims, mode, rows)).max()
    record_property("largest_difference", float(difference))
    assert difference <= 1e-5


@pytest.mark.shared_data
@pytest.mark.parametrize("dims", PUBLISHED)
def test_a_port_that_feeds_raw_numbers_decides_some_rows_otherwise(shared_data, dims, record_property):
    head = real(shared_data, dims)
    share = share_of_flips(head, likely_rows(head, 10_000))
    record_property("share_of_flips", float(share))
    assert 0 < share < 0.05


@pytest.mark.shared_data
@pytest.mark.parametrize("mode", MODES)
def test_real_embeddings_of_ordinary_photos_score_low(shared_data, mode):
    rows = np.load(shared_data / "clip" / "golden_openai_vit_b_32.npz")["embedding"]
    scores = real(shared_data, 512, mode).score(rows)
    assert np.isfinite(scores).all()
    assert scores.max() < 0.05


@pytest.mark.shared_data
def test_every_category_of_the_real_embeddings_was_seen_in_training(shared_data):
    rows = np.load(shared_data / "clip" / "golden_openai_vit_b_32.npz")["embedding"]
    head = real(shared_data, 512)
    for table, column in zip(head.tables, head.columns, strict=True):
        ranks = table[rows[:, column].view(np.uint16)] * head.scale[column] + head.mean[column]
        assert (ranks > 0.5).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_generated_head_scores_as_the_slow_evaluation_does(stand_in, mode):
    rows = unit_rows(512, 200)
    rows[:50, 92], rows[50:90, 133], rows[90:120, 312] = 0.125, -0.0625, -0.0
    slow = slow_scores(stand_in, 512, mode, rows)
    np.testing.assert_allclose(load(stand_in, mode=mode).score(rows), slow, atol=1e-5, rtol=0)


def test_a_negative_zero_is_another_text_than_zero(stand_in):
    head = load(stand_in)
    zero, negative = np.array([0.0, -0.0], np.float16).view(np.uint16)
    assert head.tables[0, zero] != head.tables[0, negative]


def test_a_name_says_digest_and_mode(stand_in):
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()[:8]
    assert load(stand_in).name == "laion-nsfw-b32@1"
    assert [load(stand_in, mode=mode).full_name for mode in MODES] == [
        f"laion-nsfw-b32@1#{digest}/{mode}" for mode in MODES
    ]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_score_is_the_same_in_any_batch_to_the_bit(stand_in, batch):
    head, rows = load(stand_in), unit_rows(512, 100)
    parts = [head.score(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    assert np.concatenate(parts).tobytes() == head.score(rows).tobytes()


@pytest.mark.parametrize("column", [0, 92])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_with_a_nan_or_an_infinity_scores_nan_and_no_other_row_does(stand_in, column, value):
    rows = unit_rows(512, 10)
    rows[4, column] = value
    rows.flags.writeable = False
    assert np.flatnonzero(np.isnan(load(stand_in).score(rows))).tolist() == [4]


@pytest.mark.parametrize("rows", [np.zeros((2, 512), np.float32), np.zeros((2, 511), np.float16)])
def test_rows_of_another_width_or_type_are_refused(stand_in, rows):
    with pytest.raises(ValueError, match="expected float16 N x 512"):
        load(stand_in).score(rows)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"sha256": ""}, "is not pinned"),
        ({"dims": 640}, r"expected \[512, 768\] dims, found 640"),
        ({"dims": 768}, "clip_autokeras_binary_nsfw"),
        ({"backbones": frozenset()}, "OpenAI's CLIP"),
        ({"backbones": frozenset({"ffffffff"})}, "openai-b32@1#1a2b3c4d"),
        ({"embedder_name": "openai-b32@1#1a2b3c4d/bicubic336/fp32"}, "bicubic224"),
        ({"embedder_name": "openai-b32@1"}, "OpenAI's CLIP"),
    ],
)
def test_another_file_width_or_backbone_is_refused(stand_in, others, message):
    with pytest.raises(WeightsError, match=message):
        load(stand_in, **others)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        LaionNsfwHead.load(
            tmp_path / "none.zip", sha256="0" * 64, embedder_name=EMBEDDER, dims=512, backbones=BACKBONES
        )


def change(data, random):
    """Cut short, drop, double, or overwrite a few bytes."""
    kind, at = random.integers(4), int(random.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + int(random.integers(1, 9)) :]
    if kind == 2:
        return data[:at] + data[at : at + 16] + data[at:]
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        changed[int(random.integers(len(data)))] = int(random.integers(256))
    return bytes(changed)


def refused_or_sane(path, rows):
    """Load a damaged file that is pinned as it is; only what does not matter to the numbers may pass."""
    try:
        head = load(path, mode="mean_impute")
    except WeightsError:
        return True
    assert head.score(rows).shape == (len(rows),)
    return False


@pytest.mark.shared_data
def test_damage_to_the_published_zip_is_refused(shared_data, tmp_path):
    data = (shared_data / "weights" / "laion" / "clip_autokeras_nsfw_b32.zip").read_bytes()
    random, path, rows = np.random.default_rng(1), tmp_path / "damaged.zip", unit_rows(512, 2)
    refused = 0
    for _ in range(300):
        # The directory at the end is where the lengths are.
        tail = len(data) - 2000 if random.random() < 0.5 else 0
        path.write_bytes(data[:tail] + change(data[tail:], random))
        refused += refused_or_sane(path, rows)
    assert refused > 150


@pytest.mark.parametrize("member", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_damage_inside_a_member_is_refused_or_changes_numbers_alone(tmp_path, member):
    members, random, rows = stand_in_members(), np.random.default_rng(2), unit_rows(512, 2)
    refused = 0
    for _ in range(200):
        damaged = [change(part, random) if place == member else part for place, part in enumerate(members)]
        refused += refused_or_sane(write_zip(tmp_path / "damaged.zip", damaged), rows)
    assert refused > 50
