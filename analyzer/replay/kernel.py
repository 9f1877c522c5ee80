"""Who owns each CPU's PMU at every moment, under some placements? One loop over the points.

A placement is a transition table (which edges of which levels load and put) and a few rules:

    R_EVICT   contexts (bits) in which the state is put before host perf acts
    R_CORE    put whenever perf core is about to act, be it that it touches a register or not
    R_HOST    BY_ANY: put at the inner loop's end while a host event is on (rule B of Oct 2023);
              BY_KERNEL: while one is on that counts the kernel, loads and puts are the loop's
    R_DEMAND  WHILE_USED: load only while the guest uses its PMU; ONCE_USED: from its first use on;
              NEVER: its accesses trap, and nothing is swapped
    R_LOOP    the level that is the inner loop under this bound of the marks
    R_MASK    the levels that mean "loaded" where a window begins
    R_HOOK    which hook swaps at a context switch: 0 perf's own, BY_NOTIFIER KVM's

Whatever the table says, a guest that runs has its state on, unless R_DEMAND lets it run without.

What the vCPUs do is the same under every placement, so one call takes many runs: a point is decoded
and its time put down once, on clocks of its CPU; a stay takes what the clocks show at its end less
what they showed at its begin.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from analyzer.jit import helper
from analyzer.timeline.attribution.words import Context
from analyzer.timeline.points import REASON_SHIFT, Kind, Level

STATE, ENTRY, EXIT, LOST = int(Kind.STATE), int(Kind.ENTRY), int(Kind.EXIT), int(Kind.LOST)
SWITCH_IN, SWITCH_OUT = int(Kind.SWITCH_IN), int(Kind.SWITCH_OUT)
IRQ_IN, EPISODE, GUEST_PMI = int(Kind.IRQ_IN), int(Kind.EPISODE), int(Kind.GUEST_PMI)
HOST_EVENTS, GUEST_PMU = int(Kind.HOST_EVENTS), int(Kind.GUEST_PMU)
PERF_CORE, INFERRED = int(Kind.PERF_CORE), int(Kind.INFERRED)
OVERFLOW = int(Context.GUEST_PMI)
GUEST, LOOP, OUTER, SHIFT = int(Level.GUEST), int(Level.LOOP), int(Level.OUTER), REASON_SHIFT
OUT, IN = int(Context.SWITCH_OUT), int(Context.SWITCH_IN)
LEVELS = 63
# What a CPU does under any placement: time of its last point, vCPU on it, levels that are on, whether
# an interrupt runs, which host events are on, when it last switched, VM entries so far and when the
# last was. And its clocks in ns: all that counts, of it guest mode, of it interrupts.
(
    C_LAST, C_CURRENT, C_LEVELS, C_IRQ, C_HOST, C_SWITCH_TS, C_ENTRIES, C_ENTERED, C_TIME, C_GUEST,
    C_INTERRUPT,
) = range(11)  # fmt: skip
CPU_COLUMNS = 11
NO_SWITCH = -(2**63)
# Clocks of a CPU and a vCPU: that one's thread on it in KVM, and in user code.
W_KVM, W_USER = range(2)
# What a vCPU does under any placement: whether its guest uses its PMU (-1: nobody knows), whether
# it ever did, time in guest mode. What is held of it until its guest runs again: the reason of its
# last exit, exits that count, and whether an exit has come, be it counted or not.
V_USES, V_USED, V_GUEST, V_REASON, V_EXITS, V_OPEN = range(6)
VCPU_COLUMNS = 6
# A CPU under one placement: of the present stay its vCPU, number, begin, the CPU's VM entries by
# then, and whether a load began it (else it was on where we first saw it); at a context switch
# whose the PMU was before the swaps and between them; whether perf core's put awaits an access.
K_OWNER, K_STAY, K_SINCE, K_ENTRIES, K_LOADED, K_BEFORE, K_BETWEEN, K_CORE = range(8)
STAY_COLUMNS = 8
# A vCPU under one placement: the CPU that has its state (-1: none), how many CPUs it owns (after a
# loss it may be two), and what is held until its guest runs again: blind time, which lacks what the
# clocks show of stays that go on, loads and puts.
H_CPU, H_OWNS, H_BLIND, H_LOADS, H_PUTS = range(5)
HELD = 5
R_EVICT, R_CORE, R_HOST, R_DEMAND, R_LOOP, R_MASK, R_HOOK = range(7)
RULES = 7
BY_ANY, BY_KERNEL = 1, 2
WHILE_USED, ONCE_USED, NEVER = 1, 2, 3
HOST_ON, KERNEL_ON = 1, 2
# What is counted of the whole run: evictions by context (words.Context) and by perf core, those of
# the latter that no access followed, puts that another vCPU's load or a migration forced, changes
# of mode, entries of a guest without its state.
T_EVICTED, T_CORE, T_SPURIOUS, T_DISPLACED, T_REMOTE, T_MODES, T_WITHOUT = 0, 16, 17, 18, 19, 20, 21
TOTALS = 22
# What is counted per vCPU. N_GUEST is the same under every placement; while a replay runs it holds
# guest mode within stays, and N_OTHER nothing: it is what of a stay the clocks do not name.
(
    N_LOADS, N_PUTS, N_START, N_END, N_RESIDENCY, N_KVM, N_USER, N_INTERRUPT, N_OTHER, N_GUEST,
) = range(10)  # fmt: skip
COUNTS = 10
# What is counted per exit reason.
Q_EXITS, Q_LOADS, Q_PUTS, Q_BLIND = range(4)
# Columns of an owner slice and of an episode that met a guest's state, and which of the two. Both
# count VM entries of the stay: in all, and up to the episode, which may have an entry's very time.
S_STAY, S_CPU, S_VCPU, S_TS, S_END, S_ENTERED, S_WHOLE, S_ENTRIES, S_LOADED = range(9)
E_TS, E_CPU, E_VCPU, E_STAY, E_EPISODE, E_CONTEXT, E_COUNTED, E_ENTRIES = range(8)
SLICE_ROW, MEETING_ROW = 9, 8
SLICES, MEETINGS, STAYS = range(3)
# The same rows as the kernel writes them, see replay.packed.
PACKED_SLICE, PACKED_MEETING = 5, 4
COUNT_BITS, CPU_SHIFT, VCPU_SHIFT = 32, 2, 34
BY_NOTIFIER = 1
# How a stay ended, and whether clocks are taken or given back; numpy's numbers, see analyzer.jit.
CUT, WHOLE = np.int64(0), np.int64(1)
BEGIN, END = np.int64(-1), np.int64(1)


def no_cpus(cpus: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the state of that many CPUs before the first point."""
    state = np.zeros((cpus, CPU_COLUMNS), np.int64)
    state[:, C_CURRENT] = -1
    state[:, C_SWITCH_TS] = NO_SWITCH
    return state


