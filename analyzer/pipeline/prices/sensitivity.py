"""What would turn the answer? Break-even latencies, HZ, exit rate, and who is best where.

Algebra over the counts of one replay: nothing here reads the recording again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.errors import UsageError
from analyzer.pipeline.prices.model import Model, Pricing
from analyzer.pipeline.prices.one_swap import vectors_of
from analyzer.pipeline.prices.pricing import amounts_of, counts_of, is_lower_bound
from analyzer.pipeline.prices.ticks import INTERRUPTED, Ticks
from analyzer.replay.algebra import (
    break_even,
    cheapest_share,
    count_operations,
    dominates,
    intervals,
    sample_between,
    slopes,
    sweep,
)
from analyzer.replay.cost import LEVELS

__all__ = ["add_sensitivity", "competes", "conflicts_of_answer", "label_of", "set_dominated"]

Array = np.ndarray[Any, Any]
POINTS = 10_000
HZ = {"100": 100, "250": 250, "1000": 1000, "nohz_full": 0}
EXIT_FACTORS = (0.5, 2.0, 10.0)
# Where no such exit tells: an interrupt always ends guest mode and the inner loop, and neither the
# run loop around it nor the thread's turn on the CPU.
SWAPS_OF_AN_INTERRUPT = {"exit": 1.0, "loop": 1.0, "vcpu": 0.0, "sched": 0.0}


def _levels(values: Array) -> dict[str, float | None]:
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(LEVELS, values, strict=True)
    }


def conflicts_of_answer(answer: dict[str, Any]) -> tuple[float, float]:
    """Return the least and the most conflicts; NaN where nobody looked, or no host event was on.

    Observed ones by the shortest stays are certain, inferred ones possible.
    """
    found = answer["conflicts"]
    if found is None or found["observed"] is None:
        return np.nan, np.nan
    observed = sum(found["observed"].values())
    low = found.get("observed_low")
    most = observed + sum((found.get("inferred") or {}).values())
    return observed if low is None else sum(low.values()), most


def competes(answer: dict[str, Any]) -> bool:
    """Say whether a placement can be the cheapest: not a bound that nobody can build, nor a price
    that holds only what was seen, which are compared with others and win against none."""
    return answer.get("kind") != "hindsight" and not is_lower_bound(answer)


def label_of(answer: dict[str, Any], answers: list[dict[str, Any]]) -> str:
    """Return a placement's name, with its options where it was asked for with several."""
    if sum(other["name"] == answer["name"] for other in answers) == 1:
        return str(answer["name"])
    options = answer["options"]
    words = [answer["name"], "told" if options["perf_told"] else "untold", options.get("hook")]
    same = [other["options"] for other in answers if other["name"] == answer["name"]]
    if any(other.get("guard") != options.get("guard") for other in same):
        words.append("+".join(options["guard"]) or "unguarded")
    if any(other.get("clearing") != options.get("clearing") for other in same):
        words.append(options["clearing"])
    if any(other.get("selective") != options.get("selective") for other in same):
        words.append("selective" if options["selective"] else "")
    return "/".join(str(word) for word in words if word)


def set_dominated(pricing: Pricing, answers: list[dict[str, Any]]) -> None:
    """Set `dominated_by` of every placement: the names of those that are no worse in anything.

    Null where conflicts are not known: what is cheaper and less blind may still break perf. With
    two cost files both have to say so.
    """
    if any(np.isnan(conflicts_of_answer(answer)[1]) for answer in answers):
        return
    bounds = [
        [(answer["blind_ns_low"], answer["blind_ns_high"]), conflicts_of_answer(answer)]
        for answer in answers
    ]
    other = np.array(bounds, np.float64)
    better = np.ones((len(answers), len(answers)), bool)
    for model in pricing.models:
        counts = np.stack([counts_of(pricing, model, answer) for answer in answers])
        better &= dominates(
            counts[:, 0], counts[:, 2], model.latencies, other[:, :, 0], other[:, :, 1]
        )
    better[[not competes(answer) for answer in answers]] = False
    for at, answer in enumerate(answers):
        by = np.flatnonzero(better[:, at])
        answer["dominated_by"] = [label_of(answers[one], answers) for one in by]


def add_sensitivity(
    pricing: Pricing,
    answers: list[dict[str, Any]],
    recording: dict[str, Any],
    ticks: Ticks | None = None,
) -> dict[str, Any]:
    """Add `sensitivity` to every placement and return what holds for all of them.

    answers: placements of `whatif` with by_reason. ticks: None where they cannot be told;
    without their HZ only the price without any tick is known.
    UsageError where the vendor is unknown and no cost file was named: two files have no common
    latencies to move.
    """
    if len(pricing.models) != 1:
        names = " or ".join(model.file.name for model in pricing.models)
        raise UsageError(
            f"--sensitivity takes one cost file, and no vendor is known: --cost {names}"
        )
    model = pricing.models[0]
    counts = np.stack([counts_of(pricing, model, answer) for answer in answers])
    typical = model.latencies[1]
    moves, elasticity = slopes(counts[:, 1], typical)
    groups = np.vstack([np.eye(len(model.names), dtype=bool), np.ones((1, len(model.names)), bool)])
    factors = break_even(counts[:, 1], typical, groups)
    shares = _regions(model, counts, answers)
    for at, answer in enumerate(answers):
        answer["sensitivity"] = {
            "label": label_of(answer, answers),
            "operations": {
                name: {
                    "count": float(moves[at, k]),
                    "ns_per_ns": float(moves[at, k]),
                    "percent_per_percent": float(elasticity[at, k]),
                    "kind": model.file.operations[name]["kind"],
                }
                for k, name in enumerate(model.names)
                if moves[at, k] > 0 and not np.isnan(elasticity[at, k])
            },
            "break_even": _break_even(model, factors[at], answers, at),
            **{key: None if share is None else float(share[at]) for key, share in shares.items()},
            "hz": _hz(pricing, model, answer, counts[at], recording, ticks),
            "exit_rate": _exit_rate(pricing, model, answer, counts[at]),
        }
    return {
        "cost_file": model.file.name,
        "points": POINTS,
        "operations": {
            name: dict(zip(LEVELS, map(float, model.latencies[:, k]), strict=True))
            for k, name in enumerate(model.names)
            if np.nanmax(counts[:, :, k], initial=0) > 0
        },
    }


