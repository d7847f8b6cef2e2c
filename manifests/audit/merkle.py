"""Merkle trees of RFC 6962 and RFC 9162: hashes, roots, and proofs of inclusion and consistency.

Owns the arithmetic of the tree. Knows no files: nodes come from a function, proofs are lists of hashes.

- Every hash is 32 bytes (SHA-256); leaves and nodes are hashed with different first bytes.
- A proof is made of the ranges of leaves that RFC 6962, sections 2.1.1 and 2.1.2, names; it is checked by the
  separate algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
- A consistency proof starts from at least one leaf: every log extends the empty one, so that proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce

from manifests.records import FilesError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
Node = Callable[[int, int], bytes]
"""Returns the hash of the full subtree (level, index), over leaves index * 2**level to (index + 1) * 2**level."""


class ProofError(FilesError):
    """A proof does not prove what it should."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry as a leaf."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees side by side."""
    return hashlib.sha256(b"\1" + left + right).digest()


class CompactRange:
    """The full subtrees of a growing tree, widest first: all that its root and its growth depend on."""

    def __init__(self, size: int = 0, node: Node | None = None) -> None:
        self.size = size
        self._subtrees = [node(*one) for one in _subtrees(0, size)] if node else []

    def append(self, leaf: bytes) -> list[bytes]:
        """Add the hash of a leaf; return the hashes of the subtrees that it completes, by level from 0."""
        done = [leaf]
        for _ in range((~self.size & self.size + 1).bit_length() - 1):
            done.append(node_hash(self._subtrees.pop(), done[-1]))
        self._subtrees.append(done[-1])
        self.size += 1
        return done

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        return _join(self._subtrees) if self.size else EMPTY_ROOT


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over hashes of leaves."""
    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def nodes_of(leaves: Sequence[bytes]) -> Node:
    """Return the nodes of a tree whose leaves' hashes are in memory."""
    return lambda level, index: root_of(leaves[index << level : (index + 1) << level])


def prove_inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of `size` leaves, from the leaf's sibling upwards.

    Raises:
        ProofError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError(f"entry {index} is not in a log of {size} entries")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    return [_range_root(*one, node) for one in reversed(path)]


def prove_consistency(size1: int, size2: int, node: Node) -> list[bytes]:
    """Return the proof that the tree of `size1` leaves is how the tree of `size2` leaves began.

    Raises:
        ProofError: the first is empty or longer than the second.
    """
    if not 0 < size1 <= size2:
        raise ProofError(f"a log of {size2} entries cannot be proved to extend one of {size1}")
    begin, end, path = 0, size2, []
    while end != size1:
        middle = begin + _split(end - begin)
        if size1 <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    if begin:
        path.append((begin, end))
    return [_range_root(*one, node) for one in reversed(path)]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Refuse a proof that does not lead from a leaf to the root (RFC 9162, section 2.1.3.2).

    Raises:
        ProofError: it does not, or a hash is not 32 bytes.
    """
    _check_lengths(leaf, root, *proof)
    roots = _climb(index, size - 1, leaf, proof) if 0 <= index < size else None
    if roots is None or roots[1] != root:
        raise ProofError(f"the proof does not lead from entry {index} to the root of {size} entries")


def check_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Refuse a proof that does not lead from an older root to a newer one (RFC 9162, section 2.1.4.2).

    Raises:
        ProofError: it does not, a hash is not 32 bytes, or the older tree is empty or the longer one.
    """
    if size1 != size2:  # of equal sizes nothing is hashed: the two roots are one text or they are not
        _check_lengths(root1, root2, *proof)
    same = size1 == size2 and root1 == root2 and not proof
    if size1 < 1 or not (same or (size1 < size2 and _extends(size1, root1, size2, root2, proof))):
        raise ProofError(f"the proof does not show that the log of {size2} entries extends that of {size1}")


def _extends(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> bool:
    path = [*([root1] if size1 & (size1 - 1) == 0 else []), *proof]
    node, last = size1 - 1, size2 - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    return bool(path) and _climb(node, last, path[0], path[1:]) == (root1, root2)


def _climb(node: int, last: int, found: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return the roots that siblings lead to: over what ends with `node`, and over all; None if they do not fit."""
    ends = found
    for sibling in proof:
        if not last:
            return None
        if node & 1 or node == last:
            ends, found = node_hash(sibling, ends), node_hash(sibling, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return None if last else (ends, found)


def _check_lengths(*hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"a hash of a proof is not {HASH_BYTES} bytes long")


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range of leaves, which begins where RFC 6962 splits trees, into full subtrees, widest first."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def _range_root(begin: int, end: int, node: Node) -> bytes:
    return _join([node(*one) for one in _subtrees(begin, end)])


def _join(subtrees: Sequence[bytes]) -> bytes:
    return reduce(lambda right, left: node_hash(left, right), reversed(subtrees))
