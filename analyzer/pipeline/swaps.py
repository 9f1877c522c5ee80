"""When does each load and put of a placement happen, and what does the guest notice of it?

A swap is absorbed where its vCPU blocks before it runs in the guest again: the guest loses nothing
until it is woken. All others stand in the guest's way. A put that another vCPU's load forces is in
that one's way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.pipeline.replays import Outcome
from analyzer.pipeline.rows import held_points, points_of
from analyzer.replay import Part
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline import Kind, Level

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Course", "Swaps", "course_of", "exits_in_stays", "swaps_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Course:
    """What the vCPUs did, for all placements: int64 columns, ts in ns.

    entries: [n, 3] ts, cpu, vcpu of every VM entry, by vCPU and ts. blocks: [m, 3] ts, end, vcpu
    of each stretch in which a vCPU was blocked, by vCPU and ts. exits: [e, 2] ts, vcpu of the part.
    begin: first ts of all, span: more than from there to the last.
    """

    entries: Array
    blocks: Array
    exits: Array
    begin: int
    span: int

    def key(self, vcpu: Array, ts: Array) -> Array:
        """Return int64[n] that are in order where (vcpu, ts) are."""
        result: Array = vcpu * self.span + (ts - self.begin)
        return result

    def exits_by_vcpu(self) -> dict[int, int]:
        """Return how many exits of the part each vCPU has."""
        vcpus, times = np.unique(self.exits[:, 1], return_counts=True)
        return dict(zip(vcpus.tolist(), times.tolist(), strict=True))


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


def course_of(store: Store, part: Part) -> Course:
    """Return the course of a recording; exits are those of the part."""
    import polars as pl

    def columns(rows: pl.DataFrame, names: list[str]) -> Array:
        found: Array = rows.select(pl.col(names).cast(pl.Int64)).to_numpy()
        return np.ascontiguousarray(found).reshape(-1, len(names))

    def read(table: str, names: list[str]) -> pl.DataFrame:
        rows = pl.from_arrow(store.read(table, names))
        assert isinstance(rows, pl.DataFrame)
        return rows

    entries = read("guest_slice", ["ts", "cpu", "vcpu"]).sort("vcpu", "ts")
    modes = read("mode_slice", ["ts", "end", "vcpu", "mode"])
    blocks = modes.filter(pl.col("mode").cast(pl.String) == "blocked").sort("vcpu", "ts")
    exits = held_points(store, part, [Kind.EXIT])
    states = points_of(store, [Kind.STATE])
    windows = read("window", ["ts", "end"])
    edges = columns(windows, ["ts", "end"])
    # A guest that runs where whole data begins came in unseen.
    inside = states.filter(pl.col("detail") & int(Level.GUEST) != 0).select("ts", "cpu", "vcpu")
    entries = entries.join(inside, on=["ts", "cpu", "vcpu"], how="anti", maintain_order="left")
    begin, end = int(edges.min()), int(edges.max())
    return Course(
        columns(entries, ["ts", "cpu", "vcpu"]),
        columns(blocks, ["ts", "end", "vcpu"]),
        columns(exits, ["ts", "vcpu"]),
        begin,
        end - begin + 2,
    )


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


def swaps_of(course: Course, outcome: Outcome, bound: int, part: Part) -> Swaps:
    """Return the swaps of one bound (0 fewest, 1 most) in order of ts."""
    rows = outcome.slices[bound]
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


def exits_in_stays(course: Course, outcome: Outcome, vcpu: int | None = None) -> int:
    """Return at how many exits of the part (of one vCPU) the guest's state was on the CPU."""
    exits = course.exits if vcpu is None else course.exits[course.exits[:, 1] == vcpu]
    rows = outcome.slices[1]
    rows = rows[np.lexsort((rows[:, q.S_TS], rows[:, q.S_VCPU]))]
    if not rows.size or not exits.size:
        return 0
    keys = course.key(rows[:, q.S_VCPU], rows[:, q.S_TS])
    at = np.searchsorted(keys, course.key(exits[:, 1], exits[:, 0]), "right") - 1
    stay = rows[np.maximum(at, 0)]
    on = (at >= 0) & (stay[:, q.S_VCPU] == exits[:, 1]) & (stay[:, q.S_END] >= exits[:, 0])
    return int(np.count_nonzero(on))
