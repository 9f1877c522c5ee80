"""Which placement is the cheapest one without conflicts, by how much, and what would turn that?"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.pipeline.prices.model import Pricing
from analyzer.pipeline.prices.pricing import counts_of, is_lower_bound
from analyzer.pipeline.prices.sensitivity import competes, conflicts_of_answer, label_of
from analyzer.replay.algebra import break_even

__all__ = ["verdict_of"]

Array = np.ndarray[Any, Any]


def _gap(pricing: Pricing, mine: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    # ns, least and most that `other` costs more, over all latencies, the same for both, and all
    # counts that the marks and formulas allow.
    low: list[float] = []
    high: list[float] = []
    for model in pricing.models:
        a, b = (counts_of(pricing, model, answer) for answer in (mine, other))
        for excess, ends, pick in ((b[0] - a[2], low, np.minimum), (b[2] - a[0], high, np.maximum)):
            ends.append(float(pick(excess * model.latencies[0], excess * model.latencies[2]).sum()))
    return min(low), max(high)


def _flips(pricing: Pricing, answers: list[dict[str, Any]], best: int) -> dict[str, Any] | None:
    # The single latency inside its range that turns the order with the least change, and of which.
    if len(pricing.models) != 1 or len(answers) < 2:
        return None
    [model] = pricing.models
    counts = np.stack([counts_of(pricing, model, answer)[1] for answer in answers])
    typical = model.latencies[1]
    factors = break_even(counts, typical, np.eye(len(model.names), dtype=bool))[best]
    found = []
    for other, operation in np.argwhere(np.isfinite(factors) & (factors > 0)):
        latency = factors[other, operation] * typical[operation]
        if model.latencies[0, operation] <= latency <= model.latencies[2, operation]:
            change = abs(float(np.log(factors[other, operation])))
            found.append((change, int(other), int(operation), float(latency)))
    if not found:
        return None
    _, other, operation, latency = min(found)
    return {
        "operation": model.names[operation],
        "latency_ns": latency,
        "typical_ns": float(typical[operation]),
        "to": label_of(answers[other], answers),
    }


def _untold(answer: dict[str, Any]) -> list[str]:
    recording, placements = answer["recording"], answer["placements"]
    untold = []
    if recording["emulated"] is True:
        untold.append("how long anything took: the machine was emulated")
    if recording["vendor"] is None:
        untold.append("whose CPU it was: prices are the hull of two vendors'")
    met = placements[0]["conflicts"]
    if met["no_evidence"]:
        untold.append(f"conflicts: {met['no_evidence']}")
    if all(row["reason"] is None for row in placements[0]["by_reason"] if row["exits"]):
        untold.append("exit reasons")
    unseen = placements[0]["unseen"]
    if unseen and unseen["episodes_high"]:
        untold.append("host accesses that the recorded swaps kept from happening")
    if any(is_lower_bound(p) and p["kind"] == "trap" for p in placements):
        untold.append("what an emulated PMU's guest would have trapped for")
    if any(is_lower_bound(p) and p["kind"] != "trap" for p in placements):
        untold.append("whether guests use their PMU")
    return untold


def verdict_of(pricing: Pricing, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict on `placements` of a what-if, as JSON has it.

    cheapest: label of the cheapest at typical latencies among those that compete (no bound from
    hindsight, no lower bound) and have no conflict; where conflicts are not known, of all, and
    conflicts_known says so. next, gap_ns: the one that comes after it, and how much more that costs
    at least and at most, over all latencies alike for both; is_decided: the gap is above 0
    everywhere. flips: the one latency inside its range that would turn it. cheaper: the cheapest of
    those with conflicts, where it costs less still. cannot_tell: what the recording does not say.
    """
    every = answer["placements"]
    competing = [p for p in every if competes(p)]
    known = all(not np.isnan(conflicts_of_answer(p)[1]) for p in competing)
    clean = [p for p in competing if not known or conflicts_of_answer(p)[1] == 0]

    def typical(placement: dict[str, Any]) -> float:
        found = placement["overhead"]
        middle = found["typical_ns"]
        # Two files' hull has no typical: its middle orders as well as anything.
        if middle is None and found["high_ns"] is not None:
            middle = (found["low_ns"] + found["high_ns"]) / 2
        return float("inf") if middle is None else float(middle)

    verdict: dict[str, Any] = dict.fromkeys(
        ("cheapest", "overhead", "next", "gap_ns", "is_decided", "flips", "cheaper")
    )
    verdict["conflicts_known"] = known
    verdict["without_conflicts"] = [label_of(p, every) for p in clean] if known else None
    verdict["cannot_tell"] = _untold(answer)
    priced = sorted((p for p in clean if typical(p) != float("inf")), key=typical)
    if priced:
        best = priced[0]
        verdict["cheapest"] = label_of(best, every)
        verdict["overhead"] = {k: best["overhead"][f"{k}_ns"] for k in ("low", "typical", "high")}
        if len(priced) > 1:
            verdict["next"] = label_of(priced[1], every)
            low, high = _gap(pricing, best, priced[1])
            verdict["gap_ns"] = {"low": low, "high": high}
            verdict["is_decided"] = low > 0
            verdict["flips"] = _flips(pricing, priced, 0)
    others = sorted((p for p in competing if p not in clean), key=typical)
    if others and (not priced or typical(others[0]) < typical(priced[0])):
        verdict["cheaper"] = {
            "name": label_of(others[0], every),
            "typical_ns": others[0]["overhead"]["typical_ns"],
            "conflicts": int(conflicts_of_answer(others[0])[1]),
        }
    return verdict
