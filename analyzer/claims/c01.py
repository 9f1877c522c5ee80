"""C1: is swapping at the vCPU boundary far cheaper than at VM entry and exit?"""

from __future__ import annotations

from typing import Any

from analyzer.claims.common import EMULATED, overhead, placement_rows, ratio, swaps_of, unavailable
from analyzer.claims.evidence import Evidence
from analyzer.claims.verdict import (
    FAILS,
    HOLDS,
    IMMATERIAL,
    Claim,
    Deciding,
    Limits,
    Rows,
    Verdict,
    unknown,
)

__all__ = ["CLAIM"]

MARKS = ("kvm_run_ioctl", "kvm_fpu", "kvm_userspace_exit", "kvm_timer")
REASONS = 3


def _decide(e: Evidence, limits: Limits) -> Verdict:
    loop, vcpu, inner = e.placement("loop"), e.placement("vcpu"), e.placement("exit")
    if loop is None or vcpu is None:
        return unavailable("loop", "vcpu")
    missing = [name for name in ("kvm_entry", "kvm_exit", "sched_switch") if not e.has(name)]
    if not any(e.marks.get(name) for name in MARKS):
        missing.append("syscalls:sys_enter_ioctl, or kvm:kvm_fpu, or kvm:kvm_userspace_exit")
    if missing:
        return unknown("what bounds a stay at vcpu is not recorded", *missing)
    (loop_low, loop_high), (vcpu_low, vcpu_high) = swaps_of(loop), swaps_of(vcpu)
    guest = loop["guest_ns"]
    numbers: dict[str, Any] = {
        "swaps_loop": [loop_low, loop_high], "swaps_vcpu": [vcpu_low, vcpu_high],
        "swaps_exit": None if inner is None else list(swaps_of(inner)),
        "swaps_ratio": ratio(vcpu_low, loop_high), "swaps_ratio_by_vcpu": _by_vcpu(loop, vcpu),
        "saving_lost_to": _lost(vcpu, loop),
    }  # fmt: skip
    evidence = (
        *placement_rows(loop, vcpu),
        Rows("placement_reason", len(vcpu.get("by_reason", ())), "placement = vcpu"),
    )
    base = "swaps = loads and puts; priced overhead as a share of guest time"
    swaps = Deciding("swaps(vcpu) / swaps(loop)", ratio(vcpu_low, loop_high) or 0.0,
                     limits["swaps_ratio"])  # fmt: skip
    # The fewest of vcpu against the most of loop: no bound of the marks speaks for the claim.
    if loop_high is not None and vcpu_low >= limits["swaps_ratio"] * loop_high:
        because = "nearly each loop ends with leaving to user space or with a switch"
        return Verdict(FAILS, because, numbers, base, swaps, evidence)
    if e.emulated:
        return unknown(
            f"{EMULATED}: by counts it does not fail", "the same load on a real machine",
            numbers=numbers, base=base, evidence=evidence, deciding=swaps,
        )  # fmt: skip
    prices = [overhead(p, level) for p in (loop, vcpu) for level in ("low", "high")]
    if None in prices or not guest:
        return unknown("no price or no guest time", numbers=numbers, base=base, evidence=evidence)
    l_low, l_high, v_low, v_high = (float(p or 0) for p in prices)
    saved_low, saved_high = (l_low - v_high) / guest, (l_high - v_low) / guest
    saved_swaps = loop_low - (vcpu_high or 0)
    numbers |= {
        "overhead_loop_ns": [l_low, l_high], "overhead_vcpu_ns": [v_low, v_high],
        "saving_share": [saved_low, saved_high], "guest_ns": guest,
        "break_even_ns_per_swap": ratio(limits["saving"] * guest, saved_swaps),
    }  # fmt: skip
    if saved_high < limits["saving"]:
        because = "the saving at the highest price is not worth having"
        deciding = Deciding("saving of guest time, highest", saved_high, limits["saving"])
        return Verdict(IMMATERIAL, because, numbers, base, deciding, evidence)
    cost = Deciding("overhead vcpu highest / loop lowest", ratio(v_high, l_low) or 0.0,
                    limits["overhead_ratio"])  # fmt: skip
    if v_high < limits["overhead_ratio"] * l_low and saved_low >= limits["saving"]:
        because = "even vcpu's highest price is far below loop's lowest"
        return Verdict(HOLDS, because, numbers, base, cost, evidence)
    return unknown(
        "cost ranges overlap; break_even_ns_per_swap is the price from which it would matter",
        "latencies of this CPU (analyzer calibrate), or a cost file of it",
        numbers=numbers, base=base, evidence=evidence, deciding=cost,
    )  # fmt: skip


def _by_vcpu(loop: Any, vcpu: Any) -> dict[str, float | None]:
    rows = zip(loop.get("by_vcpu", ()), vcpu.get("by_vcpu", ()), strict=True)
    return {
        str(mine["vcpu"]): ratio(
            inner["loads_low"] + inner["puts_low"], mine["loads_high"] + mine["puts_high"]
        )
        for mine, inner in rows
    }


def _lost(vcpu: Any, loop: Any) -> dict[str, str]:
    # Which exits end a stay at vcpu, too: there the saving is lost.
    at_loop = {row["reason"]: row["puts_high"] for row in loop.get("by_reason", ())}
    rows = sorted(vcpu.get("by_reason", ()), key=lambda row: -row["puts_low"])
    return {
        str(row["reason"] or "not recorded"): f"{row['puts_low']} of {at_loop.get(row['reason'])}"
        for row in rows[:REASONS]
        if row["puts_low"]
    }


CLAIM = Claim(
    "C1",
    "Swapping at the vCPU boundary is far cheaper than at VM entry and exit",
    "Zhang and maobibo, Apr 2024",
    _decide,
)
