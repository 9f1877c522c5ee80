"""How do a ring buffer's pages become numbers? Bounded walks over bytes, in either endianness.

Source: linux:include/linux/ring_buffer.h, kernel/trace/ring_buffer.c;
libtraceevent:src/kbuffer-parse.c.
"""

from __future__ import annotations

import numba
import numpy as np

from analyzer.jit import helper, typed_kernel

__all__ = [
    "BAD_PAGE_WORDS",
    "LAYOUT_NUMBERS",
    "gather_fields",
    "walk_pages",
]

# What stands where, as one array for the kernels: (offset, size) pairs and two single numbers.
(
    L_PAGE_SIZE,
    L_DATA,
    L_COMMIT,
    L_COMMIT_SIZE,
    L_TYPE,
    L_TYPE_SIZE,
    L_FLAGS,
    L_PID,
    L_PID_SIZE,
    L_BIG,
    L_LEAST,
) = range(11)
LAYOUT_NUMBERS = 11
TYPE_PADDING, TYPE_TIME_EXTEND, TYPE_TIME_STAMP = 29, 30, 31
COMMIT_MASK = np.uint64((1 << 27) - 1)
LOST_FLAG, LOST_COUNT_FLAG = np.uint64(1 << 31), np.uint64(1 << 30)
# Absolute stamps carry 59 bits; the others come from the time so far.
TOP_BITS = np.uint64(0xF8 << 56)
STAMP_SPAN = np.uint64(1 << 59)
# 146 years of ns: a time beyond is damage, and int64 cannot wrap below it.
TIME_LIMIT = np.uint64(1 << 62)
NO_FLAGS = 255


# Why a page was left, above the offset in the page.
_COMMIT, _LENGTH, _TIME, _RECORD, _HEAD = (np.int64(n) << 32 for n in range(1, 6))
BAD_PAGE_WORDS = {
    1: "its head says more bytes of data than it has room for",
    2: "an event ends behind the page's data",
    3: "a time is beyond 2^62",
    4: "an event is shorter than its common fields",
    5: "it ends inside its head",
}


@numba.njit(inline="always")
def _four(buf, at, big):  # type: ignore[no-untyped-def]
    # Bytes put together one by one: the compiler makes one load of them, if it need not look out
    # for negative places.
    place = np.uint64(at)
    a, b = np.uint32(buf[place]), np.uint32(buf[place + np.uint64(1)])
    c, d = np.uint32(buf[place + np.uint64(2)]), np.uint32(buf[place + np.uint64(3)])
    if big:
        return a << np.uint32(24) | b << np.uint32(16) | c << np.uint32(8) | d
    return d << np.uint32(24) | c << np.uint32(16) | b << np.uint32(8) | a


@numba.njit(inline="always")
def _number(buf, at, size, big):  # type: ignore[no-untyped-def]
    if size == 4:
        return np.uint64(_four(buf, at, big))
    if size == 8:
        low, high = np.uint64(_four(buf, at, big)), np.uint64(_four(buf, at + 4, big))
        if big:
            low, high = high, low
        return high << np.uint64(32) | low
    value = np.uint64(0)
    for byte in range(size):
        shift = size - 1 - byte if big else byte
        value |= np.uint64(buf[at + byte]) << np.uint64(8 * shift)
    return value


@helper
def _absolute(stamp, now):  # type: ignore[no-untyped-def]
    # linux:kernel/trace/ring_buffer.c rb_fix_abs_ts.
    if now & TOP_BITS:
        stamp |= now & TOP_BITS
        if stamp < now:
            stamp += STAMP_SPAN
    return stamp


