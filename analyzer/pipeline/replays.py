"""Which designs are replayed, and what comes of it? One run per distinct rule of decision."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from analyzer.errors import UsageError
from analyzer.pipeline.contents.recorded import EdgeCounts
from analyzer.replay import (
    CLEARINGS,
    GUARDS,
    HOOKS,
    Counts,
    Part,
    Placement,
    Replay,
    Rows,
    Scratch,
    default_guard,
    leaves_range,
    read_placement,
    shipped_placements,
)
from analyzer.store import Store

__all__ = ["Design", "Outcome", "Run", "choose_designs", "cpus_of", "replay_all"]

Array = np.ndarray[Any, Any]
# At a time: what these can give at most has room in memory, once a worker. More workers than that
# wait for the file.
POINTS = 256 * 1024
WORKERS = 4
COLUMNS = ["ts", "cpu", "vcpu", "kind", "detail"]
PERF = {"told": True, "untold": False}
SELECTIVE = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Design:
    """A placement with its options. hook None: it does not swap at context switches."""

    placement: Placement
    told: bool
    hook: str | None
    guard: tuple[str, ...]
    clearing: str
    selective: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options by the names that design.md section 5 has."""
        return {
            "perf_told": self.told, "hook": self.hook, "guard": list(self.guard),
            "clearing": self.clearing, "selective": self.selective,
        }  # fmt: skip

    @property
    def label(self) -> str:
        """Its declaration and options as one word: what names a result set has all of it in."""
        return repr(self)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one replay gave: counts, owner slices and episodes that met a guest's state (rows as
    replay.rows has them), and int64[stops + 1, COUNTS], sums before each stop and in all.

    Designs and bounds that decide alike share one, so what is known of it need be asked once.
    """

    counts: Counts
    slices: Rows
    meetings: Rows
    sums: Array


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one design's replays gave, by bound (fewest, most; the same where they are one)."""

    runs: tuple[Run, Run]

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """The counts of both bounds."""
        return self.runs[0].counts, self.runs[1].counts


def choose_designs(
    names: list[str], perf: list[str] | None = None, hooks: list[str] | None = None,
    guards: list[str] | None = None, clearings: list[str] | None = None,
    own: list[Path] | None = None, selective: list[str] | None = None,
) -> list[Design]:  # fmt: skip
    """Return designs of shipped placements and then of the user's own, by their files.

    `all` means all shipped ones, None the TOML's own option. guards: each item is one set, its
    words joined by commas, or `none`. UsageError for a word or name that is unknown or taken.
    """
    shipped = shipped_placements()
    chosen: list[Placement] = []
    for name in names:
        if name != "all" and name not in shipped:
            raise UsageError(f"boundary {name!r} is unknown; allowed: {', '.join(shipped)}, all")
        for placement in shipped.values() if name == "all" else (shipped[name],):
            if placement not in chosen:
                chosen.append(placement)
    taken = dict.fromkeys(shipped, "a shipped placement has that name")
    for path in own or ():
        placement = read_placement(path)
        if placement.name in taken:
            raise UsageError(f"{path}: key 'name' is {placement.name!r}: {taken[placement.name]}")
        taken[placement.name] = f"{path} has that name"
        chosen.append(placement)
    for flag, words, allowed in (
        ("--perf", perf, tuple(PERF)), ("--hook", hooks, HOOKS),
        ("--clearing", clearings, CLEARINGS), ("--selective", selective, tuple(SELECTIVE)),
    ):  # fmt: skip
        for word in words or ():
            if word not in allowed:
                raise UsageError(f"{flag} is {word!r}; allowed: {', '.join(allowed)}")
    sets = [_guard(text) for text in guards or ()]
    designs = []
    for placement in chosen:
        for told in [PERF[word] for word in perf] if perf else [placement.perf_told]:
            declared = (
                default_guard(told) if placement.guard is None else _guard_set(placement.guard)
            )
            designs += [
                Design(placement, told, hook, guard, clearing, only_enabled)
                for hook in ([None] if placement.hook is None else (hooks or [placement.hook]))
                for guard in (sets or [declared])
                for clearing in (clearings or [placement.clearing])
                for only_enabled in (
                    [SELECTIVE[word] for word in selective] if selective else [placement.selective]
                )
            ]
    return list(dict.fromkeys(designs))


def _guard(text: str) -> tuple[str, ...]:
    words = () if text == "none" else tuple(word for word in text.split(",") if word)
    for word in words:
        if word not in GUARDS:
            allowed = f"{', '.join(GUARDS)} joined by commas, or none"
            raise UsageError(f"--guard has {word!r}; allowed: {allowed}")
    return _guard_set(words)


def _guard_set(words: tuple[str, ...]) -> tuple[str, ...]:
    # A set has one order, so that the same guards are one design.
    return tuple(word for word in GUARDS if word in words)


def cpus_of(store: Store) -> int:
    """Return how many CPUs a store's numbers have room for."""
    return int(pc.max(store.read("window", ["cpu"])["cpu"]).as_py() or 0) + 1


def replay_all(
    store: Store, designs: list[Design], part: Part, stops: Sequence[int] = ()
) -> tuple[dict[Design, Outcome], EdgeCounts]:
    """Return each design's outcome, and the edges of every level in the part."""
    vcpus = int(store.manifest["recording"]["vcpus"])
    cpus = cpus_of(store)
    reasons = len(store.manifest["reasons"])
    known = _is_loop_known(store)
    workers = [Scratch() for _ in range(min(WORKERS, os.cpu_count() or 1))]
    replays: dict[Any, Replay] = {}
    rules: dict[Design, list[Any]] = {}
    for d in designs:
        # All other options change nothing in who owns a PMU.
        rules[d] = []
        for most in (False, True) if leaves_range(d.placement, known) else (False,):
            scratch = workers[len(replays) % len(workers)]
            replay = Replay(
                d.placement, most, vcpus, cpus, reasons, part, d.hook or HOOKS[0], scratch, known,
                stops,
            )  # fmt: skip
            replays.setdefault(replay.rule, replay)
            rules[d].append(replay.rule)
    shares = [list(replays.values())[n :: len(workers)] for n in range(len(workers))]
    edges = EdgeCounts()

    def feed(share: list[Replay], columns: list[Array]) -> None:
        for replay in share:
            replay.feed(*columns)

    with ThreadPoolExecutor(len(workers)) as pool:
        under_way: list[Any] = []
        for columns in _columns(store):
            for task in under_way:
                task.result()
            # They run while the next points are read.
            under_way = [pool.submit(feed, share, columns) for share in shares]
            inside = part.holds(*columns[:3])
            edges.add(kind=columns[3][inside], detail=columns[4][inside])
        for task in under_way:
            task.result()
    runs = {
        rule: Run(replay.counts(), replay.slices, replay.meetings, replay.sums())
        for rule, replay in replays.items()
    }
    # Where one bound was run, it is both.
    return {d: Outcome((runs[two[0]], runs[two[-1]])) for d, two in rules.items()}, edges


def _columns(store: Store) -> Iterator[list[Array]]:
    for batch in store.batches("point", COLUMNS, POINTS):
        columns = [batch.column(name) for name in COLUMNS]
        columns[2] = columns[2].fill_null(-1)
        yield [column.to_numpy(zero_copy_only=False) for column in columns]


def _is_loop_known(store: Store) -> bool:
    # A trusted mark of the inner loop leaves no range; nor does a kernel without inner loops.
    marks = store.manifest["marks"]
    return any(
        marks[name] for name in ("loop_marks_trusted", "loop_events_exact", "hidden_reentries")
    )
