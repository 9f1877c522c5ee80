"""C17: do interrupts off and a per-CPU guard for NMIs make the swap safe?"""

from __future__ import annotations

import polars as pl

from analyzer.claims.c07 import inside_swaps
from analyzer.claims.common import episodes_of, registers_missing
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Rows, Verdict, unknown

__all__ = ["CLAIM"]

# Boundaries between whose load and put interrupts are off throughout.
INTERRUPTS_OFF = ("loop", "exit")
HANDLER = "perf_event_nmi_handler"


def _nmis(e: Evidence) -> pl.DataFrame:
    # perf's NMIs that began between a load's and a put's KVM half: ts, cpu. The event comes when
    # the handler is done, delta_ns after it began.
    columns = ["ts", "cpu", "kind", "handler_name", "delta_ns"]
    nmis = e.read("interrupt", columns).filter(kind="nmi")
    named = nmis.filter(handler_name=HANDLER)
    # Where no handler has a name each NMI has one event a handler: an end is one NMI.
    nmis = named if len(named) else nmis.filter(pl.col("handler_name").is_null())
    nmis = nmis.select("cpu", ts=pl.col("ts") - pl.col("delta_ns").fill_null(0)).sort("ts")
    stays = e.read("owner_slice", ["ts", "end", "cpu", "owner"]).filter(owner="vcpu")
    stays = stays.select("cpu", begin="ts", till="end").sort("begin")
    found = nmis.join_asof(stays, left_on="ts", right_on="begin", by="cpu", strategy="backward",
                           check_sortedness=False)  # fmt: skip
    return found.filter(pl.col("till") > pl.col("ts"))


def _decide(e: Evidence, limits: Limits) -> Verdict:
    missing = registers_missing(e)
    if missing is not None:
        return missing
    if not e.marks.get("swaps_recorded"):
        return unknown("no swap of registers is recorded", "msr:* of a host with a mediated vPMU")
    recorded = (e.answer or {}).get("recorded") or {}
    told = (recorded.get("evidence") or {}).get("perf")
    if told == "untold":
        return unknown("this kernel doesn't tell perf: no guard was set",
                       "a kernel that calls perf's guest-context API")  # fmt: skip
    if not e.has("nmi_handler"):
        return unknown("NMIs are not recorded", "nmi:nmi_handler")
    where = recorded.get("placement")
    swaps = inside_swaps(e)
    # Before the guard on a load and after it on a put perf's own NMIs are perf's own.
    halves = swaps.filter(~pl.col("guest_state_on"), context="nmi")
    foreign = swaps.filter(pl.col("context") != "nmi")
    inside = episodes_of(e).filter("guest_state_on")
    kinds = inside.group_by("context").len().sort("context")
    found = _nmis(e)
    off = where in INTERRUPTS_OFF
    bad = pl.concat([inside if off else inside.filter(context="nmi"), foreign]).unique(
        ["ts", "cpu"]
    )
    numbers = {
        "recorded_placement": where, "nmis_between_load_and_put": len(found),
        "nmis_that_touched_the_pmu_there": inside.filter(context="nmi").height,
        "episodes_with_guest_state_on": dict(kinds.rows()),
        "nmis_in_perfs_half_of_swaps": len(halves),
        "other_contexts_inside_swaps": len(foreign),
    }  # fmt: skip
    evidence = (
        Rows("interrupt", len(found), "perf's NMIs inside owner_slice vcpu", first_ns(found)),
        Rows("host_episode", len(bad), "inside a swap or stay", first_ns(bad)),
    )
    base = "host perf's NMIs and accesses inside recorded swaps and stays"
    if not off:
        base += "; interrupts are on in these stays, so other contexts count inside swaps only"
    if len(bad):
        first = bad.sort("ts")["context"][0]
        because = f"{len(bad)} host episodes inside, first in context {first}"
        deciding = Deciding("episodes inside", len(bad), 1)
        return Verdict(FAILS, because, numbers, base, deciding, evidence)
    deciding = Deciding("NMIs between load and put", len(found), limits["nmis"])
    if len(found) < limits["nmis"]:
        return unknown(f"{len(found)} NMIs fell between load and put: too few",
                       "a host event that samples often, for longer", numbers=numbers, base=base,
                       evidence=evidence, deciding=deciding)  # fmt: skip
    return Verdict(HOLDS, "none of these NMIs touched a register, and nothing else came",
                   numbers, base, deciding, evidence)  # fmt: skip


CLAIM = Claim("C17", "Interrupts off and a per-CPU guard for NMIs make the swap safe",
              "Zhang, Apr 2024", _decide)  # fmt: skip
