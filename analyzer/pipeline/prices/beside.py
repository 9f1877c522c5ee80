"""What does a placement do beside its loads and puts? Evictions, IPIs, traps that arm it; counted.

The put that an eviction makes is one of the puts already, and so is the load that follows.
"""

from __future__ import annotations

from typing import Any

from analyzer.pipeline.prices.emulation import Emulation
from analyzer.pipeline.rows import points_of
from analyzer.replay import Counts, Part, Placement
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline import Kind
from analyzer.timeline.attribution.words import CONTEXTS

__all__ = ["arming_traps", "set_beside"]

Three = tuple[float, float, float]
# What is counted of a whole run, by the names that JSON has.
TOTALS = {
    "perf_core": q.T_CORE, "spurious": q.T_SPURIOUS, "displaced": q.T_DISPLACED,
    "remote": q.T_REMOTE, "mode_changes": q.T_MODES, "entries_without": q.T_WITHOUT,
}  # fmt: skip
IPI, TRAP = "ipi_roundtrip", "trapped_pmu_write"


def arming_traps(store: Store, part: Part) -> dict[str, Three] | None:
    """Return how many first uses of the guest's PMU trap, by the word of `demand`; None where
    nothing recorded tells of its use.

    while_used: each time that a guest begins to use its PMU again; once_used: once a vCPU. A first
    sight of a guest that uses it may be the first use or not: only high has it there, but once_used
    loads nothing before it, so its typical has it too.
    """
    import polars as pl

    uses = points_of(store, [Kind.GUEST_PMU])
    if uses.is_empty():
        return None
    held = part.holds(*(uses[name].to_numpy() for name in ("ts", "cpu", "vcpu")))
    before = pl.col("detail").shift(1).over("vcpu")
    ever = pl.col("detail").cum_max().shift(1).over("vcpu").fill_null(0)
    uses = uses.with_columns(
        begins=(pl.col("detail") == 1) & (before == 0).fill_null(False),
        seen=(pl.col("detail") == 1) & before.is_null(),
        first=(pl.col("detail") == 1) & (ever == 0),
    ).filter(pl.Series(held))
    begins, seen = int(uses["begins"].sum()), int(uses["seen"].sum())
    first, sure = int(uses["first"].sum()), int((uses["first"] & uses["begins"]).sum())
    return {
        "while_used": (begins, begins, begins + seen),
        "once_used": (sure, first, first),
        "never": (0, 0, 0),
    }


def _pair(pair: tuple[Counts, Counts], column: int) -> tuple[int, int]:
    low, high = sorted(int(counts.totals[column]) for counts in pair)
    return low, high


def set_beside(
    answer: dict[str, Any], placement: Placement, pair: tuple[Counts, Counts],
    arming: dict[str, Three] | None, emulation: Emulation | None,
) -> None:  # fmt: skip
    """Set `evictions`, `bound` and `extra_operations` of one placement's answer."""
    contexts: dict[str, list[int]] = {}
    for at, name in enumerate(CONTEXTS):
        low, high = _pair(pair, q.T_EVICTED + at)
        if high:
            found = contexts.setdefault(name, [0, 0])
            contexts[name] = [found[0] + low, found[1] + high]
    totals = {name: _pair(pair, column) for name, column in TOTALS.items()}
    answer["evictions"] = {
        "by_context": {
            name: {"low": low, "high": high} for name, (low, high) in sorted(contexts.items())
        },
        **{name: {"low": low, "high": high} for name, (low, high) in totals.items()},
    }
    extra: dict[str, Three] = {}
    low, high = totals["remote"]
    if high:
        # The state that is wanted here lies on another CPU, which has to be told to put it.
        extra[IPI] = (low, (low + high) / 2, high)
    answer["bound"] = answer["emulation"] = None
    if arming is None and placement.demand == "once_used":
        # It waits for a use that nobody could see.
        answer["bound"] = "lower"
    elif arming is not None and arming[placement.demand][2]:
        extra[TRAP] = arming[placement.demand]
    if emulation is not None:
        extra |= emulation.operations()
        answer["bound"] = "lower" if emulation.is_lower else "interval"
    answer["extra_operations"] = extra
