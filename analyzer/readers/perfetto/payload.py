"""Which values stand in an event's payload? Fields of many events into columns at once."""

from __future__ import annotations

import numpy as np

from analyzer.jit import typed_kernel
from analyzer.readers.perfetto.layout import read_varint, skip_value

ABSENT_FIELD = np.int32(-1)


@typed_kernel(
    "void(uint8[::1], int64[::1], int32[::1], int32[::1], int16[:, ::1], int64[:, ::1], "
    "int32[:, ::1])"
)
def payload_fields(buf, off, size, group, slots, values, sizes):  # type: ignore[no-untyped-def]
    """Read wanted fields of n payloads.

    off, size: int64[n], int32[n], the payloads' bytes. group: int32[n], row of `slots` that
    applies. slots: int16[g, m], by field number the row of values it goes to, or -1.
    values: int64[k, n], the integer (two's complement) or the offset of a string's bytes;
    sizes: int32[k, n], -1 absent, 0 for an integer, else the size of a string plus 1.
    A payload that ends inside a field keeps what was read before.
    """
    sizes[:, :] = -1
    for row in range(off.size):
        pos = off[row]
        end = pos + size[row]
        of_group = slots[group[row]]
        while pos < end:
            tag, pos = read_varint(buf, pos, end)
            if pos < 0:
                break
            field = np.int64(tag >> np.uint64(3))
            wire = np.int64(tag & np.uint64(7))
            slot = np.int64(of_group[field]) if field < of_group.size else np.int64(-1)
            if slot < 0:
                pos = skip_value(buf, pos, end, wire)
            elif wire == 0:
                value, pos = read_varint(buf, pos, end)
                values[slot, row] = np.int64(value)
                sizes[slot, row] = 0
            elif wire == 2:
                length, at = read_varint(buf, pos, end)
                if at < 0 or length > np.uint64(end - at):
                    break
                values[slot, row] = at
                sizes[slot, row] = np.int32(length) + 1
                pos = at + np.int64(length)
            else:
                width = 8 if wire == 1 else 4
                at = pos
                pos = skip_value(buf, pos, end, wire)
                if pos >= 0:
                    total = np.uint64(0)
                    for byte in range(width):
                        total |= np.uint64(buf[at + byte]) << np.uint64(8 * byte)
                    values[slot, row] = np.int64(total)
                    sizes[slot, row] = 0
            if pos < 0:
                break


@typed_kernel(
    "void(uint8[::1], int64[::1], int32[::1], uint8[::1], int64[::1], int64[::1], "
    "int64[:, ::1], int32[:, ::1])"
)
def legacy_fields(buf, off, size, names, name_ends, numbers, values, sizes):  # type: ignore[no-untyped-def]
    """Read wanted fields of n legacy generic events ({event_name, field[] {name, value}}).

    names, name_ends: wanted field names, concatenated, and where each ends. numbers: int64[5],
    field numbers of field[], and inside it of name, str_value, int_value and uint_value.
    values, sizes: as in payload_fields, one row a wanted name.
    """
    sizes[:, :] = -1
    for row in range(off.size):
        pos = off[row]
        end = pos + size[row]
        while pos < end:
            tag, pos = read_varint(buf, pos, end)
            if pos < 0:
                break
            begin = pos
            pos = skip_value(buf, pos, end, np.int64(tag & np.uint64(7)))
            if pos < 0:
                break
            if np.int64(tag >> np.uint64(3)) != numbers[0] or tag & np.uint64(7) != np.uint64(2):
                continue
            _, at = read_varint(buf, begin, end)
            slot = -1
            value, length = np.int64(0), np.int32(-1)
            while at < pos:
                inner, at = read_varint(buf, at, pos)
                if at < 0:
                    break
                field = np.int64(inner >> np.uint64(3))
                wire = np.int64(inner & np.uint64(7))
                start = at
                at = skip_value(buf, at, pos, wire)
                if at < 0:
                    break
                if field == numbers[1] and wire == 2:
                    _, body = read_varint(buf, start, pos)
                    left = 0
                    for n in range(name_ends.size):
                        if name_ends[n] - left == at - body:
                            same = True
                            for k in range(at - body):
                                if buf[body + k] != names[left + k]:
                                    same = False
                                    break
                            if same:
                                slot = n
                        left = name_ends[n]
                elif field == numbers[2] and wire == 2:
                    _, body = read_varint(buf, start, pos)
                    value, length = body, np.int32(at - body + 1)
                elif wire == 0 and (field == numbers[3] or field == numbers[4]):
                    raw, _ = read_varint(buf, start, pos)
                    value, length = np.int64(raw), np.int32(0)
            if slot >= 0 and length >= 0:
                values[slot, row] = value
                sizes[slot, row] = length
