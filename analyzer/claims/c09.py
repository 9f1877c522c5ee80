"""C9: do guest values left in counters leak through RDPMC?"""

from __future__ import annotations

import polars as pl

from analyzer.claims.common import unavailable
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, Claim, Deciding, Limits, Rows, Verdict, unknown

__all__ = ["CLAIM"]


def _decide(e: Evidence, limits: Limits) -> Verdict:
    if e.arch != "x86":
        return unknown(f"RDPMC is x86's; of {e.arch} no rule of this kind is known here")
    if not e.has("sched_switch"):
        return unknown("what runs after a put is not recorded", "sched:sched_switch")
    vcpu, widest = e.placement("vcpu"), e.placement("sched")
    if vcpu is None or widest is None:
        return unavailable("vcpu", "sched")
    # Without clearing, whatever user code runs on a CPU after a guest did could read its counts:
    # the VMM's own, and that of tasks switched to. Kernel threads can't be told from those, nor
    # host writes to each counter: an upper bound.
    ran = e.read("guest_slice", ["ts", "end", "cpu"]).group_by("cpu").agg(pl.col("end").min())
    ran = ran.rename({"end": "after"})
    user = e.read("mode_slice", ["ts", "end", "cpu", "vcpu", "mode"]).filter(mode="user")
    user = user.drop_nulls("cpu").join(ran, on="cpu").filter(pl.col("ts") >= pl.col("after"))
    tids = e.read("vcpu", ["tid"])["tid"].to_list()
    switches = e.read("sched_switch", ["ts", "cpu", "prev_pid", "next_pid"]).filter(
        pl.col("prev_pid").is_in(tids), ~pl.col("next_pid").is_in([0, *tids])
    )
    switches = switches.join(ran, on="cpu").filter(pl.col("ts") >= pl.col("after"))
    windows = len(user) + len(switches)
    numbers: dict[str, object] = {
        "permission": (vcpu.get("leak_ns") or {}).get("rdpmc_permission"),
        "windows_none_vmm": len(user), "windows_none_other_tasks": len(switches),
    }  # fmt: skip
    if not e.emulated:
        numbers |= {
            "leak_ns_none_vmm_at_most": int((user["end"] - user["ts"]).sum() or 0),
            "leak_ns_while_loaded_vcpu": (vcpu.get("leak_ns") or {}).get("to_user_high"),
            "leak_ns_while_loaded_sched": (widest.get("leak_ns") or {}).get("to_user_high"),
        }
    evidence = (
        Rows("mode_slice", len(user), "mode = user after a guest ran there", first_ns(user)),
        Rows("sched_switch", len(switches), "from a vCPU to another task", first_ns(switches)),
    )
    base = "stretches of user code after a put that clears nothing; an upper bound"
    deciding = Deciding("windows, clearing none", windows, limits["leak_ns"])
    if windows <= limits["leak_ns"]:
        because = "no user code ran on a CPU after a guest had: nothing could have read its counts"
        return Verdict(FAILS, because, numbers, base, deciding, evidence)
    return unknown(
        "permission unknown: if RDPMC was allowed to these tasks, these windows leak",
        "/sys/bus/event_source/devices/cpu/rdpmc, and which tasks map events",
        "clearing per counter (blind, dirty, none) in the replay",
        numbers=numbers, base=base, evidence=evidence, deciding=deciding,
    )  # fmt: skip


CLAIM = Claim("C9", "Guest values left in counters leak through RDPMC",
              "Christopherson, 15 Apr 2024", _decide)  # fmt: skip
