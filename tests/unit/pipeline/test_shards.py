"""Which shards a configuration names, and what they are called."""

from __future__ import annotations

import os

import pytest

from pipeline.config import InputConfig
from pipeline.errors import ConfigError
from pipeline.ingest.shards import find_shards


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found):
    return [source.name for source in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a"]),
        ("*.tar", ["a", "b", "c.d"]),
        ("{a,b}.tar", ["a", "b"]),
        (("b.tar", "a.tar"), ["a", "b"]),
        (("*.tar", "a.tar"), ["a", "b", "c.d"]),
        ("deep/{0..2}.tar", ["0", "1", "2"]),
        ("deep/{0..1}.ta?", ["0", "1"]),
        ("odd", ["odd"]),
    ],
)
def test_paths_globs_braces_and_lists_name_shards_sorted(tmp_path, pattern, expected):
    touch(tmp_path, "a.tar", "b.tar", "c.d.tar", "deep/0.tar", "deep/1.tar", "deep/2.tar", "odd")
    assert names(find_shards([InputConfig(pattern)], base=tmp_path)) == expected


def test_a_shard_that_braces_spell_out_is_missing_and_not_left_out(tmp_path):
    touch(tmp_path, "0.tar", "2.tar", "1.parquet")
    found = find_shards([InputConfig("{0..2}.tar")], base=tmp_path)
    assert [(source.name, source.missing, source.sidecar) for source in found] == [
        ("0", False, None),
        ("1", True, tmp_path / "1.parquet"),
        ("2", False, None),
    ]


def test_a_sidecar_beside_a_shard_is_found_unless_it_is_not_wanted(tmp_path):
    touch(tmp_path, "a.tar", "a.parquet", "b.tar")
    found = {auto: find_shards([InputConfig("*.tar", sidecar=auto)], base=tmp_path) for auto in ("auto", "none")}
    assert [source.sidecar for source in found["auto"]] == [tmp_path / "a.parquet", None]
    assert [source.sidecar for source in found["none"]] == [None, None]


def test_absolute_patterns_do_not_start_at_the_configuration(tmp_path):
    touch(tmp_path, "x/a.tar")
    assert names(find_shards([InputConfig(str(tmp_path / "x" / "*.tar"))], base=tmp_path / "y")) == ["a"]


def test_a_prefix_tells_two_folders_apart(tmp_path):
    touch(tmp_path, "x/a.tar", "y/a.tar")
    with pytest.raises(ConfigError, match=r"two shards are named 'a': .*give one .* a `prefix`"):
        find_shards([InputConfig("x/*.tar"), InputConfig("y/*.tar")], base=tmp_path)
    found = find_shards([InputConfig("x/*.tar"), InputConfig("y/*.tar", prefix="y-")], base=tmp_path)
    assert names(found) == ["a", "y-a"]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("none/*.tar", "the folder .*none does not exist"),
        ("*.tgz", "matches no file"),
        ("b.tar", "matches no file"),
        ("{b,c}.tar", "matches no file"),
        ("{0..3.tar", "matches no file|braces do not pair"),
        ("deep", "is a folder of tars"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(tmp_path, pattern, why):
    touch(tmp_path, "a.tar", "deep/x.tar")
    with pytest.raises(ConfigError, match=why):
        find_shards([InputConfig(pattern)], base=tmp_path)


@pytest.mark.parametrize("name", [".hidden.tar", "a~0001.tar", "a\nb.tar", "a\\b.tar", ".tar", "\udcff.tar"])
def test_a_name_that_files_of_ours_could_not_carry_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    patterns = ("*", ".*")  # names that braces would change
    with pytest.raises(ConfigError, match="cannot name a shard") as caught:
        find_shards([InputConfig(patterns[name.startswith(".")])], base=tmp_path)
    str(caught.value).encode("utf-8")


def test_a_prefix_cannot_lead_into_another_folder(tmp_path):
    touch(tmp_path, "a.tar")
    for prefix in ("../", "x/", ".", "a~"):
        with pytest.raises(ConfigError, match="cannot name a shard"):
            find_shards([InputConfig("a.tar", prefix=prefix)], base=tmp_path)


def test_the_order_does_not_depend_on_the_order_of_the_folder(tmp_path):
    touch(tmp_path, *(f"{number:02d}.tar" for number in (3, 1, 2)))
    assert names(find_shards([InputConfig("*.tar")], base=tmp_path)) == ["01", "02", "03"]
    assert names(find_shards([InputConfig(os.path.join(".", "*.tar"))], base=tmp_path)) == ["01", "02", "03"]
