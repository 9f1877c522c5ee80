"""C15: does a mediated PMU beat emulation for guests that profile, and cost those that don't?"""

from __future__ import annotations

from typing import Any

from analyzer.claims.common import placement_rows, ratio, unavailable
from analyzer.claims.evidence import Evidence
from analyzer.claims.verdict import Claim, Limits, Rows, Verdict, unknown
from analyzer.replay import load_cost, swap_cost

__all__ = ["CLAIM"]


def _break_even(files: list[str]) -> list[float]:
    # Trapped accesses of the guest's per inner loop at which emulation costs what one swap pair
    # does: the least and the most that the prices allow.
    found = []
    for name in files:
        file = load_cost(name)
        trap = file.operations.get("trapped_pmu_write")
        if trap is None:
            continue
        for level, other in (("low", "high"), ("high", "low")):
            state = "idle" if level == "low" else "busy"
            pair = sum(swap_cost(file, way, state, level) for way in ("load", "put"))
            found.append(pair / float(trap[other]))
    return [min(found), max(found)] if found else []


def _decide(e: Evidence, limits: Limits) -> Verdict:
    loop = e.placement("loop")
    if loop is None or e.placement("emulated", False) is None:
        return unavailable("loop", "emulated")
    mediated = bool(e.marks.get("swaps_recorded"))
    reasons = e.read("exit_reason", ["reason", "count"])
    trapped = reasons.filter(reasons["reason"].str.to_lowercase().str.contains("msr|rdpmc|sys64"))
    numbers: dict[str, Any] = {
        "loops": [loop["loads_low"], loop["loads_high"]],
        "break_even_trapped_accesses_per_loop_priced": _break_even(loop["overhead"]["cost_files"]),
        "exits_for_registers_of_any_kind": dict(trapped.rows()),
        "guest_pmu_on_share": (e.answer or {}).get("recorded", {}).get("pmu_on_share"),
        "recorded_as": "mediated" if mediated else "perf-backed or unknown",
    }
    evidence = (
        *placement_rows(loop), Rows("exit_reason", len(trapped), "exits for register accesses"),
    )  # fmt: skip
    share = ratio(loop["overhead"]["low_ns"], loop["guest_ns"])
    if share is not None and not e.emulated:
        numbers["overhead_loop_lowest_share"] = share
    if mediated:
        because = "a guest with a mediated PMU leaves no trace of what it would have trapped for"
        need = "the same load on a perf-backed vPMU (enable_mediated_pmu=0)"
    else:
        event = "kvm_sys_access" if e.arch == "arm64" else "kvm_msr"
        because = f"which of the guest's exits were for its PMU is not kept: {event}'s register"
        need = f"kvm:{event} with its fields, held as a table: not built"
    return unknown(because, need, numbers=numbers, base="trapped accesses of the guest per loop",
                   evidence=evidence)  # fmt: skip


CLAIM = Claim("C15", "A mediated PMU beats emulation for guests that profile, and costs others",
              "merge text of 7.0; Lewis", _decide)  # fmt: skip
