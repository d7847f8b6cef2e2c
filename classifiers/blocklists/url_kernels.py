"""The inner loops of matching URLs, compiled with numba: canonical forms, where a host lies, and equal hosts.

- Texts are slices of one buffer, so that nothing is copied or made an object of.
- No kernel holds the interpreter's lock or starts a thread.
"""

from __future__ import annotations

import numpy as np

from classifiers.blocklists.sha256_kernel import Bytes, Places, jit

_COLON, _SLASH, _OPEN, _CLOSE, _DOT = b":/[]."
_QUERY, _FRAGMENT, _PERCENT, _SPACE, _TAB, _LINE, _RETURN = b"?#% \t\n\r"
_MAX_HOST, _MAX_LABEL = 253, 63  # characters, RFC 1035
_MOST_PROBES = 32
SLOW, WRITTEN, CHANGED = 0, 1, 2  # what `write_forms` makes of a URL
_HTTPS, _HEX = (np.frombuffer(text, np.uint8) for text in (b"https", b"0123456789ABCDEF"))


def _table(texts: bytes, values: bytes, other: int = 0) -> Bytes:
    table = np.full(256, other, np.uint8)
    table[np.frombuffer(texts, np.uint8)] = np.frombuffer(values, np.uint8)
    return table


_LOWER, _UPPER, _DECIMAL = b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789"
_UNRESERVED = _table(_LOWER + _UPPER + _DECIMAL + b"-._~", bytes([1]) * 66)
_SAFE = _UNRESERVED | _table(b"/:@!$&'()*+,;=", bytes([1]) * 14)  # stands in a path as it is
_IN_HOST = _table(_LOWER + _UPPER + _DECIMAL + b"-_.", _LOWER + _LOWER + _DECIMAL + b"-_.")
_VALUE = _table(_DECIMAL + b"abcdefABCDEF", bytes([*range(16), *range(10, 16)]), 255)


@jit
def _write_scheme(data: Bytes, at: int, end: int, out: Bytes, to: int) -> tuple[int, int]:
    size = 0
    while size < 5 and at + size < end and data[at + size] | 32 == _HTTPS[size]:
        out[to + size] = _HTTPS[size]
        size += 1
    at, to = at + size, to + size
    if size < 4 or at + 3 > end or data[at] != _COLON or data[at + 1] != _SLASH or data[at + 2] != _SLASH:
        return -1, to
    out[to], out[to + 1], out[to + 2] = _COLON, _SLASH, _SLASH
    return at + 3, to + 3


@jit
def _write_host(data: Bytes, at: int, end: int, out: Bytes, to: int) -> tuple[int, int]:
    begin, label = to, 0
    while at < end and _IN_HOST[data[at]]:
        out[to] = _IN_HOST[data[at]]
        label = 0 if out[to] == _DOT else label + 1
        if label > _MAX_LABEL or (label == 0 and (to == begin or out[to - 1] == _DOT)):
            return -1, to
        at, to = at + 1, to + 1
    to -= to > begin and label == 0  # the dot at its end
    is_name = begin < to <= begin + _MAX_HOST and not 48 <= out[to - 1] <= 57
    return (at if is_name else -1), to


@jit
def _after_port(data: Bytes, at: int, end: int, is_https: bool) -> int:
    if at < end and data[at] == _COLON:
        if is_https and at + 3 < end and data[at + 1] == 52 and data[at + 2] == 52 and data[at + 3] == 51:
            at += 4
        elif not is_https and at + 2 < end and data[at + 1] == 56 and data[at + 2] == 48:
            at += 3
    is_over = at == end or data[at] == _SLASH or data[at] == _QUERY or data[at] == _FRAGMENT
    return at if is_over else -1


@jit
def _write_rest(data: Bytes, at: int, end: int, out: Bytes, to: int, is_utf8: bool) -> tuple[int, int, bool]:
    is_dotted = False
    if at == end or data[at] != _SLASH:
        out[to] = _SLASH
        to += 1
    while at < end:
        byte, stands = data[at], _SAFE[data[at]]
        if not stands:
            if byte in (_QUERY, _FRAGMENT):
                break
            if byte in (_TAB, _LINE, _RETURN) or (byte >= 128 and not is_utf8):
                return -1, to, is_dotted
            if byte == _PERCENT and at + 2 < end and _VALUE[data[at + 1]] < 16 and _VALUE[data[at + 2]] < 16:
                byte = np.uint8(_VALUE[data[at + 1]] << 4 | _VALUE[data[at + 2]])
                at += 2
                stands = _UNRESERVED[byte]
        if stands:
            out[to] = byte
            is_dotted |= byte == _DOT and out[to - 1] == _SLASH
            to += 1
        else:
            out[to], out[to + 1], out[to + 2] = _PERCENT, _HEX[byte >> 4], _HEX[byte & 15]
            to += 3
        at += 1
    if at + 1 < end and data[at] == _QUERY and data[at + 1] != _FRAGMENT:
        while at < end and data[at] != _FRAGMENT:
            byte = data[at]
            if byte in (_TAB, _LINE, _RETURN) or (byte >= 128 and not is_utf8):
                return -1, to, is_dotted
            out[to] = byte
            at, to = at + 1, to + 1
    return at, to, is_dotted


