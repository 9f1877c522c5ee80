"""How are accesses gathered into bursts, and what is made of one when it ends?"""

from __future__ import annotations

import numpy as np

from analyzer.arch.x86.swaps import Token
from analyzer.jit import helper
from analyzer.timeline.attribution import parse as p
from analyzer.timeline.attribution.words import Actor, Context, Mark

OFF, ON = int(Token.GLOBAL_OFF), int(Token.GLOBAL_ON)
GLOBAL_READ, LVTPC_GUEST = int(Token.GLOBAL_READ), int(Token.LVTPC_GUEST)
COUNTER = int(Token.COUNTER_ZERO | Token.COUNTER_WRITE | Token.COUNTER_READ)
SELECTOR = int(Token.SELECTOR_ZERO | Token.SELECTOR_WRITE | Token.SELECTOR_READ)
SELECTOR_WRITE, FIXED_CTRL_WRITE = int(Token.SELECTOR_WRITE), int(Token.FIXED_CTRL_WRITE)
FIXED = int(Token.FIXED_ZERO | Token.FIXED_WRITE | Token.FIXED_READ)
FIXED_CTRL = int(Token.FIXED_CTRL_ZERO | Token.FIXED_CTRL_WRITE)
GLOBAL, LVTPC = OFF | ON | GLOBAL_READ, int(Token.LVTPC_GUEST | Token.LVTPC_HOST)
COUNTER_READS = int(Token.COUNTER_READ | Token.FIXED_READ)
READS = GLOBAL_READ | int(Token.STATUS_READ | Token.SELECTOR_READ) | COUNTER_READS
OTHER = int(Token.OTHER)
# Levels of a CPU; one burst may be open at each.
TASK, HARD, NMI = range(3)
LEVELS, ROOM = 3, 512
# Columns beside an open burst: accesses so far, thread, context, whether a VM entry was open, the
# vCPU it ran for, whether guest state was on when it began, and whether a window or a loss cuts it
# off: at its begin (1), at its end (2).
B_SIZE, B_TID, B_CONTEXT, B_IN_ENTRY, B_VCPU, B_LOADED, B_CUT = range(7)
BURST_COLUMNS = 7
# Columns of an access: token, index, event number, ts, bits, and who makes it once that is decided.
A_TOKEN, A_INDEX, A_EVENT, A_TS, A_BITS, A_ACTOR = range(6)
ACCESS_COLUMNS = 6
REDUNDANT, WRITES, ENABLES, GUEST_ONLY, KERNEL = 1, 2, 4, 8, 16
# Above them in a write of the fixed counters' control: its value.
VALUE_SHIFT = 8
# State of a CPU: of the timeline, see contexts.py; here whether the guest's state is on, counters
# that its load walked (0: not known), and the event number of the last VM exit (-1: none).
# Then the selectors, bit by bit (fixed counters from bit 32), that hold host events, those that
# count the kernel, and what was last said of both.
X_LOADED, X_COUNTERS, X_EXIT, X_HOST, X_KERNEL, X_SAID = range(6)
# What was found, counted over the recording: see run.py.
N_LOADS, N_SWAPS, N_EPISODES, N_FULL = range(4)
# Columns of a swap row and of an episode row.
(
    S_TS, S_END, S_DONE, S_CPU, S_VCPU, S_KIND, S_TOLD, S_KVM_READS, S_KVM_WRITES, S_PERF_READS,
    S_PERF_WRITES, S_REDUNDANT, S_COUNTERS, S_ON, S_GRAMMAR,
) = range(15)  # fmt: skip
SWAP_ROW = 15
(
    E_NUMBER, E_TS, E_END, E_CPU, E_TID, E_CONTEXT, E_ACCESSES, E_TOKENS, E_COUNTERS, E_LOADED,
    E_VCPU,
) = range(11)  # fmt: skip
EPISODE_ROW = 11
# E_COUNTERS where calls, not registers, were recorded.
NO_COUNTERS = -1
# Constants that are passed on are numpy's numbers, see analyzer.jit.
NO, YES, NONE, ZERO = np.bool_(False), np.bool_(True), np.int64(-1), np.int64(0)
LOAD_DONE, PUT_BEGINS = np.int64(Mark.LOAD_DONE), np.int64(Mark.PUT_BEGINS)
GUEST_PMI, STATUS_CLEAR = np.int64(Mark.GUEST_PMI), int(Token.STATUS_CLEAR)
HOST_CHANGES, HOST_ANY = int(Mark.HOST_CHANGES), int(Mark.HOST_ANY)
HOST_KERNEL, GUEST_ON = int(Mark.HOST_KERNEL), int(Mark.GUEST_ON)
EPISODE_BEGINS = int(Mark.EPISODE_BEGINS)
EXIT_READ, EMULATION, BY_SCHED = (
    int(Actor.KVM_EXIT_READ), int(Actor.VPMU_EMULATION), int(Actor.VPMU_SCHED)
)  # fmt: skip
HOST, NOT_KNOWN = int(Actor.HOST_PERF), int(Actor.UNKNOWN)
C_OUT, C_IN = int(Context.SWITCH_OUT), int(Context.SWITCH_IN)
C_RDPMC, C_OTHER = int(Context.RDPMC), int(Context.OTHER)
# perf sets bit 40 (GuestOnly) or 41 (HostOnly) on AMD; bit 22 enables a counter on both vendors.
ENABLE_BIT, GUEST_BIT, HOST_BIT, KERNEL_BIT = 1 << 22, 1 << 40, 1 << 41, 1 << 17
UNKNOWN_VALUE = -(2**62) - 1


