"""What do a run's loads and puts stand in the way of, and what falls into its stays? One walk.

A put that another vCPU's load forces is in that one's way: the load is at the put's very time on
its CPU, so a put waits (H_*) until the next stay of its CPU is here or there is none.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from analyzer.replay.kernel import (
    CPU_SHIFT,
    INT32,
    INT64,
    P_END,
    P_TS,
    P_WHO,
    VCPU_SHIFT,
    given,
    helper,
)

__all__ = ["CPU_MASK", "HELD", "NEVER", "count_within", "no_puts", "seek", "walk_stays"]

CPU_MASK = (1 << VCPU_SHIFT - CPU_SHIFT) - 1
# Of a CPU: the vCPU whose put waits (-1: none) and when that was; the first load that was last at
# one time, and whose.
H_VCPU, H_TS, H_LOAD_TS, H_LOADER = range(4)
HELD = 4
# Of a vCPU: where its next entry, block and exit were found.
A_ENTRY, A_BLOCK, A_EXIT = range(3)
LOAD, PUT = np.int64(1), np.int64(0)
NEVER = np.iinfo(np.int64).max


def no_puts(cpus: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return int64[cpus, HELD]: no put waits, and no load has been."""
    held = np.full((cpus, HELD), -1, np.int64)
    held[:, H_LOAD_TS] = -NEVER
    return held


@helper
def seek(times, first, last, at, ts):  # type: ignore[no-untyped-def]
    # First of the sorted times[first:last] that is not before ts, from where the last one was.
    at = min(max(at, first), last)
    while at > first and times[at - 1] >= ts:
        at -= 1
    while at < last and times[at] < ts:
        at += 1
    return at


@helper
def _swap(  # type: ignore[no-untyped-def]
    ts, c, v, payer, is_load, part, chosen, watched, entries, entry_of, blocks, block_of, at,
    before, sums, by_cpu,
):  # fmt: skip
    # One load or put of vCPU v's state on CPU c; payer: in whose way it is.
    if ts < part[0] or ts >= part[1] or not chosen[c] or not watched[v]:
        return
    by_cpu[c, is_load] += 1
    # A load may have its entry's very time; a put that has an exit's comes before the next entry.
    first = ts if is_load or payer != v else ts + 1
    end = entry_of[payer + 1]
    entry = seek(entries, entry_of[payer], end, at[payer, A_ENTRY], first)
    begun, done = block_of[payer], block_of[payer + 1]
    block = seek(blocks[0], begun, done, at[payer, A_BLOCK], ts)
    at[payer, A_ENTRY], at[payer, A_BLOCK] = entry, block
    until = entries[entry] if entry < end else NEVER
    is_absorbed = block < done and blocks[0, block] < until
    if not is_load and payer == v:
        # A put while the vCPU is blocked already (its state was kept): nobody waits for it.
        if block == done or blocks[0, block] > ts:
            block -= 1
        is_absorbed = is_absorbed or (block >= begun and ts < blocks[1, block])
    sums[is_load, np.int64(is_absorbed)] += 1
    if not is_absorbed and entry < end:
        before[entry, is_load] += 1


@helper
def _release(  # type: ignore[no-untyped-def]
    c, held, part, chosen, watched, entries, entry_of, blocks, block_of, at, before, sums, by_cpu
):
    # The put that waits on this CPU, now that it is known whether a load came with it.
    v, ts = held[c, H_VCPU], held[c, H_TS]
    if v >= 0:
        payer = held[c, H_LOADER] if held[c, H_LOAD_TS] == ts else v
        _swap(
            ts, c, v, payer, PUT, part, chosen, watched, entries, entry_of, blocks, block_of, at,
            before, sums, by_cpu,
        )  # fmt: skip
        held[c, H_VCPU] = -1


TIMES, TABLE = INT64[::1], INT64[:, ::1]


