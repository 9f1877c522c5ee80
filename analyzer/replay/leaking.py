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

# How many counters there may be on a CPU: as many as bits name them.
COUNTERS = 64
# Of a CPU: the vCPU whose put waits (-1: none) and when that was.
H_VCPU, H_TS = range(2)
HELD = 2
WITHIN, BEHIND = np.int64(0), np.int64(1)


def no_puts(cpus: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return int64[cpus, HELD]: no put waits."""
    return np.full((cpus, HELD), -1, np.int64)


@helper
def _spent(runs, first, last, at, ts):  # type: ignore[no-untyped-def]
    # How much of the runs first:last (begins, lengths, lengths of those before) lies before ts, and
    # the next one's number.
    at = seek(runs[0], first, last, at, ts)
    if at == first:
        return np.int64(0), at
    n = at - 1
    return runs[2, n] - runs[2, first] + min(ts - runs[0, n], runs[1, n]), at


@helper
def _window(  # type: ignore[no-untyped-def]
    c, v, begin, end, part, chosen, watched, vm, threads, thread_of, thread_at, own, own_of, own_at
):
    # ns for which threads of no vCPU or of another VM run on CPU c in a window; -1: it is not in
    # the part.
    begin, end = max(begin, part[0]), min(end, part[1])
    if end <= begin or not chosen[c] or not watched[v]:
        return np.int64(-1)
    first, last, group = thread_of[c], thread_of[c + 1], c * (len(own_at) // len(chosen)) + vm[v]
    since, thread_at[c] = _spent(threads, first, last, thread_at[c], begin)
    until, thread_at[c] = _spent(threads, first, last, thread_at[c], end)
    first, last = own_of[group], own_of[group + 1]
    own_since, own_at[group] = _spent(own, first, last, own_at[group], begin)
    own_until, own_at[group] = _spent(own, first, last, own_at[group], end)
    return until - since - (own_until - own_since)


@helper
def _cleared(  # type: ignore[no-untyped-def]
    c, v, put, used, used_of, writes, write_of, write_at, puts, put_of, put_at
):
    # When the last counter of vCPU v has been written by the host after its put, or by perf's half
    # of it: a host event is on a counter that the recorded puts before and after both write.
    if used_of[v] < 0:
        return NEVER
    after = seek(puts[0], put_of[c], put_of[c + 1], put_at[c], put + 1)
    put_at[c] = after
    halves = np.int64(0)
    if put_of[c] < after < put_of[c + 1]:
        halves = puts[1, after - 1] & puts[1, after]
    # A guest that enabled no counter has left nothing.
    latest = put
    for n in range(used_of[v], used_of[v] + used[used_of[v]]):
        bit = used[n + 1]
        if halves >> bit & 1:
            continue
        group = c * COUNTERS + bit
        at = seek(writes, write_of[group], write_of[group + 1], write_at[group], put)
        write_at[group] = at
        if at == write_of[group + 1]:
            return NEVER
        latest = max(latest, writes[at])
    return latest


@helper
def _release(  # type: ignore[no-untyped-def]
    c, following, held, lost, lost_of, lost_at, part, chosen, watched, vm, threads, thread_of,
    thread_at, own, own_of, own_at, used, used_of, writes, write_of, write_at, puts, put_of, put_at,
    found,
):  # fmt: skip
    # The window behind the put that waits on this CPU, whose next stay begins then.
    v, put = held[c, H_VCPU], held[c, H_TS]
    if v < 0:
        return
    held[c, H_VCPU] = -1
    lost_at[c] = seek(lost, lost_of[c], lost_of[c + 1], lost_at[c], put)
    if lost_at[c] < lost_of[c + 1]:
        following = min(following, lost[lost_at[c]])
    if following > put:
        until = _cleared(c, v, put, used, used_of, writes, write_of, write_at, puts, put_of, put_at)
        ns = _window(
            c, v, put, min(following, until), part, chosen, watched, vm, threads, thread_of,
            thread_at, own, own_of, own_at,
        )  # fmt: skip
        if ns > 0:
            found[BEHIND, 0] += ns
            found[BEHIND, 1] += 1


@helper
def _runs_code(ts, end, c, v, code, code_of, code_at):  # type: ignore[no-untyped-def]
    # Whether the vCPU's own thread runs user code on CPU c in a stay.
    at = seek(code[1], code_of[v], code_of[v + 1], code_at[v], ts + 1)
    code_at[v] = at
    while at < code_of[v + 1] and code[0, at] < end:
        if code[2, at] == c:
            return True
        at += 1
    return False


READ, TABLE, TIMES = given(INT64), given(INT64, 2), INT64[::1]


@numba.njit(  # type: ignore[call-overload]
    numba.void(
        TABLE, numba.types.boolean, TIMES, TIMES, TIMES, READ, TABLE, READ, TIMES, TABLE, READ,
        TIMES, TABLE, READ, TIMES, READ, READ, READ, READ, TIMES, TABLE, READ, TIMES, READ, READ,
        TIMES, INT64[:, ::1], INT64[:, ::1],
    ),
    cache=True, nogil=True, _nrt=False,
)  # fmt: skip
def walk_leaks(  # type: ignore[no-untyped-def]
    rows, is_last, part, chosen, watched, vm, threads, thread_of, thread_at, own, own_of, own_at,
    code, code_of, code_at, used, used_of, writes, write_of, write_at, puts, put_of, put_at, lost,
    lost_of, lost_at, held, found,
):  # fmt: skip
    """Add up the windows of a piece of one run's owner slices (int64[n, PACKED_SLICE]).

    is_last: no piece follows. part: int64[2], where windows are cut; chosen: int64[cpus] and
    watched: int64[vcpus], 1 where they count. vm: int64[vcpus], the number of a vCPU's VM.
    threads: int64[3, n], begins, lengths and sums of the lengths before, of every stretch that a
    thread runs by CPU and time; own: the same of VMs' threads, by CPU * VMs + VM. code: int64[3,
    n], begins, ends and CPUs of user code by vCPU. used: at used_of[v] (-1: not known) how many
    counters a vCPU uses, and which. writes: when the host wrote a counter, by CPU * COUNTERS +
    counter. puts: int64[2, n], recorded puts and the set of counters that each writes, by CPU.
    lost: when sight of a CPU was lost. `..._of` tell where those of each group begin, `..._at`
    where the last was found (carried), as does held (`no_puts`). found: int64[2, 2], to be added
    to: ns and windows that leak, within stays and behind them.
    """
    for n in range(len(rows)):
        ts, end, who = rows[n, P_TS], rows[n, P_END], rows[n, P_WHO]
        v, c = who >> VCPU_SHIFT, who >> CPU_SHIFT & CPU_MASK
        _release(
            c, ts, held, lost, lost_of, lost_at, part, chosen, watched, vm, threads, thread_of,
            thread_at, own, own_of, own_at, used, used_of, writes, write_of, write_at, puts, put_of,
            put_at, found,
        )  # fmt: skip
        ns = _window(
            c, v, ts, end, part, chosen, watched, vm, threads, thread_of, thread_at, own, own_of,
            own_at,
        )  # fmt: skip
        if ns >= 0:
            found[WITHIN, 0] += ns
            is_leak = ns > 0 or _runs_code(ts, end, c, v, code, code_of, code_at)
            found[WITHIN, 1] += np.int64(is_leak)
        if who & 1:
            held[c, H_VCPU], held[c, H_TS] = v, end
    for c in range(len(held) if is_last else 0):
        _release(
            c, NEVER, held, lost, lost_of, lost_at, part, chosen, watched, vm, threads, thread_of,
            thread_at, own, own_of, own_at, used, used_of, writes, write_of, write_at, puts, put_of,
            put_at, found,
        )  # fmt: skip