@helper
def _slot(token, index):  # type: ignore[no-untyped-def]
    # Where the last known value of a register stands; -1 for one that changes by itself.
    if token & COUNTER:
        return index & 31
    if token & SELECTOR:
        return 32 + (index & 31)
    if token & FIXED:
        return 64 + (index & 7)
    if token & FIXED_CTRL:
        return 72
    if token & GLOBAL:
        return 73
    if token & LVTPC:
        return 74
    return -1


SHADOWS = 75


@helper
def push(accesses, burst, row, shadow, cpu, token, index, value, event, ts):  # type: ignore[no-untyped-def]
    """Add one access to an open burst.

    accesses: int64[bursts, ROOM, ACCESS_COLUMNS]; burst: int64[bursts, BURST_COLUMNS]; shadow:
    int64[cpus, SHADOWS]. Whole arrays and a row's number: a view of a row for every event made
    the loop a third slower.
    """
    bits, slot = 0, _slot(token, index)
    if token & READS == 0:
        bits |= WRITES
        if slot >= 0 and shadow[cpu, slot] == value:
            bits |= REDUNDANT
        if token & SELECTOR_WRITE:
            bits |= ENABLES if value & ENABLE_BIT else 0
            bits |= GUEST_ONLY if value & GUEST_BIT and value & HOST_BIT == 0 else 0
            bits |= KERNEL if value & KERNEL_BIT else 0
        if token & FIXED_CTRL_WRITE:
            bits |= (value & 0xFFFFFFFF) << VALUE_SHIFT
    if slot >= 0:
        shadow[cpu, slot] = value
    n = burst[row, B_SIZE]
    accesses[row, n, A_TOKEN], accesses[row, n, A_INDEX] = token, index
    accesses[row, n, A_EVENT], accesses[row, n, A_TS] = event, ts
    accesses[row, n, A_BITS], accesses[row, n, A_ACTOR] = bits, 0
    burst[row, B_SIZE] = n + 1


