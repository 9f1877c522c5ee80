"""Whose is a probed call that touches the PMU? The loop over one chunk, where no msr events are.

Probes say by name what register accesses say by value, so nothing needs to be matched: a call
belongs to whatever the probes around it on its CPU and at its level (task, interrupt, NMI) name.

    the PMU's interrupt:  handler > [read > write > (guest's: overflow > stop .. start)] ...
    a vCPU's switch:      sched_out > calls ... sched_in > calls
    a vCPU in KVM:        calls, by a trapped access of its guest

At its switches perf touches the PMU for a vCPU's thread only because that thread has events of its
own: its guest's. Flexible events of the host, taken off and put back there to make room for them,
are part of it. A host that follows single threads (perf record -t) cannot be told from it.
"""

from __future__ import annotations

import numpy as np

from analyzer.arch.arm64.probes import CALLED, Meaning
from analyzer.jit import helper, kernel
from analyzer.timeline import kernels as k
from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.attribution.words import Actor

TICK, PMI, REMOTE = int(Meaning.TICK), int(Meaning.PMI), int(Meaning.REMOTE)
SWITCH_OUT, SWITCH_IN = int(Meaning.SWITCH_OUT), int(Meaning.SWITCH_IN)
EMULATION, GUEST_OVERFLOW = int(Meaning.EMULATION), int(Meaning.GUEST_OVERFLOW)
GUEST_FILTER, HOST_FILTER = int(Meaning.GUEST_FILTER), int(Meaning.HOST_FILTER)
FILTER, VCPU_LOAD, NOTHING = int(Meaning.FILTER), int(Meaning.VCPU_LOAD), int(Meaning.NOTHING)
NO_PROBE = 255
KVM_LOAD, KVM_PUT = int(Actor.KVM_LOAD), int(Actor.KVM_PUT)
# Whether a thread's vCPU has a PMU.
NO_VPMU, HAS_VPMU, NOT_TOLD = 0, 1, 2
# State of a CPU beside that of contexts.py: who sets the filters, since when, when by its first
# call, by how many calls so far; whose the filters are; and which calls the guest's overflow
# handler may still make (tokens).
Q_FILTER, Q_TS, Q_FIRST, Q_CALLS, Q_WHOSE, Q_GUEST = range(6)
STATE_COLUMNS = 6
HOSTS, GUESTS, NOBODY_KNOWS = 0, 1, 2
# Kinds of arch.arm64.probes.FILTER_GRAMMARS.
LOAD, PUT, AGAIN = range(3)
READ, WRITE = int(CALLED[1]), int(CALLED[2])
HANDLERS_CALLS = int(CALLED[0] | CALLED[1] | CALLED[2] | CALLED[3])


@helper
def _claim(access, burst, state):  # type: ignore[no-untyped-def]
    # The handler has read the counter that overflowed and given it its new period just before.
    left = READ | WRITE
    n = burst[b.B_SIZE] - 1
    while (
        n >= 0 and access[n, b.A_BITS] == 0 and access[n, b.A_TOKEN] & left == access[n, b.A_TOKEN]
    ):
        left &= ~access[n, b.A_TOKEN]
        access[n, b.A_BITS] = b.EMULATION
        n -= 1
    state[Q_GUEST] = HANDLERS_CALLS


@helper
def _who(access, burst, level, vpmu, overflows_probed):  # type: ignore[no-untyped-def]
    # Whose the calls of a burst are that nothing has claimed; vpmu: of its thread, if a vCPU's.
    context, is_vcpu = burst[b.B_CONTEXT], burst[b.B_VCPU] >= 0
    if level == b.TASK:
        if burst[b.B_CUT] or (is_vcpu and vpmu == NOT_TOLD):
            return b.NOT_KNOWN
        if not is_vcpu or vpmu == NO_VPMU:
            return b.HOST
        return b.BY_SCHED if context == x.OUT or context == x.IN else b.EMULATION
    if context == x.IN_NMI:
        guests, others = False, False
        for n in range(burst[b.B_SIZE]):
            guests |= access[n, b.A_BITS] != 0
            others |= access[n, b.A_BITS] == 0 and access[n, b.A_TOKEN] & (READ | WRITE) != 0
        if guests and not others:
            return b.EMULATION
        if is_vcpu and vpmu != NO_VPMU and not overflows_probed:
            return b.NOT_KNOWN
    return b.HOST


