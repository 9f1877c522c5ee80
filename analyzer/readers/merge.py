"""In which order did things happen? Runs that are in order by themselves, merged by time.

A binary heap over the runs' heads yields the order of all; nothing is ever sorted as a whole.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["group_rows", "merge_runs", "spread_fields", "straighten", "take_heads"]


@numba.njit
def _before(ts, heads, a, b):  # type: ignore[no-untyped-def]
    # Runs are numbered so that the smaller number goes first at equal times.
    return ts[heads[a]] < ts[heads[b]] or (ts[heads[a]] == ts[heads[b]] and a < b)


@numba.njit
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


@numba.njit("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1])", cache=True)
def merge_runs(ts, heads, tails, horizon, order):  # type: ignore[no-untyped-def]
    """Write the rows of all runs with ts < horizon, in order of time, to `order`.

    ts: int64[n], ns. heads, tails: int64[r], each run is ts[heads[r]:tails[r]], non-decreasing;
    heads are moved on. Equal times go by the number of the run. Returns the rows written.
    """
    heap = np.empty(heads.size, np.int64)
    size = 0
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
            _sift(heap, size, 0, ts, heads)
    return written


@numba.njit("int64(int64[::1], int64[::1], int64[::1])", cache=True)
def straighten(ts, heads, tails):  # type: ignore[no-untyped-def]
    """Raise every time that is below the one before it in its run; return how many were."""
    raised = 0
    for run in range(heads.size):
        for row in range(heads[run] + 1, tails[run]):
            if ts[row] < ts[row - 1]:
                ts[row] = ts[row - 1]
                raised += 1
    return raised


@numba.njit("void(int64[::1], int32[::1], int32[::1], int64[::1], int64[::1])", cache=True)
def group_rows(order, kind, table_of_kind, starts, rows):  # type: ignore[no-untyped-def]
    """Write the rows of `order` grouped by table, in order of time within each.

    table_of_kind: int32[k]. starts: int64[t + 1], filled with where each table's rows begin in
    `rows` (int64[n]).
    """
    starts[:] = 0
    for at in range(order.size):
        starts[table_of_kind[kind[order[at]]] + 1] += 1
    for table in range(1, starts.size):
        starts[table] += starts[table - 1]
    cursor = starts[:-1].copy()
    for at in range(order.size):
        table = table_of_kind[kind[order[at]]]
        rows[cursor[table]] = order[at]
        cursor[table] += 1


@numba.njit(
    "void(int64[::1], int64[::1], int32[::1], int32[::1], int32[::1], int32[::1], int64[::1], "
    "int32[::1], int32[::1], int32[::1])",
    cache=True,
)
def take_heads(  # type: ignore[no-untyped-def]
    rows, ts, cpu, tid, kind, number_of_kind, ts_out, cpu_out, tid_out, group
):
    """Take the header fields of `rows`, and number their kinds; one pass is a third of four.

    rows: int64[n]. ts, cpu, tid, kind: by row of the batch. number_of_kind: int32[k], filled with
    the rank of each kind among those that occur, -1 for the others. ts_out, cpu_out, tid_out,
    group: one an entry of `rows`; group is the rank of its kind.
    """
    number_of_kind[:] = -1
    for at in range(rows.size):
        number_of_kind[kind[rows[at]]] = 0
    found = 0
    for one in range(number_of_kind.size):
        if number_of_kind[one] == 0:
            number_of_kind[one] = found
            found += 1
    for at in range(rows.size):
        row = rows[at]
        ts_out[at] = ts[row]
        cpu_out[at] = cpu[row]
        tid_out[at] = tid[row]
        group[at] = number_of_kind[kind[row]]


@numba.njit(
    "void(int64[::1], int32[::1], int32[::1], int64[:, ::1], int32[:, ::1], int64[::1])",
    cache=True,
)
def spread_fields(rows, group, slot_of_group, values, sizes, out):  # type: ignore[no-untyped-def]
    """Write one value a row to `out`, by row of the batch.

    slot_of_group: int32[g], which row of values (int64[slots, n]) and sizes (int32[slots, n]) a
    group's value stands in, -1: none, `out` stays as it is. A size below 0 leaves it so too.
    """
    for at in range(rows.size):
        slot = slot_of_group[group[at]]
        if slot >= 0 and sizes[slot, at] >= 0:
            out[rows[at]] = values[slot, at]
