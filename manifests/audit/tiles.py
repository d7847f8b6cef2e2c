"""The files of a log: tiles of hashes and bundles of entries, as C2SP tlog-tiles v0.1.0 lays them out.

Owns their paths and bytes, reading them, and checking all of them against a root. Leaves to others who writes
them, when, and who signs the root.

- Full tiles hold 256 hashes (8,192 bytes); the last of each level may be partial and is named by its width.
- An entry has at most 65,535 bytes: its length goes before it as two bytes.
- What is read is bounded by what the size of the log allows, and is never waited for: a file that is not a plain
  file, is longer or shorter, or cannot be read is an error that names it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manifests.audit.merkle import HASH_BYTES, CompactRange, leaf_hash, root_of
from manifests.records import FilesError

WIDTH = 256
MAX_ENTRY_BYTES = 0xFFFF
ENTRIES = "entries"  # the level that holds the bundles


class LogError(FilesError):
    """A file of a log is missing, damaged, or not what its checkpoint says."""


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Return the path of a tile, or of a bundle (level `ENTRIES`), within the folder of its log."""
    high, last = divmod(index, 1000)
    name = f"{last:03d}"
    while high:
        high, part = divmod(high, 1000)
        name = f"x{part:03d}/{name}"
    return f"tile/{level}/{name}" + (f".p/{width}" if width < WIDTH else "")


