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
# What is searched by time, each a list of groups (`seek`), a vCPU each: entries, blocks (and their
# ends), exits.
G_ENTRIES, G_BLOCKS, G_EXITS = range(3)
LOAD, PUT = np.int64(1), np.int64(0)
# numpy's numbers, see analyzer.jit.
NEVER = np.int64(2**63 - 1)


def no_puts(cpus: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return int64[cpus, HELD]: no put waits, and no load has been."""
    held = np.full((cpus, HELD), -1, np.int64)
    held[:, H_LOAD_TS] = -NEVER
    return held


@helper
def seek(lists, of, at, group, ts):  # type: ignore[no-untyped-def]
    """Return the first row of a group whose time (lists[0]) is not before ts, else where it ends.

    lists: int64[k, n] in order of group and time; of: int64[groups + 1], where each begins; at:
    int64[groups], where the last one was found: the walk goes on from there, either way.
    """
    first, last = of[group], of[group + 1]
    n = at[group]
    while n > first and lists[0, n - 1] >= ts:
        n -= 1
    while n < last and lists[0, n] < ts:
        n += 1
    at[group] = n
    return n


@helper
def _swap(  # type: ignore[no-untyped-def]
    ts, c, v, payer, is_load, part, chosen, watched, lists, of, at, before, sums, by_cpu
):
    # One load or put of vCPU v's state on CPU c; payer: in whose way it is.
    if ts < part[0] or ts >= part[1] or not chosen[c] or not watched[v]:
        return
    by_cpu[c, is_load] += 1
    # A load may have its entry's very time; a put that has an exit's comes before the next entry.
    vcpus = len(watched)
    later = is_load == PUT and payer == v
    entry = seek(lists, of, at, G_ENTRIES * vcpus + payer, ts + later)
    group = G_BLOCKS * vcpus + payer
    block, done = seek(lists, of, at, group, ts), of[group + 1]
    has_entry = entry < of[G_ENTRIES * vcpus + payer + 1]
    until = lists[0, entry] if has_entry else NEVER
    is_absorbed = block < done and lists[0, block] < until
    if later:
        # A put while the vCPU is blocked already (its state was kept): nobody waits for it.
        if block == done or lists[0, block] > ts:
            block -= 1
        is_absorbed = is_absorbed or (block >= of[group] and ts < lists[1, block])
    sums[is_load, np.int64(is_absorbed)] += 1
    if not is_absorbed and has_entry:
        before[entry, is_load] += 1


TIMES, TABLE = INT64[::1], INT64[:, ::1]


@numba.njit(  # type: ignore[call-overload]
    numba.void(
        given(INT64, 2), numba.types.boolean, TIMES, TIMES, TIMES, given(INT64, 2), TIMES, TIMES,
        TABLE, INT32[:, ::1], TABLE, TABLE, TIMES, TIMES,
    ),
    cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False,
)  # fmt: skip
def walk_stays(  # type: ignore[no-untyped-def]
    rows, is_last, part, chosen, watched, lists, of, at, held, before, sums, by_cpu, on, longest
):
    """Add up a piece of one run's owner slices (int64[n, PACKED_SLICE]); all is carried.

    is_last: no piece follows. part: int64[2], ts from and before which swaps count; chosen:
    int64[cpus] and watched: int64[vcpus], 1 where they do. lists: int64[2, n], of and at as `seek`
    has them; group G_BLOCKS * vcpus + v are vCPU v's blocks. held: `no_puts`. To be added to:
    before int32[entries, 2], puts and loads that stand in the way of each entry; sums int64[2, 2],
    puts and loads by whether they are absorbed; by_cpu int64[cpus, 2]; on int64[vcpus], exits in
    stays; longest int64[1], ns of the longest stay.
    """
    size = len(rows)
    # Behind the last row each CPU has its turn once more.
    for n in range(size + len(held) if is_last else size):
        if n < size:
            ts, who = rows[n, P_TS], rows[n, P_WHO]
            v, c = who >> VCPU_SHIFT, who >> CPU_SHIFT & CPU_MASK
            if who & 2 and held[c, H_LOAD_TS] != ts:
                held[c, H_LOAD_TS], held[c, H_LOADER] = ts, v
        else:
            c = n - size
        if held[c, H_VCPU] >= 0:
            # It is known now whether a load came with the put that waits here.
            put, owner = held[c, H_TS], held[c, H_VCPU]
            payer = held[c, H_LOADER] if held[c, H_LOAD_TS] == put else owner
            _swap(
                put, c, owner, payer, PUT, part, chosen, watched, lists, of, at, before, sums,
                by_cpu,
            )  # fmt: skip
            held[c, H_VCPU] = -1
        if n >= size:
            continue
        end = rows[n, P_END]
        if who & 2:
            _swap(
                ts, c, v, v, LOAD, part, chosen, watched, lists, of, at, before, sums, by_cpu
            )  # fmt: skip
        if who & 1:
            held[c, H_VCPU], held[c, H_TS] = v, end
        if watched[v] and chosen[c]:
            longest[0] = max(longest[0], min(end, part[1]) - max(ts, part[0]))
        # An exit at which one stay ends and the next begins is one exit.
        group = G_EXITS * len(watched) + v
        while at[group] < of[group + 1] and lists[0, at[group]] <= end:
            on[v] += lists[0, at[group]] >= ts
            at[group] += 1


@numba.njit(  # type: ignore[call-overload]
    INT64(given(INT64, 2), TIMES, given(INT64, 2), TIMES, TIMES),
    cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False,
)  # fmt: skip
def count_within(rows, watched, times, of, at):  # type: ignore[no-untyped-def]
    """Return how many times lie in the watched vCPUs' stays of a piece (int64[n, PACKED_SLICE]).

    times: int64[1, m], of and at as `seek` has them, by CPU. A stay ends before its end.
    """
    found = 0
    for n in range(len(rows)):
        who = rows[n, P_WHO]
        c = who >> CPU_SHIFT & CPU_MASK
        if watched[who >> VCPU_SHIFT]:
            first = seek(times, of, at, c, rows[n, P_TS])
            found += seek(times, of, at, c, rows[n, P_END]) - first
    return found
