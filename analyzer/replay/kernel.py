"""Who owns each CPU's PMU at every moment, under one placement? One loop over the points.

A placement is a transition table (which edges of which levels load and put) and a few rules:

    R_EVICT   contexts (bits) in which the state is put before host perf acts
    R_CORE    put whenever perf core is about to act, be it that it touches a register or not
    R_HOST    BY_ANY: put at the inner loop's end while a host event is on (rule B of Oct 2023);
              BY_KERNEL: while one is on that counts the kernel, loads and puts are the loop's
    R_DEMAND  WHILE_USED: load only while the guest uses its PMU; ONCE_USED: from its first use on;
              NEVER: its accesses trap, and nothing is swapped
    R_LOOP    the level that is the inner loop under this bound of the marks

Whatever the table says, a guest that runs has its state on, unless R_DEMAND lets it run without.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

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
# State of a CPU; of the present stay its number, begin, last VM entry, how many there were, and
# whether a load began it (else it was on where we first saw it); at a context switch whose the PMU
# was before the swaps and between them, and when that was.
(
    K_LAST, K_CURRENT, K_OWNER, K_LEVELS, K_IRQ, K_STAY, K_SINCE, K_ENTERED, K_ENTRIES, K_BEFORE,
    K_BETWEEN, K_SWITCH_TS, K_HOST, K_CORE, K_LOADED,
) = range(15)  # fmt: skip
CPU_COLUMNS = 15
NO_SWITCH = -(2**63)
# State of a vCPU: the CPU that has its state (-1: none), whether its guest uses its PMU (-1: nobody
# knows), whether it ever did.
V_CPU, V_USES, V_USED = range(3)
VCPU_COLUMNS = 3
R_EVICT, R_CORE, R_HOST, R_DEMAND, R_LOOP = range(5)
RULES = 5
BY_ANY, BY_KERNEL = 1, 2
WHILE_USED, ONCE_USED, NEVER = 1, 2, 3
HOST_ON, KERNEL_ON = 1, 2
# What is counted of the whole run: evictions by context (words.Context) and by perf core, those of
# the latter that no access followed, puts that another vCPU's load or a migration forced, changes
# of mode, entries of a guest without its state.
T_EVICTED, T_CORE, T_SPURIOUS, T_DISPLACED, T_REMOTE, T_MODES, T_WITHOUT = 0, 16, 17, 18, 19, 20, 21
TOTALS = 22
# What is counted per vCPU.
(
    N_LOADS, N_PUTS, N_START, N_END, N_RESIDENCY, N_KVM, N_USER, N_INTERRUPT, N_OTHER, N_GUEST,
) = range(10)  # fmt: skip
COUNTS = 10
# What is counted per exit reason, and held per vCPU until the reason's stretch is over. Only held:
# Q_OPEN, an exit has come in this stretch, be it counted or not.
Q_EXITS, Q_LOADS, Q_PUTS, Q_BLIND, Q_OPEN = range(5)
HELD = 5
# Columns of an owner slice and of an episode that met a guest's state, and which of the two. Both
# count VM entries of the stay: in all, and up to the episode, which may have an entry's very time.
S_STAY, S_CPU, S_VCPU, S_TS, S_END, S_ENTERED, S_WHOLE, S_ENTRIES, S_LOADED = range(9)
E_TS, E_CPU, E_VCPU, E_STAY, E_EPISODE, E_CONTEXT, E_COUNTED, E_ENTRIES = range(8)
SLICE_ROW, MEETING_ROW = 9, 8
SLICES, MEETINGS, STAYS = range(3)
# The same rows as the loop writes them, see replay.rows: P_* of a slice, M_* of a meeting. A stay's
# number stands above a count of entries, its vCPU above its CPU above two flags.
P_TS, P_END, P_ENTERED, P_STAY, P_WHO = range(5)
M_TS, M_DETAIL, M_STAY, M_WHO = range(4)
PACKED_SLICE, PACKED_MEETING = 5, 4
STAY_SHIFT, CPU_SHIFT, VCPU_SHIFT = 32, 2, 34
BY_NOTIFIER = 1
# How a stay ended; numpy's numbers, see analyzer.jit.
CUT, WHOLE = np.int64(0), np.int64(1)
# Nothing here allocates. Without numba's counting of references, which it does not take away where
# helpers share arrays in a loop, a point costs an eighth (atomic adds, array by array and call by
# call); that allocating does not compile then is welcome.
helper = numba.njit(  # type: ignore[call-overload]
    no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False
)


def no_cpus(cpus: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the state of that many CPUs before the first point."""
    state = np.zeros((cpus, CPU_COLUMNS), np.int64)
    state[:, [K_CURRENT, K_OWNER, K_BEFORE, K_BETWEEN]] = -1
    state[:, K_SWITCH_TS] = NO_SWITCH
    return state


