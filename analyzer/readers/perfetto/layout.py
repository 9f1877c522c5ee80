"""How do bytes of a Perfetto trace become numbers? Bounded reads of the protobuf wire format.

Every function here takes the end of what it may read and returns a position; -1 says that the
bytes contradict the format. Nothing is read outside [pos, end).
Source: protobuf's encoding; perfetto:protos/perfetto/trace/{trace,trace_packet}.proto.
"""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper, typed_kernel

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Rows of the index that scan_packets writes, one column a packet.
P_OFFSET, P_LENGTH, P_FIELD, P_FIELD_OFFSET, P_FIELD_LENGTH, P_SEQUENCE, P_DROPPED = range(7)
P_MACHINE, P_TIMESTAMP, P_FIRST_ON_SEQUENCE = range(7, 10)
PACKET_ROWS = 10
# Rows that scan_bundle writes, one column a bundle.
B_CPU, B_EVENTS, B_SWITCHES, B_WAKINGS, B_FIRST, B_LOST, B_CLOCK, B_PREVIOUS_END = range(8)
B_FTRACE_TS, B_BOOT_TS, B_DESCRIPTORS, B_ERRORS, B_BAD, B_LAST, B_COMPACT = range(8, 15)
BUNDLE_ROWS = 15
NO_TIME = np.int64(2**63 - 1)
NO_CPU = np.int64(-1)

# TracePacket fields that the scan looks at. They are given as an array because their numbers come
# out of the perfetto package's descriptors (names.py), not from here.
F_TIMESTAMP, F_SEQUENCE, F_DROPPED, F_MACHINE, F_FIRST = range(5)


TOP_BITS = np.uint64(0x8080808080808080)
SEVENS, SEVENS_UP = np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00)
PAIRS, PAIRS_UP = np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000)
FOURS, FOURS_UP = np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000)
# Times 1 << 8 * n, the top byte is n + 1.
COUNT = np.uint64(0x0102030405060708)


@helper
def _long_varint(buf, pos, end):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    if pos + 8 <= end:
        # Eight bytes at once, put together one by one: the compiler makes one load of them.
        at = np.uint64(pos)
        word = np.uint64(0)
        for n in range(8):
            word |= np.uint64(buf[at + np.uint64(n)]) << np.uint64(8 * n)
        stops = ~word & TOP_BITS
        if stops:
            # Of the bytes up to the first without a top bit, seven bits each go together.
            stop = stops & (~stops + np.uint64(1))
            word &= stop - np.uint64(1)
            word = (word & SEVENS) | ((word & SEVENS_UP) >> np.uint64(1))
            word = (word & PAIRS) | ((word & PAIRS_UP) >> np.uint64(2))
            word = (word & FOURS) | ((word & FOURS_UP) >> np.uint64(4))
            return word, pos + np.int64((stop >> np.uint64(7)) * COUNT >> np.uint64(56))
    shift = np.uint64(0)
    while pos < end and shift < np.uint64(70):
        byte = np.uint64(buf[pos])
        pos += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, pos
        shift += np.uint64(7)
    return value, -1


@helper
def read_varint(buf, pos, end):  # type: ignore[no-untyped-def]
    """Return (value as uint64, next position or -1). Redundant (padded) forms are accepted."""
    # Most varints have one byte.
    if pos < end and buf[pos] < 128:
        return np.uint64(buf[pos]), pos + 1
    return _long_varint(buf, pos, end)


@helper
def skip_value(buf, pos, end, wire):  # type: ignore[no-untyped-def]
    """Return the position behind one value of that wire type, or -1."""
    if wire == 0:
        _, pos = read_varint(buf, pos, end)
        return pos
    if wire == 2:
        length, pos = read_varint(buf, pos, end)
        if pos < 0 or length > np.uint64(end - pos):
            return -1
        return pos + np.int64(length)
    if wire == 1:
        return pos + 8 if pos + 8 <= end else -1
    if wire == 5:
        return pos + 4 if pos + 4 <= end else -1
    return -1


@typed_kernel("Tuple((int64, int64))(uint8[::1], int64, int64)")
def packet_extent(buf, pos, end):  # type: ignore[no-untyped-def]
    """Return (payload position, payload length) of the Trace field at `pos`.

    Length -1: the head itself is cut or is no length-delimited field; the payload may lie
    (partly) behind `end`.
    """
    tag, at = read_varint(buf, pos, end)
    if at < 0 or tag != np.uint64(10):
        return pos, -1
    length, at = read_varint(buf, at, end)
    if at < 0 or length > np.uint64(2**62):
        return pos, -1
    return at, np.int64(length)