def no_stays(cpus: int, runs: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the state of that many CPUs under each run's placement before the first point."""
    state = np.zeros((cpus, runs, STAY_COLUMNS), np.int64)
    state[:, :, [K_OWNER, K_BEFORE, K_BETWEEN]] = -1
    return state


@helper
def _account(cpus, c, vcpus, ran, dt):  # type: ignore[no-untyped-def]
    # Time since the CPU's last point, by what ran on it.
    current = cpus[c, C_CURRENT]
    cpus[c, C_TIME] += dt
    if cpus[c, C_IRQ]:
        cpus[c, C_INTERRUPT] += dt
    elif current >= 0:
        if cpus[c, C_LEVELS] & GUEST:
            cpus[c, C_GUEST] += dt
            vcpus[current, V_GUEST] += dt
        elif cpus[c, C_LEVELS] & OUTER:
            ran[c, current, W_KVM] += dt
        else:
            ran[c, current, W_USER] += dt


@helper
def _clock(cpus, c, ran, v, p, sign, count, held):  # type: ignore[no-untyped-def]
    # A stay's time is what the clocks show at its END less what they showed at its BEGIN.
    count[v, p, N_RESIDENCY] += sign * cpus[c, C_TIME]
    count[v, p, N_KVM] += sign * ran[c, v, W_KVM]
    count[v, p, N_USER] += sign * ran[c, v, W_USER]
    count[v, p, N_INTERRUPT] += sign * cpus[c, C_INTERRUPT]
    count[v, p, N_GUEST] += sign * cpus[c, C_GUEST]
    held[v, p, H_BLIND] += sign * (cpus[c, C_TIME] - cpus[c, C_GUEST])
    held[v, p, H_OWNS] -= sign


@helper
def _overdue(cpus, c, v, p, dt, count, held):  # type: ignore[no-untyped-def]
    # The CPU's own points may be long ago: its time up to here is the stay's, too. The clocks will
    # show it at its next point, for all placements, and this stay is over by then.
    current = cpus[c, C_CURRENT]
    count[v, p, N_RESIDENCY] += dt
    if cpus[c, C_IRQ]:
        count[v, p, N_INTERRUPT] += dt
    elif current >= 0 and cpus[c, C_LEVELS] & GUEST:
        count[v, p, N_GUEST] += dt
        return
    elif current == v and cpus[c, C_LEVELS] & OUTER:
        count[v, p, N_KVM] += dt
    elif current == v:
        count[v, p, N_USER] += dt
    held[v, p, H_BLIND] += dt


@helper
def _settle(cpus, stays, held, reasons, v, p, reason, weight):  # type: ignore[no-untyped-def]
    # What followed an exit goes to its reason.
    blind, loads, puts = held[v, p, H_BLIND], held[v, p, H_LOADS], held[v, p, H_PUTS]
    on = np.int64(0)
    if held[v, p, H_OWNS]:
        c = held[v, p, H_CPU]
        if held[v, p, H_OWNS] == 1 and c >= 0 and stays[c, p, K_OWNER] == v:
            on = cpus[c, C_TIME] - cpus[c, C_GUEST]
        else:
            for c in range(len(cpus)):
                if stays[c, p, K_OWNER] == v:
                    on += cpus[c, C_TIME] - cpus[c, C_GUEST]
    held[v, p, H_BLIND] = -on
    reasons[reason, p, Q_BLIND] += (blind + on) * weight
    if loads | puts:
        reasons[reason, p, Q_LOADS] += loads * weight
        reasons[reason, p, Q_PUTS] += puts * weight
        held[v, p, H_LOADS] = held[v, p, H_PUTS] = 0


@helper
def _close(vcpus, v, exits, watched):  # type: ignore[no-untyped-def]
    # The exits that are held go to their reason, as _settle has it of the rest.
    exits[vcpus[v, V_REASON]] += vcpus[v, V_EXITS] * watched[v]
    vcpus[v, V_REASON] = vcpus[v, V_EXITS] = vcpus[v, V_OPEN] = 0


@helper
def _own(cpus, c, ran, stays, v, p, ts, loaded, count, held, filled):  # type: ignore[no-untyped-def]
    # A stay begins. Where a window begins, it may take the place of one that nobody saw end.
    if stays[c, p, K_OWNER] >= 0:
        _clock(cpus, c, ran, stays[c, p, K_OWNER], p, END, count, held)
    stays[c, p, K_OWNER], stays[c, p, K_SINCE], stays[c, p, K_LOADED] = v, ts, loaded
    stays[c, p, K_ENTRIES], stays[c, p, K_STAY] = cpus[c, C_ENTRIES], filled[p, STAYS]
    filled[p, STAYS] += 1
    held[v, p, H_CPU] = c
    _clock(cpus, c, ran, v, p, BEGIN, count, held)


@helper
def _disown(  # type: ignore[no-untyped-def]
    cpus, c, ran, stays, p, ts, whole, count, held, slices, filled
):
    # A stay ends: by a put (`whole`), or nobody knows.
    n, v = filled[p, SLICES], stays[c, p, K_OWNER]
    entries = cpus[c, C_ENTRIES] - stays[c, p, K_ENTRIES]
    slices[p, n, 0], slices[p, n, 1] = stays[c, p, K_SINCE], ts
    slices[p, n, 2] = cpus[c, C_ENTERED] if entries else -1
    slices[p, n, 3] = stays[c, p, K_STAY] << COUNT_BITS | entries
    slices[p, n, 4] = v << VCPU_SHIFT | c << CPU_SHIFT | stays[c, p, K_LOADED] << 1 | whole
    filled[p, SLICES] = n + 1
    held[v, p, H_CPU] = -1
    stays[c, p, K_OWNER] = -1
    if v >= 0:
        _clock(cpus, c, ran, v, p, END, count, held)


@helper
def _put(  # type: ignore[no-untyped-def]
    cpus, c, ran, stays, p, ts, one, count, held, slices, filled
):
    v = stays[c, p, K_OWNER]
    count[v, p, N_PUTS] += one
    held[v, p, H_PUTS] += one
    _disown(cpus, c, ran, stays, p, ts, WHOLE, count, held, slices, filled)


@helper
def _load(  # type: ignore[no-untyped-def]
    cpus, c, ran, stays, v, p, ts, counted, count, held, totals, slices, filled
):
    # Whoever is in the way goes first: another vCPU's state here, this vCPU's on another CPU.
    if stays[c, p, K_OWNER] >= 0:
        totals[p, T_DISPLACED] += counted[c]
        _put(cpus, c, ran, stays, p, ts, counted[c], count, held, slices, filled)
    away = held[v, p, H_CPU]
    if away >= 0:
        totals[p, T_REMOTE] += counted[away]
        if counted[away] and stays[away, p, K_OWNER] >= 0:
            dt = ts - cpus[away, C_LAST]
            _overdue(cpus, away, stays[away, p, K_OWNER], p, dt, count, held)
        _put(cpus, away, ran, stays, p, ts, counted[away], count, held, slices, filled)
    _own(cpus, c, ran, stays, v, p, ts, WHOLE, count, held, filled)
    count[v, p, N_LOADS] += counted[c]
    held[v, p, H_LOADS] += counted[c]


@helper
def _wants(host, uses, used, what, levels, action, rules, p):  # type: ignore[no-untyped-def]
    # Whether an edge loads: by the table, by the loop's edge while the kernel is profiled, and in
    # any case where the guest begins to run; not where the guest does without.
    wants = action == 1
    if rules[p, R_HOST] == BY_KERNEL and host & KERNEL_ON:
        wants = levels & rules[p, R_LOOP] != 0
    if what == ENTRY:
        wants = True
    demand = rules[p, R_DEMAND]
    if demand == NEVER or (demand == WHILE_USED and uses == 0):
        return False
    return wants and not (demand == ONCE_USED and used == 0)


@helper
def _leaves(host, levels, action, rules, p):  # type: ignore[no-untyped-def]
    # Whether an edge puts.
    if host and levels & rules[p, R_LOOP]:
        if rules[p, R_HOST] == BY_ANY and host & HOST_ON:
            return True
        if rules[p, R_HOST] == BY_KERNEL and host & KERNEL_ON:
            return True
    return action == 2


@helper
def _meet(  # type: ignore[no-untyped-def]
    cpus, c, ran, stays, ts, v, p, what, detail, one, rules, count, held, totals, slices, meetings,
    filled,
):  # fmt: skip
    # Whose state does host perf meet? At a switch perf acts on the thread that leaves, then KVM's
    # notifier does; it acts on the thread that comes before KVM's notifier. A hook of perf's own
    # goes before perf's work on both sides.
    # v: the vCPU whose thread perf acts on, -1 for another thread.
    context, hook = detail & 0xFF, rules[p, R_HOOK]
    owner = stays[c, p, K_OWNER]
    if context == OUT and v >= 0:
        owner = stays[c, p, K_BEFORE] if hook == BY_NOTIFIER else stays[c, p, K_BETWEEN]
    elif (context == OUT and cpus[c, C_CURRENT] >= 0) or (
        context == IN and hook == BY_NOTIFIER and v >= 0
    ):
        owner = stays[c, p, K_BETWEEN]
    if owner < 0:
        return
    if rules[p, R_EVICT] >> context & 1:
        # It would find nothing on; but what is only inferred moves no observed number.
        if what == INFERRED:
            return
        # At a switch the put that follows has been counted: this one comes in its place.
        if owner == stays[c, p, K_OWNER]:
            totals[p, T_EVICTED + context] += one
            _put(cpus, c, ran, stays, p, ts, one, count, held, slices, filled)
        return
    n = filled[p, MEETINGS]
    stay = stays[c, p, K_STAY] if owner == stays[c, p, K_OWNER] else -1
    entries = cpus[c, C_ENTRIES] - stays[c, p, K_ENTRIES]
    meetings[p, n, 0], meetings[p, n, 1] = ts, detail
    meetings[p, n, 2] = stay << COUNT_BITS | entries
    meetings[p, n, 3] = owner << VCPU_SHIFT | c << CPU_SHIFT | one
    filled[p, MEETINGS] = n + 1


@helper
def _learn(  # type: ignore[no-untyped-def]
    cpus, c, ran, stays, ts, p, what, before, detail, one, rules, count, held, totals, slices,
    filled,
):  # fmt: skip
    # Points that tell of perf core and the host's events; they move state by rule only.
    if what == PERF_CORE:
        totals[p, T_SPURIOUS] += stays[c, p, K_CORE] * one
        stays[c, p, K_CORE] = 0
        if rules[p, R_CORE] and stays[c, p, K_OWNER] >= 0:
            stays[c, p, K_CORE] = 1
            totals[p, T_CORE] += one
            _put(cpus, c, ran, stays, p, ts, one, count, held, slices, filled)
    elif rules[p, R_HOST] == BY_KERNEL and (before ^ detail) & KERNEL_ON:
        totals[p, T_MODES] += one
        # A host event that counts the kernel ends a wide stay at once.
        wide = cpus[c, C_LEVELS] & rules[p, R_LOOP] == 0
        if detail & KERNEL_ON and stays[c, p, K_OWNER] >= 0 and wide:
            _put(cpus, c, ran, stays, p, ts, one, count, held, slices, filled)


def _given(scalar: Any, dimensions: int) -> Any:
    # A column of a file may be read only.
    return numba.types.Array(scalar, dimensions, "C", readonly=True)


INT64 = numba.types.int64
SIGNATURE = numba.void(
    _given(INT64, 1), _given(numba.types.int32, 1), _given(numba.types.int32, 1),
    _given(numba.types.uint8, 1), _given(INT64, 1), _given(numba.types.int8, 3), _given(INT64, 2),
    INT64[:, ::1], INT64[:, :, ::1], INT64[:, ::1], INT64[:, :, ::1], INT64[:, :, ::1],
    INT64[:, :, ::1], INT64[:, :, ::1], INT64[::1], INT64[:, ::1], INT64[::1], INT64[::1],
    INT64[:, :, ::1], INT64[:, :, ::1], INT64[:, ::1],
)  # fmt: skip


@numba.njit(SIGNATURE, cache=True, nogil=True)
def replay(  # type: ignore[no-untyped-def]
    ts, cpu, vcpu, kind, detail, tables, rules, cpus, stays, vcpus, held, ran, count, reasons,
    exits, totals, counted, watched, slices, meetings, filled,
):  # fmt: skip
    """Replay runs p over points in order of time; all state is carried from call to call.

    tables: int8[kinds, 64, p], placement.transition_table. rules: int64[p, RULES], see above. cpus,
    stays: as `no_cpus` and `no_stays` make them; vcpus: int64[vcpus, VCPU_COLUMNS], V_USES -1;
    held: int64[vcpus, p, HELD], H_CPU -1. ran: int64[cpus, vcpus, 2]. count: int64[vcpus, p,
    COUNTS]. reasons: int64[reasons + 1, p, 4] less Q_EXITS, which is `exits`: int64[reasons + 1].
    totals: int64[p, TOTALS]. counted: int64[cpus], 1 where this CPU's points and time count and 0
    where they only move its state; watched: int64[vcpus], 1 where the vCPU goes into reasons.
    slices, meetings: int64[p, >= 2 * points, PACKED_SLICE] and int64[p, >= points, PACKED_MEETING],
    filled from row 0; filled: int64[p, 3], rows of both, and stays so far (carried).
    """
    runs = len(filled)
    for p in range(runs):
        filled[p, SLICES] = filled[p, MEETINGS] = 0
    for n in range(ts.size):
        now, c, v, what = ts[n], np.int64(cpu[n]), np.int64(vcpu[n]), np.int64(kind[n])
        one, word = counted[c], detail[n]
        levels = word & LEVELS
        if one:
            _account(cpus, c, vcpus, ran, now - cpus[c, C_LAST])
        cpus[c, C_LAST] = now
        if what >= EPISODE:
            if what == EPISODE or what == GUEST_PMI or what == INFERRED:
                met = (-1 << SHIFT) | OVERFLOW if what == GUEST_PMI else word
                for p in range(runs):
                    _meet(
                        cpus, c, ran, stays, now, v, p, what, met, one, rules, count, held, totals,
                        slices, meetings, filled,
                    )  # fmt: skip
                    if what != INFERRED:
                        stays[c, p, K_CORE] = 0
            elif what == GUEST_PMU:
                vcpus[v, V_USES] = word
                vcpus[v, V_USED] |= word
            else:
                before = cpus[c, C_HOST]
                if what != PERF_CORE:
                    cpus[c, C_HOST] = word
                for p in range(runs):
                    _learn(
                        cpus, c, ran, stays, now, p, what, before, word, one, rules, count, held,
                        totals, slices, filled,
                    )  # fmt: skip
        elif what > LOST:
            cpus[c, C_IRQ] = 1 if what == IRQ_IN else 0
        elif what == STATE:
            if v < 0:
                continue
            # Its entry is in the loss.
            settles = vcpus[v, V_OPEN] and levels & GUEST
            cpus[c, C_CURRENT] = v
            cpus[c, C_LEVELS] |= levels
            for p in range(runs):
                if settles:
                    _settle(cpus, stays, held, reasons, v, p, vcpus[v, V_REASON], watched[v])
                loaded = levels & rules[p, R_MASK] and rules[p, R_DEMAND] == 0
                if loaded and stays[c, p, K_OWNER] != v:
                    _own(cpus, c, ran, stays, v, p, now, CUT, count, held, filled)
                    count[v, p, N_START] += one
            if settles:
                _close(vcpus, v, exits, watched)
        elif what <= ENTRY:
            cpus[c, C_CURRENT] = v
            cpus[c, C_LEVELS] |= levels
            host, uses, used = cpus[c, C_HOST], vcpus[v, V_USES], vcpus[v, V_USED]
            is_first = what == SWITCH_IN and cpus[c, C_SWITCH_TS] != now
            if is_first:
                cpus[c, C_SWITCH_TS] = now
            for p in range(runs):
                owner = stays[c, p, K_OWNER]
                if is_first:
                    stays[c, p, K_BEFORE] = owner
                if what == SWITCH_IN:
                    stays[c, p, K_BETWEEN] = owner
                if owner != v:
                    action = tables[what, levels, p]
                    if _wants(host, uses, used, what, levels, action, rules, p):
                        _load(
                            cpus, c, ran, stays, v, p, now, counted, count, held, totals, slices,
                            filled,
                        )  # fmt: skip
                    elif what == ENTRY:
                        totals[p, T_WITHOUT] += one
                if what == ENTRY:
                    _settle(cpus, stays, held, reasons, v, p, vcpus[v, V_REASON], watched[v])
            if what == ENTRY:
                cpus[c, C_ENTERED] = now
                cpus[c, C_ENTRIES] += 1
                _close(vcpus, v, exits, watched)
        elif what <= SWITCH_OUT:
            cpus[c, C_LEVELS] &= ~levels
            host = cpus[c, C_HOST]
            settles = what == EXIT and vcpus[v, V_OPEN] != 0
            for p in range(runs):
                owner = stays[c, p, K_OWNER]
                if what == SWITCH_OUT:
                    stays[c, p, K_BEFORE] = owner
                if settles:
                    _settle(cpus, stays, held, reasons, v, p, vcpus[v, V_REASON], watched[v])
                if owner == v and _leaves(host, levels, tables[what, levels, p], rules, p):
                    _put(cpus, c, ran, stays, p, now, one, count, held, slices, filled)
                if what == SWITCH_OUT:
                    stays[c, p, K_BETWEEN] = stays[c, p, K_OWNER]
            if what == EXIT:
                if settles:
                    _close(vcpus, v, exits, watched)
                vcpus[v, V_REASON] = word >> SHIFT
                vcpus[v, V_EXITS] += one
                vcpus[v, V_OPEN] = 1
            if what == SWITCH_OUT:
                cpus[c, C_SWITCH_TS] = now
                cpus[c, C_CURRENT], cpus[c, C_LEVELS], cpus[c, C_IRQ] = -1, 0, 0
        else:
            for p in range(runs):
                if stays[c, p, K_OWNER] >= 0:
                    count[stays[c, p, K_OWNER], p, N_END] += one
                    _disown(cpus, c, ran, stays, p, now, CUT, count, held, slices, filled)
                # Who leaves after this came unseen: no switch before it tells whose the PMU is then.
                stays[c, p, K_BEFORE] = stays[c, p, K_BETWEEN] = -1
            cpus[c, C_CURRENT], cpus[c, C_LEVELS], cpus[c, C_IRQ] = -1, 0, 0
            cpus[c, C_SWITCH_TS] = NO_SWITCH