@helper
def _account(cpus, c, count, held, dt):  # type: ignore[no-untyped-def]
    # Time since the CPU's last point, by what ran on it.
    current, owner = cpus[c, K_CURRENT], cpus[c, K_OWNER]
    in_guest = current >= 0 and cpus[c, K_LEVELS] & GUEST and cpus[c, K_IRQ] == 0
    if in_guest:
        count[current, N_GUEST] += dt
    if owner < 0:
        return
    count[owner, N_RESIDENCY] += dt
    if in_guest:
        return
    held[owner, Q_BLIND] += dt
    if cpus[c, K_IRQ]:
        count[owner, N_INTERRUPT] += dt
    elif current != owner:
        count[owner, N_OTHER] += dt
    elif cpus[c, K_LEVELS] & OUTER:
        count[owner, N_KVM] += dt
    else:
        count[owner, N_USER] += dt


@helper
def _settle(held, reason_of, reasons, watched, v):  # type: ignore[no-untyped-def]
    # What followed an exit goes to its reason.
    for q in range(4):
        reasons[reason_of[v], q] += held[v, q] * watched[v]
        held[v, q] = 0
    held[v, Q_OPEN] = 0
    reason_of[v] = 0


@helper
def _own(cpus, c, vcpus, v, ts, filled):  # type: ignore[no-untyped-def]
    # A stay begins.
    cpus[c, K_OWNER], cpus[c, K_SINCE], cpus[c, K_ENTERED], cpus[c, K_ENTRIES] = v, ts, -1, 0
    cpus[c, K_STAY] = filled[STAYS]
    vcpus[v, V_CPU] = c
    filled[STAYS] += 1


@helper
def _disown(cpus, c, vcpus, ts, whole, slices, filled):  # type: ignore[no-untyped-def]
    # A stay ends: by a put (`whole`), or nobody knows.
    n = filled[SLICES]
    slices[n, P_TS], slices[n, P_END] = cpus[c, K_SINCE], ts
    slices[n, P_ENTERED] = cpus[c, K_ENTERED]
    slices[n, P_STAY] = cpus[c, K_STAY] << STAY_SHIFT | cpus[c, K_ENTRIES]
    loaded = cpus[c, K_LOADED] << 1
    slices[n, P_WHO] = cpus[c, K_OWNER] << VCPU_SHIFT | c << CPU_SHIFT | loaded | whole
    filled[SLICES] += 1
    vcpus[cpus[c, K_OWNER], V_CPU] = -1
    cpus[c, K_OWNER] = -1


@helper
def _put(cpus, c, vcpus, ts, one, count, held, slices, filled):  # type: ignore[no-untyped-def]
    count[cpus[c, K_OWNER], N_PUTS] += one
    held[cpus[c, K_OWNER], Q_PUTS] += one
    _disown(cpus, c, vcpus, ts, WHOLE, slices, filled)


@helper
def _load(  # type: ignore[no-untyped-def]
    cpus, c, vcpus, v, ts, counted, count, held, totals, slices, filled
):
    # Whoever is in the way goes first: another vCPU's state here, this vCPU's on another CPU.
    if cpus[c, K_OWNER] >= 0:
        totals[T_DISPLACED] += counted[c]
        _put(cpus, c, vcpus, ts, counted[c], count, held, slices, filled)
    away = vcpus[v, V_CPU]
    if away >= 0:
        totals[T_REMOTE] += counted[away]
        # That CPU's own points may be long ago: its time up to here is the stay's.
        if counted[away]:
            _account(cpus, away, count, held, ts - cpus[away, K_LAST])
        cpus[away, K_LAST] = ts
        _put(cpus, away, vcpus, ts, counted[away], count, held, slices, filled)
    _own(cpus, c, vcpus, v, ts, filled)
    cpus[c, K_LOADED] = 1
    count[v, N_LOADS] += counted[c]
    held[v, Q_LOADS] += counted[c]


@helper
def _wants(cpus, c, vcpus, v, what, levels, action, rules):  # type: ignore[no-untyped-def]
    # Whether an edge loads: by the table, by the loop's edge while the kernel is profiled, and in
    # any case where the guest begins to run; not where the guest does without.
    wants = action == 1
    if rules[R_HOST] == BY_KERNEL and cpus[c, K_HOST] & KERNEL_ON:
        wants = levels & rules[R_LOOP] != 0
    if what == ENTRY:
        wants = True
    if rules[R_DEMAND] == WHILE_USED and vcpus[v, V_USES] == 0:
        return False
    if rules[R_DEMAND] == NEVER:
        return False
    return wants and not (rules[R_DEMAND] == ONCE_USED and vcpus[v, V_USED] == 0)


