"""Of which operations does one swap consist? KVM's half, and perf's or what stands in its place.

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

from typing import Any

import numpy as np

from analyzer.arch.x86.operations import OPERATION_NAMES
from analyzer.pipeline.prices.model import Model, Pricing
from analyzer.pipeline.prices.operations import RecordedOperations
from analyzer.replay.cost import swap_operations

__all__ = ["is_own", "vectors_of"]

Array = np.ndarray[Any, Any]
# One call that tells perf: perf's half of a swap, but for the registers of its events.
PERF_CALL = "perf_guest_context"


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


def _selective(pricing: Pricing, model: Model, direction: str) -> Array:
    # float64[3, k]: what is done once, and for a counter only if its selector is enabled: none, as
    # many as recorded loads enable, all.
    shown = pricing.recorded
    gp, fixed = shown.enabled if shown else (0.0, 0.0)
    rows = [model.vector(swap_operations(model.file, direction, "idle", 0.0, 0.0))]
    rows.append(model.vector(swap_operations(model.file, direction, "busy", gp, fixed)))
    return np.stack([*rows, _formula(pricing, model, direction)[2]])


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
    if answer.get("options", {}).get("selective"):
        # Never more than the swap of all counters does.
        kvm = np.minimum(kvm, np.maximum.accumulate(_selective(pricing, model, direction)))
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