@helper
def _mark(at, event, bits, episode, marks, episodes_of, patches, filled):  # type: ignore[no-untyped-def]
    # Beside an event of this chunk, or on the list of those of chunks before.
    if event >= at:
        marks[event - at] |= bits
        if episode >= 0:
            episodes_of[event - at] = episode
        return
    n = filled[2]
    patches[n, 0], patches[n, 1], patches[n, 2] = event, bits, episode
    filled[2] = n + 1


@helper
def _swap_row(out, filled, access, burst, found, w, cpu, actor):  # type: ignore[no-untyped-def]
    row = out[filled[0]]
    row[:] = 0
    first, last = found[w, p.W_FIRST], found[w, p.W_LAST]
    row[S_TS], row[S_END] = access[first, A_TS], access[last, A_TS]
    load = found[w, p.W_KIND] == p.LOAD
    row[S_DONE] = access[found[w, p.W_KVM_LAST if load else p.W_KVM_FIRST], A_TS]
    row[S_CPU], row[S_VCPU], row[S_KIND] = cpu, burst[B_VCPU], found[w, p.W_KIND]
    row[S_TOLD], row[S_COUNTERS] = found[w, p.W_TOLD], found[w, p.W_COUNTERS]
    row[S_GRAMMAR] = found[w, p.W_GRAMMAR]
    for n in range(first, last + 1):
        writes = access[n, A_BITS] & WRITES != 0
        perf = actor[n] == p.PERF_LOAD or actor[n] == p.PERF_PUT
        row[(S_PERF_WRITES if writes else S_PERF_READS) if perf else (
            S_KVM_WRITES if writes else S_KVM_READS)] += 1  # fmt: skip
        if not perf:
            row[S_REDUNDANT] += access[n, A_BITS] & REDUNDANT
            if access[n, A_BITS] & ENABLES:
                row[S_ON] |= 1 << min(access[n, A_INDEX], 31)
            if access[n, A_TOKEN] & FIXED_CTRL_WRITE:
                for counter in range(8):
                    on = access[n, A_BITS] >> (VALUE_SHIFT + 4 * counter) & 3 != 0
                    row[S_ON] |= np.int64(on) << (32 + counter)
    # AMD's load ends with the guest's global control; Intel's is loaded by the VM entry, unseen.
    if access[found[w, p.W_KVM_LAST], A_TOKEN] & OFF:
        row[S_ON] = 0
    filled[0] += 1


@helper
def _overflowed(access, found, w):  # type: ignore[no-untyped-def]
    # KVM clears status bits at a put only where the guest left some.
    for n in range(found[w, p.W_KVM_FIRST], found[w, p.W_KVM_LAST] + 1):
        if access[n, A_TOKEN] & STATUS_CLEAR:
            return True
    return False


@helper
def _events_of(access, first, end):  # type: ignore[no-untyped-def]
    # How many selectors are written for a guest's event, and how many for others.
    guests, hosts = 0, 0
    for n in range(first, end):
        if access[n, A_TOKEN] & SELECTOR_WRITE:
            theirs = access[n, A_BITS] & GUEST_ONLY != 0
            guests += theirs
            hosts += not theirs
    return guests, hosts


@helper
def _is_guests(access, n, first, end):  # type: ignore[no-untyped-def]
    # Whether access n is for a guest's event, by its counter's selector: perf starts an event with
    # counter, then selector, and stops one with selector, then counter.
    if access[n, A_TOKEN] & (COUNTER | SELECTOR) == 0:
        return False
    forward = access[n, A_TOKEN] & COUNTER != 0 and access[n, A_BITS] & WRITES != 0
    step, here = 1 if forward else -1, n
    while first <= here < end:
        if access[here, A_TOKEN] & SELECTOR_WRITE and access[here, A_INDEX] == access[n, A_INDEX]:
            return access[here, A_BITS] & GUEST_ONLY != 0
        here += step
    return False


