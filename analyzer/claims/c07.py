"""C7: does a swap on the exit path meet no host interrupt, the NMI apart?"""

from __future__ import annotations

import polars as pl

from analyzer.claims.common import episodes_of, registers_missing, unavailable
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import (
    FAILS,
    HOLDS,
    INFERRED,
    Claim,
    Deciding,
    Limits,
    Rows,
    Verdict,
    unknown,
)

__all__ = ["CLAIM", "inside_swaps"]

BOUNDARIES = ("loop", "exit")
# A guest's own overflow is no interrupt of the host's: where perf isn't told it comes as an NMI.
_OTHERS = ~pl.col("context").is_in(["nmi", "guest_pmi"])


def inside_swaps(e: Evidence) -> pl.DataFrame:
    """Return host episodes that begin inside a recorded swap, from its first access to its last."""
    swaps = e.read("recorded_swap", ["ts", "end", "cpu"]).sort("ts")
    if not e.marks.get("swaps_recorded"):
        swaps = swaps.clear()  # what is recorded sets filters: no register moves
    swaps = swaps.select("cpu", begin="ts", till="end")
    found = episodes_of(e).sort("ts").join_asof(
        swaps, left_on="ts", right_on="begin", by="cpu", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    return found.filter(pl.col("till") >= pl.col("ts")).drop("begin", "till")


def _decide(e: Evidence, limits: Limits) -> Verdict:
    missing = registers_missing(e)
    if missing is not None:
        return missing
    seen = episodes_of(e).filter(evidence="observed")
    within = inside_swaps(e)
    numbers: dict[str, object] = {"host_episodes": len(seen)}
    others: list[pl.DataFrame] = [within.filter(pl.col("context") != "nmi")]
    nmis = [within.filter(context="nmi").select("ts", "cpu")]
    evidence = []
    open_ = 0
    for name in BOUNDARIES:
        met, least = e.meetings(name, False), e.meetings(name, False, most=False)
        if met is None or least is None:
            return unavailable(*BOUNDARIES)
        once = met.filter(evidence="observed").unique(["ts", "cpu", "context"])
        kinds = once.group_by("context").len().sort("context")
        numbers[f"met_{name}"] = dict(kinds.rows())
        certain = least.filter(_OTHERS, evidence="observed").unique(["ts", "cpu", "context"])
        others.append(certain)
        open_ += len(once.filter(_OTHERS)) - len(certain)
        nmis.append(once.filter(context="nmi").select("ts", "cpu"))
        evidence.append(Rows("conflict", len(once), f"placement = {name}, untold", first_ns(once)))
    in_nmi = len(pl.concat(nmis).unique())
    stays = e.placement("loop")
    unseen = None if stays is None else (stays.get("unseen") or {}).get("episodes_high")
    kinds = within.group_by("context").len().sort("context")
    numbers |= {"inside_recorded_swaps": dict(kinds.rows()), "nmis": in_nmi,
                "unseen_at_most": unseen}  # fmt: skip
    evidence.append(Rows("host_episode", len(within), "inside recorded_swap", first_ns(within)))
    base = "host episodes, observed; inside a stay of loop or exit, or inside a recorded swap"
    fell = sum(len(frame) for frame in others)
    if fell:
        first = next(frame for frame in others if len(frame))
        because = f"{fell} met, first in context {first['context'][0]}"
        return Verdict(FAILS, because, numbers, base, Deciding("met, NMIs apart", fell, 1),
                       tuple(evidence))  # fmt: skip
    if open_:
        because = f"the marks leave open whether {open_} fall inside a stay"
        return unknown(because, "kvm_exit's fields", numbers=numbers, base=base,
                       evidence=tuple(evidence))  # fmt: skip
    deciding = Deciding("host episodes, none met", len(seen), limits["episodes"])
    if len(seen) < limits["episodes"]:
        return unknown(
            f"none of {len(seen)} host episodes met a guest's state: too few to say never",
            "a longer recording with host perf active", numbers=numbers, base=base,
            evidence=tuple(evidence), deciding=deciding,
        )  # fmt: skip
    qualifier = f"but for {in_nmi} NMIs" if in_nmi else None
    if e.marks.get("kvm_exit_is_late"):
        # A guest is taken to have stopped where the host first acts: then nothing falls inside.
        because = "kvm_exit comes late here: slices end by rule where the host first acts"
        return Verdict(INFERRED, because, numbers, base, deciding, tuple(evidence),
                       qualifier=qualifier)  # fmt: skip
    told = "PMIs that the recorded kernel kept off are not among them: see unseen_at_most"
    because = told if unseen else "host perf acted only while the PMU was the host's"
    return Verdict(HOLDS, because, numbers, base, deciding, tuple(evidence),
                   qualifier=qualifier)  # fmt: skip


CLAIM = Claim("C7", "A swap on the exit path meets no host interrupt, NMIs apart",
              "maobibo, Apr 2024 (of LoongArch)", _decide)  # fmt: skip
