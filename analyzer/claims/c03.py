"""C3: at the vCPU boundary, does perf lose most of KVM's code?"""

from __future__ import annotations

from typing import Any

import polars as pl

from analyzer.claims.common import (
    EMULATED,
    episodes_of,
    perf_backed,
    placement_rows,
    ratio,
    unavailable,
)
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Rows, Verdict, unknown

__all__ = ["CLAIM"]

KINDS = ("kvm", "interrupt", "user", "other")


def _samples(e: Evidence) -> tuple[pl.DataFrame, dict[str, int]]:
    # Host perf's NMIs while a vCPU's thread runs KVM's code, and how many of them each placement
    # would have lost.
    nmis = episodes_of(e).filter(context="nmi", evidence="observed").select("ts", "cpu")
    modes = e.read("mode_slice", ["ts", "end", "cpu", "vcpu", "mode"])
    modes = modes.drop_nulls("cpu").select("cpu", "mode", begin="ts", till="end").sort("begin")
    found = nmis.sort("ts").join_asof(
        modes, left_on="ts", right_on="begin", by="cpu", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    found = found.filter(pl.col("mode") == "kvm", pl.col("till") > pl.col("ts"))
    lost = {}
    for name in ("loop", "vcpu"):
        met = e.meetings(name, True, most=False)
        if met is not None:
            lost[name] = len(found.join(met.filter(context="nmi"), on=["ts", "cpu"], how="semi"))
    return found, lost


def _decide(e: Evidence, limits: Limits) -> Verdict:
    vcpu, widest = e.placement("vcpu"), e.placement("sched")
    if vcpu is None or widest is None:
        return unavailable("vcpu", "sched")
    if e.arch == "arm64":
        return Verdict(
            FAILS,
            "on arm64 a vCPU's filters are flipped, the host's events of EL2 go on counting",
            qualifier="by construction",
        )
    found, lost = _samples(e)
    kvm_low, whole = vcpu["blind_ns"]["kvm_low"], widest["blind_ns"]["kvm_high"]
    share, sampled = ratio(kvm_low, whole), ratio(lost.get("vcpu"), len(found))
    numbers: dict[str, Any] = {
        "samples_in_kvm": len(found), "samples_lost_vcpu": lost.get("vcpu"),
        "samples_lost_loop": lost.get("loop"), "samples_lost_share": sampled,
        "guest_pmu_on_share": (e.answer or {}).get("recorded", {}).get("pmu_on_share"),
    }  # fmt: skip
    evidence = (
        *placement_rows(vcpu, widest),
        Rows("host_episode", len(found), "context = nmi while mode = kvm", first_ns(found)),
    )
    note = "near 1 by construction wherever a vCPU has a mediated PMU, used or not"
    if not e.emulated and whole:
        numbers |= {
            "kvm_ns": whole, "blind_kvm_ns_vcpu": kvm_low, "blind_kvm_share": share,
            "blind_ns_vcpu": {kind: vcpu["blind_ns"][f"{kind}_high"] for kind in KINDS},
        }  # fmt: skip
        deciding = Deciding("share of KVM's ns that is blind", share or 0.0, limits["blind_share"])
        holds = (share or 0.0) >= limits["blind_share"]
        base = "time in KVM's code on vCPU threads"
        return Verdict(HOLDS if holds else FAILS, note, numbers, base, deciding, evidence)
    backed = perf_backed(e)
    if backed is not None:
        return backed
    if len(found) < limits["samples"]:
        why = EMULATED if e.emulated else "no vCPU ran KVM's code"
        return unknown(
            f"{why}, and {len(found)} samples of host perf in KVM's code are too few",
            "the same load on a real machine, or under perf record -e cycles with the msr events",
            numbers=numbers, evidence=evidence,
            deciding=Deciding("samples in KVM's code", len(found), limits["samples"]),
        )  # fmt: skip
    deciding = Deciding("share of samples that is lost", sampled or 0.0, limits["blind_share"])
    holds = (sampled or 0.0) >= limits["blind_share"]
    base = "host perf's samples in KVM's code, counted: times of an emulated machine mean nothing"
    return Verdict(HOLDS if holds else FAILS, note, numbers, base, deciding, evidence)


CLAIM = Claim("C3", "At the vCPU boundary perf loses most of KVM's code",
              "Zhang and Mi, Apr 2024", _decide)  # fmt: skip
