"""What does a recording say that bears on the claims? Everything that is needed, run once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from analyzer.errors import MissingEvents
from analyzer.pipeline.meetings.conflicts import conflict_rows, load_episodes
from analyzer.pipeline.meetings.exposure import feasible_of
from analyzer.pipeline.replays import choose_designs, replay_all
from analyzer.pipeline.whatif import whatif
from analyzer.replay import Part, shipped_placements
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.store.frames import frame_of

__all__ = ["REGISTERS", "Evidence", "distinct", "first_ns", "gather"]

REGISTERS = ("read_msr", "write_msr", "rdpmc")
# Of mainline's two hooks the one that KVM has: claims about context switches are about it.
HOOK = "notifier"
# Placements whose single meetings and evictions claims ask for, not only their sums.
MET = ("exit", "loop", "vcpu", "sched", "lazy-core", "lazy-driver")
# Names of replay.kernel's T_*, as far as claims ask for them.
TOTALS = {
    "evicted_by_perf_core": q.T_CORE, "evicted_for_nothing": q.T_SPURIOUS,
    "displaced_by_a_vcpu": q.T_DISPLACED, "migrated": q.T_REMOTE, "changes_of_mode": q.T_MODES,
}  # fmt: skip
CONTEXTS = {
    "tick": (1,), "mux_timer": (2,), "ipi": (3,), "nmi": (4,), "context_switch": (5, 6),
    "rdpmc": (7,), "other": (8,), "guest_pmi": (9,),
}  # fmt: skip
ROWS = 1 << 20


@dataclass(frozen=True)
class Evidence:
    """What claims are decided on; tests make one by hand.

    answer: of `whatif` over all designs, None where the recording has no vCPU. met: rows of table
    `conflict` (columns of pipeline.conflicts) by (placement, told), of the shortest and of the
    longest stays that the marks allow. evictions: by placement. vpmu_accesses: of a perf-backed
    guest's PMU. read: a table as a frame with names
    as strings.
    """

    recording: Mapping[str, Any]
    marks: Mapping[str, Any]
    events: Mapping[str, int | None]
    answer: Mapping[str, Any] | None
    read: Callable[[str, list[str]], pl.DataFrame]
    asked: frozenset[str] = frozenset()
    met: Mapping[tuple[str, bool], tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=dict)
    evictions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    feasible: tuple[str, str] = ("unknown", "attributes of host events are not recorded")
    writes: Mapping[str, int] | None = None
    vpmu_accesses: int = 0

    @property
    def emulated(self) -> bool:
        """Whether its times mean nothing."""
        return self.recording.get("emulated") is True

    @property
    def arch(self) -> str | None:
        """The host's architecture."""
        return self.recording.get("arch")

    def has(self, *names: str) -> bool:
        """Whether each event was recorded; asked for and none came is recorded, too."""
        return all((self.events.get(name) or 0) > 0 or name in self.asked for name in names)

    @property
    def registers(self) -> bool:
        """Whether accesses of the PMU are recorded, by msr events or probes on its driver."""
        any_msr = any(self.has(name) for name in REGISTERS)
        return any_msr or bool(self.marks.get("calls_recorded"))

    def placement(self, name: str, told: bool = True) -> Mapping[str, Any] | None:
        """Return one design's answer; None where it is not available."""
        for one in (self.answer or {}).get("placements", ()):
            options = one["options"]
            if one["name"] == name and options["perf_told"] is told:
                return one  # type: ignore[no-any-return]
        return None

    def meetings(self, name: str, told: bool, most: bool = True) -> pl.DataFrame | None:
        """Return the rows of `conflict` of one design; None where it is not available.

        most: of the longest stays. That something is met is claimed on the shortest, that nothing
        is met on the longest.
        """
        pair = self.met.get((name, told))
        return None if pair is None else pair[most]


