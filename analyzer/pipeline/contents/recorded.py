"""Where does the recorded kernel really swap, and does the timeline's prediction agree with it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from analyzer.pipeline.part import rows_of
from analyzer.replay import Part
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline import Kind, Level
from analyzer.timeline.truth import CUT, LEVEL_NAMES

__all__ = ["EdgeCounts", "recognise", "recorded_of", "truth_of"]

# Which levels must agree with the recorded stays for each boundary: those whose predicted stays
# must be met, and those that a recorded stay must meet. They differ where marks leave a range.
LEVELS = {
    "loop": ("events", "events"),
    "vcpu": ("inner", "outer"),
    "sched": ("sched", "sched"),
    "exit": ("guest", "guest"),
}
# The fewest and the most loads that the marks allow.
BOUNDS = {
    "loop": (Level.EVENTS, Level.GUEST),
    "vcpu": (Level.INNER, Level.OUTER),
    "sched": (Level.SCHED, Level.SCHED),
    "exit": (Level.GUEST, Level.GUEST),
}
# Of all recorded stays, how many may differ before no boundary of ours is taken for the kernel's.
STRANGE_SHARE = 0.02
PREDICTED_RECORDED = {
    "no recorded stay in the predicted one": (1, 0),
    "several recorded stays in the predicted one": (1, 2),
    "no predicted stay at the recorded one": (0, 1),
    "several predicted stays in the recorded one": (2, 1),
}
PREDICTED_RECORDED |= dict(zip(CUT, ((1, 0), (0, 1), (1, 0), (0, 1)), strict=True))


class EdgeCounts:
    """Loads and puts at each level's edges, out of the points."""

    def __init__(self) -> None:
        self.loads = dict.fromkeys(Level, 0)
        self.puts = dict.fromkeys(Level, 0)

    def add(self, kind: np.ndarray[Any, Any], detail: np.ndarray[Any, Any]) -> None:
        """Count the edges among some points (int64[n] each)."""
        turns_on = (kind >= Kind.SWITCH_IN) & (kind <= Kind.ENTRY)
        turns_off = (kind >= Kind.GUEST_END) & (kind <= Kind.SWITCH_OUT)
        for level in Level:
            moved = (detail & int(level)) != 0
            self.loads[level] += int(np.count_nonzero(turns_on & moved))
            self.puts[level] += int(np.count_nonzero(turns_off & moved))


def _differences(store: Store) -> dict[str, int]:
    # How many stays speak against each boundary. That several loads stand in one loop as events
    # join it is no difference where events cannot tell loops apart.
    agreement, found = store.manifest["agreement"], {}
    for boundary, (inside, outside) in LEVELS.items():
        counts = agreement[inside]["unmet"] + agreement[outside]["stray"]
        counts += agreement[outside]["spanning"]
        if boundary != "loop" or store.manifest["marks"]["loop_events_exact"]:
            counts += agreement[inside]["crowded"]
        found[boundary] = counts
    return found


def recognise(store: Store) -> tuple[str | None, dict[str, Any] | None]:
    """Return the boundary at which the recorded kernel swaps, and the evidence; None, None where
    no swap is recorded. The boundary is None where none of ours fits."""
    if not store.manifest["agreement"]:
        return None, None
    differences, cut = _differences(store), _cut(_found(store, Part()))
    stays = store.manifest["agreement"]["guest"]["recorded"]
    # Of those that differ as little, the one that leaves the least to what no window shows.
    unseen = {
        name: sum(cut(what, bounds[n % 2]) for n, what in enumerate(CUT))
        for name, bounds in BOUNDS.items()
    }
    best = min(differences, key=lambda name: (differences[name], unseen[name]))
    fits = differences[best] <= STRANGE_SHARE * max(stays, 1)
    same = [n for n in differences if n != best and differences[n] == differences[best]]
    told = _told(store)
    return best if fits else None, {
        "recorded_stays": stays,
        "differences": differences,
        "cannot_be_told_from": same,
        "perf": told,
        "grammars_never_shown": store.manifest["marks"]["unshown_grammars"],
    }


def _told(store: Store) -> str | None:
    swaps = frame_of(store.read("recorded_swap", ["perf"]))
    said = set(swaps["perf"].cast(pl.String).drop_nulls().unique())
    # An untold KVM's saving and restoring is unmistakable; perf's half may stand beside by chance.
    return "untold" if "untold" in said else ("told" if "told" in said else None)


def _spread(values: pl.Series) -> dict[str, Any] | None:
    values = values.drop_nulls()
    if values.is_empty():
        return None
    return {"min": values.min(), "median": values.median(), "max": values.max()}


