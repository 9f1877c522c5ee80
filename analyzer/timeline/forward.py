"""What is each vCPU's state at every moment? The forward pass: points, slices and swaps.

State is one row of int64 a CPU and one a vCPU (the C_* and S_* columns). The invariant: the levels
of a vCPU that is on a CPU are a prefix of SCHED > OUTER > INNER > LOOP > GUEST (EVENTS beside
LOOP); one that is on none has no level on, but remembers whether it is inside its marks.
"""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper
from analyzer.timeline import kernels as k
from analyzer.timeline import truth
from analyzer.timeline.points import REASON_SHIFT, Kind, Level

GUEST, LOOP, INNER, OUTER, SCHED, EVENTS = np.array(
    [Level.GUEST, Level.LOOP, Level.INNER, Level.OUTER, Level.SCHED, Level.EVENTS], np.int64
)
ALL = GUEST | LOOP | INNER | OUTER | SCHED | EVENTS
# Constants that are passed on are numpy's numbers, see analyzer.jit.
P_STATE, P_IN, P_RUN, P_LOAD, P_ENTRY = np.array(
    [Kind.STATE, Kind.SWITCH_IN, Kind.RUN_ENTER, Kind.VCPU_LOAD, Kind.ENTRY], np.int64
)
P_END, P_EXIT, P_PUT, P_RUN_EXIT, P_OUT = np.array(
    [Kind.GUEST_END, Kind.EXIT, Kind.VCPU_PUT, Kind.RUN_EXIT, Kind.SWITCH_OUT], np.int64
)
P_LOST, P_IRQ_IN, P_IRQ_OUT, P_EPISODE = np.array(
    [Kind.LOST, Kind.IRQ_IN, Kind.IRQ_OUT, Kind.EPISODE], np.int64
)
P_GUEST_PMI, P_HOST_EVENTS, P_GUEST_PMU, P_PERF_CORE = np.array(
    [Kind.GUEST_PMI, Kind.HOST_EVENTS, Kind.GUEST_PMU, Kind.PERF_CORE], np.int64
)
NO, YES, NONE, ZERO = np.bool_(False), np.bool_(True), np.int64(-1), np.int64(0)
SHIFT = REASON_SHIFT

# C_ONCE: an event that stands on the way in once at most has come since the last entry.
# C_OWNER: whose the PMU is as recorded, since C_OWNER_TS.
C_VCPU, C_NEST, C_ONCE, C_OWNER, C_OWNER_TS = range(5)
CPU_COLUMNS = 5
OWNER_HOST, OWNER_NOT_KNOWN, OWNER_LOST = np.array([-1, -2, -3])
(
    S_ON, S_LEVELS, S_MODE, S_MODE_TS, S_OUTER, S_INNER, S_ENTRY_TS, S_END_TS, S_ENDED_BY, S_REASON,
    S_EXIT_TS, S_LAST_CPU, S_ENTRIES, S_EXITS, S_CANCELLED, S_LOST, S_UNPAIRED, S_IMPLIED, S_GUEST,
    S_LATE, S_ON_CPU, S_MIGRATIONS, S_SLICE_CPU, S_MODE_CPU, S_STARTED, S_PMU,
) = range(26)  # fmt: skip
VCPU_COLUMNS = 26
M_GUEST, M_KVM, M_USER, M_PREEMPTED, M_BLOCKED, M_UNKNOWN = np.arange(6)
MODES = ("guest", "kvm", "user", "preempted", "blocked", "unknown")
BY_EXIT, BY_HOST, BY_NMI, BY_CANCELLED, BY_LOST, BY_WINDOW = np.arange(6)
ENDED_BY = ("exit", "host_event", "nmi", "cancelled", "lost", "window")
# Which output: rows of `filled`, and the columns of each.
O_POINT, O_GUEST, O_MODE, O_RESIDENCY, O_OWNER, O_DIFFERENCE = np.arange(6)
# Rules of this recording, `rules`: see timeline.build.
R_LATE, R_IOCTL, R_FPU, R_TIMER, R_MARKS, R_RECORDED, R_USER_EXIT, R_EXACT = range(8)
# R_RECORDED: nothing, KVM's swaps, or its settings of filters, with which no PMU changes owner.
SWAPS, FILTERS = 1, 2
NOT_KNOWN = np.int64(-(2**63))


@helper
def _put_row(out, filled, which, a, b, c, d, e, f, g):  # type: ignore[no-untyped-def]
    row = filled[which]
    out[which, row, 0], out[which, row, 1], out[which, row, 2], out[which, row, 3] = a, b, c, d
    out[which, row, 4], out[which, row, 5], out[which, row, 6] = e, f, g
    filled[which] += 1