@helper
def _who(burst, access, first, end, level, mediated, is_vcpu):  # type: ignore[no-untyped-def]
    # The actor of accesses that belong to no swap.
    context = burst[B_CONTEXT]
    if burst[B_IN_ENTRY] and level == TASK:
        only_reads = True
        for n in range(first, end):
            only_reads &= access[n, A_TOKEN] & GLOBAL_READ != 0
        if only_reads:
            return EXIT_READ
    if level != TASK or not is_vcpu:
        return HOST
    if context == C_OUT or context == C_IN:
        guests, hosts = _events_of(access, first, end)
        return BY_SCHED if guests and not hosts and not mediated else HOST
    # In task context a vCPU's thread makes no call of perf's; KVM acts for its guest. Where the
    # guest's state is put, a mediated KVM touches nothing here.
    return EMULATION if not mediated or burst[B_LOADED] else HOST


@helper
def flush(  # type: ignore[no-untyped-def]
    at, cpu, level, access, burst, x, is_vcpu, mediated, steps, direction, found, count, marks,
    episodes_of, patches, swaps, episodes, filled,
):  # fmt: skip
    """Decide about the burst that ends here and empty it.

    access, burst: one row of push's. x: state of the CPU. mediated: the recording shows KVM's
    swaps. found: room for parse.find_swaps. count: int64[4] (N_*), carried. filled: int64[3], rows
    of swaps, episodes and patches.
    """
    size = burst[B_SIZE]
    if size == 0:
        return
    token, index, actor = access[:, A_TOKEN], access[:, A_INDEX], access[:, A_ACTOR]
    if level == TASK and direction.size:
        expected = x[X_COUNTERS] if mediated else -1
        many = p.find_swaps(token, index, size, steps, direction, expected, actor, found)
        for w in range(many):
            load = found[w, p.W_KIND] == p.LOAD
            x[X_LOADED] = 1 if load else 0
            if load:
                x[X_COUNTERS] = found[w, p.W_COUNTERS]
            count[N_LOADS] += load
            count[N_SWAPS] += 1
            _swap_row(swaps, filled, access, burst, found, w, cpu, actor)
            event = access[found[w, p.W_KVM_LAST if load else p.W_KVM_FIRST], A_EVENT]
            bits = LOAD_DONE if load else PUT_BEGINS
            if load and swaps[filled[0] - 1, S_ON] > 0:
                bits |= GUEST_ON
            _mark(at, event, bits, NONE, marks, episodes_of, patches, filled)
            if not load and x[X_EXIT] >= 0 and _overflowed(access, found, w):
                _mark(at, x[X_EXIT], GUEST_PMI, NONE, marks, episodes_of, patches, filled)
    first, loaded, next_swap = ZERO, burst[B_LOADED], 0
    while first < size:
        end = first + 1
        if actor[first] != 0:
            _mark(
                at, access[first, A_EVENT], actor[first], NONE, marks, episodes_of, patches, filled
            )
            if actor[first] == p.KVM_LOAD or actor[first] == p.KVM_PUT:
                loaded, next_swap = 1 if actor[first] == p.KVM_LOAD else 0, 1
            first = end
            continue
        while end < size and actor[end] == 0:
            end += 1
        # What a thread does behind its own swap is no longer perf's part of the switch.
        if next_swap > 0 and burst[B_CONTEXT] == C_IN:
            burst[B_CONTEXT] = C_OTHER
        burst[B_LOADED] = loaded
        who = _who(burst, access, first, end, level, mediated, is_vcpu)
        # Behind a window's begin or a loss, what does not begin with perf's write of 0 is cut; on a
        # vCPU's thread so may be what does: perf's half of a put whose KVM's half is gone.
        whole = token[0] & OFF and not (mediated and is_vcpu)
        cut = burst[B_CUT] & 1 and first == 0 and not whole
        if level == TASK and (cut or (burst[B_CUT] & 2 and end == size)):
            who = NOT_KNOWN
        number, context, mixed = NONE, ZERO, NO
        if who == HOST:
            # A perf-backed guest's events are moved in the same pass as the thread's other ones.
            if level == TASK and is_vcpu and not mediated:
                mixed = _events_of(access, first, end)[0] > 0
            number = count[N_EPISODES]
            count[N_EPISODES] += 1
            context = _episode(
                number, episodes[filled[1]], access, burst, first, end, level, loaded, cpu, mixed
            )
            filled[1] += 1
        begins = EPISODE_BEGINS if number >= 0 else 0
        for n in range(first, end):
            guests = mixed and _is_guests(access, n, first, end)
            word = BY_SCHED if guests else who | context << 4 | begins
            mine = NONE if guests else number
            begins = begins if guests else 0
            _mark(at, access[n, A_EVENT], word, mine, marks, episodes_of, patches, filled)
        first = end
    _host_events(at, access, actor, size, x, marks, episodes_of, patches, filled)
    burst[B_SIZE] = 0


