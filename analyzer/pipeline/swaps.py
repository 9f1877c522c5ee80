"""What does the guest notice of each load and put of a placement, and what falls into its stays?

A swap is absorbed where its vCPU blocks before it runs in the guest again: the guest loses nothing
until it is woken. All others stand in the guest's way. A put that another vCPU's load forces is in
that one's way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.pipeline.replays import Run
from analyzer.pipeline.rows import held_points, points_of
from analyzer.replay import Part, ones_at, stays
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline import Kind, Level

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Course", "Ground", "Walk", "course_of", "walk_of"]

Array = np.ndarray[Any, Any]
LEAST, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
# Pairs of loads and puts that are counted in a table; chosen by us, a few are there.
FEW = 1 << 16


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


def course_of(store: Store, part: Part) -> Course:
    """Return the course of a recording; exits are those of the part."""
    import polars as pl

    def columns(rows: pl.DataFrame, names: list[str]) -> Array:
        found: Array = rows.select(pl.col(names).cast(pl.Int64)).to_numpy()
        return np.ascontiguousarray(found).reshape(-1, len(names))

    def read(table: str, names: list[str]) -> pl.DataFrame:
        return frame_of(store.read(table, names))

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


class Ground:
    """What all runs' stays are walked over: a course, and what of it is in the part.

    lists, of: as replay.stays.walk_stays takes them. part, chosen, watched: what counts.
    held: bool[n], entries in the part; woken: of those, bool[m], before which the vCPU blocked.
    """

    def __init__(self, course: Course, part: Part, vcpus: int, cpus: int) -> None:
        self.part = np.array([LEAST if part.begin is None else part.begin, NEVER], np.int64)
        if part.end is not None:
            self.part[1] = part.end
        self.chosen, self.watched = ones_at(cpus, part.cpus), ones_at(vcpus, part.vcpus)
        exits = course.exits[np.argsort(course.exits[:, 1], kind="stable")]
        some = (course.entries, course.blocks, exits)
        self.lists = np.zeros((2, sum(map(len, some))), np.int64)
        self.lists[0] = np.concatenate([rows[:, 0] for rows in some])
        self.lists[1, len(course.entries) :][: len(course.blocks)] = course.blocks[:, 1]
        group = [n * vcpus + rows[:, -1] for n, rows in enumerate(some)]
        self.of = np.searchsorted(np.concatenate(group), np.arange(len(some) * vcpus + 1))
        self.held = part.holds(*course.entries.T)
        self.woken = _woken(course)[self.held]


@dataclass(frozen=True, slots=True)
class Walk:
    """What one run's stays come to in the part.

    sums: int64[2, 2], puts and loads by whether they are absorbed. before, after: int64[p, 3] each,
    how many loads and puts stand in an entry's way and in how many entries' (of all, and of those
    that a block came before). by_cpu: int64[cpus, 2], puts and loads. exits: int64[vcpus], exits at
    which the guest's state was on the CPU. longest_ns: the longest stay.
    """

    sums: Array
    before: Array
    after: Array
    by_cpu: Array
    exits: Array
    longest_ns: int


def walk_of(ground: Ground, run: Run) -> Walk:
    """Return what a run's stays come to."""
    cpus, vcpus = ground.chosen.size, ground.watched.size
    at, held = ground.of[:-1].copy(), stays.no_puts(cpus)
    before = np.zeros((ground.held.size, 2), np.int32)
    sums, by_cpu = np.zeros((2, 2), np.int64), np.zeros((cpus, 2), np.int64)
    on, longest = np.zeros(vcpus, np.int64), np.zeros(1, np.int64)
    nothing = np.empty((0, q.PACKED_SLICE), np.int64)
    for rows in chain(run.slices.pieces(), [nothing]):
        stays.walk_stays(
            rows, rows is nothing, ground.part, ground.chosen, ground.watched, ground.lists,
            ground.of, at, held, before, sums, by_cpu, on, longest,
        )  # fmt: skip
    inside = before[ground.held]
    after = _pairs(inside[ground.woken])
    return Walk(sums, _pairs(inside), after, by_cpu, on, int(longest[0]))


def _pairs(swaps: Array) -> Array:
    # int64[p, 3]: each pair of loads and puts (int32[n, 2], puts first) and how often it is there.
    if not len(swaps):
        return np.zeros((0, 3), np.int64)
    puts = np.int64(swaps[:, 0].max()) + 1
    code = swaps[:, 1] * puts + swaps[:, 0]
    if code.max() <= FEW:
        times = np.bincount(code)
        found = np.flatnonzero(times)
        times = times[found]
    else:
        found, times = np.unique(code, return_counts=True)
    return np.stack([found // puts, found % puts, times], axis=1)


def _woken(course: Course) -> Array:
    # bool[n]: the vCPU blocked between its entry before and this one.
    woken = np.zeros(len(course.entries), bool)
    if course.blocks.size:
        keys = course.key(course.entries[:, 2], course.entries[:, 0])
        at = np.searchsorted(keys, course.key(course.blocks[:, 2], course.blocks[:, 1]))
        inside = at < keys.size
        at, vcpu = at[inside], course.blocks[inside, 2]
        woken[at[course.entries[at, 2] == vcpu]] = True
    return woken
