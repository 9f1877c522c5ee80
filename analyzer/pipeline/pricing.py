"""What do counted swaps cost on this machine? Operation counts, an interval, and what it rests on.

A load or put is priced by the operations that it consists of. Where the recording shows the
kernel's own swaps, their mean is what the recorded placement pays for each of its own. Elided
writes depend on what ran between two swaps, so for another placement that mean is an estimate only,
and the ends of KVM's half come from the architecture's formula (idle and busy guest), those of
perf's half from the recorded swap that did the least and the one that did the most. Without
recorded swaps all comes from the formula, and perf's half has no host event to move.

Who moves what depends on the design: where perf is told, perf moves its own events; untold, KVM
saves and restores the host's registers instead; with the machine's help KVM moves none.
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
    "extra_of",
    "is_lower_bound",
    "is_own",
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
    "no-host-events": "no half of perf's is recorded: it is priced as if no host event were active",
    "recorded-operations": "swaps of the recorded placement are priced by the mean operations of "
    "the recorded ones",
    "modelled-operations": "typical takes the recorded swaps' mean operations for another place, "
    "too; low an idle guest's formula and perf's smallest recorded half, high a busy guest's and "
    "perf's largest: elided writes depend on what ran between",
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
# One call that tells perf: perf's half of a swap, but for the registers of its events.
PERF_CALL = "perf_guest_context"
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

    placement, told: the recorded kernel's own, None where not known. on_share: in which share of
    the swaps the guest's PMU is on; None: as often as recorded, or never where nothing is. A demand
    placement swaps for such guests only.
    """

    models: tuple[Model, ...]
    recorded: RecordedOperations | None
    placement: str | None
    on_share: float | None = None
    told: bool | None = None


def cost_files_of(recording: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the shipped files for a recording's vendor; two where none is known."""
    return FILES.get(recording["vendor"], FILES[None])


def pricing_of(
    recording: dict[str, Any],
    cost: str | None,
    recorded: RecordedOperations | None,
    placement: str | None,
    told: bool | None = None,
) -> Pricing:
    """Return the pricing with the user's cost file, else the vendor's. `placement` and `told`: the
    recorded kernel's own, None where not known."""
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
    return Pricing(tuple(models), recorded, placement, told=told)


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


def is_own(pricing: Pricing, answer: dict[str, Any]) -> bool:
    """Say whether a placement is the recorded kernel's own: by its name and its rule, as others
    (loop-demand, hardware) swap at the same boundary by rules of theirs."""
    told = answer.get("options", {}).get("perf_told", True)
    return (
        pricing.placement is not None
        and answer.get("name") == pricing.placement
        and answer.get("kind", "swap") == "swap"
        and not answer.get("has_rules", False)
        and pricing.told in (None, told)
    )


def _host_registers(pricing: Pricing, model: Model, direction: str) -> Array:
    # float64[3, k]: KVM's saving or restoring of what is the host's, as the grammars
    # arch.x86.swaps.amd_save_host and amd_restore_host have it. Other architectures' formulas say
    # themselves what is saved.
    shown = pricing.recorded
    rows = []
    for at in range(3):
        gp, fixed = (
            float(found[at] if found else model.file.counters.get(name, 0))
            for name, found in (
                ("gp", shown.gp if shown else None), ("fixed", shown.fixed if shown else None),
            )
        )  # fmt: skip
        if direction == "load":
            operations = {
                "status_read": 1.0 + (fixed > 0), "global_ctrl_write": 1.0,
                "counter_read_msr": gp, "counter_read": gp + fixed,
            }  # fmt: skip
        else:
            operations = {
                "global_ctrl_write": 1.0, "fixed_ctrl_write": float(fixed > 0),
                "selector_write": gp, "counter_write": gp + fixed,
            }  # fmt: skip
        known = operations.keys() <= set(model.names)
        rows.append(model.vector(operations if known else {}))
    return np.maximum.accumulate(np.stack(rows))


def _swap(pricing: Pricing, model: Model, direction: str, answer: dict[str, Any]) -> Array:
    # float64[3, k]: operations of one load or put: KVM's half (or the machine's), and perf's or
    # what KVM does in its place.
    formula = _formula(pricing, model, direction)
    kind, own = answer.get("kind", "swap"), is_own(pricing, answer)
    told = answer.get("options", {}).get("perf_told", True) and kind != "shared"
    calls = np.array([name == PERF_CALL for name in model.names])
    shown = pricing.recorded
    is_shown = shown is not None and bool(shown.swaps[direction])
    if is_shown:
        assert shown is not None
        # KVM's calls and a store to the xAPIC leave no event: those are the formula's.
        unseen = formula[1] * np.array([name not in OPERATION_NAMES for name in model.names])
        seen = model.vector(_kvm(pricing, shown, direction))
        if pricing.told is False and not own:
            # What an untold kernel does for the host is in its accesses too.
            seen = np.maximum(seen - _host_registers(pricing, model, direction)[1], 0.0)
        mean = unseen + seen
        ends = np.minimum(formula[0], mean), mean, np.maximum(formula[2], mean)
        kvm = np.stack([mean] * 3) if own else np.stack(ends)
    else:
        kvm = formula
    if kind == "hardware":
        kvm = kvm * calls
    if not told:
        # The calls that tell perf are not made.
        kvm = np.where(calls, 0.0, kvm)
        is_in = own and pricing.told is False
        if kind == "shared" or is_in:
            return kvm
        return kvm + _host_registers(pricing, model, direction)
    if not is_shown:
        return kvm
    assert shown is not None
    # The machine leaves perf's half where `loop` has it.
    same = own or (kind == "hardware" and pricing.placement == answer.get("boundary"))
    parts = (shown.perf,) * 3 if same else (shown.perf_least, shown.perf, shown.perf_most)
    perf = np.stack([model.vector(part[direction]) for part in parts])
    result: Array = kvm + perf
    return result


def vectors_of(pricing: Pricing, model: Model, answer: dict[str, Any]) -> Array:
    """Return float64[u, 3, k]: the operations of one load, one put and one exit under it."""
    saves = answer.get("kind", "swap") != "hardware"
    extra = model.vector(swap_operations(model.file, "exit", "extra") if saves else {})
    rows = [_swap(pricing, model, direction, answer) for direction in ("load", "put")]
    return np.stack([*rows, np.stack([extra] * 3)])


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