@helper
def _flush(  # type: ignore[no-untyped-def]
    at, cpu, level, access, burst, state, vpmu, overflows_probed, count, marks, episodes_of,
    patches, episodes, filled,
):  # fmt: skip
    # Decides about the burst that ends here and empties it.
    size = burst[b.B_SIZE]
    if size == 0:
        return
    t = burst[b.B_TID] + 1
    own = vpmu[t] if 0 <= t < vpmu.size else NOT_TOLD
    rest = _who(access, burst, level, own, overflows_probed)
    number, row = -1, episodes[filled[1]]
    for n in range(size):
        who = access[n, b.A_BITS] if access[n, b.A_BITS] else rest
        event = access[n, b.A_EVENT]
        if who != b.HOST:
            b._mark(at, event, who, b.NONE, marks, episodes_of, patches, filled)
            continue
        bits = who | burst[b.B_CONTEXT] << 4
        if number < 0:
            number = count[b.N_EPISODES]
            bits |= b.EPISODE_BEGINS
            row[:] = 0
            row[b.E_NUMBER], row[b.E_TS] = number, access[n, b.A_TS]
            row[b.E_CPU], row[b.E_TID] = cpu, burst[b.B_TID]
            row[b.E_CONTEXT], row[b.E_VCPU] = burst[b.B_CONTEXT], burst[b.B_VCPU]
            row[b.E_COUNTERS] = b.NO_COUNTERS
        row[b.E_END] = access[n, b.A_TS]
        row[b.E_ACCESSES] += 1
        row[b.E_TOKENS] |= access[n, b.A_TOKEN]
        b._mark(at, event, bits, number, marks, episodes_of, patches, filled)
    if number >= 0:
        count[b.N_EPISODES] += 1
        filled[1] += 1
    burst[b.B_SIZE] = 0
    if level != b.TASK:
        state[Q_GUEST] = 0


@helper
def _end_bursts(  # type: ignore[no-untyped-def]
    at, c, task, hard, nmi, accesses, burst, states, vpmu, overflows_probed, count, marks,
    episodes_of, patches, episodes, filled,
):  # fmt: skip
    for level in (b.NMI, b.HARD, b.TASK):
        wanted = task if level == b.TASK else (hard if level == b.HARD else nmi)
        n = c * b.LEVELS + level
        if wanted and burst[n, b.B_SIZE]:
            _flush(
                at, c, level, accesses[n], burst[n], states[c], vpmu, overflows_probed, count,
                marks, episodes_of, patches, episodes, filled,
            )  # fmt: skip


@helper
def _level(cpus, c, flags, meaning):  # type: ignore[no-untyped-def]
    # Where flags are not recorded, some functions themselves tell whether an interrupt runs them.
    level = x.level_of(cpus, c, flags)
    if flags != x.NO_FLAGS or level == b.NMI:
        return level
    if level == b.TASK and (meaning == TICK or meaning == PMI):
        cpus[c, x.X_NEST] = 1
        return b.HARD
    if level == b.HARD and (meaning == EMULATION or (SWITCH_OUT <= meaning <= SWITCH_IN)
                            or GUEST_FILTER <= meaning <= VCPU_LOAD):  # fmt: skip
        cpus[c, x.X_NEST], cpus[c, x.X_TIMER] = 0, 0
        cpus[c, x.X_SOURCE], cpus[c, x.X_FUNCTION] = 0, 0
        return b.TASK
    return level


