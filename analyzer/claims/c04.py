"""C4: is the inner loop already a blind spot?"""

from __future__ import annotations

from typing import Any

from analyzer.claims.common import EMULATED, overhead, placement_rows, swaps_of, unavailable
from analyzer.claims.evidence import Evidence
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Verdict, unknown

__all__ = ["CLAIM"]


def _decide(e: Evidence, limits: Limits) -> Verdict:
    if e.arch != "x86":
        return unknown("only x86 has an inner loop that swaps around it")
    inner, loop = e.placement("exit"), e.placement("loop")
    if inner is None or loop is None:
        return unavailable("exit", "loop")
    entries = inner["loads_low"]
    again_low = max(0, entries - loop["loads_high"])
    again_high = max(0, entries - loop["loads_low"])
    blind_low, blind_high = loop["blind_ns_low"], loop["blind_ns_high"]
    numbers: dict[str, Any] = {
        "entries": entries, "loops": [loop["loads_low"], loop["loads_high"]],
        "reentries": [again_low, again_high],
    }  # fmt: skip
    if not e.emulated:
        numbers |= {"blind_ns": [blind_low, blind_high], "blind_by_reason_ns": _reasons(loop)}
    evidence = placement_rows(inner, loop)
    base = "VM entries that no load precedes; blind time is from exit to re-entry"
    deciding = Deciding("fast-path re-entries", again_low, limits["reentries"])
    if again_low >= limits["reentries"]:
        return Verdict(HOLDS, "exits are handled and re-entered while perf sees nothing", numbers,
                       base, deciding, evidence)  # fmt: skip
    low, high = overhead(loop, "low"), overhead(loop, "high")
    pairs = limits["swap_pairs"]
    if not e.emulated and high is not None and blind_low > pairs * high:
        time = Deciding("blind ns of the inner loop", blind_low, pairs * high)
        return Verdict(HOLDS, "more of the host's time is blind than swapping takes", numbers,
                       base, time, evidence)  # fmt: skip
    if e.marks.get("hidden_reentries"):
        return unknown("this kernel emits no event at a fast-path re-entry", "a kernel of 6.1 on",
                       numbers=numbers, evidence=evidence)  # fmt: skip
    if again_high < limits["reentries"] and (blind_high == 0 or not e.emulated):
        if low is None or blind_high <= pairs * low:
            return Verdict(FAILS, f"{swaps_of(loop)[0] // 2} inner loops, each entered once",
                           numbers, base, deciding, evidence)  # fmt: skip
        return unknown("cost ranges overlap", numbers=numbers, base=base, evidence=evidence)
    why = "the marks leave it open which entries are re-entries"
    return unknown(
        f"no re-entry, and {EMULATED}: blind time can't decide" if again_high < limits["reentries"]
        else why,
        "kvm_exit with its fields (trace-cmd, perf) or msr:read_msr",
        numbers=numbers, base=base, evidence=evidence, deciding=deciding,
    )  # fmt: skip


def _reasons(loop: Any) -> dict[str, list[int]]:
    rows = [row for row in loop.get("by_reason", ()) if row["blind_ns_high"]]
    return {
        str(row["reason"] or "not recorded"): [row["blind_ns_low"], row["blind_ns_high"]]
        for row in rows
    }


CLAIM = Claim("C4", "The inner loop is already a blind spot", "merge text of 7.0", _decide)
