"""For how long does other code run where a guest's values stand in the counters? One walk.

A stay is a window, and what follows its put is another, until the CPU's next stay, the host's
writes, or a loss: so a put waits (H_*) until the next stay of its CPU is here or there is none.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from analyzer.replay.kernel import CPU_SHIFT, INT64, P_END, P_TS, P_WHO, VCPU_SHIFT, given, helper
from analyzer.replay.stays import CPU_MASK, NEVER, seek

__all__ = ["COUNTERS", "no_puts", "walk_leaks"]

# How many counters there may be on a CPU: as many bits as name them.
COUNTERS = 64
# What is searched by time, each a list of groups (`stays.seek`), rows being a time and two words:
#   G_THREADS  stretches that a thread runs, by CPU: begin, length, sum of the lengths before
#   G_OWN      the same of VMs' threads, by CPU * VMs + VM
#   G_CODE     user code, by vCPU: end, begin, CPU
#   G_WRITES   when the host wrote a counter, by CPU * COUNTERS + counter
#   G_PUTS     recorded puts by CPU: begin, set of the counters that the host writes in it
#   G_LOST     when sight of a CPU was lost, by CPU
G_THREADS, G_OWN, G_CODE, G_WRITES, G_PUTS, G_LOST = range(6)
# Of a CPU: the vCPU whose put waits (-1: none) and when that was.
H_VCPU, H_TS = range(2)
HELD = 2
WITHIN, BEHIND = np.int64(0), np.int64(1)


def no_puts(cpus: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return int64[cpus, HELD]: no put waits."""
    return np.full((cpus, HELD), -1, np.int64)


@helper
def _spent(lists, of, at, group, ts):  # type: ignore[no-untyped-def]
    # How much of a group's stretches lies before ts.
    n = seek(lists, of, at, group, ts) - 1
    if n < of[group]:
        return np.int64(0)
    return lists[2, n] - lists[2, of[group]] + min(ts - lists[0, n], lists[1, n])


@helper
def _window(c, v, begin, end, part, chosen, watched, vm, lists, of, at, first):  # type: ignore[no-untyped-def]
    # ns for which threads of no vCPU or of another VM run on CPU c in a window; -1: it is not in
    # the part.
    begin, end = max(begin, part[0]), min(end, part[1])
    if end <= begin or not chosen[c] or not watched[v]:
        return np.int64(-1)
    vms = (first[G_CODE] - first[G_OWN]) // len(chosen)
    every, own = first[G_THREADS] + c, first[G_OWN] + c * vms + vm[v]
    ns = _spent(lists, of, at, own, begin) - _spent(lists, of, at, every, begin)
    return ns + _spent(lists, of, at, every, end) - _spent(lists, of, at, own, end)


@helper
def _cleared(c, v, put, told, used, lists, of, at, first):  # type: ignore[no-untyped-def]
    # When the last counter of vCPU v has been written by the host after its put or, if perf is
    # told, by its half of it: a host event is on a counter that the recorded puts before and after
    # both write.
    if used[v] < 0:
        return NEVER
    group = first[G_PUTS] + c
    after, halves = seek(lists, of, at, group, put + 1), np.int64(0)
    if told and of[group] < after < of[group + 1]:
        halves = lists[1, after - 1] & lists[1, after]
    # A guest that enabled no counter has left nothing.
    latest = put
    for n in range(used[v] + 1, used[v] + 1 + used[used[v]]):
        if halves >> used[n] & 1:
            continue
        group = first[G_WRITES] + c * COUNTERS + used[n]
        written = seek(lists, of, at, group, put)
        if written == of[group + 1]:
            return NEVER
        latest = max(latest, lists[0, written])
    return latest


TIMES = INT64[::1]


@numba.njit(  # type: ignore[call-overload]
    numba.void(
        given(INT64, 2), numba.types.boolean, numba.types.boolean, TIMES, TIMES, TIMES, TIMES,
        TIMES, given(INT64, 2), TIMES, TIMES, TIMES, INT64[:, ::1], INT64[:, ::1],
    ),
    cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False,
)  # fmt: skip
def walk_leaks(  # type: ignore[no-untyped-def]
    rows, is_last, told, part, chosen, watched, vm, used, lists, of, at, first, held, found
):
    """Add up the windows of a piece of one run's owner slices (int64[n, PACKED_SLICE]).

    is_last: no piece follows. told: perf has a half of its own in each put. part: int64[2], where
    windows are cut; chosen: int64[cpus] and watched: int64[vcpus], 1 where they count. vm:
    int64[vcpus], the number of a vCPU's VM. used: int64[vcpus + ...], of each vCPU where it stands
    how many counters it uses, and behind that which (-1: not known). lists: int64[3, n]; of:
    int64[groups + 1] and at: int64[groups] as `stays.seek` has them; first: int64[7], the first
    group of each list, and how many there are. held: `no_puts`, carried as `at`. found: int64[2,
    2], to be added to: ns and windows that leak, within stays and behind them.
    """
    size = len(rows)
    # Behind the last row each CPU has its turn once more.
    for n in range(size + len(held) if is_last else size):
        c, following = n - size, NEVER
        if n < size:
            c, following = rows[n, P_WHO] >> CPU_SHIFT & CPU_MASK, rows[n, P_TS]
        v, put = held[c, H_VCPU], held[c, H_TS]
        if v >= 0:
            held[c, H_VCPU] = -1
            lost = seek(lists, of, at, first[G_LOST] + c, put)
            if lost < of[first[G_LOST] + c + 1]:
                following = min(following, lists[0, lost])
            if following > put:
                following = min(
                    following, _cleared(c, v, put, told, used, lists, of, at, first)
                )  # fmt: skip
            ns = _window(c, v, put, following, part, chosen, watched, vm, lists, of, at, first)
            if ns > 0:
                found[BEHIND, 0] += ns
                found[BEHIND, 1] += 1
        if n >= size:
            continue
        ts, end, v = rows[n, P_TS], rows[n, P_END], rows[n, P_WHO] >> VCPU_SHIFT
        ns = _window(c, v, ts, end, part, chosen, watched, vm, lists, of, at, first)
        if ns >= 0:
            # The vCPU's own thread may run user code on this CPU, too.
            group = first[G_CODE] + v
            code = seek(lists, of, at, group, ts + 1)
            while code < of[group + 1] and lists[1, code] < end and lists[2, code] != c:
                code += 1
            found[WITHIN, 0] += ns
            found[WITHIN, 1] += ns > 0 or (code < of[group + 1] and lists[1, code] < end)
        if rows[n, P_WHO] & 1:
            held[c, H_VCPU], held[c, H_TS] = v, end
