"""What do counted swaps cost on this machine? Operation counts, an interval, and what it rests on.

A load or put is priced by the operations that it consists of. Where the recording shows the
kernel's own swaps, their mean is what the recorded placement pays for each of its own. Elided
writes depend on what ran between two swaps, so for another placement that mean is an estimate only,
and the ends of KVM's half come from the architecture's formula (idle and busy guest), those of
perf's half from the recorded swap that did the least and the one that did the most. Without
recorded swaps all comes from the formula, and perf's half has no host event to move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.arch.x86.operations import OPERATION_NAMES
from analyzer.errors import UsageError
from analyzer.pipeline.operations import RecordedOperations
from analyzer.replay.algebra import assumed_share, count_operations, intervals
from analyzer.replay.cost import (
    LEVELS,
    CostFile,
    is_assumed,
    latencies,
    load_cost,
    swap_operations,
)

__all__ = [
    "PRICING_ASSUMPTIONS",
    "Model",
    "Pricing",
    "amounts_of",
    "cost_files_of",
    "counts_of",
    "overhead_of",
    "priced_assumptions_of",
    "pricing_of",
    "vectors_of",
]

Array = np.ndarray[Any, Any]
# Cost files by what is known of the CPU; without a vendor the hull of both is taken.
FILES = {
    "AuthenticAMD": ("x86-amd",),
    "GenuineIntel": ("x86-intel",),
    "arm64": ("arm64",),
    None: ("x86-amd", "x86-intel"),
}
PRICING_ASSUMPTIONS = {
    "guest-pmu-state": "operations of a swap come from the architecture's formula: low and typical "
    "an idle guest PMU, high one that is used fully",
    "no-host-events": "no swap is recorded: perf's half is priced as if no host event were active",
    "recorded-operations": "swaps of the recorded placement are priced by the mean operations of "
    "the recorded ones",
    "modelled-operations": "typical takes the recorded swaps' mean operations for another place, "
    "too; low an idle guest's formula and perf's smallest recorded half, high a busy guest's and "
    "perf's largest: elided writes depend on what ran between",
    "exit-save": "with the guest's state left on over an exit, KVM saves its global control there: "
    "low never, high at each exit",
    "instead-of-swaps": "what a perf-backed PMU pays instead of swaps is not counted: its price is "
    "a lower bound, with no typical and no high",
    "not-modelled": "cache refill, PEBS drain, and trapped accesses while loaded are not priced",
}
# The boundary of a perf-backed PMU: traps and reprogramming instead of swaps.
NO_SWAP = "none"
# What a placement does that is paid for, in the order of the rows of `amounts`.
UNITS = ("load", "put", "exit")


@dataclass(frozen=True, slots=True)
class Model:
    """One cost file as arrays: k operation names, latencies float64[3, k] in ns, bool[k]."""

    file: CostFile
    names: tuple[str, ...]
    latencies: Array
    assumed: Array

    def vector(self, operations: dict[str, float]) -> Array:
        """Return float64[k]; UsageError for an operation that the file has no price for."""
        for name in operations:
            if name not in self.names:
                raise UsageError(f"cost file {self.file.name}: there is no [op.{name}]")
        return np.array([operations.get(name, 0.0) for name in self.names], np.float64)


@dataclass(frozen=True, slots=True)
class Pricing:
    """How this recording is priced: cost files, and the operations that it shows (or None).

    on_share: in which share of the swaps the guest's PMU is on; None: as often as recorded, or
    never where nothing is. A demand placement swaps for such guests only.
    """

    models: tuple[Model, ...]
    recorded: RecordedOperations | None
    placement: str | None
    on_share: float | None = None


def cost_files_of(recording: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the shipped files for a recording's vendor; two where none is known."""
    return FILES.get(recording["vendor"], FILES[None])


def pricing_of(
    recording: dict[str, Any],
    cost: str | None,
    recorded: RecordedOperations | None,
    placement: str | None,
) -> Pricing:
    """Return the pricing with the user's cost file, else the vendor's. `placement`: the recorded
    kernel's own, None where it is not known."""
    models = []
    for name in (cost,) if cost else cost_files_of(recording):
        file = load_cost(name)
        arch = recording["arch"]
        if arch is not None and file.arch not in (None, arch):
            raise UsageError(f"cost file {name} is for {file.arch}; the recording is of {arch}")
        for direction in ("load", "put"):
            for state in ("idle", "busy"):
                if state not in file.swaps.get(direction, {}):
                    raise UsageError(f"cost file {name}: there is no [swap.{direction}.{state}]")
        names = tuple(sorted(file.operations))
        models.append(Model(file, names, latencies(file, names), is_assumed(file, names)))
    return Pricing(tuple(models), recorded, placement)


def _formula(pricing: Pricing, model: Model, direction: str) -> Array:
    # float64[3, k]: idle, idle and busy by share, busy. `maximum` for a user's odd file.
    shown = pricing.recorded
    gp = shown.gp if shown else (None,) * 3
    fixed = shown.fixed if shown else (None,) * 3

    def of(state: str, at: int) -> Array:
        found = swap_operations(model.file, direction, state, gp[at], fixed[at])
        if shown and shown.apic == "xapic" and "lvtpc_write_x2apic" in found:
            found["lvtpc_write_xapic"] = found.pop("lvtpc_write_x2apic")
        return model.vector(found)

    on = pricing.on_share or 0.0
    middle = (1 - on) * of("idle", 1) + on * of("busy", 1)
    return np.maximum.accumulate(np.stack([of("idle", 0), middle, of("busy", 2)]))


