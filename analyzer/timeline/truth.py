"""Are the kernel's recorded swaps where the events alone put them? Compared stay by stay.

A predicted stay is a stretch with one level of points.py on; a recorded one reaches from the end of
a load to the begin of a put. Every recorded stay must meet exactly one predicted stay of the
kernel's boundary, and the reverse. All levels are compared at once, since which boundary the kernel
really has is read off the outcome: the level with the fewest differences.

State beside `since` (see forward.py), per vCPU: for each level how many recorded stays met the
predicted one that is on (UNCLEAR where its begin was not seen), and how many predicted ones met the
recorded one that is on; then whether a recorded stay is on (UNCLEAR: nobody knows yet), and since
when.

What a window's begin or end cuts has one side only, a predicted edge or a recorded swap. That is no
difference, but counted, so that what is predicted can be held against what is recorded. Whether the
state was on where the window began is told in hindsight, by the first swap: until then predicted
edges wait, apart where accesses were recorded already and where they may not have been.
"""

from __future__ import annotations

import numpy as np

from analyzer.jit import helper

__all__ = ["CAUSES", "COUNTED_NAMES", "CUT", "LEVEL_NAMES", "SINCE_COLUMNS"]

LEVELS = 6
SEEN, MET, ON, ON_TS = LEVELS, 2 * LEVELS, 3 * LEVELS, 3 * LEVELS + 1
# Counts per level follow, COUNTED of them.
COUNTS, COUNTED = 3 * LEVELS + 2, 6
UNCLEAR = -1
# What is counted: predicted stays that were compared, those that no recorded stay met, recorded
# stays beyond the one that may meet each; recorded stays compared, those that no predicted one met,
# predicted stays beyond the one.
PREDICTED, UNMET, CROWDED, RECORDED, STRAY, SPANNING = range(6)
COUNTED_NAMES = ("predicted", "unmet", "crowded", "recorded", "stray", "spanning")
# Levels in order of their bits, see points.Level.
LEVEL_NAMES = ("guest", "loop", "inner", "outer", "sched", "events")
SCHED = LEVEL_NAMES.index("sched")
# Causes of a difference, in this order in table truth_difference, and what is cut.
CUT = ("cut: predicted load", "cut: recorded load", "cut: predicted put", "cut: recorded put")
CAUSES = (
    "no recorded stay in the predicted one",
    "several recorded stays in the predicted one",
    "no predicted stay at the recorded one",
    "several predicted stays in the recorded one",
    *CUT,
)
# Constants that are passed on are numpy's numbers, see analyzer.jit.
(
    NO_RECORDED, MORE_RECORDED, NO_PREDICTED, MORE_PREDICTED,
    LOADS_LESS, LOADS_MORE, PUTS_LESS, PUTS_MORE,
) = np.arange(8)  # fmt: skip
ONE = np.int64(1)
COUNTER_OF = (UNMET, CROWDED, STRAY, SPANNING)
# Per level, predicted edges since the window began: loads while accesses were recorded, loads
# before that, puts.
PENDING, SURE, UNSURE, OFFS, PENDINGS = COUNTS + LEVELS * COUNTED, 0, 1, 2, 3
# Whether an access was seen since, on a CPU that the vCPU was on.
ACCESS = PENDING + LEVELS * PENDINGS
# How often each cause was found at each level, until its rows are written; whether any was.
ANY = ACCESS + 1
FOUND = ANY + 1
SINCE_COLUMNS = FOUND + LEVELS * len(CAUSES)
# The most rows of one vCPU at one moment.
MOST_ROWS = LEVELS * len(CAUSES)


@helper
def _found(row, bit, cause, count):  # type: ignore[no-untyped-def]
    if count > 0:
        row[FOUND + bit * len(CAUSES) + cause] += count
        row[ANY] = 1
        if cause < LOADS_LESS:
            row[COUNTS + bit * COUNTED + COUNTER_OF[cause]] += count


@helper
def predicted_on(since, v, fresh, is_clear):  # type: ignore[no-untyped-def]
    """Levels `fresh` came on; is_clear: their begin was seen, not only that they are on."""
    row = since[v]
    for bit in range(LEVELS):
        if fresh & (1 << bit):
            if is_clear and row[ON] == UNCLEAR:
                row[PENDING + bit * PENDINGS + (SURE if row[ACCESS] else UNSURE)] += 1
            clear = is_clear and row[ON] != UNCLEAR
            row[SEEN + bit] = row[ON] if clear else UNCLEAR
            if row[ON] == 1 and row[MET + bit] != UNCLEAR:
                row[MET + bit] = row[MET + bit] + 1 if is_clear else UNCLEAR


@helper
def predicted_off(since, v, gone):  # type: ignore[no-untyped-def]
    """Levels `gone` went off, and their end was seen."""
    row = since[v]
    for bit in range(LEVELS):
        if gone & (1 << bit):
            if row[ON] == UNCLEAR:
                row[PENDING + bit * PENDINGS + OFFS] += 1
            if row[SEEN + bit] != UNCLEAR:
                row[COUNTS + bit * COUNTED + PREDICTED] += 1
                _found(row, bit, NO_RECORDED, 1 - row[SEEN + bit])
                _found(row, bit, MORE_RECORDED, row[SEEN + bit] - 1)
            elif row[ON] == 1:
                row[MET + bit] = UNCLEAR


