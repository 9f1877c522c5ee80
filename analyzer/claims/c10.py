"""C10: do most of a swap's writes put in what is there already?"""

from __future__ import annotations

from analyzer.claims.common import ratio
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, INFERRED, Claim, Deciding, Limits, Rows, Verdict, unknown
from analyzer.replay import load_cost, swap_cost

__all__ = ["CLAIM"]

ROLES = ("counter", "selector")
# As prices of designs: low and typical an idle guest PMU, high one that is used fully.
LEVELS = {"low": "idle", "high": "busy"}


def _cost_shares(e: Evidence, redundant: dict[str, int], pairs: float) -> dict[str, float]:
    # What the redundant writes would take, as part of swaps that make them: the least and the most.
    answer = e.placement("loop")
    files = [] if answer is None else answer["overhead"]["cost_files"]
    shares: list[tuple[float, float]] = []
    for name in files:
        file = load_cost(name)
        saved, rest = {}, {}
        for level, state in LEVELS.items():
            saved[level] = sum(
                redundant[role] * float(file.operations[f"{role}_write"][level]) for role in ROLES
            )
            rest[level] = pairs * sum(
                swap_cost(file, direction, state, level) for direction in ("load", "put")
            )
        shares.append((
            saved["low"] / (saved["low"] + rest["high"]),
            saved["high"] / (saved["high"] + rest["low"]),
        ))  # fmt: skip
    return {"low": min(s[0] for s in shares), "high": max(s[1] for s in shares)} if shares else {}


def _decide(e: Evidence, limits: Limits) -> Verdict:
    need = "msr:* of a host with a mediated vPMU"
    if e.writes is None:
        return unknown("no swap's writes are recorded with values", need)
    recorded = (e.answer or {}).get("recorded") or {}
    if (recorded.get("evidence") or {}).get("perf") == "untold":
        return unknown("this kernel's swaps save and restore what is the host's, too", need)
    swaps = e.read("recorded_swap", ["ts", "kind", "counters", "kvm_writes", "redundant_writes"])
    swaps = swaps.drop_nulls(["counters", "kvm_writes"])
    walked = int(swaps["counters"].sum())
    if not walked:
        return unknown("no swap's counters are recorded", need)
    # A swap that elides nothing writes each counter and each selector once in each direction.
    made, redundant = {}, {}
    for role in ROLES:
        made[role] = sum(e.writes.get(f"{role}_{way}_made", 0) for way in ("load", "put"))
        changed = sum(e.writes.get(f"{role}_{way}_changed", 0) for way in ("load", "put"))
        redundant[role] = max(0, walked - changed)
    blind = 2 * walked
    share = sum(redundant.values()) / blind
    pairs = len(swaps) / 2
    again = e.writes.get("selector_load_made", 0) - e.writes.get("selector_load_changed", 0)
    cost = _cost_shares(e, redundant, pairs)
    numbers = {
        "blind_writes": blind, "writes_made": made, "redundant": redundant,
        "redundant_share": share, "guest_pmu_on_share": recorded.get("pmu_on_share"),
        "redundant_share_selectors": redundant["selector"] / walked,
        "selector_writes_of_load_redundant_as_recorded": again,
        "redundant_share_as_recorded": ratio(
            int(swaps["redundant_writes"].sum() or 0), int(swaps["kvm_writes"].sum() or 0)
        ),
        "cost_share_priced": cost,
        "selector_saving_priced_ns_per_loop": _saving(e, again, pairs),
    }  # fmt: skip
    evidence = (
        Rows("recorded_swap", len(swaps), "all", first_ns(swaps)),
        Rows("pmu_access", sum(made.values()), "KVM's writes of counters and selectors"),
    )
    base = "general counters' and selectors' writes of swaps that elide none, elided ones inferred"
    deciding = Deciding("redundant share", share, limits["redundant_share"])
    if share < limits["redundant_share"]:
        return Verdict(FAILS, "most writes change the register", numbers, base, deciding,
                       evidence)  # fmt: skip
    if not cost:
        return unknown("no price", numbers=numbers, base=base, evidence=evidence)
    if cost["low"] >= limits["cost_share"]:
        because = "this kernel elides writes, so most of them are inferred from those it made"
        return Verdict(INFERRED, because, numbers, base, deciding, evidence)
    if cost["high"] < limits["cost_share"]:
        deciding = Deciding("highest share of cost", cost["high"], limits["cost_share"])
        return Verdict(FAILS, "they are cheap beside the rest", numbers, base, deciding,
                       evidence)  # fmt: skip
    return unknown("cost ranges overlap", "latencies of this CPU (analyzer calibrate)",
                   numbers=numbers, base=base, evidence=evidence, deciding=deciding)  # fmt: skip


def _saving(e: Evidence, again: int, pairs: float) -> list[float]:
    answer = e.placement("loop")
    files = [] if answer is None else answer["overhead"]["cost_files"]
    prices = [load_cost(name).operations["selector_write"] for name in files]
    if not prices or not pairs:
        return []
    low, high = min(float(p["low"]) for p in prices), max(float(p["high"]) for p in prices)
    return [again * low / pairs, again * high / pairs]


CLAIM = Claim("C10", "Most of a swap's writes put in what is there already",
              "commit b0b6a8d3be16", _decide)  # fmt: skip
