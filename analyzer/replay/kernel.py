"""Who owns each CPU's PMU at every moment, under one placement? One loop over the points."""

from __future__ import annotations

import numba

from analyzer.timeline.attribution.words import Context
from analyzer.timeline.points import REASON_SHIFT, Kind, Level

STATE, ENTRY, EXIT, LOST = int(Kind.STATE), int(Kind.ENTRY), int(Kind.EXIT), int(Kind.LOST)
SWITCH_IN, SWITCH_OUT = int(Kind.SWITCH_IN), int(Kind.SWITCH_OUT)
IRQ_IN, EPISODE, GUEST_PMI = int(Kind.IRQ_IN), int(Kind.EPISODE), int(Kind.GUEST_PMI)
OVERFLOW = int(Context.GUEST_PMI)
GUEST, OUTER, SHIFT = int(Level.GUEST), int(Level.OUTER), REASON_SHIFT
OUT, IN = int(Context.SWITCH_OUT), int(Context.SWITCH_IN)
LEVELS = 63
# State of a CPU; of the present stay its number, begin and last VM entry; at a context switch whose
# the PMU was before the swaps and between them, and when that was.
(
    K_LAST, K_CURRENT, K_OWNER, K_LEVELS, K_IRQ, K_STAY, K_SINCE, K_ENTERED, K_BEFORE, K_BETWEEN,
    K_SWITCH_TS,
) = range(11)  # fmt: skip
CPU_COLUMNS = 11
# What is counted per vCPU.
(
    N_LOADS, N_PUTS, N_START, N_END, N_RESIDENCY, N_KVM, N_USER, N_INTERRUPT, N_OTHER, N_GUEST,
) = range(10)  # fmt: skip
COUNTS = 10
# What is counted per exit reason, and held per vCPU until the reason's stretch is over. Only held:
# Q_OPEN, an exit has come in this stretch, be it counted or not.
Q_EXITS, Q_LOADS, Q_PUTS, Q_BLIND, Q_OPEN = range(5)
HELD = 5
# Columns of an owner slice and of an episode that met a guest's state, and which of the two.
S_STAY, S_CPU, S_VCPU, S_TS, S_END, S_ENTERED, S_WHOLE = range(7)
E_TS, E_CPU, E_VCPU, E_STAY, E_EPISODE, E_CONTEXT, E_COUNTED = range(7)
ROW = 7
SLICES, MEETINGS, STAYS = range(3)
BY_NOTIFIER = 1


@numba.njit
def _account(k, count, held, dt):  # type: ignore[no-untyped-def]
    # Time since the CPU's last point, by what ran on it.
    current, owner = k[K_CURRENT], k[K_OWNER]
    in_guest = current >= 0 and k[K_LEVELS] & GUEST and k[K_IRQ] == 0
    if in_guest:
        count[current, N_GUEST] += dt
    if owner < 0:
        return
    count[owner, N_RESIDENCY] += dt
    if in_guest:
        return
    held[owner, Q_BLIND] += dt
    if k[K_IRQ]:
        count[owner, N_INTERRUPT] += dt
    elif current != owner:
        count[owner, N_OTHER] += dt
    elif k[K_LEVELS] & OUTER:
        count[owner, N_KVM] += dt
    else:
        count[owner, N_USER] += dt


@numba.njit
def _settle(held, reason_of, reasons, watched, v):  # type: ignore[no-untyped-def]
    # What followed an exit goes to its reason.
    for q in range(4):
        reasons[reason_of[v], q] += held[v, q] * watched[v]
        held[v, q] = 0
    held[v, Q_OPEN] = 0
    reason_of[v] = 0


@numba.njit
def _own(k, v, ts, filled):  # type: ignore[no-untyped-def]
    # A stay begins.
    k[K_OWNER], k[K_SINCE], k[K_ENTERED] = v, ts, -1
    k[K_STAY] = filled[STAYS]
    filled[STAYS] += 1


@numba.njit
def _disown(k, cpu, ts, whole, slices, filled):  # type: ignore[no-untyped-def]
    # A stay ends: by a put (`whole`), or nobody knows.
    row = slices[filled[SLICES]]
    row[S_STAY], row[S_CPU], row[S_VCPU] = k[K_STAY], cpu, k[K_OWNER]
    row[S_TS], row[S_END], row[S_ENTERED], row[S_WHOLE] = k[K_SINCE], ts, k[K_ENTERED], whole
    filled[SLICES] += 1
    k[K_OWNER] = -1


