"""Swaps one by one, by sorting and searching whole columns: held against the walk over stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.pipeline.swaps import Course
from analyzer.replay import Part
from analyzer.replay import kernel as q

__all__ = ["Swaps", "before_entries", "exits_in_stays", "longest_of", "swaps_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Swaps:
    """Loads and puts of one bound in the part. int64[n] each, but is_load and is_absorbed bool.

    payer: the vCPU in whose way it is. entry: row of Course.entries before which it stands, or as
    many as there are.
    """

    ts: Array
    vcpu: Array
    payer: Array
    is_load: Array
    is_absorbed: Array
    entry: Array


def _next(keys: Array, vcpus: Array, key: Array, vcpu: Array, side: Any) -> Array:
    # Row of the vCPU's next after (or at) a key; as many as rows where it has none.
    at = np.searchsorted(keys, key, side)
    inside = at < keys.size
    same = np.zeros(at.size, bool)
    same[inside] = vcpus[at[inside]] == vcpu[inside]
    return np.where(same, at, keys.size)


def _at(course: Course, cpus: Array, times: Array, values: Array, cpu: Array, ts: Array) -> Array:
    # int64[n]: the value of the row with that CPU and ts, -1 where there is none.
    keys = course.key(cpus, times)
    order = np.argsort(keys, kind="stable")
    asked = course.key(cpu, ts)
    at = np.searchsorted(keys[order], asked)
    found = np.append(keys[order], -1)[at] == asked
    result: Array = np.where(found, np.append(values[order], -1)[at], -1)
    return result


def swaps_of(course: Course, rows: Array, part: Part) -> Swaps:
    """Return the swaps of one run's owner slices (int64[n, SLICE_ROW]) in order of ts."""
    ts, cpu, vcpu = rows[:, q.S_TS], rows[:, q.S_CPU], rows[:, q.S_VCPU]
    # A stay that whole data begins with was loaded before, by nobody here.
    loaded = rows[:, q.S_LOADED] == 1
    whole = rows[:, q.S_WHOLE] == 1
    at = np.concatenate([ts[loaded], rows[whole, q.S_END]])
    on = np.concatenate([cpu[loaded], cpu[whole]])
    who = np.concatenate([vcpu[loaded], vcpu[whole]])
    is_load = np.arange(at.size) < np.count_nonzero(loaded)
    held = part.holds(at, on, who)
    order = np.flatnonzero(held)[np.argsort(at[held], kind="stable")]
    payer = who.copy()
    # Whose load on that CPU was it, at the very time of the put?
    other = _at(course, cpu[loaded], ts[loaded], vcpu[loaded], on, at)
    is_put = ~is_load & (other >= 0)
    payer[is_put] = other[is_put]
    is_forced = payer != who
    key = course.key(payer, at)
    entry_keys = course.key(course.entries[:, 2], course.entries[:, 0])
    # A load may have its entry's very time; a put that has an exit's comes before the next entry.
    here = _next(entry_keys, course.entries[:, 2], key, payer, "left")
    after = _next(entry_keys, course.entries[:, 2], key, payer, "right")
    entry = np.where(is_load | is_forced, here, after)
    block_keys = course.key(course.blocks[:, 2], course.blocks[:, 0])
    block = _next(block_keys, course.blocks[:, 2], key, payer, "left")
    never = np.iinfo(np.int64).max
    entry_ts = np.append(course.entries[:, 0], never)[entry]
    is_absorbed = np.append(course.blocks[:, 0], never)[block] < entry_ts
    # A put while the vCPU is blocked already (its state was kept): nobody waits for it.
    last = np.maximum(np.searchsorted(block_keys, key, "right") - 1, 0)
    if course.blocks.size:
        inside = (course.blocks[last, 2] == payer) & (course.blocks[last, 0] <= at)
        is_absorbed |= ~is_load & ~is_forced & inside & (at < course.blocks[last, 1])
    return Swaps(
        at[order], who[order], payer[order], is_load[order], is_absorbed[order], entry[order]
    )


def exits_in_stays(course: Course, rows: Array, vcpu: int | None = None) -> int:
    """Return at how many exits of the part (of one vCPU) the guest's state was on the CPU."""
    exits = course.exits if vcpu is None else course.exits[course.exits[:, 1] == vcpu]
    rows = rows[np.lexsort((rows[:, q.S_TS], rows[:, q.S_VCPU]))]
    if not rows.size or not exits.size:
        return 0
    keys = course.key(rows[:, q.S_VCPU], rows[:, q.S_TS])
    at = np.searchsorted(keys, course.key(exits[:, 1], exits[:, 0]), "right") - 1
    stay = rows[np.maximum(at, 0)]
    on = (at >= 0) & (stay[:, q.S_VCPU] == exits[:, 1]) & (stay[:, q.S_END] >= exits[:, 0])
    return int(np.count_nonzero(on))


def before_entries(course: Course, swaps: Swaps) -> tuple[Array, Array]:
    """Return int64[n] each: loads and puts that stand in the way of each entry."""
    stands = ~swaps.is_absorbed & (swaps.entry < len(course.entries))
    loads, puts = (
        np.bincount(swaps.entry[stands & (swaps.is_load == is_load)], minlength=len(course.entries))
        for is_load in (True, False)
    )
    return loads, puts


def longest_of(rows: Array, part: Part) -> int:
    """Return ns of the longest stay in the part."""
    ts, end = rows[:, q.S_TS], rows[:, q.S_END]
    mine = np.ones(len(rows), bool)
    if part.cpus is not None:
        mine &= np.isin(rows[:, q.S_CPU], part.cpus)
    if part.vcpus is not None:
        mine &= np.isin(rows[:, q.S_VCPU], part.vcpus)
    ts = ts if part.begin is None else np.maximum(ts, part.begin)
    end = end if part.end is None else np.minimum(end, part.end)
    return int(np.max((end - ts)[mine], initial=0))