@helper
def _follow(cpus, c, state, level, meaning, tid, ts):  # type: ignore[no-untyped-def]
    # Brings a CPU's state behind a probe that is more than an access.
    if level == b.TASK:
        cpus[c, x.X_PREVIOUS], cpus[c, x.X_NEXT], cpus[c, x.X_FRESH] = x.NOBODY, x.NOBODY, 0
    if meaning == TICK or meaning == PMI:
        cpus[c, x.X_TIMER] = x.TIMER_TICK if meaning == TICK else 0
        cpus[c, x.X_SOURCE] = x.SOURCE_PMI if meaning == PMI else 0
        cpus[c, x.X_FUNCTION] = 0
    elif meaning == REMOTE and level != b.TASK:
        cpus[c, x.X_FUNCTION] = x.FUNCTION_PERF
    elif meaning == SWITCH_OUT:
        cpus[c, x.X_PREVIOUS] = tid
    elif meaning == SWITCH_IN:
        cpus[c, x.X_NEXT] = tid
    elif meaning == GUEST_FILTER or meaning == HOST_FILTER:
        state[Q_FILTER] = KVM_LOAD if meaning == GUEST_FILTER else KVM_PUT
        state[Q_TS], state[Q_CALLS] = ts, 0
    elif meaning == VCPU_LOAD:
        state[Q_WHOSE] = HOSTS


@helper
def _filter_call(state, row, ts, cpu, vcpu):  # type: ignore[no-untyped-def]
    # One of the two calls that set the filters; returns marks, and whether `row` is filled.
    if state[Q_FILTER] == 0:
        return b.NOT_KNOWN, False
    bits, load = state[Q_FILTER], state[Q_FILTER] == KVM_LOAD
    state[Q_CALLS] += 1
    if state[Q_CALLS] == 1:
        state[Q_FIRST] = ts
        if not load:
            state[Q_WHOSE] = HOSTS
            bits |= b.PUT_BEGINS
    if state[Q_CALLS] != 2:
        return bits, False
    row[:] = 0
    row[b.S_TS], row[b.S_END], row[b.S_CPU], row[b.S_VCPU] = state[Q_TS], ts, cpu, vcpu
    row[b.S_DONE] = ts if load else state[Q_FIRST]
    row[b.S_KIND] = (LOAD if state[Q_WHOSE] == HOSTS else AGAIN) if load else PUT
    if load:
        bits |= b.LOAD_DONE if state[Q_WHOSE] == HOSTS else 0
        state[Q_WHOSE] = GUESTS
    row[b.S_GRAMMAR] = row[b.S_KIND]
    return bits, True


@helper
def _context(cpus, c, level, tid, timers_recorded):  # type: ignore[no-untyped-def]
    # A function that a task runs for itself (csd_function_entry outside interrupts) is no IPI.
    if level != b.TASK:
        return x.context_of(cpus, c, level, tid, timers_recorded)
    if tid == cpus[c, x.X_PREVIOUS] and tid != cpus[c, x.X_NEXT]:
        return x.OUT
    return x.IN if tid == cpus[c, x.X_NEXT] else x.OTHER