@numba.njit
def _meet(k, ts, cpu, v, detail, hook, one, meetings, filled):  # type: ignore[no-untyped-def]
    # Whose state does host perf meet? At a switch perf acts on the thread that leaves, then KVM's
    # notifier does; it acts on the thread that comes before KVM's notifier. A hook of perf's own
    # goes before perf's work on both sides.
    # v: the vCPU whose thread perf acts on, -1 for another thread.
    context = detail & 0xFF
    owner = k[K_OWNER]
    if context == OUT and v >= 0:
        owner = k[K_BEFORE] if hook == BY_NOTIFIER else k[K_BETWEEN]
    elif (context == OUT and k[K_CURRENT] >= 0) or (
        context == IN and hook == BY_NOTIFIER and v >= 0
    ):
        owner = k[K_BETWEEN]
    if owner < 0:
        return
    row = meetings[filled[MEETINGS]]
    row[E_TS], row[E_CPU], row[E_VCPU] = ts, cpu, owner
    row[E_STAY] = k[K_STAY] if owner == k[K_OWNER] else -1
    row[E_EPISODE], row[E_CONTEXT], row[E_COUNTED] = detail >> SHIFT, context, one
    filled[MEETINGS] += 1


@numba.njit(
    "void(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int8[:, ::1], int64, int64, "
    "int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[:, ::1], int8[::1], int8[::1], "
    "int64[:, ::1], int64[:, ::1], int64[::1])",
    cache=True,
)
def replay(  # type: ignore[no-untyped-def]
    ts, cpu, vcpu, kind, detail, table, mask, hook, cpus, count, held, reason_of, reasons, counted,
    watched, slices, meetings, filled,
):  # fmt: skip
    """Run one placement over points in order of time; all state is carried from call to call.

    table, mask: placement.transition_table. hook: 0 perf's own, BY_NOTIFIER KVM's. cpus:
    int64[cpus, CPU_COLUMNS], K_CURRENT and K_OWNER -1 at first. count: int64[vcpus, COUNTS]. held:
    int64[vcpus, HELD] and reason_of: int64[vcpus], what happened since the guest stopped, and why
    it did. reasons: int64[reasons + 1, 4]. counted: int8[cpus], 1 where this CPU's points and time
    count and 0 where they only move its state; watched: int8[vcpus], 1 where the vCPU goes into
    reasons. slices, meetings: int64[>= points, ROW], filled from row 0; filled: int64[3], rows of
    both, and stays so far (carried).
    """
    filled[SLICES] = filled[MEETINGS] = 0
    for n in range(ts.size):
        k, v, what, one = cpus[cpu[n]], vcpu[n], kind[n], counted[cpu[n]]
        levels = detail[n] & LEVELS
        if one:
            _account(k, count, held, ts[n] - k[K_LAST])
        k[K_LAST] = ts[n]
        if what == EPISODE or what == GUEST_PMI:
            met = detail[n] if what == EPISODE else (-1 << SHIFT) | OVERFLOW
            _meet(k, ts[n], cpu[n], v, met, hook, one, meetings, filled)
            continue
        if what == SWITCH_OUT or (what == SWITCH_IN and k[K_SWITCH_TS] != ts[n]):
            k[K_BEFORE], k[K_SWITCH_TS] = k[K_OWNER], ts[n]
        if what == SWITCH_IN:
            k[K_BETWEEN] = k[K_OWNER]
        if what == STATE:
            if v >= 0:
                if held[v, Q_OPEN] and levels & GUEST:
                    _settle(held, reason_of, reasons, watched, v)  # its entry is in the loss
                k[K_CURRENT] = v
                k[K_LEVELS] |= levels
                if levels & mask and k[K_OWNER] != v:
                    _own(k, v, ts[n], filled)
                    count[v, N_START] += one
        elif what <= ENTRY:
            k[K_CURRENT] = v
            k[K_LEVELS] |= levels
            if table[what, levels] == 1 and k[K_OWNER] != v:
                _own(k, v, ts[n], filled)
                count[v, N_LOADS] += one
                held[v, Q_LOADS] += one
            if what == ENTRY:
                k[K_ENTERED] = ts[n]
                _settle(held, reason_of, reasons, watched, v)
        elif what <= SWITCH_OUT:
            k[K_LEVELS] &= ~levels
            if what == EXIT:
                if held[v, Q_OPEN]:
                    _settle(held, reason_of, reasons, watched, v)
                reason_of[v] = detail[n] >> SHIFT
                held[v, Q_EXITS] += one
                held[v, Q_OPEN] = 1
            if table[what, levels] == 2 and k[K_OWNER] == v:
                _disown(k, cpu[n], ts[n], 1, slices, filled)
                count[v, N_PUTS] += one
                held[v, Q_PUTS] += one
            if what == SWITCH_OUT:
                k[K_CURRENT], k[K_LEVELS], k[K_IRQ] = -1, 0, 0
                k[K_BETWEEN] = k[K_OWNER]
        elif what == LOST:
            if k[K_OWNER] >= 0:
                count[k[K_OWNER], N_END] += one
                _disown(k, cpu[n], ts[n], 0, slices, filled)
            k[K_CURRENT], k[K_OWNER], k[K_LEVELS], k[K_IRQ] = -1, -1, 0, 0
        else:
            k[K_IRQ] = 1 if what == IRQ_IN else 0
