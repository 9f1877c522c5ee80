"""How does the state go from event to event? The loop of the forward pass over one chunk."""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper, kernel
from analyzer.timeline import forward as f
from analyzer.timeline import kernels as k
from analyzer.timeline import truth
from analyzer.timeline.attribution.words import Mark

LOAD_DONE, PUT_BEGINS = int(Mark.LOAD_DONE), int(Mark.PUT_BEGINS)
HOST_CHANGES, HOST_ANY = int(Mark.HOST_CHANGES), int(Mark.HOST_ANY)
HOST_KERNEL, GUEST_ON = int(Mark.HOST_KERNEL), int(Mark.GUEST_ON)
PERF_CORE = int(Mark.PERF_CORE)
EPISODE_BEGINS, GUEST_PMI = int(Mark.EPISODE_BEGINS), int(Mark.GUEST_PMI)


@helper
def _interrupts(cpus, c, v, ts, code, out, filled):  # type: ignore[no-untyped-def]
    # Interrupts, softirqs and NMIs nest; only the outermost edge is of interest.
    nest = cpus[c, f.C_NEST]
    if code == k.IRQ_IN or code == k.NMI_IN:
        cpus[c, f.C_NEST] = nest + 1
        if nest == 0 and v >= 0:
            f._put_row(out, filled, f.O_POINT, ts, c, v, f.P_IRQ_IN, f.ZERO, f.ZERO, f.ZERO)
        return
    # An entry or a switch proves that all interrupts are over, even if an exit event is missing.
    over = code == k.SWITCH or code == k.ENTRY
    if nest > 0 and (over or code == k.IRQ_OUT or code == k.NMI):
        cpus[c, f.C_NEST] = 0 if over else nest - 1
        if cpus[c, f.C_NEST] == 0 and v >= 0:
            f._put_row(out, filled, f.O_POINT, ts, c, v, f.P_IRQ_OUT, f.ZERO, f.ZERO, f.ZERO)


@helper
def _matters(code, first):  # type: ignore[no-untyped-def]
    # Most events say nothing about their own thread's vCPU; calls cost more than this test.
    return not (
        code == k.OTHER
        or code == k.MSR_READ
        or code == k.MSR_WRITE
        or code == k.IRQ_IN
        or code == k.IRQ_OUT
        or (code >= k.NMI and code <= k.TIMER_START)
        or code == k.NMI_IN
    )


@helper
def _live(state, vcpus, v, ts):  # type: ignore[no-untyped-def]
    # Between the thread's first KVM_RUN and its last.
    return state[v, f.S_STARTED] == 1 and (vcpus[k.V_INSIDE, v] == 1 or ts < vcpus[k.V_LAST_END, v])


@helper
def _meet(state, cpus, since, v, c, ts, code, first, rules, vcpus, out, filled):  # type: ignore[no-untyped-def]
    # An event of a vCPU thread whose CPU we did not know: after a loss, or at the very start.
    s = state[v]
    if code == k.ENTRY or code == k.EXIT or code == k.WAKEUP or (code == k.FPU and first == 0):
        s[f.S_OUTER], s[f.S_INNER], s[f.S_STARTED] = 1, 1, 1
    elif code == k.IOCTL_IN:
        s[f.S_OUTER], s[f.S_INNER] = 0, 0
    levels_before = s[f.S_INNER]
    f.enter_cpu(
        state, cpus, since, v, c, ts, f.P_STATE, rules, _live(state, vcpus, v, ts), out, filled
    )
    if levels_before == 1 and s[f.S_OUTER] == 1:
        s[f.S_INNER] = 1
        f.turn_on(state, since, v, ts, f.P_STATE, f.SCHED | f.OUTER | f.INNER, out, filled)
    # Where kvm_exit is late, an exit does not prove that the guest ran until then.
    if code == k.EXIT and rules[f.R_LATE] == 0:
        f.turn_on(state, since, v, ts, f.P_STATE, f.GUEST | f.LOOP | f.EVENTS, out, filled)
        s[f.S_ENTRY_TS], s[f.S_SLICE_CPU], s[f.S_ENDED_BY] = ts, c, f.BY_EXIT
        f._level_mode(state, v, ts, out, filled)


@helper
def _frame_owner(cpus, c, ts, code, out, filled):  # type: ignore[no-untyped-def]
    if code == k.WINDOW_BEGIN:
        cpus[c, f.C_OWNER], cpus[c, f.C_OWNER_TS] = f.OWNER_NOT_KNOWN, ts
    elif code == k.LOSS_END:
        f.set_owner(cpus, c, ts, f.OWNER_LOST, out, filled)
        cpus[c, f.C_OWNER] = f.OWNER_NOT_KNOWN
    else:
        f.set_owner(cpus, c, ts, f.OWNER_LOST, out, filled)


