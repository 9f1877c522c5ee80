"""Which events does a bundle hold? Bytes of FtraceEventBundle into columns, event by event.

Source: perfetto:protos/perfetto/trace/ftrace/{ftrace_event,ftrace_event_bundle}.proto.
"""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper, typed_kernel
from analyzer.readers.perfetto.layout import (
    N_COMPACT,
    N_EVENT,
    N_EVENT_PID,
    N_EVENT_TIME,
    read_varint,
    skip_value,
)

# Columns of compact_sched, rows of the arrays that walk_compact fills.
S_TIME, S_STATE, S_PID, S_PRIO, S_COMM = range(5)
W_TIME, W_PID, W_CPU, W_PRIO, W_COMM, W_FLAGS = range(6)
# Stands for "this bundle has no such column" inside the kernels; null in every table.
ABSENT = np.int64(-(2**63))


@typed_kernel(
    "int64(uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], int32[::1], int64[::1], "
    "int32[::1], int32[::1], int64[::1], int32[::1], int64[::1])"
)
def walk_events(buf, begins, ends, rows, numbers, lut, ts, tid, kind, off, size, bad):  # type: ignore[no-untyped-def]
    """Decode the event[] of several bundles.

    begins, ends: int64[n], each bundle's bytes in buf; rows: int64[n + 1], where its events go.
    lut: int32[m], kind of an event by its field number, negative where none is known.
    ts (ns), tid, kind, off, size: one row an event; off and size are its payload's bytes.
    A field without a kind is written as -2 - field number, an event without payload as -2.
    bad: int64[n], 0, or 1 + position of the event that contradicts its length; what stands before
    it is kept and the rest of its bundle left out: its rows keep kind -1.
    Returns the number of events decoded.
    """
    decoded = 0
    for b in range(begins.size):
        pos, end, row = begins[b], ends[b], rows[b]
        bad[b] = 0
        while pos < end and row < rows[b + 1]:
            begin = pos
            tag, pos = read_varint(buf, pos, end)
            wire = np.int64(tag & np.uint64(7))
            if pos < 0 or wire != 2 or np.int64(tag >> np.uint64(3)) != numbers[N_EVENT]:
                pos = skip_value(buf, pos, end, wire) if pos >= 0 else pos
                if pos < 0:
                    bad[b] = begin + 1
                    break
                continue
            length, pos = read_varint(buf, pos, end)
            if pos < 0 or length > np.uint64(end - pos):
                bad[b] = begin + 1
                break
            stop = pos + np.int64(length)
            ts[row], tid[row], kind[row], off[row], size[row] = 0, 0, -2, pos, 0
            while pos < stop:
                tag, pos = read_varint(buf, pos, stop)
                if pos < 0:
                    break
                field = np.int64(tag >> np.uint64(3))
                wire = np.int64(tag & np.uint64(7))
                if wire == 0:
                    value, pos = read_varint(buf, pos, stop)
                    if field == numbers[N_EVENT_TIME]:
                        ts[row] = np.int64(value)
                    elif field == numbers[N_EVENT_PID]:
                        tid[row] = np.int32(value)
                elif wire == 2:
                    inner, pos = read_varint(buf, pos, stop)
                    if pos < 0 or inner > np.uint64(stop - pos):
                        pos = -1
                        break
                    off[row] = pos
                    size[row] = np.int32(inner)
                    known = lut[field] if field < lut.size else np.int32(-1)
                    kind[row] = known if known >= 0 else np.int32(-2 - field)
                    pos += np.int64(inner)
                else:
                    pos = skip_value(buf, pos, stop, wire)
                if pos < 0:
                    break
            if pos < 0:
                bad[b] = begin + 1
                break
            row += 1
            decoded += 1
        while row < rows[b + 1]:
            kind[row] = -1
            row += 1
    return decoded


@helper
def _packed(buf, pos, end, out, at, room, delta):  # type: ignore[no-untyped-def]
    # Decodes at most `room` varints to out[at:], summing them up where `delta`; returns how many.
    count = 0
    total = np.int64(0)
    while pos < end and count < room:
        value, pos = read_varint(buf, pos, end)
        if pos < 0:
            break
        if delta:
            total += np.int64(value)
            out[at + count] = total
        else:
            out[at + count] = np.int64(value)
        count += 1
    return count


@typed_kernel(
    "int64(uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int32[::1], "
    "int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1])"
)
def walk_compact(  # type: ignore[no-untyped-def]
    buf, begins, ends, switch_rows, waking_rows, numbers, columns, switches, wakings, names,
    name_rows,
):  # fmt: skip
    """Decode the compact_sched of several bundles, which begins at `begins` or later in each.

    switch_rows, waking_rows: int64[n + 1], where each bundle's rows go. columns: int32[m], by field
    number of CompactSched: 0..4 a row of switches, 16..21 a row of wakings plus 16, 32 the intern
    table, -1 nothing of ours. switches: int64[5, s], wakings: int64[6, w]; ABSENT where a column
    is missing or short. names: int64[2, k], offset and size of interned strings; name_rows:
    int64[n + 1], where each bundle's begin. Returns the number of strings found; more than k: call
    again with room for that many.
    """
    found = 0
    for b in range(begins.size):
        name_rows[b] = found
        switches[:, switch_rows[b] : switch_rows[b + 1]] = ABSENT
        wakings[:, waking_rows[b] : waking_rows[b + 1]] = ABSENT
        pos, end = begins[b], ends[b]
        while pos < end:
            tag, pos = read_varint(buf, pos, end)
            if pos < 0:
                break
            wire = np.int64(tag & np.uint64(7))
            begin = pos
            pos = skip_value(buf, pos, end, wire)
            if pos < 0:
                break
            if wire != 2 or np.int64(tag >> np.uint64(3)) != numbers[N_COMPACT]:
                continue
            _, at = read_varint(buf, begin, end)
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
                if wire != 2 or field >= columns.size or columns[field] < 0:
                    continue
                _, body = read_varint(buf, start, pos)
                column = columns[field]
                if column == 32:
                    if found < names.shape[1]:
                        names[0, found] = body
                        names[1, found] = at - body
                    found += 1
                elif column >= 16:
                    room = waking_rows[b + 1] - waking_rows[b]
                    out = wakings[column - 16]
                    _packed(buf, body, at, out, waking_rows[b], room, column - 16 == W_TIME)
                else:
                    room = switch_rows[b + 1] - switch_rows[b]
                    out = switches[column]
                    _packed(buf, body, at, out, switch_rows[b], room, column == S_TIME)
    name_rows[begins.size] = found
    return found