@numba.njit(  # type: ignore[call-overload]
    numba.void(
        given(INT64, 2), numba.types.boolean, TIMES, TIMES, TIMES, given(INT64), TIMES, TABLE,
        TIMES, given(INT64), TIMES, TABLE, TABLE, INT32[:, ::1], TABLE, TABLE, TIMES, TIMES,
    ),
    cache=True, nogil=True, _nrt=False,
)  # fmt: skip
def walk_stays(  # type: ignore[no-untyped-def]
    rows, is_last, part, chosen, watched, entries, entry_of, blocks, block_of, exits, exit_of, at,
    held, before, sums, by_cpu, on, longest,
):  # fmt: skip
    """Add up a piece of one run's owner slices (int64[n, PACKED_SLICE]); all is carried.

    is_last: no piece follows. part: int64[2], ts from and before which swaps count; chosen:
    int64[cpus] and watched: int64[vcpus], 1 where they do. entries, exits: int64[n] ts by vCPU and
    ts, blocks: int64[2, n] begins and ends; `..._of`: int64[vcpus + 1], where those of each begin.
    at: int64[vcpus, 3] (A_*), at first where they begin; held: `no_puts`. To be added to: before
    int32[entries, 2], puts and loads that stand in the way of each entry; sums int64[2, 2], puts
    and loads by whether they are absorbed; by_cpu int64[cpus, 2]; on int64[vcpus], exits in stays;
    longest int64[1], ns of the longest stay.
    """
    for n in range(len(rows)):
        ts, end, who = rows[n, P_TS], rows[n, P_END], rows[n, P_WHO]
        v, c = who >> VCPU_SHIFT, who >> CPU_SHIFT & CPU_MASK
        if who & 2 and held[c, H_LOAD_TS] != ts:
            held[c, H_LOAD_TS], held[c, H_LOADER] = ts, v
        _release(
            c, held, part, chosen, watched, entries, entry_of, blocks, block_of, at, before, sums,
            by_cpu,
        )  # fmt: skip
        if who & 2:
            _swap(
                ts, c, v, v, LOAD, part, chosen, watched, entries, entry_of, blocks, block_of, at,
                before, sums, by_cpu,
            )  # fmt: skip
        if who & 1:
            held[c, H_VCPU], held[c, H_TS] = v, end
        if watched[v] and chosen[c]:
            longest[0] = max(longest[0], min(end, part[1]) - max(ts, part[0]))
        # An exit at which one stay ends and the next begins is one exit.
        while at[v, A_EXIT] < exit_of[v + 1] and exits[at[v, A_EXIT]] <= end:
            on[v] += exits[at[v, A_EXIT]] >= ts
            at[v, A_EXIT] += 1
    for c in range(len(held) if is_last else 0):
        _release(
            c, held, part, chosen, watched, entries, entry_of, blocks, block_of, at, before, sums,
            by_cpu,
        )  # fmt: skip


@numba.njit(  # type: ignore[call-overload]
    INT64(given(INT64, 2), TIMES, given(INT64), TIMES, TIMES),
    cache=True, nogil=True, _nrt=False,
)  # fmt: skip
def count_within(rows, watched, times, of, at):  # type: ignore[no-untyped-def]
    """Return how many times lie in the watched vCPUs' stays of a piece (int64[n, PACKED_SLICE]).

    times: int64[m] by CPU and time; of: int64[cpus + 1], where those of each CPU begin; at:
    int64[cpus], where the last one was found (carried). A stay ends before its end.
    """
    found = 0
    for n in range(len(rows)):
        who = rows[n, P_WHO]
        c = who >> CPU_SHIFT & CPU_MASK
        if watched[who >> VCPU_SHIFT]:
            first = seek(times, of[c], of[c + 1], at[c], rows[n, P_TS])
            at[c] = seek(times, of[c], of[c + 1], first, rows[n, P_END])
            found += at[c] - first
    return found