@helper
def _mode(state, v, ts, mode, out, filled):  # type: ignore[no-untyped-def]
    # The mode changes at ts; a slice of length 0 is none.
    s = state[v]
    if s[S_MODE] == mode and s[S_MODE_CPU] == s[S_ON]:
        return
    if ts > s[S_MODE_TS]:
        _put_row(out, filled, O_MODE, s[S_MODE_TS], ts, s[S_MODE_CPU], v, s[S_MODE], ZERO, ZERO)
        if s[S_MODE] <= M_USER:
            s[S_ON_CPU] += ts - s[S_MODE_TS]
    s[S_MODE], s[S_MODE_TS], s[S_MODE_CPU] = mode, ts, s[S_ON]


@helper
def _level_mode(state, v, ts, out, filled):  # type: ignore[no-untyped-def]
    levels = state[v, S_LEVELS]
    mode = M_GUEST if levels & GUEST else (M_KVM if state[v, S_OUTER] == 1 else M_USER)
    _mode(state, v, ts, mode, out, filled)


@helper
def put_found(since, v, ts, began, cpu, out, filled):  # type: ignore[no-untyped-def]
    """Write what truth found, a row for each cause and level; of a recorded stay at its begin."""
    if since[v, truth.ANY] == 0:
        return
    for n in range(truth.MOST_ROWS):
        bit, cause = n // len(truth.CAUSES), n % len(truth.CAUSES)
        count = since[v, truth.FOUND + n]
        if count:
            of_recorded = cause == truth.NO_PREDICTED or cause == truth.MORE_PREDICTED
            when = began if of_recorded else ts
            _put_row(out, filled, O_DIFFERENCE, when, cpu, v, bit, cause, count, ZERO)
            since[v, truth.FOUND + n] = 0
    since[v, truth.ANY] = 0


@helper
def forget(since, v, ts, cpu, levels, out, filled):  # type: ignore[no-untyped-def]
    """Nothing is known of this vCPU from ts on; levels: those that were on."""
    began = ts if since[v, truth.ON] != 1 else since[v, truth.ON_TS]
    truth.forget(since, v, levels)
    put_found(since, v, ts, began, cpu, out, filled)


@helper
def turn_on(state, since, v, ts, kind, levels, out, filled):  # type: ignore[no-untyped-def]
    """Turn levels on that are off, with a point where any is."""
    fresh = levels & ~state[v, S_LEVELS]
    if fresh == 0:
        return
    state[v, S_LEVELS] |= fresh
    for bit in range(6):
        if fresh & (1 << bit):
            since[v, bit] = ts
    truth.predicted_on(since, v, fresh, kind != P_STATE)
    _put_row(out, filled, O_POINT, ts, state[v, S_ON], v, kind, fresh, ZERO, ZERO)


@helper
def turn_off(state, since, v, ts, kind, levels, reason, out, filled):  # type: ignore[no-untyped-def]
    """Turn levels off that are on, with a point (always one for EXIT) and residency rows."""
    gone = levels & state[v, S_LEVELS]
    if gone == 0 and kind != P_EXIT:
        return
    state[v, S_LEVELS] &= ~gone
    for bit in range(5):
        if gone & (1 << bit):
            _put_row(
                out, filled, O_RESIDENCY, since[v, bit], ts, state[v, S_ON], v, bit, ZERO, ZERO
            )
    if kind != P_LOST:
        truth.predicted_off(since, v, gone)
        put_found(since, v, ts, ts, state[v, S_ON], out, filled)
    detail = gone | ((reason + 1) << SHIFT)
    _put_row(out, filled, O_POINT, ts, state[v, S_ON], v, kind, detail, ZERO, ZERO)


@helper
def end_guest(state, since, v, ts, by, keep_loop, out, filled):  # type: ignore[no-untyped-def]
    """The guest stops before (or without) its exit event; the slice is written at the exit."""
    s = state[v]
    if s[S_LEVELS] & GUEST == 0:
        return
    s[S_END_TS], s[S_ENDED_BY] = ts, by
    s[S_GUEST] += ts - s[S_ENTRY_TS]
    levels = GUEST if keep_loop else GUEST | LOOP | EVENTS
    turn_off(state, since, v, ts, P_END, levels, NONE, out, filled)
    _level_mode(state, v, ts, out, filled)


