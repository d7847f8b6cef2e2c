from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from classifiers.weights import WeightsError, check_digest, check_name, check_pin, digest_file, digest_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "model"
    (top / "part").mkdir(parents=True)
    (top / "a.json").write_bytes(b"{}")
    (top / "part" / "b.bin").write_bytes(b"\x00\x01")
    return top


def test_a_file_digest_is_its_sha256(folder: Path) -> None:
    assert digest_file(folder / "a.json") == hashlib.sha256(b"{}").hexdigest()


def test_a_folder_digest_is_the_sha256_of_canonical_json_of_names_and_file_digests(folder: Path) -> None:
    digests = {"a.json": hashlib.sha256(b"{}").hexdigest(), "part/b.bin": hashlib.sha256(b"\x00\x01").hexdigest()}
    text = json.dumps(digests, sort_keys=True, separators=(",", ":"))
    assert digest_folder(folder) == hashlib.sha256(text.encode()).hexdigest()


def test_a_folder_digest_changes_with_a_name_a_byte_or_a_file_more(folder: Path) -> None:
    seen = {digest_folder(folder)}
    (folder / "a.json").write_bytes(b"[]")
    seen.add(digest_folder(folder))
    (folder / "a.json").rename(folder / "c.json")
    seen.add(digest_folder(folder))
    (folder / "part" / "d").write_bytes(b"")
    seen.add(digest_folder(folder))
    assert len(seen) == 4


@pytest.mark.parametrize("name", [".hidden", "part/.cache"])
def test_a_hidden_file_is_an_error(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(WeightsError, match="hidden file"):
        digest_folder(folder)


def test_a_link_or_a_pipe_is_an_error(folder: Path) -> None:
    (folder / "link").symlink_to("a.json")
    with pytest.raises(WeightsError, match="'link' is no regular file"):
        digest_folder(folder)
    (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(WeightsError, match="'pipe' is no regular file"):
        digest_folder(folder)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no file"):
        digest_folder(tmp_path)


def test_the_right_pin_of_a_file_or_a_folder_gives_the_digest(folder: Path) -> None:
    assert check_pin(folder, digest_folder(folder), what="tower") == digest_folder(folder)
    file = folder / "a.json"
    assert check_pin(file, digest_file(file), what="head") == digest_file(file)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tower: .*nowhere does not exist; get the weights first"):
        check_pin(tmp_path / "nowhere", "0" * 64, what="tower")


def test_an_empty_pin_prints_the_digest_found_and_says_to_verify_first(folder: Path) -> None:
    with pytest.raises(WeightsError, match=f"not pinned; found sha256 {digest_folder(folder)}.*Verify where"):
        check_pin(folder, "", what="tower")


def test_a_wrong_pin_prints_both_digests(folder: Path) -> None:
    found = digest_folder(folder)
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, found {found}"):
        check_pin(folder, "0" * 64, what="tower")


def test_a_pin_of_the_first_digits_is_a_wrong_pin() -> None:
    with pytest.raises(WeightsError, match="expected sha256"):
        check_digest("ab" * 32, "abababab", what="head")


@pytest.mark.parametrize(
    "name", ["", "vit", "vit@", "vit@one", "Vit@1", "vit b@1", "vit@1#aa", "a/b@1", "@1", "vit@1\n"]
)
def test_a_name_is_name_at_version(name: str) -> None:
    with pytest.raises(WeightsError, match="expected name@version"):
        check_name(name, stand_in=False)


def test_a_stand_in_says_so_in_its_name() -> None:
    assert check_name("vit-stand-in@1", stand_in=True) == "vit-stand-in@1"
    with pytest.raises(WeightsError, match="the name must say so"):
        check_name("vit-b-32@1", stand_in=True)