@helper
def _frame(state, cpus, since, c, ts, code, first, slot, rules, vcpus, out, filled):  # type: ignore[no-untyped-def]
    # Windows and losses. `first` of WINDOW_BEGIN is the thread that runs there (+1).
    v = cpus[c, f.C_VCPU]
    cpus[c, f.C_NEST] = 0
    if rules[f.R_RECORDED] == f.SWAPS:
        _frame_owner(cpus, c, ts, code, out, filled)
    if code == k.WINDOW_BEGIN:
        v = np.int64(slot[first]) if 0 <= first < slot.size else f.NONE
        if v >= 0 and state[v, f.S_ON] < 0:
            by_code = k.EXIT if vcpus[k.V_FIRST, v] == k.EXIT else k.THREAD_END
            _meet(state, cpus, since, v, c, ts, by_code, f.ZERO, rules, vcpus, out, filled)
    elif code == k.WINDOW_END or code == k.LOSS_BEGIN:
        by = f.BY_WINDOW if code == k.WINDOW_END else f.BY_LOST
        if v >= 0:
            f.leave_cpu(state, cpus, since, v, ts, f.M_UNKNOWN, f.P_LOST, by, out, filled)
        else:
            f._put_row(out, filled, f.O_POINT, ts, c, f.NONE, f.P_LOST, f.ZERO, f.ZERO, f.ZERO)
        # A thread that is on no CPU may run on this one meanwhile.
        for other in range(state.shape[0]):
            if state[other, f.S_ON] == -1 and state[other, f.S_MODE_TS] <= ts:
                f.forget(since, other, ts, c, f.ZERO, out, filled)
                if code == k.LOSS_BEGIN:
                    state[other, f.S_ON] = -2
                    f._mode(state, other, ts, f.M_UNKNOWN, out, filled)
    if code == k.WINDOW_BEGIN or code == k.LOSS_END:
        f._put_row(out, filled, f.O_POINT, ts, c, f.NONE, f.P_STATE, f.ZERO, f.ZERO, f.ZERO)


@helper
def _own(  # type: ignore[no-untyped-def]
    state, cpus, since, v, c, ts, code, first, second, tag, rules, vcpus, seen, reasons, out, filled
):
    # One event of a vCPU's own thread.
    s = state[v]
    last = vcpus[k.V_INSIDE, v] == 0 and ts >= vcpus[k.V_LAST_END, v]
    if code == k.ENTRY:
        f.on_entry(state, cpus, since, v, c, ts, tag, rules, seen, reasons, out, filled)
    elif code == k.EXIT:
        reason = first if first >= 0 else f.NONE
        f.on_exit(state, cpus, since, v, c, ts, tag, reason, rules, reasons, out, filled)
    elif code == k.IOCTL_IN and first == k.KVM_RUN_CMD:
        f.prove_loaded(state, since, v, ts, f.NO, out, filled)
    elif code == k.FPU and first != 0:
        f.prove_loaded(state, since, v, ts, f.YES, out, filled)
    elif code == k.FPU:
        outer = rules[f.R_IOCTL] == 0 and rules[f.R_USER_EXIT] == 0
        f.leave_run(state, since, v, ts, outer, last, out, filled)
    elif code == k.USER_EXIT:
        f.leave_run(state, since, v, ts, rules[f.R_IOCTL] == 0, last, out, filled)
    elif code == k.IOCTL_OUT:
        if s[f.S_OUTER] == 1:
            f.leave_run(state, since, v, ts, f.YES, last, out, filled)
    elif code == k.WAKEUP:
        f.prove_loaded(state, since, v, ts, f.YES, out, filled)
    elif code == k.RESTORE:
        if s[f.S_OUTER] == 1 or rules[f.R_IOCTL] == 0:
            f.prove_loaded(state, since, v, ts, f.YES, out, filled)
    elif code == k.SAVE and tag & k.TAG_LAST_SAVE and s[f.S_INNER] == 1:
        s[f.S_INNER] = 0
        f.turn_off(state, since, v, ts, f.P_PUT, f.INNER | f.LOOP | f.EVENTS, f.NONE, out, filled)