def _kvm(pricing: Pricing, shown: RecordedOperations, direction: str) -> dict[str, float]:
    on, off = shown.by_state[direction, "on"], shown.by_state[direction, "off"]
    if pricing.on_share is None or not on or not off:
        return shown.kvm[direction]
    share = {True: pricing.on_share, False: 1 - pricing.on_share}
    return {
        name: share[True] * on.get(name, 0.0) + share[False] * off.get(name, 0.0)
        for name in sorted(on.keys() | off.keys())
    }


def _swap(pricing: Pricing, model: Model, direction: str, is_own: bool) -> Array:
    # float64[3, k]: operations of one load or put.
    formula = _formula(pricing, model, direction)
    shown = pricing.recorded
    if shown is None or not shown.swaps[direction]:
        return formula
    # KVM's calls and a store to the xAPIC leave no event: those are the formula's.
    unseen = formula[1] * np.array([name not in OPERATION_NAMES for name in model.names])
    kvm = unseen + model.vector(_kvm(pricing, shown, direction))
    perf = [
        model.vector(part[direction]) for part in (shown.perf_least, shown.perf, shown.perf_most)
    ]
    if is_own:
        return np.stack([kvm + perf[1]] * 3)
    ends = np.minimum(formula[0], kvm) + perf[0], np.maximum(formula[2], kvm) + perf[2]
    return np.stack([ends[0], kvm + perf[1], ends[1]])


def vectors_of(pricing: Pricing, model: Model, boundary: str) -> Array:
    """Return float64[u, 3, k]: the operations of one load, one put and one exit under it."""
    is_own = boundary == pricing.placement
    extra = model.vector(swap_operations(model.file, "exit", "extra"))
    rows = [_swap(pricing, model, direction, is_own) for direction in ("load", "put")]
    return np.stack([*rows, np.stack([extra] * 3)])


def amounts_of(pricing: Pricing, answer: dict[str, Any]) -> Array:
    """Return float64[3, u]: how many loads, puts and exits with the guest's state left on."""
    columns = []
    for key in ("loads", "puts"):
        low, high = answer[f"{key}_low"], answer[f"{key}_high"]
        most = np.nan if high is None else high
        columns.append([low, (low + most) / 2, most])
    # A put at every exit saves the control itself.
    exits = 0 if answer["boundary"] in ("exit", NO_SWAP) else answer["exits"]
    reads = exits
    if pricing.recorded and pricing.recorded.exit_reads:
        reads = min(exits, pricing.recorded.exit_reads)
    is_own = answer["boundary"] == pricing.placement and reads < exits
    columns.append([reads, reads, reads] if is_own else [0, reads, exits])
    return np.array(columns, np.float64).T


def counts_of(pricing: Pricing, model: Model, answer: dict[str, Any]) -> Array:
    """Return float64[3, k]: a placement's operations; NaN where its swaps have no known bound.

    Beside its swaps and exits a placement may do what only it does (traps of an emulated PMU, the
    trap that arms a demand, reads through a loaded one): `extra_operations` of its answer, {name:
    (low, typical, high)}.
    """
    swaps = count_operations(
        amounts_of(pricing, answer), vectors_of(pricing, model, answer["boundary"])
    )
    if answer["boundary"] == NO_SWAP and "extra_operations" not in answer:
        # What it pays instead of swaps nobody has counted: dear or cheap, it is not free.
        swaps[1:] = np.nan
    extra = answer.get("extra_operations", {})
    rows = [model.vector({name: found[at] for name, found in extra.items()}) for at in range(3)]
    total: Array = swaps + np.stack(rows)
    return total


def priced_assumptions_of(pricing: Pricing, answer: dict[str, Any]) -> list[str]:
    """Return the ids of PRICING_ASSUMPTIONS that this placement's price rests on."""
    used = ["not-modelled"]
    if answer["boundary"] == NO_SWAP:
        return [*used, "instead-of-swaps"]
    if pricing.recorded is None:
        used += ["guest-pmu-state", "no-host-events"]
    elif answer["boundary"] == pricing.placement:
        used.append("recorded-operations")
    else:
        used.append("modelled-operations")
    if any(swap_operations(model.file, "exit", "extra") for model in pricing.models):
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
        "operations": _operations(pricing, answer["boundary"]),
        "cost_files": [model.file.name for model in pricing.models],
    }


def _operations(pricing: Pricing, boundary: str) -> dict[str, Any]:
    # What one swap consists of, and which of recording and formula says so.
    shown = pricing.recorded
    result: dict[str, Any] = {}
    model = pricing.models[0]
    for direction, vector in zip(
        ("load", "put"), vectors_of(pricing, model, boundary), strict=False
    ):
        is_shown = shown is not None and bool(shown.swaps[direction])
        is_own = is_shown and boundary == pricing.placement
        result[direction] = {
            "typical_from": "recorded" if is_shown else "formula",
            "ends_from": "recorded" if is_own else "formula",
            "operations": {
                name: dict(zip(LEVELS, map(float, vector[:, at]), strict=True))
                for at, name in enumerate(model.names)
                if vector[2, at]
            }
            if len(pricing.models) == 1
            else None,
        }
    return result
