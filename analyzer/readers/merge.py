"""In which order did things happen? Runs that are in order by themselves, merged by time.

A binary heap over the runs' heads yields the order of all; nothing is ever sorted as a whole.
"""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper, typed_kernel
from analyzer.readers.recording import ABSENT

__all__ = ["group_rows", "merge_runs", "put_field", "straighten"]


@helper
def _before(ts, heads, a, b):  # type: ignore[no-untyped-def]
    # Runs are numbered so that the smaller number goes first at equal times.
    return ts[heads[a]] < ts[heads[b]] or (ts[heads[a]] == ts[heads[b]] and a < b)


@helper
def _sift(heap, size, slot, ts, heads):  # type: ignore[no-untyped-def]
    while True:
        child = 2 * slot + 1
        if child >= size:
            return
        if child + 1 < size and _before(ts, heads, heap[child + 1], heap[child]):
            child += 1
        if not _before(ts, heads, heap[child], heap[slot]):
            return
        heap[slot], heap[child] = heap[child], heap[slot]
        slot = child


@typed_kernel("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1], int64[::1])")
def merge_runs(ts, heads, tails, horizon, heap, order):  # type: ignore[no-untyped-def]
    """Write the rows of all runs with ts < horizon, in order of time, to `order`.

    ts: int64[n], ns. heads, tails: int64[r], each run is ts[heads[r]:tails[r]], non-decreasing;
    heads are moved on. Equal times go by the number of the run. heap: int64[r], scratch. Returns
    the rows written.
    """
    size, top = np.int64(0), np.int64(0)
    for run in range(heads.size):
        if heads[run] < tails[run]:
            heap[size] = run
            size += 1
    for slot in range(size // 2 - 1, -1, -1):
        _sift(heap, size, slot, ts, heads)
    written = 0
    while size > 0:
        run = heap[0]
        # Whole stretches come from one run: go on until the next best run's head is earlier.
        rival = np.int64(-1)
        if size > 1:
            rival = heap[1]
            if size > 2 and _before(ts, heads, heap[2], rival):
                rival = heap[2]
        if ts[heads[run]] >= horizon:
            break
        while heads[run] < tails[run] and ts[heads[run]] < horizon:
            if rival >= 0 and not _before(ts, heads, run, rival):
                break
            order[written] = heads[run]
            written += 1
            heads[run] += 1
        if heads[run] >= tails[run]:
            size -= 1
            heap[0] = heap[size]
        if size > 0:
            _sift(heap, size, top, ts, heads)
    return written


@typed_kernel("int64(int64[::1], int64[::1], int64[::1])")
def straighten(ts, heads, tails):  # type: ignore[no-untyped-def]
    """Raise every time that is below the one before it in its run; return how many were."""
    raised = 0
    for run in range(heads.size):
        for row in range(heads[run] + 1, tails[run]):
            if ts[row] < ts[row - 1]:
                ts[row] = ts[row - 1]
                raised += 1
    return raised


@typed_kernel(
    "void(int64[::1], int32[::1], int64[::1], int32[::1], int32[::1], int32[::1], int64[::1], "
    "int32[::1], int64[::1], int32[::1], int64[::1], int64[::1], int64[::1], int64[::1], "
    "int32[::1], int64[::1], int32[::1], int32[::1], int64[::1], int32[::1], int64[::1], "
    "int16[::1], int32[::1], int16[::1])"
)
def group_rows(  # type: ignore[no-untyped-def]
    order, table_of_kind, ts, cpu, tid, kind, off, size, counts, group_of_kind, cursor, starts,
    rows, place, group, table_ts, table_cpu, table_tid, table_off, table_size, stream_ts,
    stream_cpu, stream_tid, stream_kind,
):  # fmt: skip
    """Write the rows of `order` as the stream, and grouped by table, in order of time within each.

    order: int64[n]; table_of_kind: int32[k]; ts, cpu, tid, kind, off, size: by row. Scratch:
    group_of_kind int32[k], cursor int64[t]. Filled: counts int64[k], rows of each kind; starts
    int64[t + 1], where each table begins in the grouped columns; those, all [n]: rows, place
    (number in `order`), group (which of its table's kinds that have rows it is, in order of their
    numbers), table_*; and stream_*, columns in `order`.
    """
    counts[:] = 0
    for at in range(order.size):
        counts[kind[order[at]]] += 1
    starts[:] = 0
    cursor[:] = 0
    for k in range(counts.size):
        table = table_of_kind[k]
        starts[table + 1] += counts[k]
        if counts[k] > 0:
            group_of_kind[k] = cursor[table]
            cursor[table] += 1
    for table in range(cursor.size):
        cursor[table] = starts[table]
        starts[table + 1] += starts[table]
    for at in range(order.size):
        row = order[at]
        k = kind[row]
        to = cursor[table_of_kind[k]]
        cursor[table_of_kind[k]] += 1
        rows[to], place[to], group[to] = row, at, group_of_kind[k]
        table_ts[to], table_cpu[to], table_tid[to] = ts[row], cpu[row], tid[row]
        table_off[to], table_size[to] = off[row], size[row]
        stream_ts[at], stream_cpu[at] = ts[row], cpu[row]
        stream_tid[at], stream_kind[at] = tid[row], k


@typed_kernel("void(int64[::1], int32[::1], int64[::1], int64[::1])")
def put_field(place, sizes, values, out):  # type: ignore[no-untyped-def]
    """Write values[n] to out[place[n]], ABSENT where sizes[n] says that there is none."""
    for n in range(place.size):
        out[place[n]] = values[n] if sizes[n] >= 0 else ABSENT