def gather(store: Store, cost: str | None = None, emulated: bool | None = None) -> Evidence:
    """Return the evidence of a store."""
    recording = dict(store.manifest["recording"])
    if emulated is not None:
        recording["emulated"] = emulated
    counts = store.read("event_count").to_pylist()
    failed = set(store.manifest.get("failed_events") or ())
    frames: dict[tuple[str, tuple[str, ...]], pl.DataFrame] = {}

    def read(table: str, columns: list[str]) -> pl.DataFrame:
        key = (table, tuple(columns))
        if key not in frames:
            episodes = table == "host_episode"
            wanted = [*dict.fromkeys([*columns, "evidence"])] if episodes else columns
            frame = frame_of(store.read(table, wanted), words=True)
            # What a rule infers decides nothing here: the two are never added up.
            frames[key] = frame.filter(evidence="observed").select(columns) if episodes else frame
        return frames[key]

    answer: dict[str, Any] | None = None
    met: dict[tuple[str, bool], tuple[pl.DataFrame, pl.DataFrame]] = {}
    evictions: dict[str, dict[str, Any]] = {}
    try:
        answer = whatif(store, choose_designs(["all"], ["told", "untold"], [HOOK]), cost, emulated)
    except MissingEvents:
        pass  # of a refused VM nothing but the refusal can be told
    else:
        met, evictions = _meetings(store, recording["vendor"])
    return Evidence(
        recording,
        store.manifest["marks"],
        {row["name"]: row["count"] for row in counts},
        answer,
        read,
        frozenset(row["name"] for row in counts if row["asked"] and row["name"] not in failed),
        met,
        evictions,
        feasible_of(store),
        _writes(store) if store.rows("recorded_swap") else None,
        _vpmu_accesses(store),
    )


def _meetings(store: Store, vendor: str | None) -> tuple[dict[Any, Any], dict[str, Any]]:
    names = [name for name in MET if name in shipped_placements()]
    designs = choose_designs(names, ["told", "untold"], [HOOK])
    outcomes, _ = replay_all(store, designs, Part())
    episodes = load_episodes(store)
    met, evictions = {}, {}
    for design in designs:
        outcome, name = outcomes[design], design.placement.name
        least, most = (
            conflict_rows(design, outcome, episodes, vendor, Part(), bound) for bound in (0, 1)
        )
        met[name, design.told] = (least, most)
        totals = outcome.counts[1].totals
        evictions[name] = {
            "by_context": {
                word: int(sum(totals[q.T_EVICTED + n] for n in numbers))
                for word, numbers in CONTEXTS.items()
            },
            **{word: int(totals[column]) for word, column in TOTALS.items()},
        }
    return met, evictions


def _vpmu_accesses(store: Store) -> int:
    count = 0
    for batch in store.batches("pmu_attribution", ["actor"], ROWS):
        count += int(
            frame_of(batch, words=True)["actor"].is_in(["vpmu_emulation", "vpmu_sched"]).sum()
        )
    return count


def _writes(store: Store) -> dict[str, int] | None:
    # KVM's writes of counters and selectors in swaps, and those of them that changed the value
    # that the same register was last seen with. One CPU's register at a time, across batches.
    last: pl.DataFrame | None = None
    sums: dict[str, int] = {}
    columns = ["cpu", "op", "role", "index", "value"]
    whose = store.batches("pmu_attribution", ["actor"], ROWS)
    for accesses, owned in zip(store.batches("pmu_access", columns, ROWS), whose, strict=True):
        rows = pl.concat(
            [frame_of(accesses, words=True), frame_of(owned, words=True)], how="horizontal"
        )
        rows = rows.filter(pl.col("role").is_in(["counter", "selector"]))
        rows = rows if last is None else pl.concat([last, rows])
        key = ["cpu", "role", "index"]
        rows = rows.with_columns(before=pl.col("value").shift(1).over(key))
        swaps = rows.filter(pl.col("actor").is_in(["kvm_load", "kvm_put"]), op="write")
        for role, direction, made, changed in (
            swaps.group_by("role", "actor")
            .agg(pl.len(), (pl.col("value") != pl.col("before")).fill_null(True).sum())
            .rows()
        ):
            word = f"{role}_{direction[4:]}"
            sums[f"{word}_made"] = sums.get(f"{word}_made", 0) + made
            sums[f"{word}_changed"] = sums.get(f"{word}_changed", 0) + changed
        last = rows.group_by(key, maintain_order=True).last().select(*columns, "actor")
        last = last.with_columns(actor=pl.lit(None, pl.String))
    return sums or None


def first_ns(frame: pl.DataFrame, column: str = "ts") -> int | None:
    """Return the time of a frame's first row; None where it has none."""
    return None if not len(frame) else int(frame[column].min())  # type: ignore[arg-type]


def distinct(frame: pl.DataFrame, contexts: Sequence[str], causes: Sequence[str]) -> pl.DataFrame:
    """Return meetings once each, whatever rules they fit, of some contexts and causes."""
    chosen = pl.col("context").is_in(list(contexts)) & pl.col("cause").is_in(list(causes))
    return frame.filter(chosen).unique(["ts", "cpu", "context", "evidence"], maintain_order=True)
