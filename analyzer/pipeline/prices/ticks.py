"""How many exits did the host's tick force, and at which HZ did it run?

A forced exit is one for a host interrupt after which, on that CPU and before the next entry, the
first interrupt is the local timer's and the tick's hrtimer expires in it (facts/claims.md C2). A
tick that fires while KVM runs already forces nothing, and a guest's own timer is no tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.replay import Part
from analyzer.store import Store
from analyzer.store.frames import frame_of

__all__ = ["INTERRUPTED", "Ticks", "count_ticks", "estimate_hz"]

# Exits for a host interrupt, as the catalogues of analyzer.arch name them.
INTERRUPTED = ("EXTERNAL_INTERRUPT", "interrupt", "IRQ")
# The tick's hrtimer: tick_nohz_handler, in older kernels tick_sched_timer (facts/claims.md C2).
TICK_FUNCTIONS = ("tick_nohz_handler", "tick_sched_timer")
# CONFIG_HZ as it can be chosen, and which share of the gaps has to show it within 10 %.
RATES = (100, 250, 300, 1000)
CLEAR_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Ticks:
    """How many exits the host's tick forced, and its HZ; None where times tell none."""

    forced_exits: int
    hz: float | None


def count_ticks(store: Store, part: Part, recording: dict[str, Any]) -> Ticks | None:
    """Return the ticks of a part; None where no tick is named (no timer events, or no symbols)."""
    import polars as pl

    def rows(table: str, columns: list[str]) -> pl.DataFrame:
        found = frame_of(store.read(table, columns))
        names = [c for c in ("phase", "name", "kind", "function_name", "reason") if c in columns]
        return found.with_columns(pl.col(names).cast(pl.String))

    ticks = rows("timer", ["ts", "cpu", "phase", "function_name"]).filter(
        pl.col("phase") == "expire_entry", pl.col("function_name").is_in(TICK_FUNCTIONS)
    )
    if ticks.is_empty():
        return None
    exits = rows("guest_slice", ["end", "cpu", "vcpu", "reason", "ended_by"]).rename({"end": "ts"})
    mine = part.holds(*(exits[name].to_numpy() for name in ("ts", "cpu", "vcpu")))
    exits = exits.filter(
        pl.Series(mine),
        pl.col("reason").is_null() | pl.col("reason").is_in(INTERRUPTED),
        pl.col("ended_by").is_in(["exit", "host_event"]),
    )
    vectors = rows("interrupt", ["ts", "cpu", "kind", "phase", "name"]).filter(
        pl.col("kind").is_in(["vector", "irq"]), pl.col("phase").is_in(["entry", "exit"])
    )
    for name, events in (
        ("entry", rows("vm_entry", ["ts", "cpu"])),
        ("tick", ticks.select("ts", "cpu")),
        ("irq", vectors.filter(phase="entry").select("ts", "cpu", first="name")),
        ("irq_end", vectors.filter(phase="exit", name="local_timer").select("ts", "cpu")),
    ):
        after = events.with_columns(pl.col("ts").alias(name)).sort("ts")
        exits = exits.sort("ts").join_asof(
            after, on="ts", by="cpu", strategy="forward", check_sortedness=False
        )
    later = pl.lit(np.iinfo(np.int64).max)
    is_forced = pl.col("tick") < pl.col("entry").fill_null(later)
    if not vectors.filter(name="local_timer").is_empty():
        # Where vectors are recorded, the interrupt has to be the timer's, and the tick in it.
        is_forced &= pl.col("first") == "local_timer"
        is_forced &= pl.col("tick") < pl.col("irq_end").fill_null(later)
    forced = exits.filter(is_forced).height
    return Ticks(forced, None if recording["emulated"] is True else estimate_hz(ticks))


def estimate_hz(ticks: Any) -> float | None:
    """Return the HZ that the gaps between a CPU's ticks show; None where they are not clear.

    ticks: columns ts (ns) and cpu. An idle CPU stops its tick, so long gaps say nothing by
    themselves, but CLEAR_SHARE of all has to stand at one rate.
    """
    import polars as pl

    gaps = ticks.sort("cpu", "ts").select(pl.col("ts").diff().over("cpu")).drop_nulls()
    found = gaps["ts"].to_numpy()
    if not found.size:
        return None
    shares = {hz: float(np.mean(np.abs(found * hz / 1e9 - 1) < 0.1)) for hz in RATES}
    best = max(shares, key=lambda hz: shares[hz])
    return float(best) if shares[best] >= CLEAR_SHARE else None