@kernel
def attribute_probes(  # type: ignore[no-untyped-def]
    at, ts, cpu, tid, code, flags, first, second, kind_class, meaning, token, slot, vpmu,
    overflows_probed, edges_probed, timers_recorded, ends, cpus, states, accesses, burst, count,
    marks, episodes_of, patches, swaps, episodes, filled,
):  # fmt: skip
    """Attribute the probed calls of one chunk that begins at event number `at`.

    meaning uint8[n] (NO_PROBE: no probe that we know), token int64[n] (0: touches no register).
    vpmu uint8[tids]: NO_VPMU, HAS_VPMU or NOT_TOLD, by tid + 1. overflows_probed, edges_probed:
    whether probes tell a guest's overflows, and perf's both sides of a switch. states int64[c,
    STATE_COLUMNS]; else as in kernel.attribute.
    """
    for n in range(ts.size):
        c, what, means = np.int64(cpu[n]), np.int64(code[n]), meaning[n]
        own = flags[n] == x.NO_FLAGS and what >= k.WINDOW_BEGIN and what != k.NMI_IN
        level = _level(cpus, c, flags[n], means)
        known = flags[n] != x.NO_FLAGS
        if means == NO_PROBE:
            over = (
                what == k.IRQ_OUT
                or what == k.TIMER_OUT
                or what == k.FUNCTION_OUT
                or what == k.FUNCTION_IN
                or what == k.SWITCH
                or what == k.ENTRY
            )
            hard = own or over or (known and level == b.TASK)
            task = x.ends_task_burst(what) and (level == b.TASK or what == k.IRQ_IN)
            nmi = own or what == k.NMI or (known and level != b.NMI)
        else:
            begins = means != NOTHING and means != GUEST_OVERFLOW and means != FILTER
            task, hard, nmi = begins and level == b.TASK, begins and level != b.NMI, begins
            hard |= known and level == b.TASK
        if task or hard or nmi:
            _end_bursts(
                at, c, task, hard, nmi, accesses, burst, states, vpmu, overflows_probed, count,
                marks, episodes_of, patches, episodes, filled,
            )  # fmt: skip
        if means == NO_PROBE:
            x.follow(cpus, c, what, kind_class[n], tid[n], first[n], second[n])
            if what == k.SWITCH and edges_probed:
                cpus[c, x.X_PREVIOUS], cpus[c, x.X_NEXT] = x.NOBODY, x.NOBODY
            if what == k.IRQ_OUT and cpus[c, x.X_NEST] == 0:
                cpus[c, x.X_FUNCTION] = 0
            # Interrupts may come between the two calls; nothing else makes them.
            if own or what == k.SWITCH:
                states[c, Q_FILTER] = 0
            if own:
                states[c, Q_WHOSE] = NOBODY_KNOWS
            continue
        row = c * b.LEVELS + level
        if means == FILTER:
            t = tid[n] + 1
            vcpu = slot[t] if 0 <= t < slot.size else -1
            bits, whole = _filter_call(states[c], swaps[filled[0]], ts[n], c, vcpu)
            marks[n] |= bits
            filled[0] += whole
            continue
        if means == GUEST_OVERFLOW:
            _claim(accesses[row], burst[row], states[c])
        elif means != NOTHING:
            _follow(cpus, c, states[c], level, means, tid[n], ts[n])
        if token[n] == 0:
            continue
        context = _context(cpus, c, level, tid[n], timers_recorded)
        size = burst[row, b.B_SIZE]
        other = burst[row, b.B_TID] != tid[n] or burst[row, b.B_CONTEXT] != context
        if size and (other or size == b.ROOM):
            count[b.N_FULL] += size == b.ROOM
            _flush(
                at, c, level, accesses[row], burst[row], states[c], vpmu, overflows_probed, count,
                marks, episodes_of, patches, episodes, filled,
            )  # fmt: skip
            size = 0
        if size == 0:
            t = tid[n] + 1
            burst[row, b.B_TID], burst[row, b.B_CONTEXT] = tid[n], context
            burst[row, b.B_VCPU] = slot[t] if 0 <= t < slot.size else -1
            burst[row, b.B_CUT] = cpus[c, x.X_FRESH]
        guests = level != b.TASK and states[c, Q_GUEST] & token[n] == token[n]
        access = accesses[row, size]
        access[b.A_TOKEN], access[b.A_EVENT], access[b.A_TS] = token[n], at + n, ts[n]
        access[b.A_BITS] = b.EMULATION if guests else 0
        burst[row, b.B_SIZE] = size + 1
        # It ends with its event enabled, or with any call that it cannot make (any more).
        enabled = token[n] == b.SELECTOR_WRITE
        states[c, Q_GUEST] = states[c, Q_GUEST] & ~token[n] if guests and not enabled else 0
    if ends:
        for each in range(cpus.shape[0]):
            _end_bursts(
                at, each, b.YES, b.YES, b.YES, accesses, burst, states, vpmu, overflows_probed,
                count, marks, episodes_of, patches, episodes, filled,
            )  # fmt: skip
