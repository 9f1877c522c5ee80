"""C13: does dynamic switching give both, vcpu's cost and KVM visible when it is profiled?"""

from __future__ import annotations

from typing import Any

from analyzer.claims.common import (
    EMULATED,
    activity_of,
    overhead,
    placement_rows,
    ratio,
    unavailable,
)
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import (
    FAILS,
    HOLDS,
    NO_EVIDENCE,
    Claim,
    Deciding,
    Limits,
    Part,
    Rows,
    Verdict,
    unknown,
)

__all__ = ["CLAIM"]

NAMES = ("profiled", "dynamic")
MS = 1e6


def _late(e: Evidence, limits: Limits) -> tuple[Part, dict[str, Any], Rows]:
    # How late a host event that is enabled beside a loaded guest starts to count.
    name, met = "a new event must evict at once", e.meetings("vcpu", True)
    late = None if met is None else met.filter(cause="late", evidence="observed")
    which = "placement = vcpu, told, cause = late"
    rows = Rows("conflict", 0, which) if late is None else (
        Rows("conflict", len(late), which, first_ns(late))
    )  # fmt: skip
    if late is None or not len(late):
        return Part(name, NO_EVIDENCE, "no host event was started beside a loaded guest"), {}, rows
    waits = (late["until"] - late["ts"]).drop_nulls()
    numbers: dict[str, Any] = {
        "late_events": len(late),
        "late_open_ended": late["until"].null_count(),
    }
    if e.emulated:
        return Part(name, NO_EVIDENCE, f"{len(late)} would be late; {EMULATED}"), numbers, rows
    p99 = waits.quantile(0.99, "nearest")
    numbers |= {"late_ns_p50": waits.median(), "late_ns_p99": p99, "late_ns_longest": waits.max()}
    holds = p99 is not None and p99 > limits["late_ms"] * MS
    because = f"p99 {0 if p99 is None else p99 / MS:.3f} ms of {len(late)}"
    return Part(name, HOLDS if holds else FAILS, because), numbers, rows


def _one(e: Evidence, name: str, active: float, limits: Limits) -> Part:
    mine, loop, vcpu = e.placement(name), e.placement("loop"), e.placement("vcpu")
    assert mine is not None
    assert loop is not None
    assert vcpu is not None
    if active > limits["active_share"]:
        return Part(name, FAILS, f"host event active for {active:.0%} of the time: it is loop")
    prices = [overhead(p, x) for p in (mine, loop, vcpu) for x in ("low", "high")]
    if None in prices:
        return Part(name, NO_EVIDENCE, "no price")
    m_low, m_high, l_low, l_high, v_low, v_high = (float(p or 0) for p in prices)
    way = limits["overhead_share"]
    if m_low > v_high + way * max(0.0, l_high - v_high):
        return Part(name, FAILS, "its lowest overhead is above the line between vcpu and loop")
    if m_high > v_low + way * max(0.0, l_low - v_low):
        return Part(name, NO_EVIDENCE, "cost ranges overlap")
    if mine["blind_ns_high"] <= limits["blind_ratio"] * loop["blind_ns_low"]:
        return Part(name, HOLDS, "near vcpu's overhead, no more blind than loop")
    # The replay sums blind time over all of a stay, not over the stretches that were profiled.
    return Part(name, NO_EVIDENCE, "blind time while profiled is not told apart in the replay")


def _decide(e: Evidence, limits: Limits) -> Verdict:
    if any(e.placement(name) is None for name in (*NAMES, "loop", "vcpu")):
        return unavailable(*NAMES, "loop", "vcpu")
    on = activity_of(e)
    if on is None:
        return unknown(
            "when which host events were on is not recorded",
            "the host_event table, or msr:write_msr, whose selectors tell",
        )
    answers = [e.placement(name) for name in (*NAMES, "vcpu", "loop")]
    chosen = [a for a in answers if a is not None]
    late, waits, rows = _late(e, limits)
    numbers: dict[str, Any] = {
        f"loads_{a['name']}": [a["loads_low"], a["loads_high"]] for a in chosen
    }
    numbers |= {
        "host_event_changes": on["changes"],
        "counts_as_profiling": "a host event on a CPU whose selector has the OS bit",
        **waits,
    }
    evidence = (
        *placement_rows(*chosen), rows,
        Rows("point", on["changes"], "kind = HOST_EVENTS", on["first_ns"]),
    )  # fmt: skip
    base = "CPU time with a host event on; priced overhead between vcpu's and loop's"
    if not on["changes"]:
        return unknown("no host event was on: nothing was profiled", "the load under perf record",
                       numbers=numbers, base=base, evidence=evidence, parts=(late,))  # fmt: skip
    if e.emulated:
        return unknown(EMULATED, "the same load on a real machine", numbers=numbers, base=base,
                       evidence=evidence, parts=(late,))  # fmt: skip
    share = {"profiled": on["kernel"], "dynamic": on["any"]}
    numbers |= {"active_share_any": on["any"], "active_share_kernel": on["kernel"]}
    numbers["break_even_duty_cycle"] = limits["overhead_share"]
    parts = (*(_one(e, name, share[name], limits) for name in NAMES), late)
    for part in parts[:2]:
        blind = e.placement(part.name)
        assert blind is not None
        numbers[f"blind_ns_{part.name}"] = [blind["blind_ns_low"], blind["blind_ns_high"]]
    verdicts = {part.verdict for part in parts[:2]}
    deciding = Deciding("host event active, share of time", on["any"], limits["active_share"])
    numbers["swaps_above_vcpu"] = ratio(chosen[0]["loads_low"], chosen[2]["loads_low"])
    because = "; ".join(f"{part.name}: {part.because}" for part in parts[:2])
    if HOLDS in verdicts or verdicts == {FAILS}:
        found = HOLDS if HOLDS in verdicts else FAILS
        return Verdict(found, because, numbers, base, deciding, evidence, parts=parts)
    return unknown(because, numbers=numbers, base=base, evidence=evidence, deciding=deciding,
                   parts=parts)  # fmt: skip


CLAIM = Claim("C13", "Dynamic switching gives both: vcpu's cost, KVM visible while it is profiled",
              "Zhang, Apr 2024", _decide)  # fmt: skip
