"""Are the kernel's recorded swaps where the events alone put them? Compared stay by stay.

A predicted stay is a stretch with one level of points.py on; a recorded one reaches from the end of
a load to the begin of a put. Every recorded stay must meet exactly one predicted stay of the
kernel's boundary, and the reverse. All levels are compared at once, since which boundary the kernel
really has is read off the outcome: the level with the fewest differences.

State beside `since` (see forward.py), per vCPU: for each level how many recorded stays met the
predicted one that is on (UNCLEAR where its begin was not seen), and how many predicted ones met the
recorded one that is on; then whether a recorded stay is on (UNCLEAR: nobody knows yet), and since
when.
"""

from __future__ import annotations

from analyzer.jit import helper

__all__ = ["CAUSES", "COUNTED_NAMES", "LEVEL_NAMES", "SINCE_COLUMNS"]

LEVELS = 6
SEEN, MET, ON, ON_TS = LEVELS, 2 * LEVELS, 3 * LEVELS, 3 * LEVELS + 1
# Counts per level follow, COUNTED of them.
COUNTS, COUNTED = 3 * LEVELS + 2, 6
SINCE_COLUMNS = COUNTS + LEVELS * COUNTED
UNCLEAR = -1
# What is counted: predicted stays that were compared, those that no recorded stay met, those
# that more than one met, recorded stays compared, those that no predicted one met, more than one.
PREDICTED, UNMET, CROWDED, RECORDED, STRAY, SPANNING = range(6)
COUNTED_NAMES = ("predicted", "unmet", "crowded", "recorded", "stray", "spanning")
# Levels in order of their bits, see points.Level.
LEVEL_NAMES = ("guest", "loop", "inner", "outer", "sched", "events")
# Causes of a difference, in this order in table truth_difference.
CAUSES = (
    "no recorded stay in the predicted one",
    "several recorded stays in the predicted one",
    "no predicted stay at the recorded one",
    "several predicted stays in the recorded one",
)


@helper
def predicted_on(since, v, fresh, is_clear):  # type: ignore[no-untyped-def]
    """Levels `fresh` came on; is_clear: their begin was seen, not only that they are on."""
    row = since[v]
    for bit in range(LEVELS):
        if fresh & (1 << bit):
            clear = is_clear and row[ON] != UNCLEAR
            row[SEEN + bit] = row[ON] if clear else UNCLEAR
            if row[ON] == 1 and row[MET + bit] != UNCLEAR:
                row[MET + bit] = row[MET + bit] + 1 if is_clear else UNCLEAR


@helper
def predicted_off(since, v, gone, is_clear):  # type: ignore[no-untyped-def]
    """Levels `gone` went off; returns a mask of those that differ: bit, and bit + 8 if crowded."""
    row, differs = since[v], 0
    for bit in range(LEVELS):
        if gone & (1 << bit):
            if is_clear and row[SEEN + bit] != UNCLEAR:
                row[COUNTS + bit * COUNTED + PREDICTED] += 1
                if row[SEEN + bit] == 0:
                    row[COUNTS + bit * COUNTED + UNMET] += 1
                    differs |= 1 << bit
                elif row[SEEN + bit] > 1:
                    row[COUNTS + bit * COUNTED + CROWDED] += 1
                    differs |= 256 << bit
            elif row[ON] == 1:
                row[MET + bit] = UNCLEAR
    return differs


@helper
def recorded_on(since, v, ts, levels):  # type: ignore[no-untyped-def]
    """A recorded load is whole; levels: those that are on."""
    row = since[v]
    row[ON], row[ON_TS] = 1, ts
    for bit in range(LEVELS):
        on = levels & (1 << bit) != 0
        row[MET + bit] = 1 if on else 0
        if on and row[SEEN + bit] != UNCLEAR:
            row[SEEN + bit] += 1
        elif on:
            row[MET + bit] = UNCLEAR


@helper
def recorded_off(since, v):  # type: ignore[no-untyped-def]
    """A recorded put begins; returns a mask of levels that differ, as predicted_off does."""
    row, differs = since[v], 0
    if row[ON] == 1:
        for bit in range(LEVELS):
            if row[MET + bit] == UNCLEAR:
                continue
            row[COUNTS + bit * COUNTED + RECORDED] += 1
            if row[MET + bit] == 0:
                row[COUNTS + bit * COUNTED + STRAY] += 1
                differs |= 1 << bit
            elif row[MET + bit] > 1:
                row[COUNTS + bit * COUNTED + SPANNING] += 1
                differs |= 256 << bit
    row[ON] = 0
    return differs


@helper
def forget(since, v):  # type: ignore[no-untyped-def]
    """Nothing is known of this vCPU any more: a loss, or the window's end."""
    since[v, ON] = UNCLEAR
    for bit in range(LEVELS):
        since[v, SEEN + bit], since[v, MET + bit] = UNCLEAR, UNCLEAR
