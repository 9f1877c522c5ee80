"""Who owns each CPU's PMU at every moment, under one placement? One loop over the points."""

from __future__ import annotations

import numba

from analyzer.jit import helper
from analyzer.timeline.points import REASON_SHIFT, Kind, Level

STATE, ENTRY, EXIT, LOST = int(Kind.STATE), int(Kind.ENTRY), int(Kind.EXIT), int(Kind.LOST)
SWITCH_OUT, IRQ_IN, IRQ_OUT = int(Kind.SWITCH_OUT), int(Kind.IRQ_IN), int(Kind.IRQ_OUT)
GUEST, OUTER, SHIFT = int(Level.GUEST), int(Level.OUTER), REASON_SHIFT
LEVELS = 63
# State of a CPU.
K_LAST, K_CURRENT, K_OWNER, K_LEVELS, K_IRQ = range(5)
CPU_COLUMNS = 5
# What is counted per vCPU.
(
    N_LOADS, N_PUTS, N_START, N_END, N_RESIDENCY, N_KVM, N_USER, N_INTERRUPT, N_OTHER, N_GUEST,
) = range(10)  # fmt: skip
COUNTS = 10
# What is counted per exit reason, and held per vCPU until the reason's stretch is over. Only held:
# Q_OPEN, an exit has come in this stretch, be it counted or not.
Q_EXITS, Q_LOADS, Q_PUTS, Q_BLIND, Q_OPEN = range(5)
HELD = 5


@helper
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


@helper
def _settle(held, reason_of, reasons, watched, v):  # type: ignore[no-untyped-def]
    # What followed an exit goes to its reason.
    for q in range(4):
        reasons[reason_of[v], q] += held[v, q] * watched[v]
        held[v, q] = 0
    held[v, Q_OPEN] = 0
    reason_of[v] = 0


@numba.njit(
    "void(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int8[:, ::1], int64, "
    "int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[:, ::1], int8[::1], int8[::1])",
    cache=True,
)
def replay(  # type: ignore[no-untyped-def]
    ts, cpu, vcpu, kind, detail, table, mask, cpus, count, held, reason_of, reasons, counted,
    watched,
):  # fmt: skip
    """Run one placement over points in order of time; all state is carried from call to call.

    table, mask: placement.transition_table. cpus: int64[cpus, CPU_COLUMNS], K_CURRENT and K_OWNER
    -1 at first. count: int64[vcpus, COUNTS]. held: int64[vcpus, HELD] and reason_of: int64[vcpus],
    what happened since the guest stopped, and why it did. reasons: int64[reasons + 1, 4]. counted:
    int8[cpus], 1 where this CPU's points and time count and 0 where they only move its state;
    watched: int8[vcpus], 1 where the vCPU goes into reasons.
    """
    for n in range(ts.size):
        k, v, what, one = cpus[cpu[n]], vcpu[n], kind[n], counted[cpu[n]]
        levels = detail[n] & LEVELS
        if one:
            _account(k, count, held, ts[n] - k[K_LAST])
        k[K_LAST] = ts[n]
        if what == STATE:
            if v >= 0:
                if held[v, Q_OPEN] and levels & GUEST:
                    _settle(held, reason_of, reasons, watched, v)  # its entry is in the loss
                k[K_CURRENT] = v
                k[K_LEVELS] |= levels
                if levels & mask and k[K_OWNER] != v:
                    k[K_OWNER] = v
                    count[v, N_START] += one
        elif what <= ENTRY:
            k[K_CURRENT] = v
            k[K_LEVELS] |= levels
            if table[what, levels] == 1 and k[K_OWNER] != v:
                k[K_OWNER] = v
                count[v, N_LOADS] += one
                held[v, Q_LOADS] += one
            if what == ENTRY:
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
                k[K_OWNER] = -1
                count[v, N_PUTS] += one
                held[v, Q_PUTS] += one
            if what == SWITCH_OUT:
                k[K_CURRENT], k[K_LEVELS], k[K_IRQ] = -1, 0, 0
        elif what == LOST:
            if k[K_OWNER] >= 0:
                count[k[K_OWNER], N_END] += one
            k[K_CURRENT], k[K_OWNER], k[K_LEVELS], k[K_IRQ] = -1, -1, 0, 0
        else:
            k[K_IRQ] = 1 if what == IRQ_IN else 0
