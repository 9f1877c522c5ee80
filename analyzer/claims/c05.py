"""C5: do tick, timer and IPI handlers touch the PMU while the guest's state would be on?"""

from __future__ import annotations

from typing import Any

import polars as pl

from analyzer.claims.common import (
    HANDLERS,
    activity_of,
    perf_backed,
    registers_missing,
    unavailable,
)
from analyzer.claims.evidence import Evidence, distinct, first_ns
from analyzer.claims.verdict import (
    FAILS,
    NO_EVIDENCE,
    Claim,
    Deciding,
    Limits,
    Part,
    Rows,
    Verdict,
    overall,
    unknown,
)

__all__ = ["CLAIM"]

# Untold, what host perf does reaches the registers; told, what persists does.
REACHES = {False: ("touches",), True: ("persists", "late")}
WORDS = {False: "untold", True: "told"}
BOUNDARIES = ("vcpu", "sched")


def _decide(e: Evidence, limits: Limits) -> Verdict:
    missing = registers_missing(e) or perf_backed(e)
    if missing is not None:
        return missing
    numbers: dict[str, Any] = {}
    evidence: list[Rows] = []
    counts: dict[bool, tuple[int, int]] = {}
    for told, word in WORDS.items():
        for name in BOUNDARIES:
            met, longest = e.meetings(name, told, most=False), e.meetings(name, told)
            if met is None or longest is None:
                return unavailable(*BOUNDARIES)
            beside = (*HANDLERS, "context_switch")
            every = distinct(met, beside, REACHES[told])
            mine = every.filter(pl.col("context").is_in(HANDLERS))
            kinds = every.filter(evidence="observed").group_by("context").len().sort("context")
            numbers[f"{name}_{word}"] = dict(kinds.rows())
            if name == "vcpu":
                seen = len(mine.filter(evidence="observed"))
                counts[told] = (seen, len(mine) - seen)
                numbers[f"handlers_{word}"] = [
                    len(mine), len(distinct(longest, HANDLERS, REACHES[told]))
                ]  # fmt: skip
                which = f"placement = vcpu, {word}, context in tick, mux_timer, ipi"
                evidence.append(Rows("conflict", len(mine), which, first_ns(mine)))
                if mine.height and not told:
                    effects = met.filter(pl.col("context").is_in(HANDLERS))["consequence"]
                    numbers["untold_consequences"] = dict(effects.value_counts().sort(
                        "consequence").rows())  # fmt: skip
    on = activity_of(e)
    stayed = e.placement("vcpu")
    seconds = 0.0 if stayed is None else stayed["residency_ns_low"] / 1e9
    episodes = int(e.read("host_episode", ["ts"]).height)
    numbers |= {"host_episodes": episodes, "host_events_on": None if on is None else on["changes"]}
    if not e.emulated:
        numbers["residency_s"] = seconds
        if seconds:
            numbers["untold_per_s"] = sum(counts[False]) / seconds
    parts = tuple(
        _part(word, counts[told], limits, episodes, None if e.emulated else seconds)
        for told, word in WORDS.items()
    )
    first = parts[0]
    base = "host episodes with a register access inside a stay at vcpu; told and untold apart"
    deciding = Deciding("handlers' episodes, untold", sum(counts[False]), limits["episodes"])
    if first.verdict == NO_EVIDENCE:
        need = "a host event in freq mode (perf record -F) beside the load, and 10 s of it"
        return unknown(first.because, need, numbers=numbers, base=base, evidence=tuple(evidence),
                       deciding=deciding, parts=parts)  # fmt: skip
    second = parts[1].verdict
    qualifier = None if second == first.verdict else f"untold; told: {second}"
    return Verdict(first.verdict, first.because, numbers, base, deciding, tuple(evidence),
                   qualifier=qualifier, parts=parts)  # fmt: skip


def _part(
    word: str, counts: tuple[int, int], limits: Limits, episodes: int, seconds: float | None
) -> Part:
    seen, inferred = counts
    verdict = overall(seen >= limits["episodes"], inferred >= limits["episodes"])
    if verdict != FAILS:
        return Part(word, verdict, f"{seen} observed, {inferred} inferred")
    if not episodes:
        return Part(word, NO_EVIDENCE, "no host event was active, so none could be met")
    if seconds is None or seconds < limits["residency_s"]:
        stay = "an emulated machine's stays" if seconds is None else f"{seconds:.2f} s of stays"
        because = f"none met in {stay}, {limits['residency_s']:g} s are needed to say never"
        return Part(word, NO_EVIDENCE, because)
    return Part(word, FAILS, f"none in {seconds:.1f} s of residency with host events on")


CLAIM = Claim(
    "C5",
    "Tick, hrtimer and IPI handlers touch the PMU while the guest's state would be loaded",
    "maobibo, Apr 2024",
    _decide,
)