def _regions(model: Model, counts: Array, answers: list[dict[str, Any]]) -> dict[str, Array | None]:
    # One column more than operations: how far the counts stand from low to high at that point.
    low, high = np.append(model.latencies[0], 0.0), np.append(model.latencies[2], 1.0)
    points = sample_between(low, high, POINTS)
    overheads = sweep(counts[:, 0], counts[:, 2], points[:, :-1], points[:, -1])
    every = np.array([competes(answer) for answer in answers])
    most = np.array([conflicts_of_answer(answer)[1] for answer in answers])
    known = not np.isnan(most).any()
    return {
        "cheapest_share": cheapest_share(overheads, every),
        "cheapest_share_without_conflicts": cheapest_share(overheads, every & (most == 0))
        if known
        else None,
    }


def _break_even(
    model: Model, factors: Array, answers: list[dict[str, Any]], at: int
) -> list[dict[str, Any]]:
    rows = []
    for other, answer in enumerate(answers):
        for k, name in enumerate((*model.names, "all")):
            factor = factors[other, k]
            # Costs are proportional to all latencies together: 0 is no news.
            if other == at or np.isnan(factor) or factor == 0:
                continue
            row = {"against": label_of(answer, answers), "operation": name, "factor": float(factor)}
            row["latency_ns"] = row["is_in_range"] = None
            if name != "all":
                latency = factor * model.latencies[1, k]
                row["latency_ns"] = float(latency)
                row["is_in_range"] = bool(model.latencies[0, k] <= latency <= model.latencies[2, k])
            rows.append(row)
    return rows


def _swaps_per_interrupt(answer: dict[str, Any]) -> tuple[Array, str]:
    # float64[3]: loads and as many puts that one exit for a host interrupt brings.
    for row in answer["by_reason"]:
        if row["reason"] in INTERRUPTED and row["exits"] and row["loads_high"] is not None:
            low, high = row["loads_low"] / row["exits"], row["loads_high"] / row["exits"]
            return np.array([low, (low + high) / 2, high]), "recorded exits of that reason"
    return np.full(3, SWAPS_OF_AN_INTERRUPT.get(answer["boundary"], np.nan)), "boundary"


def _hz(
    pricing: Pricing, model: Model, answer: dict[str, Any], counts: Array,
    recording: dict[str, Any], ticks: Ticks | None,
) -> dict[str, Any]:  # fmt: skip
    swaps, told_by = _swaps_per_interrupt(answer)
    one_save = np.array([0.0, 1.0, 1.0]) * (answer["boundary"] != "exit")
    amounts = np.stack([swaps, swaps, one_save], axis=1)
    vectors = vectors_of(pricing, model, answer)
    one = count_operations(amounts, vectors)
    per_tick = intervals(one[None], model.latencies)[0]
    overheads: dict[str, Any] | None = None
    if ticks is not None:
        overheads = {}
        for name, hz in HZ.items():
            if ticks.hz is None and hz:
                overheads[name] = None
                continue
            more = ticks.forced_exits * ((hz / ticks.hz if ticks.hz else 0) - 1)
            overheads[name] = _levels(_moved(model, counts, more * one))
    # A rate per second of a guest whose seconds mean nothing would be none.
    is_real = recording["emulated"] is not True
    return {
        "forced_exits": ticks.forced_exits if ticks else None,
        "recorded_hz": ticks.hz if ticks else None,
        "swaps_per_tick": _levels(swaps),
        "swaps_per_tick_from": told_by,
        "per_tick_ns": _levels(per_tick),
        "per_guest_second_ns": {name: _levels(hz * per_tick) for name, hz in HZ.items()}
        if is_real
        else None,
        "overhead_ns": overheads,
    }


def _moved(model: Model, counts: Array, change: Array) -> Array:
    # Bounds stay bounds: what is taken away is never more than what is there.
    moved = np.maximum.accumulate(np.maximum(counts + change, 0.0))
    result: Array = intervals(moved[None], model.latencies)[0]
    return result


def _exit_rate(
    pricing: Pricing, model: Model, answer: dict[str, Any], counts: Array
) -> dict[str, Any]:
    # Swaps that no exit precedes (a thread's first, or after a loss) do not grow with the rate.
    rows = [row for row in answer["by_reason"] if row["exits"]]
    whole = amounts_of(pricing, answer)
    after = whole.copy()
    for column, key in enumerate(("loads", "puts")):
        low = sum(row[f"{key}_low"] for row in rows)
        known = all(row[f"{key}_high"] is not None for row in rows)
        high = sum(row[f"{key}_high"] for row in rows) if known else np.nan
        after[:, column] = np.fmin([low, (low + high) / 2, high], whole[:, column])
    vectors = vectors_of(pricing, model, answer)
    part = count_operations(after, vectors)
    price = intervals(counts[None], model.latencies)[0]
    exits = answer["exits"]
    return {
        "exits": exits,
        "per_exit_ns": _levels(price / exits) if exits else None,
        "overhead_ns": {
            f"{factor:g}": _levels(_moved(model, counts, (factor - 1) * part))
            for factor in EXIT_FACTORS
        },
    }
