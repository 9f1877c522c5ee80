"""What does a maintainer ask beside the table? Rates, idle VMs, who must change what.

design.md section 7; what is asked there and not here stands in the answer by its own name:
blind time, guest_effect, conflicts, unseen, sensitivity, feasible.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.pipeline.prices.model import Pricing
from analyzer.pipeline.prices.pricing import overhead_of
from analyzer.pipeline.results import pair_of
from analyzer.pipeline.swaps import Walk
from analyzer.replay import Placement
from analyzer.replay.cost import LEVELS

__all__ = ["set_aside"]

Array = np.ndarray[Any, Any]


def set_aside(
    pricing: Pricing, answer: dict[str, Any], placement: Placement, walks: tuple[Walk, Walk],
    recording: dict[str, Any], part_ns: int,
) -> None:  # fmt: skip
    """Set `by_cpu`, `rates`, `idle_guest_ns` and `needs` of one placement's answer.

    rates: swaps a second of each vCPU and CPU, and a second's episodes of host perf that meet a
    guest's state, by context; null on an emulated machine, whose seconds mean nothing.
    idle_guest_ns: the price {low, typical, high} had no guest used its PMU. needs: who must change,
    which hardware, and whether the guest's counting stays deterministic, as the placement says.
    """
    answer["by_cpu"] = _by_cpu(answer, walks)
    answer["idle_guest_ns"] = _idle(pricing, answer, placement, recording)
    answer["needs"] = {
        "changes": list(placement.changes), "hardware": placement.hardware,
        "deterministic": placement.deterministic, "proposed_by": placement.proposed_by,
    }  # fmt: skip
    answer["rates"] = None
    if recording["emulated"] is not True and part_ns:
        seconds = part_ns / 1e9
        met = answer["conflicts"]["by_context"]
        answer["rates"] = {
            "swaps_per_second_by_vcpu": [_rate(row, seconds) for row in answer["by_vcpu"]],
            "swaps_per_second_by_cpu": [_rate(row, seconds) for row in answer["by_cpu"]],
            "episodes_per_second": met and {name: n / seconds for name, n in met.items()},
        }


def _rate(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    # Swaps a second of one row of by_vcpu or by_cpu.
    made: dict[str, Any] = {key: row[key] for key in ("vcpu", "cpu") if key in row}
    for bound in ("low", "high"):
        loads, puts = row[f"loads_{bound}"], row[f"puts_{bound}"]
        made[bound] = None if loads is None or puts is None else (loads + puts) / seconds
    return made


def _by_cpu(answer: dict[str, Any], walks: tuple[Walk, Walk]) -> list[dict[str, Any]]:
    # Loads and puts of each CPU that had any.
    made = []
    for cpu in np.flatnonzero(sum(walk.by_cpu.sum(axis=1) for walk in walks)).tolist():
        row: dict[str, Any] = {"cpu": cpu}
        for name, at in (("loads", 1), ("puts", 0)):
            low, high = pair_of(*(int(walk.by_cpu[cpu, at]) for walk in walks))
            row[f"{name}_low"] = low
            row[f"{name}_high"] = None if answer[f"{name}_high"] is None else high
        made.append(row)
    return made


def _idle(
    pricing: Pricing, answer: dict[str, Any], placement: Placement, recording: dict[str, Any]
) -> dict[str, float | None]:
    # Who waits for a guest's use never swaps for one that has none, and traps no access of it.
    if placement.demand != "never" or placement.kind == "trap":
        return dict.fromkeys(LEVELS, 0.0)
    price = overhead_of(replace(pricing, on_share=0.0), answer, recording)
    return {level: price[f"{level}_ns"] for level in LEVELS}
