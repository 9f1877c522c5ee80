"""C12: does lose_pmu belong into perf core and not into the driver?"""

from __future__ import annotations

from analyzer.claims.common import perf_backed, ratio, registers_missing, unavailable
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Rows, Verdict, unknown

__all__ = ["CLAIM"]

REACHES = ("touches", "persists", "late", "new")
PERF_CORE = 17  # timeline.points.Kind.PERF_CORE


def _decide(e: Evidence, limits: Limits) -> Verdict:
    missing = registers_missing(e) or perf_backed(e)
    if missing is not None:
        return missing
    core, driver = e.meetings("lazy-core", False), e.meetings("lazy-driver", False)
    if core is None or driver is None:
        return unavailable("lazy-core", "lazy-driver")
    acts = e.read("point", ["ts", "kind"]).filter(kind=PERF_CORE)
    conflicts, evicted = {}, {}
    for name, met in (("lazy-core", core), ("lazy-driver", driver)):
        through = met.filter(met["cause"].is_in(REACHES), evidence="observed")
        conflicts[name] = len(through.unique(["ts", "cpu", "context"]))
        totals = e.evictions[name]
        evicted[name] = sum(totals["by_context"].values()) + totals["evicted_by_perf_core"]
    numbers = {
        "evictions_core": evicted["lazy-core"], "evictions_driver": evicted["lazy-driver"],
        "evictions_core_for_nothing": e.evictions["lazy-core"]["evicted_for_nothing"],
        "evictions_ratio": ratio(evicted["lazy-core"], evicted["lazy-driver"]),
        "reached_core": conflicts["lazy-core"], "reached_driver": conflicts["lazy-driver"],
        "perf_core_acts": len(acts),
    }  # fmt: skip
    evidence = (
        Rows("point", len(acts), "kind = PERF_CORE", first_ns(acts)),
        Rows("conflict", len(core), "placement = lazy-core, untold", first_ns(core)),
        Rows("conflict", len(driver), "placement = lazy-driver, untold", first_ns(driver)),
    )
    base = "evictions of a guest's state, and host episodes that reached it before"
    if not len(acts):
        return unknown(
            "where perf core is about to act is not recorded, so the two can't differ",
            "csd:csd_function_entry, or function spans of perf core's entry points",
            numbers=numbers, base=base, evidence=evidence,
        )  # fmt: skip
    if not evicted["lazy-core"] and not evicted["lazy-driver"]:
        return unknown("neither evicts: host perf left the guest's state alone",
                       "host perf active on the guest's CPUs", numbers=numbers, base=base,
                       evidence=evidence)  # fmt: skip
    larger = max(evicted.values())
    if larger < limits["evictions"]:
        return unknown(f"{larger} evictions are too few to compare", "host perf active, for longer",
                       numbers=numbers, base=base, evidence=evidence,
                       deciding=Deciding("evictions", larger, limits["evictions"]))  # fmt: skip
    more = evicted["lazy-core"] > limits["evictions_ratio"] * evicted["lazy-driver"]
    line = limits["evictions_ratio"] * evicted["lazy-driver"]
    deciding = Deciding("core's evictions", evicted["lazy-core"], line)
    if more or conflicts["lazy-core"] > conflicts["lazy-driver"]:
        because = "core evicts where no register access follows" if more else "core meets more"
        return Verdict(FAILS, because, numbers, base, deciding, evidence)
    tie = conflicts["lazy-core"] == conflicts["lazy-driver"] and (
        evicted["lazy-core"] == evicted["lazy-driver"]
    )
    because = "both evict alike" if tie else "core costs little more, and misses nothing"
    return Verdict(HOLDS, because, numbers, base, deciding, evidence,
                   qualifier="tie" if tie else None)  # fmt: skip


CLAIM = Claim("C12", "lose_pmu belongs into perf core, not into the driver",
              "maobibo, Apr 2024", _decide)  # fmt: skip