@typed_kernel(
    "Tuple((int64, int64))(uint8[::1], int64, int64, int64[::1], uint8[::1], int64[:, ::1])"
)
def scan_packets(buf, pos, end, numbers, rank, out):  # type: ignore[no-untyped-def]
    """Index the whole packets in buf[pos:end].

    numbers: int64[5], field numbers of timestamp, sequence id, dropped, machine id, first packet.
    rank: uint8[n], by field number; the field of highest rank above 0 becomes P_FIELD.
    out: int64[PACKET_ROWS, n]. Returns (packets written, position of the first byte not taken);
    P_LENGTH is -1 for a packet whose fields contradict its length.
    """
    count = 0
    room = out.shape[1]
    while pos < end and count < room:
        tag, at = read_varint(buf, pos, end)
        if at < 0:
            break
        if tag != np.uint64(10):  # a field of Trace that is no packet: step over it
            at = skip_value(buf, at, end, np.int64(tag & np.uint64(7)))
            if at < 0:
                break
            pos = at
            continue
        length, at = read_varint(buf, at, end)
        if at < 0 or length > np.uint64(end - at):
            break
        stop = at + np.int64(length)
        for row in range(PACKET_ROWS):
            out[row, count] = 0
        out[P_OFFSET, count] = at
        out[P_LENGTH, count] = np.int64(length)
        best = np.uint8(0)
        cur = at
        while cur < stop:
            tag, cur = read_varint(buf, cur, stop)
            if cur < 0:
                break
            field = np.int64(tag >> np.uint64(3))
            wire = np.int64(tag & np.uint64(7))
            value = np.int64(0)
            if wire == 0:
                raw, cur = read_varint(buf, cur, stop)
                value = np.int64(raw)
            else:
                begin = cur
                cur = skip_value(buf, cur, stop, wire)
                if wire == 2 and cur >= 0 and field < rank.size and rank[field] > best:
                    _, body = read_varint(buf, begin, stop)
                    if body >= 0:
                        best = rank[field]
                        out[P_FIELD, count] = field
                        out[P_FIELD_OFFSET, count] = body
                        out[P_FIELD_LENGTH, count] = cur - body
            if cur < 0:
                break
            if field == numbers[F_TIMESTAMP]:
                out[P_TIMESTAMP, count] = value
            elif field == numbers[F_SEQUENCE]:
                out[P_SEQUENCE, count] = value
            elif field == numbers[F_DROPPED]:
                out[P_DROPPED, count] = value
            elif field == numbers[F_MACHINE]:
                out[P_MACHINE, count] = value
            elif field == numbers[F_FIRST]:
                out[P_FIRST_ON_SEQUENCE, count] = value
        if cur < 0:
            out[P_LENGTH, count] = -1
        count += 1
        pos = stop
    return count, pos


@helper
def first_of_packed(buf, pos, end):  # type: ignore[no-untyped-def]
    """Return (first varint or 0, number of varints) of a packed field's bytes."""
    count = 0
    for at in range(pos, end):
        if buf[at] < 128:
            count += 1
    if count == 0:
        return np.int64(0), 0
    value, _ = read_varint(buf, pos, end)
    return np.int64(value), count


@helper
def first_integer(buf, pos, end, number):  # type: ignore[no-untyped-def]
    """Return the integer field of that number in one message, NO_TIME where it has none."""
    while pos < end:
        tag, pos = read_varint(buf, pos, end)
        if pos < 0:
            return NO_TIME
        if np.int64(tag >> np.uint64(3)) == number and tag & np.uint64(7) == np.uint64(0):
            value, pos = read_varint(buf, pos, end)
            return np.int64(value) if pos >= 0 else NO_TIME
        pos = skip_value(buf, pos, end, np.int64(tag & np.uint64(7)))
        if pos < 0:
            return NO_TIME
    return NO_TIME


# FtraceEventBundle fields, in the order of the `numbers` argument of scan_bundle and walk_bundle.
(
    N_CPU,
    N_EVENT,
    N_LOST,
    N_COMPACT,
    N_CLOCK,
    N_FTRACE_TS,
    N_BOOT_TS,
    N_ERROR,
    N_PREVIOUS_END,
    N_DESCRIPTOR,
    N_EVENT_TIME,
    N_EVENT_PID,
    N_SWITCH_TIME,
    N_WAKING_TIME,
    N_DESCRIPTOR_ID,
) = range(15)


