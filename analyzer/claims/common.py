"""What do several claims ask in the same words? Swaps, prices, and what bars a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from analyzer.claims.evidence import Evidence
from analyzer.claims.verdict import Rows, Verdict, unknown

__all__ = [
    "EMULATED", "HANDLERS", "activity_of", "episodes_of", "overhead", "perf_backed",
    "placement_rows", "ratio", "registers_missing", "swaps_of", "unavailable",
]  # fmt: skip

EMULATED = "the machine was emulated, so times mean nothing"
# Contexts that are handlers of hard interrupts, the NMI apart.
HANDLERS = ("tick", "mux_timer", "ipi")
Answer = Mapping[str, Any]
# timeline.points.Kind.HOST_EVENTS, and the bits of its detail.
HOST_EVENTS, SOME, COUNTS_KERNEL = 15, 1, 2


def swaps_of(answer: Answer) -> tuple[int, int | None]:
    """Return the fewest and the most loads and puts together; None: no bound is known."""
    high = (answer["loads_high"], answer["puts_high"])
    most = None if None in high else sum(high)
    return answer["loads_low"] + answer["puts_low"], most


def overhead(answer: Answer, level: str) -> float | None:
    """Return one level of a design's priced overhead in ns."""
    value = answer["overhead"][f"{level}_ns"]
    return None if value is None else float(value)


def ratio(value: float | None, base: float | None) -> float | None:
    """Return value / base; None where either is unknown or the base is 0."""
    return value / base if base and value is not None else None


def unavailable(*names: str) -> Verdict:
    """Return "no evidence" for a placement that this build has not."""
    return unknown(f"placement not available: {', '.join(names)}")


def registers_missing(e: Evidence) -> Verdict | None:
    """Return "no evidence" where nothing recorded shows an access of the PMU; else None."""
    if e.registers:
        return None
    what = (
        "probes on the PMU driver's and KVM's functions" if e.arch == "arm64"
        else "msr:read_msr, msr:write_msr and msr:rdpmc"
    )  # fmt: skip
    return unknown("accesses of the PMU are not recorded", what)


def perf_backed(e: Evidence) -> Verdict | None:
    """Return "no evidence" where perf's work may have been for a perf-backed guest's counters,
    which mediation takes away; else None."""
    if e.arch != "x86" or not e.vpmu_accesses or e.marks.get("swaps_recorded"):
        return None
    return unknown(
        "recorded perf-backed: perf's work for the guest's counters can't be told from the host's",
        "the same load with a mediated vPMU, or with a guest that leaves its PMU alone",
        numbers={"accesses_for_the_guests_counters": e.vpmu_accesses},
        evidence=(Rows("pmu_attribution", e.vpmu_accesses, "actor = vpmu_emulation, vpmu_sched"),),
    )


def episodes_of(e: Evidence) -> pl.DataFrame:
    """Return host perf's episodes: ts, end, cpu, context, edge, evidence, accesses, counters,
    guest_state_on."""
    columns = ["ts", "end", "cpu", "context", "edge", "evidence", "accesses", "counters"]
    return e.read("host_episode", [*columns, "guest_state_on"])


def placement_rows(*answers: Answer) -> tuple[Rows, ...]:
    """Return the rows of table `placement` behind some designs."""
    names = ", ".join(dict.fromkeys(str(a["name"]) for a in answers))
    return (Rows("placement", len(answers), f"placement in ({names})"),)


def activity_of(e: Evidence) -> dict[str, Any] | None:
    """Return the share of CPU time in which host events were on, and those that count the kernel:
    {any, kernel, changes, first_ns}; None where nothing recorded tells.

    Selectors written tell it (points HOST_EVENTS); before a CPU's first such point none is taken
    to be on.
    """
    if not any(e.has(name) for name in ("write_msr", "read_msr", "rdpmc")):
        return None
    points = e.read("point", ["ts", "cpu", "kind", "detail"]).filter(kind=HOST_EVENTS)
    windows = e.read("window", ["cpu", "ts", "end"])
    whole = int((windows["end"] - windows["ts"]).sum() or 0)
    if not whole:
        return None
    ends = windows.select("cpu", window_end="end")
    spans = points.sort("cpu", "ts").join(ends, on="cpu").with_columns(
        ns=pl.col("ts").shift(-1).over("cpu").fill_null(pl.col("window_end")) - pl.col("ts")
    )  # fmt: skip
    shares = {
        word: int(spans.filter((pl.col("detail") & bit) != 0)["ns"].sum() or 0) / whole
        for word, bit in (("any", SOME), ("kernel", COUNTS_KERNEL))
    }
    first = int(points["ts"].min()) if len(points) else None  # type: ignore[arg-type]
    return {**shares, "changes": len(points), "first_ns": first}
