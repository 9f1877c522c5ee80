"""How does attribution go from event to event? The loop over one chunk."""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper, kernel
from analyzer.timeline import kernels as k
from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.attribution.tokens import token_of
from analyzer.timeline.attribution.words import Mark

PERF_CORE = int(Mark.PERF_CORE)


@helper
def _end_bursts(  # type: ignore[no-untyped-def]
    at, c, task, hard, nmi, accesses, burst, cpus, slot, mediated, steps, direction, found, count,
    marks, episodes_of, patches, swaps, episodes, filled,
):  # fmt: skip
    # Innermost first: an NMI inside a swap is before the swap's end.
    for level in (b.NMI, b.HARD, b.TASK):
        wanted = task if level == b.TASK else (hard if level == b.HARD else nmi)
        n = c * b.LEVELS + level
        if wanted and burst[n, b.B_SIZE]:
            t = burst[n, b.B_TID] + 1
            is_vcpu = 0 <= t < slot.size and slot[t] >= 0
            b.flush(
                at, c, level, accesses[n], burst[n], cpus[c], is_vcpu, mediated, steps, direction,
                found, count, marks, episodes_of, patches, swaps, episodes, filled,
            )  # fmt: skip


@kernel
def attribute(  # type: ignore[no-untyped-def]
    at, ts, cpu, tid, code, flags, first, second, kind_class, key, tokens, indexes, slot,
    mediated, timers_recorded, named, ends, steps, direction, found, cpus, accesses, burst, shadow,
    count, marks, episodes_of, patches, swaps, episodes, filled,
):  # fmt: skip
    """Attribute the accesses of one chunk that begins at event number `at`.

    key, tokens, indexes: of tokens.Tokens. kind_class uint8[n], see contexts.follow; named:
    functions have names, so perf's are known; ends: the last chunk, with which all bursts end. slot
    int32[tids]: vCPU of a tid or -1. State: cpus int64[c, CPU_COLUMNS], accesses int64[c * 3, ROOM,
    columns], burst int64[c * 3, BURST_COLUMNS], shadow int64[c, SHADOWS], count int64[4].

    Written: marks uint16[n], episodes_of int32[n] (-1: none), patches int64[p, 3] (event, bits,
    episode) for events of chunks before, swaps and episodes rows; filled int64[3] how many of each.
    """
    for n in range(ts.size):
        c, what = np.int64(cpu[n]), np.int64(code[n])
        is_access = what == k.MSR_READ or what == k.MSR_WRITE or what == k.RDPMC
        token, index = np.int64(0), np.int64(0)
        if is_access:
            token, index = token_of(key, tokens, indexes, what, first[n], second[n])
            if token == 0:
                continue
        level = x.level_of(cpus, c, flags[n])
        own = flags[n] == x.NO_FLAGS and what >= k.WINDOW_BEGIN
        if not is_access:
            # With flags, an event of a lower level shows that the levels above are over.
            known = flags[n] != x.NO_FLAGS
            nmi = what == k.NMI or (known and level != b.NMI) or (own and what != k.NMI_IN)
            hard = (
                (known and level == b.TASK)
                or what == k.IRQ_OUT
                or what == k.TIMER_OUT
                or what == k.FUNCTION_OUT
                or what == k.FUNCTION_IN
                or what == k.SWITCH
                or what == k.ENTRY
                or (own and what != k.NMI_IN)
            )
            task = x.ends_task_burst(what) and (level == b.TASK or what == k.IRQ_IN)
            if own and what != k.NMI_IN:
                burst[c * b.LEVELS + b.TASK, b.B_CUT] |= 2
            if task or hard or nmi:
                _end_bursts(
                    at, c, task, hard, nmi, accesses, burst, cpus, slot, mediated, steps,
                    direction, found, count, marks, episodes_of, patches, swaps, episodes, filled,
                )  # fmt: skip
            if what == k.EXIT:
                cpus[c, b.X_EXIT] = at + n
            elif what == k.FUNCTION_IN and kind_class[n] == x.FUNCTION_PERF and named:
                marks[n] |= PERF_CORE
            x.follow(cpus, c, what, kind_class[n], tid[n], first[n], second[n])
            continue
        row = c * b.LEVELS + level
        context = x.context_of(cpus, c, level, tid[n], timers_recorded)
        size = burst[row, b.B_SIZE]
        other = burst[row, b.B_TID] != tid[n] or burst[row, b.B_CONTEXT] != context
        if size and (other or size == b.ROOM):
            count[b.N_FULL] += size == b.ROOM
            _end_bursts(
                at, c, level == b.TASK, level == b.HARD, b.YES, accesses, burst, cpus, slot,
                mediated, steps, direction, found, count, marks, episodes_of, patches, swaps,
                episodes, filled,
            )  # fmt: skip
            size = 0
        if size == 0:
            t = tid[n] + 1
            burst[row, b.B_TID], burst[row, b.B_CONTEXT] = tid[n], context
            burst[row, b.B_IN_ENTRY] = cpus[c, x.X_OPEN]
            burst[row, b.B_VCPU] = np.int64(slot[t]) if 0 <= t < slot.size else -1
            burst[row, b.B_LOADED] = cpus[c, b.X_LOADED]
            burst[row, b.B_CUT] = cpus[c, x.X_FRESH]
        b.push(accesses, burst, row, shadow, c, token, index, second[n], at + n, ts[n])
    if ends:
        for each in range(cpus.shape[0]):
            _end_bursts(
                at, each, b.YES, b.YES, b.YES, accesses, burst, cpus, slot, mediated, steps,
                direction, found, count, marks, episodes_of, patches, swaps, episodes, filled,
            )  # fmt: skip