@helper
def _before_load(row, levels, started):  # type: ignore[no-untyped-def]
    # The first swap is a load, so the state was off: whole stays until here have no recorded one.
    for bit in range(LEVELS):
        waits = PENDING + bit * PENDINGS
        sure, unsure, offs = row[waits + SURE], row[waits + UNSURE], row[waits + OFFS]
        is_on = levels & (1 << bit) != 0
        if is_on and sure > 0:  # the last one is this load's
            sure -= 1
        elif is_on and unsure > 0:
            unsure -= 1
        elif is_on or (bit == SCHED and not started):
            _found(row, bit, LOADS_MORE, ONE)
        if is_on:
            row[SEEN + bit] = 0
        row[COUNTS + bit * COUNTED + PREDICTED] += sure
        _found(row, bit, NO_RECORDED, sure)
        _found(row, bit, LOADS_LESS, unsure)
        _found(row, bit, PUTS_LESS, offs - sure)
        row[waits + SURE] = row[waits + UNSURE] = row[waits + OFFS] = 0


@helper
def _before_put(row, levels):  # type: ignore[no-untyped-def]
    # The first swap is a put, so the state was on: all stays until here were in one recorded stay.
    for bit in range(LEVELS):
        waits = PENDING + bit * PENDINGS
        sure, unsure, offs = row[waits + SURE], row[waits + UNSURE], row[waits + OFFS]
        is_on = levels & (1 << bit) != 0
        if is_on:
            row[SEEN + bit] = 1
        _found(row, bit, MORE_PREDICTED, sure - 1)
        _found(row, bit, LOADS_LESS, unsure + min(sure, 1))
        _found(row, bit, PUTS_LESS, offs if is_on else offs - 1)
        _found(row, bit, PUTS_MORE, 0 if is_on else 1 - offs)
        row[waits + SURE] = row[waits + UNSURE] = row[waits + OFFS] = 0


@helper
def recorded_on(since, v, ts, levels, started):  # type: ignore[no-untyped-def]
    """A recorded load is whole; levels: those that are on; started: a KVM_RUN of the vCPU was seen.
    Where none was, it may have been before, and nobody knows what SCHED is."""
    row = since[v]
    if row[ON] == UNCLEAR:
        _before_load(row, levels, started)
    row[ON], row[ON_TS] = 1, ts
    for bit in range(LEVELS):
        on = levels & (1 << bit) != 0
        row[MET + bit] = 1 if on else 0
        if on and row[SEEN + bit] != UNCLEAR:
            row[SEEN + bit] += 1
        elif on or (bit == SCHED and not started):
            row[MET + bit] = UNCLEAR


@helper
def recorded_off(since, v, levels):  # type: ignore[no-untyped-def]
    """A recorded put begins; levels: those that are on."""
    row = since[v]
    if row[ON] == UNCLEAR:
        _before_put(row, levels)
    elif row[ON] == 1:
        for bit in range(LEVELS):
            if row[MET + bit] == UNCLEAR:
                continue
            row[COUNTS + bit * COUNTED + RECORDED] += 1
            _found(row, bit, NO_PREDICTED, 1 - row[MET + bit])
            _found(row, bit, MORE_PREDICTED, row[MET + bit] - 1)
    row[ON] = 0


@helper
def forget(since, v, levels):  # type: ignore[no-untyped-def]
    """Nothing is known of this vCPU any more: a loss, or the window's end; levels: those that were
    on until here."""
    row = since[v]
    for bit in range(LEVELS):
        waits, is_on = PENDING + bit * PENDINGS, levels & (1 << bit) != 0
        if row[ON] == UNCLEAR:
            _found(row, bit, LOADS_LESS, row[waits + SURE] + row[waits + UNSURE])
            _found(row, bit, PUTS_LESS, row[waits + OFFS])
            row[waits + SURE] = row[waits + UNSURE] = row[waits + OFFS] = 0
        elif is_on:
            # Of several in one the end need not be seen.
            _found(row, bit, MORE_RECORDED, row[SEEN + bit] - 1)
            if row[ON] == 1:
                _found(row, bit, MORE_PREDICTED, row[MET + bit] - 1)
            else:
                _found(row, bit, LOADS_LESS if row[SEEN + bit] == 0 else PUTS_MORE, ONE)
        elif row[ON] == 1:
            _found(row, bit, MORE_PREDICTED, row[MET + bit] - 1)
            _found(row, bit, LOADS_MORE if row[MET + bit] == 0 else PUTS_LESS, ONE)
        row[SEEN + bit], row[MET + bit] = UNCLEAR, UNCLEAR
    row[ON], row[ACCESS] = UNCLEAR, 0
