from __future__ import annotations

import errno
import os

import pytest

from manifests import durable


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    durable.write(tmp_path / "a", b"one", replace=False)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_writing_the_same_final_bytes_again_is_success(tmp_path):
    durable.write(tmp_path / "a", b"one", replace=False)
    durable.write(tmp_path / "a", b"one", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_writing_other_bytes_over_a_final_file_is_an_error_and_changes_nothing(tmp_path):
    durable.write(tmp_path / "a", b"one", replace=False)
    with pytest.raises(durable.DurableError, match="already written with other bytes"):
        durable.write(tmp_path / "a", b"two", replace=False)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_replace_writes_over(tmp_path):
    durable.write(tmp_path / "a", b"one", replace=True)
    durable.write(tmp_path / "a", b"two", replace=True)
    assert (tmp_path / "a").read_bytes() == b"two"


@pytest.mark.parametrize("replace", [True, False])
def test_an_error_while_writing_publishes_nothing(tmp_path, replace):
    durable.write(tmp_path / "a", b"one", replace=True)

    def write_half(path):
        with durable.create(path, replace=replace) as file:
            file.write(b"half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_half(tmp_path / "a")
    with pytest.raises(RuntimeError, match="stopped"):
        write_half(tmp_path / "b")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"one"}


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_system_without_unnamed_files_gives_the_same_promises(tmp_path, monkeypatch, replace):
    real = os.open

    def without_tmpfile(path, flags, *arguments, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", without_tmpfile)
    durable.write(tmp_path / "a", b"one", replace=replace)
    durable.write(tmp_path / "a", b"one", replace=replace)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"one"}


def test_sweep_removes_only_temporaries_of_the_given_names(tmp_path):
    for name in (".tmp-a.json-1", ".tmp-b.json-1", "a.json"):
        (tmp_path / name).write_bytes(b"")
    durable.sweep(tmp_path, r"a\.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-b.json-1", "a.json"]


def test_files_and_folders_get_the_mode_asked_for(tmp_path):
    durable.make_folder(tmp_path / "x" / "y", mode=0o700)
    durable.write(tmp_path / "x" / "y" / "a", b"", replace=True, mode=0o600)
    assert (tmp_path / "x" / "y").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "x" / "y" / "a").stat().st_mode & 0o777 == 0o600
