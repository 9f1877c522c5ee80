"""C16: is unconditional switching at the run loop too dear for production?"""

from __future__ import annotations

from typing import Any

from analyzer.claims.common import EMULATED, overhead, placement_rows, ratio, swaps_of, unavailable
from analyzer.claims.evidence import Evidence
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Verdict, unknown

__all__ = ["CLAIM"]

SECOND = 1e9


def _decide(e: Evidence, limits: Limits) -> Verdict:
    loop = e.placement("loop")
    if loop is None:
        return unavailable("loop")
    missing = [name for name in ("kvm_entry", "kvm_exit") if not e.has(name)]
    if missing:
        return unknown("loops are not recorded", *missing)
    low, high, guest = overhead(loop, "low"), overhead(loop, "high"), loop["guest_ns"]
    least, most = swaps_of(loop)
    # Loops a second of guest time at which the price crosses the line.
    cheapest, dearest = ratio(low, least / 2), ratio(high, (most or 0) / 2)
    crossing = [
        limits["guest_time"] * SECOND / price if price else None for price in (dearest, cheapest)
    ]
    numbers: dict[str, Any] = {
        "loops": [loop["loads_low"], loop["loads_high"]], "price_ns_per_pair": [cheapest, dearest],
        "crossing_loops_per_guest_s": crossing,
        "guest_pmu_on_share": (e.answer or {}).get("recorded", {}).get("pmu_on_share"),
    }  # fmt: skip
    evidence, base = placement_rows(loop), "guest time; priced, not measured"
    if e.emulated:
        return unknown(EMULATED, "the same load on a real machine", numbers=numbers, base=base,
                       evidence=evidence)  # fmt: skip
    if low is None or high is None or not guest:
        return unknown("no price or no guest time", numbers=numbers, base=base, evidence=evidence)
    numbers |= {
        "overhead_share": [low / guest, high / guest], "guest_ns": guest,
        "loops_per_guest_s": loop["loads_low"] / guest * SECOND,
        "idle_guest_overhead_share": [low / guest, None],
        "guest_ns_by_vcpu": {
            str(row["vcpu"]): [row["guest_ns"], row["loads_low"]] for row in loop["by_vcpu"]
        },
    }  # fmt: skip
    if low / guest >= limits["guest_time"]:
        deciding = Deciding("lowest share of guest time", low / guest, limits["guest_time"])
        return Verdict(HOLDS, "even at the lowest price", numbers, base, deciding, evidence)
    deciding = Deciding("highest share of guest time", high / guest, limits["guest_time"])
    if high / guest < limits["guest_time"]:
        return Verdict(FAILS, "even at the highest price", numbers, base, deciding, evidence)
    return unknown(
        "cost ranges overlap the line; see crossing_loops_per_guest_s",
        "latencies of this CPU (analyzer calibrate), or a cost file of it",
        numbers=numbers, base=base, evidence=evidence, deciding=deciding,
    )  # fmt: skip


CLAIM = Claim("C16", "Unconditional switching at the run loop is too dear for production",
              "Christopherson, 26 Apr 2024", _decide)  # fmt: skip