@jit
def write_forms(data: Bytes, starts: Places, ends: Places, out: Bytes, is_utf8: bool) -> tuple[Places, int]:
    """Write the canonical forms of URLs, one behind the other, as `url_forms.canonical_url` has them.

    Hosts that are no plain names, user names, other ports and white space are left to it: SLOW.

    Args:
        data: where the URLs lie.
        starts: of each.
        ends: of each.
        out: room for three times their bytes, and two for each.
        is_utf8: whether they are known to be UTF-8.

    Returns:
        int64 6 x N: begin and end of each form, and of its host; SLOW, WRITTEN or CHANGED; whether it has dot
        segments. How many bytes were written.
    """
    made, size = np.zeros((6, len(starts)), np.int64), 0
    for row in range(len(starts)):
        start, end = starts[row], ends[row]
        if start == end or data[end - 1] <= _SPACE or data[end - 1] >= 128:
            continue
        at, first = _write_scheme(data, start, end, out, size)
        if at < 0:
            continue
        at, last = _write_host(data, at, end, out, first)
        if at < 0:
            continue
        at = _after_port(data, at, end, out[first - 4] == _HTTPS[4])
        if at < 0:
            continue
        at, to, is_dotted = _write_rest(data, at, end, out, last, is_utf8)
        if at < 0:
            continue
        is_changed = to - size != end - start
        for i in range(0 if is_changed else to - size):
            is_changed |= out[size + i] != data[start + i]
        made[0, row], made[1, row], made[2, row], made[3, row] = size, to, first, last
        made[4, row], made[5, row] = CHANGED if is_changed else WRITTEN, is_dotted
        size = to
    return made, size


@jit
def same_hosts(data: Bytes, first: Places, last: Places) -> Places:
    """Return for each text the place of an equal one before it, its own where none was found: the most are."""
    bits = 4
    while 1 << bits < 2 * len(first):
        bits += 1
    slots, same = np.full(1 << bits, -1, np.int64), np.arange(len(first))
    for row in range(len(first)):
        mixed = np.uint64(14695981039346656037)  # FNV-1a
        for at in range(first[row], last[row]):
            mixed = (mixed ^ np.uint64(data[at])) * np.uint64(1099511628211)
        place = np.int64(mixed >> np.uint64(64 - bits))
        for probe in range(_MOST_PROBES):  # however hosts were chosen, this many
            slot = (place + probe) & ((1 << bits) - 1)
            other = slots[slot]
            if other < 0:
                slots[slot] = row
                break
            size, i = last[row] - first[row], 0
            if last[other] - first[other] == size:
                while i < size and data[first[row] + i] == data[first[other] + i]:
                    i += 1
                if i == size:
                    same[row] = other
                    break
    return same


@jit
def find_hosts(data: Bytes, starts: Places, ends: Places) -> tuple[Places, Places]:
    """Return where the host of each canonical URL begins and ends, without port and brackets."""
    first, last = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
    for row in range(len(starts)):
        at = starts[row]
        while at < ends[row] and data[at] != _COLON:
            at += 1
        at += 3
        stop = _CLOSE if at < ends[row] and data[at] == _OPEN else _COLON
        at += stop == _CLOSE
        first[row] = min(at, ends[row])
        while at < ends[row] and data[at] != stop and data[at] != _SLASH:
            at += 1
        last[row] = min(at, ends[row])
    return first, last


@jit
def list_parents(data: Bytes, first: Places, last: Places) -> tuple[Places, Places]:
    """Return (row, start) of each domain above a host that has a dot in it; of an address there is none."""
    count, rows, starts = 0, np.empty(4 * len(first) + 128, np.int64), np.empty(4 * len(first) + 128, np.int64)
    for row in range(len(first)):
        at, dot, digits, v6 = last[row] - 1, np.int64(-1), True, False
        while at >= first[row]:
            if data[at] == _DOT:
                if dot >= 0:
                    if count == len(rows):
                        rows, starts = (
                            np.append(rows, np.empty_like(rows)),
                            np.append(starts, np.empty_like(starts)),
                        )
                    rows[count], starts[count] = row, at + 1
                    count += not digits
                dot = at
            elif dot < 0:
                digits &= 48 <= data[at] <= 57
            v6 |= data[at] == _COLON
            at -= 1
    return rows[:count], starts[:count]