def paths_of(size: int) -> Iterator[str]:
    """Yield the paths of all tiles and bundles that a log of `size` entries has."""
    for level in (ENTRIES, *range(-(-size.bit_length() // 8))):
        full, width = divmod(_hashes(level, size), WIDTH)
        yield from (tile_path(level, index) for index in range(full))
        if width:
            yield tile_path(level, full, width)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a plain file of at most so many.

    Raises:
        LogError: it is not there, longer, not a plain file, or cannot be read.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LogError(f"{path}: not a plain file; restore it from a copy of the log")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); restore it from a copy of the log") from None
    if len(data) > max_bytes:
        raise LogError(f"{path}: longer than the {max_bytes} bytes that it may have; restore it")
    return data


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles and bundles of a log of `size` entries, as they lie in `folder`: read, not checked."""

    folder: Path
    size: int

    def hashes(self, level: int, index: int) -> list[bytes]:
        """Return the hashes of one tile.

        Raises:
            LogError: the tile is missing or has another length.
        """
        width = min(WIDTH, _hashes(level, self.size) - index * WIDTH)
        path = self.folder / tile_path(level, index, width)
        data = read_file(path, width * HASH_BYTES)
        if len(data) != width * HASH_BYTES:
            raise LogError(f"{path}: expected {width} hashes, found {len(data)} bytes; restore it")
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of the full subtree (level, index), as `merkle.Node` says.

        Raises:
            LogError: the tile that holds it is missing or damaged.
        """
        below = level % 8
        tile, at = divmod(index << below, WIDTH)
        return root_of(self.hashes(level // 8, tile)[at : at + (1 << below)])

    def entries(self, index: int) -> list[bytes]:
        """Return the entries of one bundle.

        Raises:
            LogError: the bundle is missing, or does not hold exactly what it should.
        """
        width = min(WIDTH, self.size - index * WIDTH)
        path = self.folder / tile_path(ENTRIES, index, width)
        data = read_file(path, width * (2 + MAX_ENTRY_BYTES))
        entries = _entries(data)
        if b"".join(map(_framed, entries)) != data or len(entries) != width:
            raise LogError(f"{path}: does not hold exactly {width} entries; restore it from a copy of the log")
        return entries

    def all_entries(self, first: int = 0) -> Iterator[bytes]:
        """Yield the entries from `first` on, a bundle at a time; raises as `entries`."""
        for index in range(first // WIDTH, -(-self.size // WIDTH)):
            yield from self.entries(index)[max(0, first - index * WIDTH) :]

    def entry(self, index: int) -> bytes:
        """Return one entry.

        Raises:
            LogError: there is no such entry, or its bundle is damaged.
        """
        if not 0 <= index < self.size:
            raise LogError(f"{self.folder}: there is no entry {index} in a log of {self.size}")
        return self.entries(index // WIDTH)[index % WIDTH]


class Edge:
    """The right edge of a log: what its next entries need to become tiles and bundles."""

    def __init__(self) -> None:
        self.tree = CompactRange()
        self._bundle = bytearray()
        self._tiles: list[bytearray] = []

    @classmethod
    def read(cls, tiles: Tiles) -> Edge:
        """Return the edge of a log that is there already.

        Raises:
            LogError: a file at the edge is missing or damaged.
        """
        edge, size = cls(), tiles.size
        edge.tree = CompactRange(size, tiles.node)
        for level in range(-(-size.bit_length() // 8)):
            full, width = divmod(_hashes(level, size), WIDTH)
            edge._tiles.append(bytearray(b"".join(tiles.hashes(level, full) if width else [])))
        for entry in tiles.entries(size // WIDTH) if size % WIDTH else []:
            edge._bundle += _framed(entry)
        return edge

    def agrees(self) -> bool:
        """Say whether the entries in the last bundle are those that the last tile has the hashes of."""
        entries = _entries(bytes(self._bundle))
        return b"".join(map(leaf_hash, entries)) == b"".join(self._tiles[:1])

    def add(self, entry: bytes) -> list[tuple[str, bytes]]:
        """Add an entry; return the paths and bytes of the bundle and the tiles that it makes full.

        Raises:
            LogError: the entry is too long.
        """
        if len(entry) > MAX_ENTRY_BYTES:
            raise LogError(f"an entry has {len(entry)} bytes; a log takes at most {MAX_ENTRY_BYTES} each")
        self._bundle += _framed(entry)
        full = []
        if not (self.tree.size + 1) % WIDTH:
            full.append((tile_path(ENTRIES, self.tree.size // WIDTH), bytes(self._bundle)))
            self._bundle.clear()
        for level, done in enumerate(self.tree.append(leaf_hash(entry))[::8]):
            if level == len(self._tiles):
                self._tiles.append(bytearray())
            self._tiles[level] += done
            if len(self._tiles[level]) == WIDTH * HASH_BYTES:
                full.append((tile_path(level, self.tree.size - 1 >> 8 * level + 8), bytes(self._tiles[level])))
                self._tiles[level].clear()
        return full

    def partial(self) -> Iterator[tuple[str, bytes]]:
        """Yield the paths and bytes of the bundle and the tiles that are not full."""
        size = self.tree.size
        levels: list[tuple[int | str, bytearray]] = [(ENTRIES, self._bundle), *enumerate(self._tiles)]
        for level, data in levels:
            index, width = divmod(_hashes(level, size), WIDTH)
            if width:
                yield tile_path(level, index, width), bytes(data)


def check_log(folder: Path, size: int, root: bytes) -> None:
    """Make every tile anew from the entries, hold it against the one that lies there, and the root too.

    Memory is bounded by one bundle; files that a log of this size does not have are not looked at.

    Raises:
        LogError: a file is missing or was changed, and which; or all of them agree, but on another root.
    """
    edge, tiles = Edge(), Tiles(folder, size)
    wrong: str | None = None
    for index in range(-(-size // WIDTH)):
        for entry in tiles.entries(index):
            made = edge.add(entry)
            wrong = wrong or _changed(folder, made)
    wrong = wrong or _changed(folder, edge.partial())
    same = edge.tree.root() == root
    if wrong and not same and wrong.startswith("tile/0/"):
        wrong = wrong.replace("tile/0/", f"tile/{ENTRIES}/")  # the tile agrees with the root, or both were changed
    if wrong:
        raise LogError(f"{folder / wrong}: not what the root over {size} entries says; restore it from a copy")
    if not same:
        raise LogError(f"{folder / 'checkpoint'}: the {size} entries have another root than it states")


def _changed(folder: Path, made: Iterable[tuple[str, bytes]]) -> str | None:
    for name, data in made:
        if not name.startswith(f"tile/{ENTRIES}/") and read_file(folder / name, WIDTH * HASH_BYTES) != data:
            return name
    return None


def _entries(data: bytes) -> list[bytes]:
    entries, at = list[bytes](), 0
    while at < len(data) and len(entries) < WIDTH:
        end = at + 2 + int.from_bytes(data[at : at + 2])
        entries.append(data[at + 2 : end])
        at = end
    return entries


def _framed(entry: bytes) -> bytes:
    return len(entry).to_bytes(2) + entry


def _hashes(level: int | str, size: int) -> int:
    return size if isinstance(level, str) else size >> 8 * level