@typed_kernel("void(uint8[::1], int64, int64, int64[::1], int32[::1], int64[::1], int64[:, ::1])")
def scan_bundle(buf, pos, end, numbers, lut, out, descriptors):  # type: ignore[no-untyped-def]
    """Write what the index keeps of one FtraceEventBundle: out int64[BUNDLE_ROWS].

    B_CPU is -1 where the bundle names none, B_FIRST and B_LAST are NO_TIME and 0 without events,
    B_BAD is the position of the first field that contradicts the bundle's length, plus 1;
    B_COMPACT where in the bundle its first compact_sched begins, its length where it has none.
    B_DESCRIPTORS counts the descriptors of events that `lut` (kind by field number) does not know
    yet; descriptors: int64[2, n] takes position and size of the first n of them.
    """
    out[:] = 0
    out[B_CPU] = NO_CPU
    out[B_FIRST] = NO_TIME
    first_byte, out[B_COMPACT] = pos, end - pos
    last_at, last_stop = np.int64(0), np.int64(0)
    while pos < end:
        begin = pos
        tag, pos = read_varint(buf, pos, end)
        if pos < 0:
            out[B_BAD] = begin + 1
            return
        field = np.int64(tag >> np.uint64(3))
        wire = np.int64(tag & np.uint64(7))
        if wire == 0:
            raw, pos = read_varint(buf, pos, end)
            if pos < 0:
                out[B_BAD] = begin + 1
                return
            value = np.int64(raw)
            if field == numbers[N_CPU]:
                out[B_CPU] = value
            elif field == numbers[N_LOST]:
                out[B_LOST] = value
            elif field == numbers[N_CLOCK]:
                out[B_CLOCK] = value
            elif field == numbers[N_FTRACE_TS]:
                out[B_FTRACE_TS] = value
            elif field == numbers[N_BOOT_TS]:
                out[B_BOOT_TS] = value
            elif field == numbers[N_PREVIOUS_END]:
                out[B_PREVIOUS_END] = value
            continue
        if wire != 2:
            pos = skip_value(buf, pos, end, wire)
            if pos < 0:
                out[B_BAD] = begin + 1
                return
            continue
        length, at = read_varint(buf, pos, end)
        if at < 0 or length > np.uint64(end - at):
            out[B_BAD] = begin + 1
            return
        pos = at + np.int64(length)
        if field == numbers[N_EVENT]:
            if out[B_EVENTS] == 0:
                out[B_FIRST] = min(out[B_FIRST], first_integer(buf, at, pos, numbers[N_EVENT_TIME]))
            out[B_EVENTS] += 1
            last_at, last_stop = at, pos
        elif field == numbers[N_COMPACT]:
            out[B_COMPACT] = min(out[B_COMPACT], begin - first_byte)
            while at < pos:
                inner, at = read_varint(buf, at, pos)
                if at < 0:
                    break
                column = np.int64(inner >> np.uint64(3))
                kind = np.int64(inner & np.uint64(7))
                if kind == 2 and (
                    column == numbers[N_SWITCH_TIME] or column == numbers[N_WAKING_TIME]
                ):
                    size, body = read_varint(buf, at, pos)
                    if body < 0 or size > np.uint64(pos - body):
                        break
                    first, count = first_of_packed(buf, body, body + np.int64(size))
                    if count > 0:
                        out[B_FIRST] = min(out[B_FIRST], first)
                    if column == numbers[N_SWITCH_TIME]:
                        out[B_SWITCHES] += count
                    else:
                        out[B_WAKINGS] += count
                at = skip_value(buf, at, pos, kind)
                if at < 0:
                    break
        elif field == numbers[N_DESCRIPTOR]:
            # Recorders repeat the descriptors in every bundle: only the new ones are of interest.
            named = first_integer(buf, at, pos, numbers[N_DESCRIPTOR_ID])
            if 0 <= named < lut.size and lut[named] < 0:
                if out[B_DESCRIPTORS] < descriptors.shape[1]:
                    descriptors[0, out[B_DESCRIPTORS]] = at
                    descriptors[1, out[B_DESCRIPTORS]] = pos - at
                out[B_DESCRIPTORS] += 1
        elif field == numbers[N_ERROR]:
            out[B_ERRORS] += 1
    if out[B_EVENTS] > 0:
        out[B_LAST] = first_integer(buf, last_at, last_stop, numbers[N_EVENT_TIME])
