"""C14: can host and guest not share, so that one owns all or counters are split?"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from analyzer.claims.common import episodes_of, ratio, registers_missing
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import (
    FAILS,
    HOLDS,
    Claim,
    Deciding,
    Limits,
    Part,
    Rows,
    Verdict,
    unknown,
)

__all__ = ["CLAIM"]

# Bits of a set of counters: general ones from 0, fixed ones from 32.
FIXED = 32


def _names(mask: int) -> list[str]:
    return [
        f"fixed {bit - FIXED}" if bit >= FIXED else str(bit)
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    ]


def _decide(e: Evidence, limits: Limits) -> Verdict:
    feasible, because = e.feasible
    numbers: dict[str, Any] = {"feasible": feasible, "because": because}
    refused = "KVM_CREATE_VCPU failed" in because
    word = HOLDS if feasible == "vm_refused" else FAILS if feasible == "yes" else "no evidence"
    first = Part("refused beside each other", word, because)
    evidence: list[Rows] = []
    if refused:
        calls = e.read("kvm_run", ["ts", "cmd"]).filter(cmd=0xAE41)
        evidence.append(Rows("kvm_run", len(calls), "cmd = KVM_CREATE_VCPU", first_ns(calls)))
    x86 = "one global control, status and LVTPC serve all of x86's counters, split or not"
    if registers_missing(e) is None and e.answer is not None:
        swaps = e.read("recorded_swap", ["ts", "guest_counters"]).drop_nulls("guest_counters")
        episodes = episodes_of(e).drop_nulls("counters")
        guest = reduce(or_, swaps["guest_counters"].unique().to_list(), 0)
        host = reduce(or_, episodes["counters"].unique().to_list(), 0)
        numbers |= {
            "guest_counters": _names(guest), "host_counters": _names(host),
            "needed_by_both": _names(guest & host),
        }  # fmt: skip
        met = e.placement("partition", False)
        if met is not None:
            observed = met["conflicts"]["observed"] or {}
            numbers["met_under_partition"] = observed.get("touches")
        evidence += [
            Rows("recorded_swap", len(swaps), "kind = load", first_ns(swaps)),
            Rows("host_episode", len(episodes), "counters known", first_ns(episodes)),
        ]
        if e.arch != "x86" and len(swaps) and len(episodes) and not e.emulated:
            return _by_time(e, numbers, tuple(evidence), first, limits, guest & host)
    if e.arch == "x86":
        return unknown(
            f"{x86}: numbers only", numbers=numbers, parts=(first,), evidence=tuple(evidence),
            base="counters by identity; each fixed one exists once",
        )  # fmt: skip
    return unknown("which counters each side uses is not recorded", "attributes of host events",
                   numbers=numbers, parts=(first,), evidence=tuple(evidence))  # fmt: skip


def _by_time(
    e: Evidence, numbers: dict[str, Any], evidence: tuple[Rows, ...], first: Part, limits: Limits,
    both: int,
) -> Verdict:  # fmt: skip
    # Time of the stays whose load enables a counter that the host uses, too.
    swaps = e.read("recorded_swap", ["ts", "cpu", "kind", "guest_counters"]).sort("cpu", "ts")
    swaps = swaps.with_columns(ns=swaps["ts"].shift(-1) - swaps["ts"])
    loads = swaps.filter(kind="load").drop_nulls("guest_counters")
    needing = [(mask & both) != 0 for mask in loads["guest_counters"].to_list()]
    share = ratio(int(loads.filter(needing)["ns"].sum() or 0), int(loads["ns"].sum() or 0)) or 0.0
    deciding = Deciding("share of loaded time", share, limits["both_share"])
    holds = share > limits["both_share"]
    return Verdict(
        HOLDS if holds else FAILS,
        "both need one counter" if holds else "a split would have served both here",
        numbers, "time with the guest's counters on", deciding, evidence, parts=(first,),
    )  # fmt: skip


CLAIM = Claim("C14", "Host and guest can't share: one owns all, or counters are split",
              "Mi, maobibo, Christopherson, Apr 2024", _decide)  # fmt: skip