def recorded_of(store: Store, part: Part) -> dict[str, Any]:
    """Return `recorded` of design.md section 10, with what info prints beside it.

    The placement is the whole recording's, the numbers are the part's.
    """
    names = (
        "placement", "evidence", "loads", "puts", "operations_per_load", "operations_per_put",
        "pmu_on_share", "operations_by_guest_pmu", "redundant_write_share", "what",
    )  # fmt: skip
    recorded: dict[str, Any] = dict.fromkeys(names)
    if not store.manifest["agreement"]:
        return recorded
    swaps = frame_of(rows_of(store.read("recorded_swap"), part))
    swaps = swaps.with_columns(
        pl.col("kind").cast(pl.String),
        kvm=pl.col("kvm_reads") + pl.col("kvm_writes"),
        perf_all=pl.col("perf_reads") + pl.col("perf_writes"),
    )
    recorded["placement"], recorded["evidence"] = recognise(store)
    # Not a swap of registers: the PMU stays perf's, and EL0's filters follow the vCPU.
    filters = bool(store.manifest["marks"].get("filters_recorded"))
    recorded["what"] = "el0_filters" if filters else "registers"
    loads, puts = swaps.filter(kind="load"), swaps.filter(kind="put")
    recorded["loads"], recorded["puts"] = len(loads), len(puts)
    for name, rows in (("load", loads), ("put", puts)):
        recorded[f"operations_per_{name}"] = {
            "kvm": _spread(rows["kvm"]),
            "perf": _spread(rows["perf_all"]),
        }
    recorded["pmu_on_share"] = loads["guest_pmu_on"].mean()
    # A put belongs to the load before it on its CPU.
    both = swaps.sort("cpu", "ts").with_columns(
        on=pl.col("guest_pmu_on").fill_null(strategy="forward").over("cpu")
    )
    recorded["operations_by_guest_pmu"] = {
        f"{kind}_{word}": _spread(both.filter(kind=kind, on=state)["kvm"])
        for kind in ("load", "put")
        for word, state in (("on", True), ("off", False))
    }
    writes = int(swaps["kvm_writes"].sum())
    recorded["redundant_write_share"] = swaps["redundant_writes"].sum() / writes if writes else None
    return recorded


def truth_of(
    store: Store, edges: EdgeCounts, recorded: dict[str, Any], part: Part
) -> dict[str, Any] | None:
    """Return `truth` of design.md section 10; None where no swap is recorded or none of our
    boundaries fits."""
    boundary = recorded["placement"]
    if boundary is None:
        return None
    fewest, most = BOUNDS[boundary]
    if boundary == "loop" and store.manifest["marks"]["loop_events_exact"]:
        most = fewest
    found = _found(store, part)
    rows, cut = _rows(store, boundary, found), _cut(found)
    return {
        "boundary": boundary,
        # Where a window begins or ends between an edge and its swap, one of them has no other side.
        "predicted_loads_low": edges.loads[fewest] - cut(CUT[0], fewest),
        "predicted_loads_high": edges.loads[most] + cut(CUT[1], most),
        "predicted_puts_low": edges.puts[fewest] - cut(CUT[2], fewest),
        "predicted_puts_high": edges.puts[most] + cut(CUT[3], most),
        "recorded_loads": recorded["loads"],
        "recorded_puts": recorded["puts"],
        "differences": sum(row["count"] for row in rows if row["allowed"] is False),
        "difference_rows": [row for row in rows if not row["allowed"]],
        "range_rows": [row for row in rows if row["allowed"]],
    }


def _found(store: Store, part: Part) -> pl.DataFrame:
    return frame_of(rows_of(store.read("truth_difference"), part), words=True)


def _cut(found: pl.DataFrame) -> Callable[[str, Level], int]:
    # How many loads or puts of a level a window's begin or end has cut, by what is left of them.
    cut = found.filter(pl.col("cause").is_in(CUT))
    sums = cut.group_by("cause", "level").agg(pl.col("count").sum())
    counts = {(what, level): count for what, level, count in sums.iter_rows()}
    return lambda what, level: counts.get((what, LEVEL_NAMES[int(level).bit_length() - 1]), 0)


def _rows(store: Store, boundary: str, found: pl.DataFrame) -> list[dict[str, Any]]:
    # What the marks leave open is listed too, as allowed.
    inside, outside = LEVELS[boundary]
    exact = boundary != "loop" or store.manifest["marks"]["loop_events_exact"]
    made = []
    for row in found.filter(pl.col("level").is_in([inside, outside])).to_dicts():
        level, cause = row.pop("level"), row["cause"]
        predicted, recorded = PREDICTED_RECORDED[cause]
        missed = predicted == 1
        if cause in CUT:
            if level == (inside if missed else outside):
                made.append({**row, "predicted": predicted, "recorded": recorded, "allowed": True})
            continue
        strict = level == (inside if missed else outside)
        allowed = not strict or (recorded == 2 and not exact)
        if strict or level != inside or inside != outside:
            made.append({**row, "predicted": predicted, "recorded": recorded, "allowed": allowed})
    return made
