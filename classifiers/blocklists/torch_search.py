"""Range search of codes as a matrix product, on any torch device.

Owns the tiles and the arithmetic. Leaves which codes are worth a search, and what a hit means, to the matcher.

- With every bit written as +1 or -1, two codes of B bits have the product B - 2 x distance.
- Exact: the factors and every sum, partial ones too, are whole numbers of at most 256 in size, which float16,
  bfloat16, TF32 and float32 all hold. So no precision setting of the host, and no order of summing, changes a hit.
- Every pair within the radius is reported, however many there are, and only those leave the device.
- The device keeps the packed codes (32 bytes each of 256 bits: 320 MB for ten million) and, while it searches, one
  tile of products (1 GiB on an accelerator) and of widened codes (32 MiB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from classifiers.blocklists.algorithms import CODE_WIDTHS, Rows
from classifiers.blocklists.hits import CodeHits, join_hits
from classifiers.blocklists.lists import ListColumn

_GROUP = 1024  # listed codes whose greatest product is taken first, so that few products are looked at twice
_GROUPS_AT_ONCE = 4096  # that hold a hit: 8 MiB of products


@dataclass(frozen=True, slots=True)
class Tile:
    """How much is multiplied at once. queries: rows. groups: of 1024 listed codes."""

    queries: int
    groups: int


_ACCELERATOR_TILE = Tile(8192, 64)  # large, so that the product and not the launching of it takes the time
_CPU_TILE = Tile(1024, 8)


class TorchCodes:
    """Listed codes on a device, to be searched many times."""

    def __init__(self, codes: Rows, device: str, *, tile: Tile | None = None) -> None:
        """Bring the codes to the device.

        Args:
            codes: uint8 N x 32 or N x 8.
            device: of torch, such as "cpu" or "cuda".
            tile: chosen by the device where None.

        Raises:
            ValueError: the codes have another shape or dtype.
        """
        _check("codes", codes, set(CODE_WIDTHS.values()))
        self._device = torch.device(device)
        is_cpu = self._device.type == "cpu"
        self._tile = tile or (_CPU_TILE if is_cpu else _ACCELERATOR_TILE)
        self._count, self._width = codes.shape
        groups = -(-self._count // _GROUP)
        self._codes = torch.zeros((groups * _GROUP, self._width), dtype=torch.uint8, device=self._device)
        self._codes[: self._count] = torch.tensor(np.ascontiguousarray(codes), device=self._device)
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        dtype = torch.float32 if is_cpu else torch.float16
        self._signs = torch.tensor(bits, dtype=dtype, device=self._device) * 2 - 1

    def search(self, queries: Rows, radius: int) -> CodeHits:
        """Return every pair of a query and a listed code that differ in at most `radius` bits.

        Args:
            queries: uint8 Q x the width of the codes.
            radius: in bits, equal is within.

        Raises:
            ValueError: the queries have another shape or dtype, or the radius is negative or more than all bits.
        """
        _check("queries", queries, {self._width})
        if not 0 <= radius <= self._width * 8:
            raise ValueError(f"radius: expected 0 to {self._width * 8} bits, found {radius}")
        step = self._tile.queries
        parts = (self._hits(queries[at : at + step], at, radius) for at in range(0, len(queries), step))
        return join_hits([hits for part in parts for hits in part])

    def _hits(self, queries: Rows, first_query: int, radius: int) -> Iterator[CodeHits]:
        bits = self._width * 8
        factors = self._widen(torch.tensor(np.ascontiguousarray(queries), device=self._device))
        step = self._tile.groups * _GROUP
        for first_entry in range(0, len(self._codes), step):
            tile = self._widen(self._codes[first_entry : first_entry + step])
            products = (factors @ tile.T).view(len(queries), -1, _GROUP)
            least = bits - 2 * radius
            rows, groups = (products.amax(dim=2) >= least).nonzero(as_tuple=True)
            for at in range(0, len(rows), _GROUPS_AT_ONCE):
                row, group = rows[at : at + _GROUPS_AT_ONCE], groups[at : at + _GROUPS_AT_ONCE]
                near = products[row, group]
                place, column = (near >= least).nonzero(as_tuple=True)
                query, entry, distance = (
                    values.cpu().numpy()
                    for values in (
                        row[place] + first_query,
                        group[place] * _GROUP + column + first_entry,
                        (bits - near[place, column].to(torch.int16)) // 2,
                    )
                )
                is_listed = entry < self._count  # the last group is filled up with zeros
                yield CodeHits(query[is_listed], entry[is_listed], distance[is_listed])

    def _widen(self, codes: torch.Tensor) -> torch.Tensor:
        """Return every bit of packed codes as +1 or -1."""
        return self._signs[codes.long()].view(len(codes), -1)


def _check(name: str, codes: Rows, widths: set[int]) -> None:
    if codes.ndim != 2 or codes.shape[1] not in widths or codes.dtype != np.uint8:
        expected = " or ".join(str(width) for width in sorted(widths))
        raise ValueError(f"{name}: expected uint8 N x {expected}, found {codes.dtype} {codes.shape}")


class DeviceSearch:
    """A search of the columns of lists on one device, each brought there when it is first searched."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._held: dict[int, tuple[ListColumn, TorchCodes]] = {}

    def __call__(self, column: ListColumn, queries: Rows, radius: int) -> CodeHits:
        """Search one column (`match.CodeSearch`)."""
        if id(column) not in self._held:
            self._held[id(column)] = (column, TorchCodes(column.rows, self._device))
        return self._held[id(column)][1].search(queries, radius)
