"""The release's part of checking a collection: kept samples, uids, tars, `current`.

Owns the report that all checks write to. See `verify.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manifests import schema
from manifests.collection import Collection
from manifests.commits import Close, FileDigest
from manifests.handover import open_kept
from manifests.records import FilesError

_UIDS_AT_ONCE = 1 << 20


@dataclass(slots=True)
class Report:
    """What was checked, what is wrong, and the `unsafe_` options that the collection was made under.

    gone: files that were destroyed, as was recorded, each with its tier and day. reviews: digests of their record.
    """

    gone: Mapping[Path, str] = field(default_factory=dict)
    reviews: list[str] = field(default_factory=list)
    stamps: tuple[str, ...] = ()
    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify_release(collection: Collection, close: Close, report: Report, more: Iterable[str] = ()) -> None:
    """Check what one closed settle released: manifest, uids, tars, summary; `more` files are named elsewhere."""
    release = collection.release(close.number)
    if close.uids is None or close.release_summary is None:
        report.problems.append(f"{release}: released without uids.npy or summary.json")
    else:
        report.problems += file_problems(release, close.release_summary)
        changed = list(file_problems(release, close.uids))
        report.problems += changed or uid_problems(release, close)
    verify_names(release, {"manifest", "shards", "uids.npy", "summary.json", *more}, report)
    verify_names(release / "manifest", {f"{shard}.parquet" for shard in close.shards}, report)
    if (release / "shards").is_dir():
        verify_names(release / "shards", {f"{shard}.tar" for shard in close.shards}, report)
        try:
            found = sum(1 for _ in open_kept(collection.root, number=close.number))
            if found != close.counts.keep:
                report.problems.append(f"{release}/shards: holds {found} samples, {close.counts.keep} were kept")
        except (FilesError, OSError) as error:
            report.problems.append(str(error))
    report.checked.append(f"release {close.number:04d}: {close.counts.keep} kept samples, manifests, uids, tars")


def uid_problems(release: Path, close: Close) -> Iterator[str]:
    """Hold `uids.npy` against the manifests: sorted, all kept samples and no other. One byte of memory for each."""
    try:
        uids = np.load(release / "uids.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        yield f"{release / 'uids.npy'}: cannot be read"
        return
    if len(uids) != close.counts.keep:
        yield f"{release / 'uids.npy'}: holds {len(uids)} uids, {close.counts.keep} samples were kept"
    previous = None
    for start in range(0, len(uids), _UIDS_AT_ONCE):
        part = np.asarray(uids[start : start + _UIDS_AT_ONCE])
        big, small = part["f0"], part["f1"]
        rising = (big[1:] > big[:-1]) | ((big[1:] == big[:-1]) & (small[1:] >= small[:-1]))
        if not bool(rising.all()) or (previous is not None and tuple(part[0]) < previous):
            yield f"{release / 'uids.npy'}: is not sorted"
        previous = tuple(part[-1])
    seen = np.zeros(len(uids) + 1, np.bool_)
    for shard in close.shards:
        try:
            column = schema.read(release / "manifest" / f"{shard}.parquet")["uid"]
        except (schema.TableError, KeyError):
            continue  # told with the shard's settle record
        wanted = np.frombuffer(b"".join(column.to_pylist()), ">u8").reshape(-1, 2).astype("<u8")
        keys = np.ascontiguousarray(wanted).view(uids.dtype).reshape(-1)
        places = np.searchsorted(uids, keys)
        seen[places] = True
        if (len(uids) == 0 and len(keys)) or bool((uids[np.minimum(places, len(uids) - 1)] != keys).any()):
            yield f"{release / 'uids.npy'}: lacks a kept sample of shard {shard}"
    if bool((~seen[:-1] & np.append([True], uids[1:] != uids[:-1])[: len(uids)]).any()):
        yield f"{release / 'uids.npy'}: holds a uid of no kept sample"


def verify_current(collection: Collection, released: list[int], report: Report) -> None:
    """Check that `current` names the newest release, and that no other folder passes for one."""
    text = collection.current.read_bytes() if collection.current.is_file() else b""
    wanted = f"{released[-1]:04d}\n" if released else ""
    if text != wanted.encode():
        report.problems.append(
            f"{collection.current}: does not name the newest release ({wanted.strip() or 'none'})"
        )
    for path in collection.releases.glob("*"):
        if not path.name.isdigit() or int(path.name) not in released:
            report.problems.append(f"{path}: belongs to no closed release")


def file_problems(folder: Path, file: FileDigest) -> Iterator[str]:
    """Compare one file with the record that names it."""
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        yield f"{path}: missing or not of the size its record names"
        return
    with path.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
            yield f"{path}: bytes differ from the digest in its record"


def verify_names(folder: Path, named: set[str], report: Report) -> None:
    """Find files that no record names."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    report.problems += [f"{folder / name}: named by no record" for name in sorted(found - named)]