@helper
def _leaves(cpus, c, levels, action, rules):  # type: ignore[no-untyped-def]
    # Whether an edge puts.
    if rules[R_HOST] == BY_ANY and cpus[c, K_HOST] & HOST_ON and levels & rules[R_LOOP]:
        return True
    if rules[R_HOST] == BY_KERNEL and cpus[c, K_HOST] & KERNEL_ON and levels & rules[R_LOOP]:
        return True
    return action == 2


@helper
def _meet(  # type: ignore[no-untyped-def]
    cpus, c, vcpus, ts, v, what, detail, hook, one, rules, count, held, totals, slices, meetings,
    filled,
):  # fmt: skip
    # Whose state does host perf meet? At a switch perf acts on the thread that leaves, then KVM's
    # notifier does; it acts on the thread that comes before KVM's notifier. A hook of perf's own
    # goes before perf's work on both sides.
    # v: the vCPU whose thread perf acts on, -1 for another thread.
    context = detail & 0xFF
    owner = cpus[c, K_OWNER]
    if what != INFERRED:
        cpus[c, K_CORE] = 0
    if context == OUT and v >= 0:
        owner = cpus[c, K_BEFORE] if hook == BY_NOTIFIER else cpus[c, K_BETWEEN]
    elif (context == OUT and cpus[c, K_CURRENT] >= 0) or (
        context == IN and hook == BY_NOTIFIER and v >= 0
    ):
        owner = cpus[c, K_BETWEEN]
    if owner < 0:
        return
    if rules[R_EVICT] >> context & 1:
        # It would find nothing on; but what is only inferred moves no observed number.
        if what == INFERRED:
            return
        # At a switch the put that follows has been counted: this one comes in its place.
        if owner == cpus[c, K_OWNER]:
            totals[T_EVICTED + context] += one
            _put(cpus, c, vcpus, ts, one, count, held, slices, filled)
        return
    n = filled[MEETINGS]
    stay = cpus[c, K_STAY] if owner == cpus[c, K_OWNER] else -1
    meetings[n, M_TS], meetings[n, M_DETAIL] = ts, detail
    meetings[n, M_STAY] = stay << STAY_SHIFT | cpus[c, K_ENTRIES]
    meetings[n, M_WHO] = owner << VCPU_SHIFT | c << CPU_SHIFT | one
    filled[MEETINGS] += 1


@helper
def _learn(  # type: ignore[no-untyped-def]
    cpus, c, vcpus, ts, v, what, detail, one, rules, count, held, totals, slices, filled
):
    # Points that tell of the host's events and the guest's use; they move state by rule only.
    if what == GUEST_PMU:
        vcpus[v, V_USES] = detail
        vcpus[v, V_USED] |= detail
        return
    if what == PERF_CORE:
        totals[T_SPURIOUS] += cpus[c, K_CORE] * one
        cpus[c, K_CORE] = 0
        if rules[R_CORE] and cpus[c, K_OWNER] >= 0:
            cpus[c, K_CORE] = 1
            totals[T_CORE] += one
            _put(cpus, c, vcpus, ts, one, count, held, slices, filled)
        return
    before, cpus[c, K_HOST] = cpus[c, K_HOST], detail
    if rules[R_HOST] == BY_KERNEL and (before ^ detail) & KERNEL_ON:
        totals[T_MODES] += one
        # A host event that counts the kernel ends a wide stay at once.
        if detail & KERNEL_ON and cpus[c, K_OWNER] >= 0 and cpus[c, K_LEVELS] & rules[R_LOOP] == 0:
            _put(cpus, c, vcpus, ts, one, count, held, slices, filled)


def given(scalar: Any, dimensions: int = 1) -> Any:
    """Return numba's type of an array that is only read: what comes of a file may be read only."""
    return numba.types.Array(scalar, dimensions, "C", readonly=True)


INT64, INT32 = numba.types.int64, numba.types.int32
SIGNATURE = numba.void(
    given(INT64), given(INT32), given(INT32), given(numba.types.uint8), given(INT64),
    numba.types.int8[:, ::1], INT64, INT64, INT64[::1], INT64[:, ::1], INT64[:, ::1],
    INT64[:, ::1], INT64[:, ::1], INT64[::1], INT64[:, ::1], INT64[::1], INT64[::1], INT64[::1],
    INT64[:, ::1], INT64[:, ::1], INT64[::1],
)  # fmt: skip