@helper
def _host_events(at, access, actor, size, x, marks, episodes_of, patches, filled):  # type: ignore[no-untyped-def]
    # Which host events are on after this burst, by the selectors that perf wrote. What its half of
    # a load switches off is only away for the guest's stay.
    for n in range(size):
        token, bits = access[n, A_TOKEN], access[n, A_BITS]
        if actor[n] != 0 and actor[n] != p.PERF_PUT:
            continue
        bit = 1 << min(access[n, A_INDEX], 31)
        if bits & GUEST_ONLY:
            continue  # a perf-backed guest's
        if token & SELECTOR and token & READS == 0:
            x[X_HOST] = x[X_HOST] | bit if bits & ENABLES else x[X_HOST] & ~bit
            on = bits & ENABLES and bits & KERNEL
            x[X_KERNEL] = x[X_KERNEL] | bit if on else x[X_KERNEL] & ~bit
        elif token & FIXED_CTRL:
            low, value = (1 << 32) - 1, bits >> VALUE_SHIFT
            x[X_HOST], x[X_KERNEL] = x[X_HOST] & low, x[X_KERNEL] & low
            for counter in range(8):
                # Four bits a counter: bit 0 counts the kernel, bit 1 user code.
                x[X_HOST] |= np.int64((value >> (4 * counter) & 3) != 0) << (32 + counter)
                x[X_KERNEL] |= np.int64(value >> (4 * counter) & 1) << (32 + counter)
    say = (HOST_ANY if x[X_HOST] else 0) | (HOST_KERNEL if x[X_KERNEL] else 0)
    if say != x[X_SAID]:
        x[X_SAID] = say
        event = access[size - 1, A_EVENT]
        _mark(at, event, say | HOST_CHANGES, NONE, marks, episodes_of, patches, filled)


@helper
def _episode(  # type: ignore[no-untyped-def]
    number, row, access, burst, first, end, level, loaded, cpu, mixed
):
    # Fills one row of an episode and returns its context. In a mixed one, what is a guest's is not
    # its own.
    tokens, counters, only_counters, size = 0, 0, True, 0
    for n in range(first, end):
        if mixed and _is_guests(access, n, first, end):
            continue
        size += 1
        token, index = access[n, A_TOKEN], access[n, A_INDEX]
        tokens |= token
        only_counters &= token & COUNTER_READS != 0
        if token & (COUNTER | SELECTOR):
            counters |= 1 << min(index, 31)
        elif token & FIXED:
            counters |= 1 << (32 + min(index, 15))
    context = burst[B_CONTEXT]
    if level == TASK and context == C_OTHER and only_counters:
        context = C_RDPMC
    row[E_NUMBER], row[E_TS], row[E_END] = number, access[first, A_TS], access[end - 1, A_TS]
    row[E_CPU], row[E_TID], row[E_CONTEXT] = cpu, burst[B_TID], context
    row[E_ACCESSES], row[E_TOKENS], row[E_COUNTERS] = size, tokens, counters
    row[E_LOADED], row[E_VCPU] = loaded, burst[B_VCPU]
    return context
