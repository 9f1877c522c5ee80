"""Which events begin a handler that a rule knows, and where does it end? One loop over a chunk."""

from __future__ import annotations

from analyzer.jit import helper, kernel
from analyzer.timeline import kernels as k
from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.attribution.words import Mark
from analyzer.timeline.inference.rules import MUX, TICK

# A CPU's state after that of contexts.py: the rule of the handler that runs (-1: none), when it
# began, in which thread, its number.
I_RULE, I_TS, I_TID, I_NUMBER = range(x.CPU_COLUMNS, x.CPU_COLUMNS + 4)
CPU_COLUMNS = x.CPU_COLUMNS + 4
# Columns of an inferred episode.
E_TS, E_END, E_CPU, E_TID, E_RULE, E_NUMBER = range(6)
ROW = 6
NOBODY = -1
BEGINS = int(Mark.EPISODE_BEGINS)


@helper
def _end(cpus, c, ts, rows, filled):  # type: ignore[no-untyped-def]
    n = filled[0]
    rows[n, E_TS], rows[n, E_END], rows[n, E_CPU], rows[n, E_TID] = (
        cpus[c, I_TS],
        ts,
        c,
        cpus[c, I_TID],
    )
    rows[n, E_RULE], rows[n, E_NUMBER] = cpus[c, I_RULE], cpus[c, I_NUMBER]
    cpus[c, I_RULE] = NOBODY
    filled[0] += 1


@helper
def _rule_of(cpus, c, code, kind_class, call, flags, own_vcpu, timers_recorded):  # type: ignore[no-untyped-def]
    # The rule that an event sets going, NOBODY where none does; the CPU's state is behind it.
    # What a vCPU's thread calls on its own CPU, in no interrupt, is KVM's: a perf-backed guest's
    # events are its task's (facts/x86.md section 2; k73l-hostperf: all 1393 calls of
    # remote_function).
    if code == k.TIMER_IN and cpus[c, x.X_TIMER] == x.TIMER_TICK:
        return TICK
    if code == k.TIMER_IN and kind_class == x.TIMER_MUX:
        return MUX
    if code == k.IRQ_IN and kind_class == x.SOURCE_TIMER and not timers_recorded:
        return TICK
    if code == k.FUNCTION_IN and not (own_vcpu and x.level_of(cpus, c, flags) == b.TASK):
        return call
    return NOBODY


@kernel
def infer(  # type: ignore[no-untyped-def]
    ts, cpu, tid, code, flags, first, second, kind_class, call, slot, applied, context,
    timers_recorded, cpu_events, tid_events, cpus, count, marks, numbers, rows, filled,
):  # fmt: skip
    """Find the handlers of one chunk that rules know; all state is carried from call to call.

    kind_class: uint8[n], see contexts.follow; call: int8[n], the rule of a called function or -1;
    slot: int32[tids + 1], the vCPU of a tid + 1 or -1;
    applied: bool[rules]; context: int64[rules]. cpu_events, tid_events: int64[cpus] and
    int64[tids + 1] (by tid + 1), sets of frequency-mode events, one bit each: one is on where both
    have it. cpus: int64[cpus, CPU_COLUMNS]. count: int64[rules + 1], how many of each rule, then
    the next number. Written: marks uint16[n] and numbers int64[n] (-1: none), as attribution has
    them; rows int64[<= n + cpus, ROW] of handlers that ended, filled int64[1].

        what comes on that CPU                                     the handler that runs
        begin of a handler (timer, call, interrupt)                ends; its own begins if a rule is
        end of one, VM entry or exit, switch, edge of the data     ends
        anything else, an NMI too                                  goes on
    """
    for n in range(ts.size):
        c, what = cpu[n], code[n]
        over = what == k.TIMER_IN or what == k.TIMER_OUT or what == k.IRQ_OUT
        if cpus[c, I_RULE] != NOBODY and (over or x.ends_task_burst(what)):
            _end(cpus, c, ts[n], rows, filled)
        x.follow(cpus, c, what, kind_class[n], tid[n], first[n], second[n])
        t = tid[n] + 1
        own_vcpu = 0 <= t < slot.size and slot[t] >= 0
        rule = _rule_of(cpus, c, what, kind_class[n], call[n], flags[n], own_vcpu, timers_recorded)
        if rule == NOBODY or not applied[rule]:
            continue
        whose = tid_events[t] if 0 <= t < tid_events.size else 0
        if rule == TICK and cpu_events[c] & whose == 0:
            continue
        cpus[c, I_RULE], cpus[c, I_TS], cpus[c, I_TID], cpus[c, I_NUMBER] = (
            rule,
            ts[n],
            tid[n],
            count[-1],
        )
        marks[n], numbers[n] = BEGINS | context[rule] << 4, count[-1]
        count[rule] += 1
        count[-1] += 1


@kernel
def finish(ts, cpus, rows, filled):  # type: ignore[no-untyped-def]
    """End what still runs at the end of the recording, at ts; arguments as in `infer`."""
    for c in range(cpus.shape[0]):
        if cpus[c, I_RULE] != NOBODY:
            _end(cpus, c, ts, rows, filled)