@typed_kernel(
    "int64(uint8[::1], int64[::1], int32[::1], int64[::1], int64[::1], int32[::1], int32[::1], "
    "int32[::1], uint8[::1], int64[:, ::1])"
)
def walk_pages(buf, layout, lut, ts, off, size, kind, tid, flags, pages):  # type: ignore[no-untyped-def]
    """Decode the pages that stand back to back in `buf`; the last may be cut.

    layout: int64[LAYOUT_NUMBERS], see L_*. lut: int32[65536], kind by common_type, below 0 unknown.
    ts (ns), off, size, kind, tid, flags: one row an event; off and size are its record in buf; an
    unknown type is written as kind -2 - type. There must be room for buf.size / 8 rows.
    pages: int64[3, p], per page: its first row; events lost before it (0 none, -1 some, else how
    many); 0, or a key of BAD_PAGE_WORDS * 2^32 + the offset in the page of what contradicts the
    format: what stands before that is kept, the rest of the page left out. Returns the number of
    rows.
    """
    page_size, big = layout[L_PAGE_SIZE], layout[L_BIG] == 1
    rows = 0
    for page in range(pages.shape[1]):
        begin = page * page_size
        end = min(begin + page_size, buf.size)
        pages[0, page], pages[1, page], pages[2, page] = rows, 0, 0
        at = begin + layout[L_DATA]
        if at > end:
            pages[2, page] = _HEAD | (end - begin)
            continue
        now = _number(buf, begin, 8, big)
        commit = _number(buf, begin + layout[L_COMMIT], layout[L_COMMIT_SIZE], big)
        stop = at + np.int64(commit & COMMIT_MASK)
        if commit & LOST_FLAG:
            pages[1, page] = -1
            if commit & LOST_COUNT_FLAG and stop + layout[L_COMMIT_SIZE] <= end:
                lost = np.int64(_number(buf, stop, layout[L_COMMIT_SIZE], big))
                pages[1, page] = lost if lost > 0 else -1
        if stop > end:
            pages[2, page] = _COMMIT | layout[L_COMMIT]
            stop = end
        while at + 4 <= stop:
            head = np.uint64(_four(buf, at, big))
            if big:
                what, delta = np.int64(head >> np.uint64(27)), head & np.uint64(0x7FFFFFF)
            else:
                what, delta = np.int64(head & np.uint64(31)), head >> np.uint64(5)
            body = at + 4
            length = np.int64(what * 4)
            if what == TYPE_PADDING and delta == 0:
                break
            if what == 0 or what >= TYPE_PADDING:
                if body + 4 > stop:
                    pages[2, page] = _LENGTH | (at - begin)
                    break
                word = np.uint64(_four(buf, body, big))
                body += 4
                if what == TYPE_PADDING:
                    length = max(np.int64(word) - 4, np.int64(0))
                elif what == 0:
                    length = np.int64(word) - 4
                else:
                    length = np.int64(0)
                    delta |= word << np.uint64(27)
            if length < 0 or body + length > stop:
                pages[2, page] = _LENGTH | (at - begin)
                break
            now = _absolute(delta, now) if what == TYPE_TIME_STAMP else now + delta
            if now > TIME_LIMIT:
                pages[2, page] = _TIME | (at - begin)
                break
            if what < TYPE_PADDING:
                if length < layout[L_LEAST]:
                    pages[2, page] = _RECORD | (at - begin)
                    break
                number = np.int64(_number(buf, body + layout[L_TYPE], layout[L_TYPE_SIZE], big))
                known = lut[number] if number < lut.size else np.int32(-1)
                ts[rows] = np.int64(now)
                off[rows] = body
                size[rows] = length
                kind[rows] = known if known >= 0 else -2 - (number & 0x3FFFFFFF)
                tid[rows] = np.int32(_number(buf, body + layout[L_PID], layout[L_PID_SIZE], big))
                flags[rows] = NO_FLAGS if layout[L_FLAGS] < 0 else buf[body + layout[L_FLAGS]]
                rows += 1
            at = body + ((length + 3) & ~3)
    return rows


@typed_kernel(
    "void(uint8[::1], int64[::1], int32[::1], int32[::1], int32[:, :, ::1], boolean, "
    "int64[:, ::1], int32[:, ::1])"
)
def gather_fields(buf, off, size, group, fields, big, values, sizes):  # type: ignore[no-untyped-def]
    """Read wanted fields of n records.

    off, size: int64[n], int32[n], the records' bytes. group: int32[n], row of `fields` that
    applies. fields: int32[g, slots, 3], offset, size and FieldKind of each slot; size -1: absent.
    values, sizes: int64[slots, n], int32[slots, n] as readers.assemble.Payload has them. A field
    that does not lie in its record is absent.
    """
    for row in range(off.size):
        of = group[row]
        for slot in range(fields.shape[1]):
            start, width = np.int64(fields[of, slot, 0]), np.int64(fields[of, slot, 1])
            values[slot, row] = 0
            sizes[slot, row] = -1
            if width < 0 or start + width > size[row]:
                continue
            how = fields[of, slot, 2]
            at = off[row] + start
            if how <= 1:
                value = _number(buf, at, width, big)
                if how == 1 and width < 8 and value >> np.uint64(8 * width - 1):
                    value |= ~np.uint64(0) << np.uint64(8 * width)
                values[slot, row] = np.int64(value)
                sizes[slot, row] = 0
                continue
            limit = width if width > 0 else size[row] - start
            if how != 4:
                place_of_text = np.int64(_four(buf, at, big))
                start = place_of_text & 0xFFFF
                if how == 3:
                    start += np.int64(fields[of, slot, 0]) + 4
                limit = place_of_text >> 16
                if start + limit > size[row]:
                    continue
                at = off[row] + start
            length = 0
            while length < limit and buf[at + length] != 0:
                length += 1
            values[slot, row] = at
            sizes[slot, row] = length + 1
