"""What do counted swaps cost on this machine? An interval, and what it rests on."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.pipeline.prices.model import Model, Pricing
from analyzer.pipeline.prices.one_swap import is_own, vectors_of
from analyzer.replay.algebra import assumed_share, count_operations, intervals
from analyzer.replay.cost import LEVELS, swap_operations

__all__ = [
    "PRICING_ASSUMPTIONS",
    "amounts_of",
    "counts_of",
    "extra_of",
    "is_lower_bound",
    "overhead_of",
    "priced_assumptions_of",
]

Array = np.ndarray[Any, Any]
PRICING_ASSUMPTIONS = {
    "guest-pmu-state": "operations of a swap come from the architecture's formula: low and typical "
    "an idle guest PMU, high one that is used fully",
    "no-host-events": "no half of perf's is recorded: it is priced as if no host event were active",
    "recorded-operations": "swaps of the recorded placement are priced by the mean operations of "
    "the recorded ones",
    "modelled-operations": "typical takes the recorded swaps' mean operations for another place, "
    "too; low an idle guest's formula and perf's smallest recorded half, high a busy guest's and "
    "perf's largest: elided writes depend on what ran between",
    "selective": "only counters whose selector is enabled move: low none of them, typical as many "
    "as recorded loads enable (none, where none is recorded), high all",
    "exit-save": "with the guest's state left on over an exit, KVM saves its global control there: "
    "low never, high at each exit",
    "instead-of-swaps": "what a perf-backed PMU pays instead of swaps leaves no trace but where "
    "KVM intercepts: its price is a lower bound, with no typical and no high",
    "emulation-counted": "a perf-backed PMU pays for its recorded traps, reprogramming and PMIs; "
    "accesses that KVM intercepts under mediation as well, and injecting a PMI, count in high only",
    "host-saved-by-kvm": "untold: no half of perf's, KVM saves and restores as many of the host's "
    "counters as the guest has",
    "machine-swaps": "the machine moves the guest's registers in no time that is known: 0 is taken",
    "share-only": "only the guest's share is swapped, priced as all of the guest's counters",
    "callbacks-free": "perf's call into KVM to evict costs nothing beside the put, the load that "
    "follows and, from another CPU, an IPI",
    "use-unknown": "nothing recorded tells whether a guest uses its PMU: a placement that waits "
    "for its first use has a lower bound only",
    "arming-traps": "a guest's first access to its PMU traps: priced as one trapped write",
    "not-modelled": "cache refill, PEBS drain, and trapped accesses while loaded are not priced",
}
# The boundary of a perf-backed PMU: traps and reprogramming instead of swaps.
NO_SWAP = "none"
# What a placement does that is paid for, in the order of the rows of `amounts`.
UNITS = ("load", "put", "exit")


def amounts_of(pricing: Pricing, answer: dict[str, Any]) -> Array:
    """Return float64[3, u]: how many loads, puts and exits with the guest's state left on."""
    columns = []
    for key in ("loads", "puts"):
        low, high = answer[f"{key}_low"], answer[f"{key}_high"]
        most = np.nan if high is None else high
        columns.append([low, (low + most) / 2, most])
    # A put at every exit saves the control itself.
    exits = answer.get("exits_loaded", answer["exits"])
    exits = 0 if answer["boundary"] in ("exit", NO_SWAP) else exits
    reads = exits
    if pricing.recorded and pricing.recorded.exit_reads:
        reads = min(exits, pricing.recorded.exit_reads)
    as_recorded = is_own(pricing, answer) and reads < exits
    columns.append([reads, reads, reads] if as_recorded else [0, reads, exits])
    return np.array(columns, np.float64).T


def counts_of(pricing: Pricing, model: Model, answer: dict[str, Any]) -> Array:
    """Return float64[3, k]: a placement's operations; NaN where its swaps have no known bound.

    Beside its swaps and exits a placement may do what only it does (traps of an emulated PMU, the
    trap that arms a demand, reads through a loaded one): `extra_operations` of its answer, {name:
    (low, typical, high)}.
    """
    swaps = count_operations(amounts_of(pricing, answer), vectors_of(pricing, model, answer))
    if is_lower_bound(answer):
        # What else it pays instead of swaps left no trace: dear or cheap, it is not free.
        swaps[1:] = np.nan
    total: Array = swaps + extra_of(model, answer)
    return total