@helper
def close_slice(state, v, exit_ts, reason, out, filled):  # type: ignore[no-untyped-def]
    """Write the guest slice that is open, if one is."""
    s = state[v]
    if s[S_ENTRY_TS] == NOT_KNOWN:
        return
    _put_row(
        out,
        filled,
        O_GUEST,
        s[S_ENTRY_TS],
        s[S_END_TS],
        s[S_SLICE_CPU],
        v,
        s[S_ENDED_BY],
        exit_ts,
        reason,
    )
    s[S_ENTRY_TS] = NOT_KNOWN


@helper
def leave_cpu(state, cpus, since, v, ts, mode, kind, by, out, filled):  # type: ignore[no-untyped-def]
    """The vCPU's thread leaves its CPU (LOST: leaves our sight), in that mode from now on."""
    s = state[v]
    c = s[S_ON]
    if c < 0:
        return
    if s[S_LEVELS] & GUEST and kind == P_LOST:
        s[S_LOST] += by == BY_LOST
        s[S_END_TS], s[S_ENDED_BY] = ts, by
        s[S_GUEST] += ts - s[S_ENTRY_TS]
    elif s[S_LEVELS] & GUEST:
        s[S_CANCELLED] += 1
        end_guest(state, since, v, ts, BY_CANCELLED, NO, out, filled)
    close_slice(state, v, NOT_KNOWN, NONE, out, filled)
    levels = s[S_LEVELS]
    if kind == P_LOST:
        forget(since, v, ts, c, levels, out, filled)
    if levels or kind == P_LOST:
        turn_off(state, since, v, ts, kind, ALL, NONE, out, filled)
        if levels == 0:
            _put_row(out, filled, O_POINT, ts, c, v, kind, ZERO, ZERO, ZERO)
    elif kind == P_OUT:
        _put_row(out, filled, O_POINT, ts, c, v, kind, ZERO, ZERO, ZERO)
    cpus[c, C_VCPU] = -1
    s[S_LAST_CPU], s[S_ON] = c, (-2 if kind == P_LOST else -1)
    _mode(state, v, ts, mode, out, filled)


@helper
def enter_cpu(state, cpus, since, v, c, ts, kind, rules, live, out, filled):  # type: ignore[no-untyped-def]
    """The vCPU's thread is on CPU c; levels that it remembers come on."""
    s = state[v]
    if s[S_LAST_CPU] >= 0 and s[S_LAST_CPU] != c and s[S_ON] == -1:
        s[S_MIGRATIONS] += 1
    s[S_ON], s[S_LAST_CPU] = c, c
    cpus[c, C_VCPU] = v
    levels = SCHED if live else 0
    if s[S_OUTER] == 1:
        levels |= SCHED | OUTER
        # kvm_fpu's span goes on over a switch; other marks must prove vcpu_load anew.
        if s[S_INNER] == 1 and rules[R_FPU] == 1:
            levels |= INNER
        elif rules[R_FPU] == 0:
            s[S_INNER] = 0
    turn_on(state, since, v, ts, kind, levels, out, filled)
    _level_mode(state, v, ts, out, filled)


@helper
def prove_loaded(state, since, v, ts, inner, out, filled):  # type: ignore[no-untyped-def]
    """KVM runs for this vCPU inside KVM_RUN (and inside vcpu_load, where `inner`)."""
    s = state[v]
    s[S_STARTED] = 1
    if s[S_OUTER] == 0:
        s[S_OUTER] = 1
        turn_on(state, since, v, ts, P_RUN, SCHED | OUTER, out, filled)
    if inner and s[S_INNER] == 0:
        s[S_INNER] = 1
        turn_on(state, since, v, ts, P_LOAD, SCHED | OUTER | INNER, out, filled)
    _level_mode(state, v, ts, out, filled)


@helper
def leave_run(state, since, v, ts, outer, last, out, filled):  # type: ignore[no-untyped-def]
    """vcpu_put is behind us; `outer`: so is the ioctl; `last`: the last KVM_RUN of the thread."""
    s = state[v]
    if s[S_LEVELS] & GUEST:
        s[S_CANCELLED] += 1
        end_guest(state, since, v, ts, BY_CANCELLED, NO, out, filled)
    close_slice(state, v, NOT_KNOWN, NONE, out, filled)
    s[S_INNER] = 0
    turn_off(state, since, v, ts, P_PUT, INNER | LOOP | EVENTS, NONE, out, filled)
    if outer:
        s[S_OUTER] = 0
        levels = OUTER | SCHED if last else OUTER
        turn_off(state, since, v, ts, P_RUN_EXIT, levels, NONE, out, filled)
    _level_mode(state, v, ts, out, filled)


