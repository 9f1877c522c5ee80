"""In which context is a CPU when it touches the PMU? State per CPU, one event at a time.

Where the format carries the kernel's common_flags, they say whether an NMI, an interrupt or a task
made an access; else the nesting of the recorded handlers does, and for NMIs the handler's duration.
Interrupts, switches, VM entries and exits end the burst of the task; what else is recorded in
between (probes, wake-ups, timers being set) does not.
"""

from __future__ import annotations

from analyzer.jit import helper
from analyzer.timeline import kernels as k
from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution.words import Context

# Columns of a CPU's state after those of bursts.py.
(
    X_NMI, X_NEST, X_SOURCE, X_TIMER, X_FUNCTION, X_PREVIOUS, X_NEXT, X_OPEN, X_FRESH,
) = range(6, 15)  # fmt: skip
# From here on: timers that were last set to a whole millisecond, where no function has a name.
X_WHOLE, WHOLE_TIMERS = 15, 8
X_PLACE = X_WHOLE + WHOLE_TIMERS
CPU_COLUMNS = X_PLACE + 1
# Classes of a handler's function (X_TIMER, X_FUNCTION) and of an interrupt (X_SOURCE).
TIMER_TICK, TIMER_MUX, TIMER_OTHER, TIMER_UNNAMED = 1, 2, 3, 4
FUNCTION_PERF, FUNCTION_OTHER = 1, 2
SOURCE_TIMER, SOURCE_CALL, SOURCE_OTHER, SOURCE_SOFTIRQ, SOURCE_PMI = 1, 2, 3, 4, 5
NOBODY = -2
FLAG_HARD, FLAG_SOFT, FLAG_NMI, NO_FLAGS = 8, 0x10, 0x40, 255
TICK, MUX, IPI = int(Context.TICK), int(Context.MUX_TIMER), int(Context.IPI)
IN_NMI, OUT, IN, OTHER = (
    int(Context.NMI), int(Context.SWITCH_OUT), int(Context.SWITCH_IN), int(Context.OTHER)
)  # fmt: skip


@helper
def level_of(cpus, c, flags):  # type: ignore[no-untyped-def]
    """Return TASK, HARD or NMI for an event with these flags on CPU c."""
    if flags != NO_FLAGS:
        if flags & FLAG_NMI:
            return b.NMI
        return b.HARD if flags & (FLAG_HARD | FLAG_SOFT) else b.TASK
    if cpus[c, X_NMI] > 0:
        return b.NMI
    return b.HARD if cpus[c, X_NEST] > 0 else b.TASK


@helper
def context_of(cpus, c, level, tid, timers_recorded):  # type: ignore[no-untyped-def]
    """Return the Context of an access at that level by that thread."""
    if level == b.NMI:
        return IN_NMI
    if cpus[c, X_FUNCTION] == FUNCTION_PERF:
        return IPI
    if level == b.HARD:
        if cpus[c, X_TIMER] == TIMER_TICK:
            return TICK
        if cpus[c, X_TIMER] == TIMER_MUX:
            return MUX
        if cpus[c, X_SOURCE] == SOURCE_PMI:
            return IN_NMI
        if cpus[c, X_SOURCE] == SOURCE_TIMER and not timers_recorded:
            return TICK
        if cpus[c, X_SOURCE] == SOURCE_CALL and cpus[c, X_FUNCTION] == 0:
            return IPI
        return OTHER
    if cpus[c, X_PREVIOUS] != NOBODY and tid == cpus[c, X_PREVIOUS] and tid != cpus[c, X_NEXT]:
        return OUT
    if cpus[c, X_NEXT] != NOBODY and tid == cpus[c, X_NEXT]:
        return IN
    return OTHER


@helper
def ends_task_burst(code):  # type: ignore[no-untyped-def]
    """Say whether an event proves that other code than the burst's ran on the CPU."""
    return (
        code == k.ENTRY
        or code == k.EXIT
        or code == k.SWITCH
        or code == k.IRQ_IN
        or code == k.IOCTL_IN
        or code == k.IOCTL_OUT
        or code == k.USER_EXIT
        or code == k.FPU
        or code == k.FUNCTION_IN
        or code == k.FUNCTION_OUT
        or (code >= k.WINDOW_BEGIN and code != k.NMI_IN)
    )


@helper
def _set_timer(cpus, c, timer, whole):  # type: ignore[no-untyped-def]
    for place in range(X_WHOLE, X_PLACE):
        if cpus[c, place] == timer:
            cpus[c, place] = timer if whole else NOBODY
            return
    if whole:
        cpus[c, X_WHOLE + cpus[c, X_PLACE]] = timer
        cpus[c, X_PLACE] = (cpus[c, X_PLACE] + 1) % WHOLE_TIMERS


@helper
def follow(cpus, c, code, kind_class, tid, first, second):  # type: ignore[no-untyped-def]
    """Bring the state of CPU c behind one event that is no access.

    kind_class: class of an interrupt's vector, of a timer's function or of a called function; 1
    for a timer that is set to a whole millisecond. first, second: fields of the event.
    """
    if code == k.NMI_IN:
        cpus[c, X_NMI] += 1
    elif code == k.NMI:
        cpus[c, X_NMI] = max(cpus[c, X_NMI] - 1, 0)
    elif code == k.IRQ_IN:
        if cpus[c, X_NEST] == 0 or kind_class != SOURCE_SOFTIRQ:
            cpus[c, X_SOURCE] = kind_class
        cpus[c, X_NEST] += 1
    elif code == k.IRQ_OUT:
        cpus[c, X_NEST] = max(cpus[c, X_NEST] - 1, 0)
        cpus[c, X_TIMER], cpus[c, X_SOURCE] = 0, 0
    elif code == k.TIMER_IN:
        cpus[c, X_TIMER] = kind_class
        if kind_class == TIMER_UNNAMED:
            cpus[c, X_TIMER] = TIMER_MUX
            for place in range(X_WHOLE, X_PLACE):
                if cpus[c, place] == second:
                    cpus[c, X_TIMER] = TIMER_TICK
    elif code == k.TIMER_START:
        _set_timer(cpus, c, first, kind_class == 1)
    elif code == k.TIMER_OUT:
        cpus[c, X_TIMER] = 0
    elif code == k.FUNCTION_IN:
        cpus[c, X_FUNCTION] = kind_class
    elif code == k.FUNCTION_OUT:
        cpus[c, X_FUNCTION] = 0
    elif code == k.SWITCH or code == k.ENTRY or code >= k.WINDOW_BEGIN:
        (
            cpus[c, X_NEST],
            cpus[c, X_NMI],
            cpus[c, X_TIMER],
            cpus[c, X_FUNCTION],
            cpus[c, X_SOURCE],
        ) = 0, 0, 0, 0, 0
    if code == k.SWITCH:
        cpus[c, X_PREVIOUS], cpus[c, X_NEXT] = tid, first
    elif ends_task_burst(code):
        cpus[c, X_PREVIOUS], cpus[c, X_NEXT] = NOBODY, NOBODY
    if ends_task_burst(code):
        cpus[c, X_FRESH] = code >= k.WINDOW_BEGIN
    if code == k.ENTRY:
        cpus[c, X_OPEN] = 1
    elif code == k.EXIT or code == k.SWITCH or (code >= k.WINDOW_BEGIN and code != k.NMI_IN):
        cpus[c, X_OPEN] = 0
    if code >= k.WINDOW_BEGIN and code != k.NMI_IN:
        cpus[c, b.X_LOADED], cpus[c, b.X_COUNTERS], cpus[c, b.X_EXIT] = 0, 0, -1