def extra_of(model: Model, answer: dict[str, Any]) -> Array:
    """Return float64[3, k]: what a placement does beside swaps and exits."""
    extra = answer.get("extra_operations", {})
    rows = [model.vector({name: found[at] for name, found in extra.items()}) for at in range(3)]
    return np.stack(rows)


def is_lower_bound(answer: dict[str, Any]) -> bool:
    """Say whether a placement's price holds only what happened to be seen of what it pays."""
    uncounted = answer["boundary"] == NO_SWAP and "extra_operations" not in answer
    return uncounted or answer.get("bound") == "lower"


def priced_assumptions_of(pricing: Pricing, answer: dict[str, Any]) -> list[str]:
    """Return the ids of PRICING_ASSUMPTIONS that this placement's price rests on."""
    used = ["not-modelled"]
    if answer["boundary"] == NO_SWAP:
        lower = is_lower_bound(answer)
        return [*used, "instead-of-swaps" if lower else "emulation-counted"]
    if is_lower_bound(answer):
        used.append("use-unknown")
    kind, told = answer.get("kind", "swap"), answer["options"]["perf_told"]
    if pricing.recorded is None:
        used += ["guest-pmu-state", *(["no-host-events"] if told else [])]
    elif is_own(pricing, answer):
        used.append("recorded-operations")
    else:
        used.append("modelled-operations")
        if told and pricing.told is False:
            used.append("no-host-events")
    if answer["options"].get("selective"):
        used.append("selective")
    evictions = answer.get("evictions") or {"by_context": {}, "perf_core": {"high": 0}}
    if evictions["by_context"] or evictions["perf_core"]["high"]:
        used.append("callbacks-free")
    if answer.get("extra_operations", {}).get("trapped_pmu_write"):
        used.append("arming-traps")
    if kind == "shared":
        used.append("share-only")
    elif not told:
        used.append("host-saved-by-kvm")
    if kind == "hardware":
        used.append("machine-swaps")
    elif any(swap_operations(model.file, "exit", "extra") for model in pricing.models):
        used.append("exit-save")
    return used


def overhead_of(
    pricing: Pricing, answer: dict[str, Any], recording: dict[str, Any]
) -> dict[str, Any]:
    """Return overhead {low_ns, typical_ns, high_ns, percent_of_guest_time, …} of one placement.

    Percentages are null on an emulated machine. A bound of swaps that is unknown leaves high and
    typical null; so does the hull of two vendors' files with typical. `assumed_share`: which share
    of the typical price is made of latencies that are assumed, the larger one of two files; null
    where nothing is paid.
    """
    found, shares = [], []
    for model in pricing.models:
        counts = counts_of(pricing, model, answer)
        found.append(intervals(counts[None], model.latencies)[0])
        share = assumed_share(counts[1:2], model.latencies[1], model.assumed)[0]
        shares.append(share)
    each = np.array(found)
    hull = (each[:, 0].min(), each[0, 1] if len(found) == 1 else np.nan, each[:, 2].max())
    prices = {k: None if np.isnan(v) else float(v) for k, v in zip(LEVELS, hull, strict=True)}
    percent: dict[str, float | None] | None = None
    guest = answer["guest_ns"]
    if recording["emulated"] is not True and guest:
        percent = {k: (None if v is None else 100 * v / guest) for k, v in prices.items()}
    return {
        **{f"{level}_ns": prices[level] for level in LEVELS},
        "percent_of_guest_time": percent,
        "critical_ns": None,
        "absorbed_ns": None,
        "assumed_share": None if np.isnan(shares).any() else float(max(shares)),
        "operations": _operations(pricing, answer),
        "cost_files": [model.file.name for model in pricing.models],
    }


def _operations(pricing: Pricing, answer: dict[str, Any]) -> dict[str, Any]:
    # What one swap consists of, and which of recording and formula says so.
    shown = pricing.recorded
    result: dict[str, Any] = {}
    model = pricing.models[0]
    for direction, vector in zip(("load", "put"), vectors_of(pricing, model, answer), strict=False):
        is_shown = shown is not None and bool(shown.swaps[direction])
        own = is_shown and is_own(pricing, answer)
        result[direction] = {
            "typical_from": "recorded" if is_shown else "formula",
            "ends_from": "recorded" if own else "formula",
            "operations": {
                name: dict(zip(LEVELS, map(float, vector[:, at]), strict=True))
                for at, name in enumerate(model.names)
                if vector[2, at]
            }
            if len(pricing.models) == 1
            else None,
        }
    return result
