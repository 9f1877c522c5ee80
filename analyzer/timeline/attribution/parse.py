"""Which part of a burst is KVM's, which is perf's half of the swap, and which is neither?

A burst is a run of PMU accesses on one CPU in one context with nothing between that proves other
code ran: no VM entry or exit, no switch, no interrupt. Interrupts are off around a swap, so one
swap's two halves always stand in one burst:

    load:  [perf's half: global control off .. on] [KVM's half: a load grammar]
    put:   [KVM's half: a put grammar] [perf's half: global control off .. on]

A KVM that does not tell perf has no half of perf's, but saves before and restores after.
"""

from __future__ import annotations

import numpy as np

from analyzer.arch.x86.swaps import Token
from analyzer.jit import helper
from analyzer.timeline.attribution.match import DIRECTIONS, match
from analyzer.timeline.attribution.words import Actor

OFF, ON = int(Token.GLOBAL_OFF), int(Token.GLOBAL_ON)
LOAD, PUT, SAVE, RESTORE = range(len(DIRECTIONS))
KVM_LOAD, KVM_PUT = np.int64(Actor.KVM_LOAD), np.int64(Actor.KVM_PUT)
PERF_LOAD, PERF_PUT = np.int64(Actor.PERF_LOAD), np.int64(Actor.PERF_PUT)
# What is known of perf at a swap.
NOT_SHOWN, TOLD, UNTOLD = range(3)
GUEST_LVTPC, HOST_LVTPC = int(Token.LVTPC_GUEST), int(Token.LVTPC_HOST)
# Columns of a swap that was found: first and last access, first and last of KVM's half, direction,
# counters walked, told, row of the grammar.
W_FIRST, W_LAST, W_KVM_FIRST, W_KVM_LAST, W_KIND, W_COUNTERS, W_TOLD, W_GRAMMAR = range(8)
SWAP_COLUMNS = 8
# The most counters that a walk may have: 8 general ones on x86 in 7.3, and room.
WIDEST = 32


@helper
def _paint(actor, first, end, who):  # type: ignore[no-untyped-def]
    for n in range(first, end):
        actor[n] = who


@helper
def _bracket_before(token, actor, end):  # type: ignore[no-untyped-def]
    # Where perf's off..on pair that ends right before `end` begins; `end` where there is none.
    if end == 0 or token[end - 1] & ON == 0 or actor[end - 1] != 0:
        return end
    here = end - 2
    while here >= 0 and actor[here] == 0 and token[here] & ON == 0:
        if token[here] & OFF:
            return here
        here -= 1
    return end


@helper
def _bracket_after(token, first, end):  # type: ignore[no-untyped-def]
    # Where perf's off..on pair that begins at `first` ends; `first` where there is none.
    if first >= end or token[first] & OFF == 0:
        return first
    here = first + 1
    while here < end and token[here] & OFF == 0:
        if token[here] & ON:
            return here + 1
        here += 1
    return first


@helper
def _saved_before(token, index, first, steps, direction, actor):  # type: ignore[no-untyped-def]
    # Where what an untold KVM saves right before its load begins; `first` where it doesn't.
    for g in range(direction.size):
        if direction[g] == SAVE:
            for counters in range(WIDEST, 0, -1):
                begin = first - 2 - 2 * counters
                if begin >= 0 and actor[begin] == 0:
                    end, _ = match(token, index, begin, first, steps[g])
                    if end == first:
                        return begin
    return first


@helper
def _loads_at(token, index, at, size, steps, direction):  # type: ignore[no-untyped-def]
    for g in range(direction.size):
        if direction[g] == LOAD and match(token, index, at, size, steps[g])[0] > at:
            return True
    return False


@helper
def find_swaps(token, index, size, steps, direction, expected, actor, swaps):  # type: ignore[no-untyped-def]
    """Paint the accesses of swaps in a burst; return how many swaps were found.

    token, index: int64[n] of which `size` count. steps int64[g, s, 2], direction int64[g]: one
    vendor's grammars. expected: general counters that a put must walk here, 0 where not known, -1
    where no put is to be looked for. actor: int64[n], 0 where nobody is named yet.
    swaps: int64[n, SWAP_COLUMNS], filled from row 0.
    """
    found, at = 0, np.int64(0)
    while at < size:
        kind, end, counters, row = np.int64(-1), at, np.int64(0), -1
        for g in range(direction.size):
            if direction[g] == LOAD or (direction[g] == PUT and expected >= 0):
                reached, walked = match(token, index, at, size, steps[g])
                fits = direction[g] == LOAD or expected == 0 or walked == expected
                if reached > end and fits:
                    kind, end, counters, row = direction[g], reached, walked, g
        if kind < 0:
            at += 1
            continue
        first, last, told = at, end, NOT_SHOWN
        if kind == LOAD:
            first = _saved_before(token, index, at, steps, direction, actor)
            told = UNTOLD if first < at else NOT_SHOWN
            _paint(actor, first, end, KVM_LOAD)
            if told == NOT_SHOWN:
                first = _bracket_before(token, actor, at)
                _paint(actor, first, at, PERF_LOAD)
            expected = counters
        else:
            for g in range(direction.size):
                if direction[g] == RESTORE:
                    reached, _ = match(token, index, end, size, steps[g])
                    if reached > end:
                        last, told = reached, UNTOLD
            _paint(actor, at, last, KVM_PUT)
            # Where perf has nothing on this CPU, the next load may follow with no half between.
            if told == NOT_SHOWN and not _loads_at(token, index, end, size, steps, direction):
                last = _bracket_after(token, end, size)
                _paint(actor, end, last, PERF_PUT)
        told = TOLD if told == NOT_SHOWN and last - first > end - at else told
        for n in range(at, end):
            if token[n] & (GUEST_LVTPC if kind == LOAD else HOST_LVTPC):
                told = TOLD
        swaps[found, W_FIRST], swaps[found, W_LAST] = first, last - 1
        swaps[found, W_KVM_FIRST], swaps[found, W_KVM_LAST] = at, end - 1
        swaps[found, W_KIND], swaps[found, W_COUNTERS] = kind, counters
        swaps[found, W_TOLD], swaps[found, W_GRAMMAR] = told, row
        found, at = found + 1, last
    return found
