"""Does a grammar stand at this place of a burst? The matcher that reads arch's grammars as data."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.arch.x86.swaps import GRAMMARS, Times
from analyzer.jit import helper

__all__ = ["DIRECTIONS", "Grammars", "compile_grammars", "match"]

Array = np.ndarray[Any, Any]
ONCE, MAYBE, WALK, WALKED, WALKED_MAYBE = (int(times) for times in Times)
DIRECTIONS = ("load", "put", "save", "restore")
LONGEST = 16


class Grammars:
    """Grammars of one vendor as arrays: steps int64[g, LONGEST, 2] (tokens, times; tokens 0 ends),
    direction int64[g] (of DIRECTIONS), shown bool[g]; names in the same order."""

    def __init__(self, vendor: str | None) -> None:
        chosen = [g for g in GRAMMARS if g.vendor == vendor]
        self.names = [g.name for g in chosen]
        self.registers = True  # False: their rows say nothing of registers
        self.steps = np.zeros((len(chosen), LONGEST, 2), np.int64)
        self.direction = np.array([DIRECTIONS.index(g.direction) for g in chosen], np.int64)
        self.shown = np.array([g.shown for g in chosen], bool)
        for row, grammar in enumerate(chosen):
            for at, step in enumerate(grammar.steps):
                self.steps[row, at] = int(step.tokens), int(step.times)


def compile_grammars(vendor: str | None) -> Grammars:
    """Return the grammars of a vendor (as CPUID names it); none of them where it is not known."""
    return Grammars(vendor)


@helper
def _walk(token, index, at, end, steps, first):  # type: ignore[no-untyped-def]
    # Counters in order of index from 0; returns where the walk ends and how many there were.
    here, counter = at, 0
    while here < end and token[here] & steps[first, 0] and index[here] == counter:
        here += 1
        step, whole = first + 1, True
        while step < steps.shape[0] and steps[step, 1] >= WALKED:
            fits = here < end and token[here] & steps[step, 0] and index[here] == counter
            if fits:
                here += 1
            elif steps[step, 1] == WALKED:
                whole = False
                break
            step += 1
        if not whole:
            return at, 0
        counter += 1
    return here, counter


@helper
def match(token, index, at, end, steps):  # type: ignore[no-untyped-def]
    """Return (where the grammar ends, general counters walked); (at, 0) where it doesn't stand.

    token: int64[n] (arch.x86.swaps.Token), index: int64[n], of a burst; looked at from `at` up to
    `end`. steps: int64[LONGEST, 2] of one grammar.
    """
    here, step, counters = at, np.int64(0), 0
    while step < steps.shape[0] and steps[step, 0]:
        times = steps[step, 1]
        if times == WALK:
            here, walked = _walk(token, index, here, end, steps, step)
            if walked == 0:
                return at, 0
            counters = counters if counters else walked
            step += 1
            while step < steps.shape[0] and steps[step, 1] >= WALKED:
                step += 1
            continue
        if here < end and token[here] & steps[step, 0]:
            here += 1
        elif times != MAYBE:
            return at, 0
        step += 1
    return here, counters