@helper
def on_entry(state, cpus, since, v, c, ts, tag, rules, seen, reasons, out, filled):  # type: ignore[no-untyped-def]
    """kvm_entry: guest mode begins, and a loop where the exit before did not leave one open."""
    s = state[v]
    if s[S_LEVELS] & GUEST:  # an entry that nothing ended
        s[S_CANCELLED] += 1
        end_guest(state, since, v, ts, BY_CANCELLED, NO, out, filled)
    close_slice(state, v, NOT_KNOWN, NONE, out, filled)
    if s[S_LEVELS] & INNER == 0 and rules[R_FPU] == 1:
        s[S_IMPLIED] += 1
    prove_loaded(state, since, v, ts, YES, out, filled)
    s[S_ENTRIES] += 1
    seen[v, c] = 1
    if s[S_EXIT_TS] != NOT_KNOWN:
        reasons[s[S_REASON] + 1, 1] += ts - s[S_EXIT_TS]
        s[S_EXIT_TS] = NOT_KNOWN
    turn_on(state, since, v, ts, P_ENTRY, GUEST | LOOP | EVENTS, out, filled)
    cpus[c, C_ONCE] = 0
    cpus[c, C_ONCE] = 0
    s[S_ENTRY_TS], s[S_SLICE_CPU], s[S_ENDED_BY] = ts, c, BY_EXIT
    _level_mode(state, v, ts, out, filled)
    if tag & k.TAG_CANCELLED:
        s[S_CANCELLED] += 1
        end_guest(state, since, v, ts, BY_CANCELLED, NO, out, filled)
        close_slice(state, v, NOT_KNOWN, NONE, out, filled)


@helper
def on_exit(state, cpus, since, v, c, ts, tag, reason, rules, reasons, out, filled):  # type: ignore[no-untyped-def]
    """kvm_exit: guest mode ends here unless it ended before; the loop too unless it is joined."""
    s = state[v]
    s[S_EXITS] += 1
    reasons[reason + 1, 0] += 1
    if s[S_ENTRY_TS] == NOT_KNOWN and s[S_LEVELS] & GUEST == 0:
        s[S_UNPAIRED] += s[S_ENTRIES] > 0
        prove_loaded(state, since, v, ts, YES, out, filled)
    elif s[S_LEVELS] & GUEST:
        s[S_END_TS], s[S_ENDED_BY] = ts, BY_EXIT
        s[S_GUEST] += ts - s[S_ENTRY_TS]
    elif s[S_ENDED_BY] == BY_HOST:
        s[S_LATE] += ts - s[S_END_TS]
    levels = GUEST
    if tag & k.TAG_JOIN_EVENTS == 0:
        levels |= EVENTS
    trusted = rules[R_MARKS] == 1
    if tag & (k.TAG_JOIN_MARKS if trusted else k.TAG_JOIN_EVENTS) == 0:
        levels |= LOOP
    turn_off(state, since, v, ts, P_EXIT, levels, reason, out, filled)
    close_slice(state, v, ts, reason, out, filled)
    s[S_REASON], s[S_EXIT_TS] = reason, ts
    _level_mode(state, v, ts, out, filled)


@helper
def set_owner(cpus, c, ts, owner, out, filled):  # type: ignore[no-untyped-def]
    """The PMU of CPU c is `owner`'s from ts on: a vCPU, OWNER_HOST or OWNER_LOST."""
    before = cpus[c, C_OWNER]
    if before == OWNER_NOT_KNOWN:
        # The first swap tells whose it was before.
        before = cpus[c, C_VCPU] if owner == OWNER_HOST else OWNER_HOST
    if ts > cpus[c, C_OWNER_TS]:
        _put_row(out, filled, O_OWNER, cpus[c, C_OWNER_TS], ts, c, before, ZERO, ZERO, ZERO)
    cpus[c, C_OWNER], cpus[c, C_OWNER_TS] = owner, ts


@helper
def on_swap(cpus, state, since, v, c, ts, load, owns, out, filled):  # type: ignore[no-untyped-def]
    """The kernel's own load is whole (`load`), or its put begins; owns: the PMU changes owner."""
    began = ts if since[v, truth.ON] != 1 else since[v, truth.ON_TS]
    if load:
        truth.recorded_on(since, v, ts, state[v, S_LEVELS], state[v, S_STARTED] == 1)
    else:
        truth.recorded_off(since, v, state[v, S_LEVELS])
    put_found(since, v, ts, began, c, out, filled)
    if not owns:
        return
    if cpus[c, C_OWNER] == OWNER_NOT_KNOWN and not load:
        cpus[c, C_OWNER] = v
    set_owner(cpus, c, ts, v if load else OWNER_HOST, out, filled)