@numba.njit(SIGNATURE, cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False)  # type: ignore[call-overload]
def replay(  # type: ignore[no-untyped-def]
    ts, cpu, vcpu, kind, detail, table, mask, hook, rules, cpus, vcpus, count, held, reason_of,
    reasons, totals, counted, watched, slices, meetings, filled,
):  # fmt: skip
    """Run one placement over points in order of time; all state is carried from call to call.

    table, mask: placement.transition_table. hook: 0 perf's own, BY_NOTIFIER KVM's. rules:
    int64[RULES], see above. cpus: int64[cpus, CPU_COLUMNS], as `no_cpus` makes them;
    vcpus: int64[vcpus, VCPU_COLUMNS], V_CPU and V_USES -1. count: int64[vcpus, COUNTS]. held:
    int64[vcpus, HELD] and reason_of: int64[vcpus], what happened since the guest stopped, and why
    it did. reasons: int64[reasons + 1, 4]. totals: int64[TOTALS]. counted: int64[cpus], 1 where
    this CPU's points and time count and 0 where they only move its state; watched: int64[vcpus], 1
    where the vCPU goes into reasons. slices, meetings: int64[>= 3 * points, PACKED_SLICE] and
    int64[>= points, PACKED_MEETING], filled from row 0; filled: int64[3], rows of both, and stays
    so far (carried).
    """
    filled[SLICES] = filled[MEETINGS] = 0
    for n in range(ts.size):
        c, v, what = np.int64(cpu[n]), np.int64(vcpu[n]), np.int64(kind[n])
        one = counted[c]
        levels = detail[n] & LEVELS
        if one:
            _account(cpus, c, count, held, ts[n] - cpus[c, K_LAST])
        cpus[c, K_LAST] = ts[n]
        if what >= EPISODE:
            if what == EPISODE or what == GUEST_PMI or what == INFERRED:
                met = (-1 << SHIFT) | OVERFLOW if what == GUEST_PMI else detail[n]
                _meet(
                    cpus, c, vcpus, ts[n], v, what, met, hook, one, rules, count, held, totals,
                    slices, meetings, filled,
                )  # fmt: skip
            else:
                _learn(
                    cpus, c, vcpus, ts[n], v, what, detail[n], one, rules, count, held, totals,
                    slices, filled,
                )  # fmt: skip
            continue
        if what == SWITCH_OUT or (what == SWITCH_IN and cpus[c, K_SWITCH_TS] != ts[n]):
            cpus[c, K_BEFORE], cpus[c, K_SWITCH_TS] = cpus[c, K_OWNER], ts[n]
        if what == SWITCH_IN:
            cpus[c, K_BETWEEN] = cpus[c, K_OWNER]
        if what == STATE:
            if v >= 0:
                if held[v, Q_OPEN] and levels & GUEST:
                    _settle(held, reason_of, reasons, watched, v)  # its entry is in the loss
                cpus[c, K_CURRENT] = v
                cpus[c, K_LEVELS] |= levels
                if levels & mask and cpus[c, K_OWNER] != v and rules[R_DEMAND] == 0:
                    _own(cpus, c, vcpus, v, ts[n], filled)
                    cpus[c, K_LOADED] = 0
                    count[v, N_START] += one
        elif what <= ENTRY:
            cpus[c, K_CURRENT] = v
            cpus[c, K_LEVELS] |= levels
            if cpus[c, K_OWNER] != v:
                if _wants(cpus, c, vcpus, v, what, levels, table[what, levels], rules):
                    _load(cpus, c, vcpus, v, ts[n], counted, count, held, totals, slices, filled)
                elif what == ENTRY:
                    totals[T_WITHOUT] += one
            if what == ENTRY:
                cpus[c, K_ENTERED] = ts[n]
                cpus[c, K_ENTRIES] += 1
                _settle(held, reason_of, reasons, watched, v)
        elif what <= SWITCH_OUT:
            cpus[c, K_LEVELS] &= ~levels
            if what == EXIT:
                if held[v, Q_OPEN]:
                    _settle(held, reason_of, reasons, watched, v)
                reason_of[v] = detail[n] >> SHIFT
                held[v, Q_EXITS] += one
                held[v, Q_OPEN] = 1
            if cpus[c, K_OWNER] == v and _leaves(cpus, c, levels, table[what, levels], rules):
                _put(cpus, c, vcpus, ts[n], one, count, held, slices, filled)
            if what == SWITCH_OUT:
                cpus[c, K_CURRENT], cpus[c, K_LEVELS], cpus[c, K_IRQ] = -1, 0, 0
                cpus[c, K_BETWEEN] = cpus[c, K_OWNER]
        elif what == LOST:
            if cpus[c, K_OWNER] >= 0:
                count[cpus[c, K_OWNER], N_END] += one
                _disown(cpus, c, vcpus, ts[n], CUT, slices, filled)
            cpus[c, K_CURRENT], cpus[c, K_OWNER], cpus[c, K_LEVELS], cpus[c, K_IRQ] = -1, -1, 0, 0
            # Who leaves after this came unseen: no switch before it tells whose the PMU is then.
            cpus[c, K_BEFORE], cpus[c, K_BETWEEN], cpus[c, K_SWITCH_TS] = -1, -1, NO_SWITCH
        else:
            cpus[c, K_IRQ] = 1 if what == IRQ_IN else 0
