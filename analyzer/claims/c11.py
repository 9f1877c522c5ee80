"""C11: does a callback before host perf touches the PMU make a wide boundary safe?"""

from __future__ import annotations

import polars as pl

from analyzer.claims.common import (
    perf_backed,
    placement_rows,
    registers_missing,
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

NAMES = ("lazy-core", "lazy-driver")
# What reaches registers with a guest's state on them. `new` is the guest's own overflow: with the
# interrupt left as the host has it, it comes as an NMI, before any callback.
REACHES = ("touches", "persists", "late", "new")


def _swaps_less(e: Evidence, limits: Limits) -> Part:
    lazy, vcpu = e.placement("lazy-core", False), e.placement("vcpu")
    if lazy is None or vcpu is None or not vcpu["loads_low"] or not vcpu["loads_high"]:
        return Part("swaps less", NO_EVIDENCE, "no load at vcpu to hold it against")
    most, least = lazy["loads_high"] / vcpu["loads_low"], lazy["loads_low"] / vcpu["loads_high"]
    words = f"{lazy['loads_low']} loads against vcpu's {vcpu['loads_low']}"
    if most <= limits["loads_holds"]:
        return Part("swaps less", HOLDS, words)
    if least >= limits["loads_fails"]:
        pulled = sum(e.evictions["lazy-core"]["by_context"].values())
        why = f"host perf evicts {pulled} times" if pulled else "it puts at vcpu_put all the same"
        return Part("swaps less", FAILS, f"{words}: {why}")
    return Part("swaps less", NO_EVIDENCE, f"{words}: between the thresholds")


def _decide(e: Evidence, limits: Limits) -> Verdict:
    missing = registers_missing(e) or perf_backed(e)
    if missing is not None:
        return missing
    numbers: dict[str, object] = {}
    evidence: list[Rows] = []
    reached, met_or_ended = {}, {}
    open_ = 0
    paths_of_core: list[tuple[str, int]] = []
    for name in NAMES:
        met, least = e.meetings(name, False), e.meetings(name, False, most=False)
        answer = e.placement(name, False)
        if met is None or least is None or answer is None:
            return unavailable(*NAMES)
        once = met.filter(evidence="observed").unique(["ts", "cpu", "context"])
        through = _through(least)
        open_ += len(_through(met)) - len(through)
        ended = sum(n for n in e.evictions[name]["by_context"].values())
        reached[name], met_or_ended[name] = len(through), len(once) + ended
        paths = through.group_by("context").len().sort("context")
        paths_of_core = paths_of_core if name != NAMES[0] else paths.rows()
        numbers |= {
            f"{name}_reached": dict(paths.rows()),
            f"{name}_evicted_by": {k: n for k, n in e.evictions[name]["by_context"].items() if n},
            f"{name}_put_for_another_vcpu_or_cpu": (
                e.evictions[name]["displaced_by_a_vcpu"] + e.evictions[name]["migrated"]
            ),
            f"{name}_loads": [answer["loads_low"], answer["loads_high"]],
        }
        which = f"placement = {name}, untold, cause in touches, persists, late, new"
        evidence.append(Rows("conflict", len(through), which, first_ns(through)))
        evidence += placement_rows(answer)
    numbers["put_price_ns_in_the_evicting_handler"] = _latency(e)
    count, base = met_or_ended["lazy-core"], "host episodes that met a stay or ended it"
    less = (_told(e), _swaps_less(e, limits))
    fell = reached["lazy-core"]
    if fell:
        words = ", ".join(f"{context} {n}" for context, n in paths_of_core)
        because = f"{fell} reached the registers with the guest's state on them: {words}"
        return Verdict(FAILS, because, numbers, base, Deciding("reached", fell, 1),
                       tuple(evidence), parts=(Part("safe", FAILS, because), *less))  # fmt: skip
    if open_:
        because = f"the marks leave open whether {open_} fall inside a stay"
        return unknown(because, numbers=numbers, base=base, evidence=tuple(evidence),
                       parts=(Part("safe", NO_EVIDENCE, because), *less))  # fmt: skip
    deciding = Deciding("episodes, none of which reached it", count, limits["episodes"])
    if count < limits["episodes"]:
        because = f"{count} host episodes are too few to call it safe"
        return unknown(because, "host perf active beside the load, for longer", numbers=numbers,
                       base=base, evidence=tuple(evidence), deciding=deciding,
                       parts=(Part("safe", NO_EVIDENCE, because), *less))  # fmt: skip
    because = "each was suppressed or came after the eviction"
    return Verdict(HOLDS, because, numbers, base, deciding, tuple(evidence),
                   parts=(Part("safe", HOLDS, because), *less))  # fmt: skip


def _through(met: pl.DataFrame) -> pl.DataFrame:
    seen = met.filter(pl.col("cause").is_in(REACHES), evidence="observed")
    return seen.unique(["ts", "cpu", "context"])


def _told(e: Evidence) -> Part:
    # The same callback with perf told besides, which moves the guest's overflow off the NMI.
    name, met = "safe if perf is told, too", e.meetings("lazy-core", True)
    if met is None or not e.read("host_episode", ["ts"]).height:
        return Part(name, NO_EVIDENCE, "no host episode")
    count = len(_through(met))
    return Part(name, FAILS if count else HOLDS, f"{count} reach the registers")


def _latency(e: Evidence) -> list[float | None]:
    # What an eviction adds to the handler that causes it: one put, priced as vcpu's swaps are.
    vcpu = e.placement("vcpu")
    swaps = 0 if vcpu is None else vcpu["loads_low"] + vcpu["puts_low"]
    if vcpu is None or not swaps or vcpu["overhead"]["high_ns"] is None:
        return [None, None]
    most = vcpu["loads_high"] + vcpu["puts_high"]
    return [vcpu["overhead"]["low_ns"] / swaps, vcpu["overhead"]["high_ns"] / most]


CLAIM = Claim("C11", "A callback before host perf touches the PMU makes a wide boundary safe",
              "maobibo, Apr 2024; Upton and Lewis for the lazy load", _decide)  # fmt: skip
