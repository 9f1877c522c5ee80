"""C8: does a swap at sched-out and sched-in come too late, after perf's own hooks?"""

from __future__ import annotations

import polars as pl

from analyzer.claims.common import perf_backed, registers_missing, unavailable
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Rows, Verdict, unknown

__all__ = ["CLAIM"]


def _decide(e: Evidence, limits: Limits) -> Verdict:
    missing = registers_missing(e) or perf_backed(e)
    if missing is not None:
        return missing
    if not e.has("sched_switch"):
        return unknown("context switches are not recorded", "sched:sched_switch")
    frames = [e.meetings(name, False, most=False) for name in ("vcpu", "sched")]
    if frames[0] is None or frames[1] is None:
        return unavailable("vcpu", "sched")
    tids = e.read("vcpu", ["tid"])["tid"].to_list()
    switches = e.read("sched_switch", ["ts", "cpu", "prev_pid", "next_pid"]).filter(
        pl.col("prev_pid").is_in(tids) | pl.col("next_pid").is_in(tids)
    )
    met = [
        frame.filter(context="context_switch", evidence="observed").unique(["ts", "cpu"])
        for frame in frames
        if frame is not None
    ]
    both = pl.concat([frame.select("ts", "cpu") for frame in met]).unique()
    episodes = e.read("host_episode", ["ts", "cpu", "context", "accesses", "guest_state_on"])
    episodes = episodes.filter(context="context_switch")
    mine = episodes.join(both, on=["ts", "cpu"], how="semi")
    numbers = {
        "vcpu_switches": len(switches),
        "with_perf_accesses": len(both),
        "share": len(both) / len(switches) if len(switches) else None,
        "met_vcpu": len(met[0]), "met_sched": len(met[1]),
        "accesses": int(mine["accesses"].sum()),
        # Where the recorded kernel itself swaps at a switch, the order was seen and not replayed.
        "guest_state_on_as_recorded": int(mine["guest_state_on"].sum()),
        "switches_with_perf_anywhere": len(episodes),
    }  # fmt: skip
    if not e.emulated:
        seconds = e.recording["duration_ns"] / 1e9
        numbers["switches_per_s"] = len(switches) / seconds if seconds else None
    evidence = (
        Rows("sched_switch", len(switches), "from or to a vCPU's thread", first_ns(switches)),
        Rows("conflict", len(met[0]), "placement = vcpu, untold, context_switch",
             first_ns(met[0])),
        Rows("conflict", len(met[1]), "placement = sched, untold, context_switch",
             first_ns(met[1])),
    )  # fmt: skip
    base = "switches of vCPU threads; accesses of perf before KVM's put or after its load there"
    deciding = Deciding("switches with perf accesses", len(both), limits["switches"])
    if len(both) >= limits["switches"]:
        because = f"perf touches the PMU in {len(both)} of {len(switches)} switches of vCPU threads"
        return Verdict(HOLDS, because, numbers, base, deciding, evidence)
    if not len(switches):
        return unknown("no vCPU thread was switched", "a longer or busier recording",
                       numbers=numbers, base=base, evidence=evidence)  # fmt: skip
    return Verdict(FAILS, "moot here: perf had nothing to do at these switches", numbers, base,
                   deciding, evidence, qualifier="no task events")  # fmt: skip


CLAIM = Claim("C8", "A switch at sched-out and sched-in comes too late: perf's hooks run first",
              "maobibo to Song Gao, 22 Apr 2024", _decide)  # fmt: skip