@helper
def _attributed(cpus, state, since, v, c, ts, mark, episode, owns, out, filled):  # type: ignore[no-untyped-def]
    # What attribution found at an access: an end of a swap, or host perf's first of an episode.
    if mark & EPISODE_BEGINS:
        detail = np.int64(episode) << f.SHIFT | (mark >> 4 & 15)
        f._put_row(out, filled, f.O_POINT, ts, c, v, f.P_EPISODE, detail, f.ZERO, f.ZERO)
    elif mark & GUEST_PMI:
        f._put_row(out, filled, f.O_POINT, ts, c, v, f.P_GUEST_PMI, f.ZERO, f.ZERO, f.ZERO)
    elif v >= 0 and mark & LOAD_DONE:
        on = 1 if mark & GUEST_ON else 0
        if owns and state[v, f.S_PMU] != on:
            state[v, f.S_PMU] = on
            f._put_row(out, filled, f.O_POINT, ts, c, v, f.P_GUEST_PMU, on, f.ZERO, f.ZERO)
        f.on_swap(cpus, state, since, v, c, ts, f.YES, owns, out, filled)
    elif mark & (GUEST_ON | 15) == PERF_CORE:
        f._put_row(out, filled, f.O_POINT, ts, c, v, f.P_PERF_CORE, f.ZERO, f.ZERO, f.ZERO)
    elif v >= 0 and mark & PUT_BEGINS:
        f.on_swap(cpus, state, since, v, c, ts, f.NO, owns, out, filled)
    if mark & HOST_CHANGES:
        detail = (1 if mark & HOST_ANY else 0) | (2 if mark & HOST_KERNEL else 0)
        f._put_row(out, filled, f.O_POINT, ts, c, f.NONE, f.P_HOST_EVENTS, detail, f.ZERO, f.ZERO)


@kernel
def advance(  # type: ignore[no-untyped-def]
    at, ts, cpu, tid, code, property, first, second, tags, marks, episodes, rules, slot, wait,
    vcpus, state, cpus, since, seen, reasons, out, filled,
):  # fmt: skip
    """Process one chunk of the stream; rows go to out int64[6, n, 7], counts to filled int64[6].

    marks uint16[n], episodes int32[n]: of attribution; empty where no register access is recorded.
    Preconditions: events in order of time, room for all rows (see build.Timeline).
    """
    for n in range(ts.size):
        c, t, now, what = np.int64(cpu[n]), np.int64(tid[n]) + 1, ts[n], np.int64(code[n])
        if what >= k.WINDOW_BEGIN and what != k.NMI_IN:
            _frame(state, cpus, since, c, now, what, first[n], slot, rules, vcpus, out, filled)
            continue
        here = cpus[c, f.C_VCPU]
        if here >= 0 and state[here, f.S_LEVELS] & f.GUEST and what != k.EXIT:
            if what == k.NMI_IN:
                f.end_guest(state, since, here, now, f.BY_NMI, rules[f.R_LATE] == 0, out, filled)
            elif rules[f.R_LATE] == 1 and (
                property[n] & k.WAY_IN == 0
                or (property[n] & k.WAY_IN_ONCE and cpus[c, f.C_ONCE] == 1)
            ):
                f.end_guest(state, since, here, now, f.BY_HOST, f.NO, out, filled)
            elif property[n] & k.WAY_IN_ONCE:
                cpus[c, f.C_ONCE] = 1
        if cpus[c, f.C_NEST] > 0 or what == k.IRQ_IN or what == k.NMI_IN:
            _interrupts(cpus, c, here, now, what, out, filled)
        v = np.int64(slot[t]) if 0 <= t < slot.size else f.NONE
        if here >= 0 and (what == k.MSR_READ or what == k.MSR_WRITE):
            since[here, truth.ACCESS] = 1
        if marks.size and marks[n] >= LOAD_DONE:
            _attributed(
                cpus, state, since, v, c, now, marks[n], episodes[n],
                rules[f.R_RECORDED] == f.SWAPS, out, filled,
            )  # fmt: skip
        if what == k.SWITCH:
            mode = f.M_PREEMPTED if second[n] & 0xFF == 0 else f.M_BLOCKED
            if here >= 0:
                f.leave_cpu(
                    state, cpus, since, here, now, mode, f.P_OUT, f.BY_CANCELLED, out, filled
                )
            coming = first[n] + 1
            v = np.int64(slot[coming]) if 0 < coming < slot.size else f.NONE
            if v >= 0:
                live = _live(state, vcpus, v, now)
                f.enter_cpu(state, cpus, since, v, c, now, f.P_IN, rules, live, out, filled)
            v = f.NONE
        elif v >= 0 and _matters(what, first[n]):
            if state[v, f.S_ON] < 0 and k.is_evidence(what, first[n]):
                _meet(state, cpus, since, v, c, now, what, first[n], rules, vcpus, out, filled)
            if state[v, f.S_ON] == c:
                _own(
                    state, cpus, since, v, c, now, what, first[n], second[n], tags[n], rules, vcpus,
                    seen, reasons, out, filled,
                )  # fmt: skip
        dead = what == k.THREAD_END or (
            what == k.SWITCH and second[n] > 0 and second[n] & k.DEAD_STATES != 0
        )
        if dead and 0 < t < slot.size:
            slot[t] = -1
            if wait[t] >= 0 and vcpus[k.V_BORN, wait[t]] == at + n + 1:
                slot[t] = wait[t]


@kernel
def close(since, state, end, out, filled):  # type: ignore[no-untyped-def]
    """Judge at the recording's end what waits of the vCPUs that are on no CPU; as in `advance`."""
    for v in range(since.shape[0]):
        f.forget(since, v, end, state[v, f.S_LAST_CPU], f.ZERO, out, filled)
