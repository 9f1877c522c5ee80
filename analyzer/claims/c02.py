"""C2: does the host's timer alone force an exit every 1 or 4 ms?"""

from __future__ import annotations

from typing import Any

import polars as pl

from analyzer.claims.common import EMULATED, ratio
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import (
    FAILS,
    HOLDS,
    Claim,
    Deciding,
    Limits,
    Rows,
    Verdict,
    unknown,
)

__all__ = ["CLAIM"]

# The tick's hrtimer function: 7.3's name, and that of kernels before.
TICKS = ("tick_nohz_handler", "tick_sched_timer")
# Exits for an interrupt of the host's: VMX, SVM, arm64.
INTERRUPTED = ("EXTERNAL_INTERRUPT", "interrupt", "IRQ")
HZ = (100, 250, 300, 1000)
ON_CPU = ("guest", "kvm", "user")
SECOND = 1_000_000_000
NEAR = 0.1  # of a tick's period


def _forced(e: Evidence) -> pl.DataFrame:
    # Ticks whose interrupt is the first after a guest slice that an interrupt ended, before the
    # guest runs again on that CPU: ts, cpu, vcpu.
    ticks = _ticks(e)
    columns = ["ts", "end", "cpu", "vcpu", "reason"]
    slices = e.read("guest_slice", columns).sort("cpu", "end")
    slices = slices.with_columns(next_ts=pl.col("ts").shift(-1).over("cpu"))
    begun = e.read("interrupt", ["ts", "cpu", "kind", "phase"]).filter(
        pl.col("phase") == "entry", pl.col("kind").is_in(["vector", "irq"])
    )
    begun = begun.select("cpu", entry="ts").sort("entry")
    found = ticks.sort("ts").join_asof(
        slices.select("cpu", "end", "vcpu", "reason", "next_ts").sort("end"),
        left_on="ts", right_on="end", by="cpu", strategy="backward", check_sortedness=False,
    )  # fmt: skip
    found = found.filter(
        pl.col("reason").is_in(INTERRUPTED),
        (pl.col("next_ts") > pl.col("ts")) | pl.col("next_ts").is_null(),
    )
    found = found.join_asof(
        begun, left_on="ts", right_on="entry", by="cpu", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    first = begun.rename({"entry": "first"})
    found = found.sort("end").join_asof(
        first, left_on="end", right_on="first", by="cpu", strategy="forward",
        check_sortedness=False,
    )  # fmt: skip
    return found.filter(pl.col("entry") == pl.col("first")).unique(["cpu", "end"])


def _ticks(e: Evidence) -> pl.DataFrame:
    timers = e.read("timer", ["ts", "cpu", "phase", "function_name"])
    return timers.filter(
        pl.col("phase") == "expire_entry", pl.col("function_name").is_in(TICKS)
    ).select("ts", "cpu")


def _hz(ticks: pl.DataFrame) -> int | None:
    gaps = ticks.sort("cpu", "ts").select(gap=pl.col("ts").diff().over("cpu"))["gap"].drop_nulls()
    near = {hz: int(((gaps * hz / SECOND - 1).abs() < NEAR).sum()) for hz in HZ}
    best = max(near, key=lambda hz: near[hz])
    return best if near[best] else None


def _seconds(e: Evidence, forced: pl.DataFrame, hz: int, limits: Limits) -> tuple[float, float]:
    # On-CPU time of vCPUs in seconds of their own, and of it that in which ticks force exits.
    modes = e.read("mode_slice", ["ts", "end", "cpu", "vcpu", "mode"])
    modes = modes.filter(pl.col("mode").is_in(ON_CPU), pl.col("cpu").is_not_null())
    modes = modes.sort("vcpu", "ts").with_columns(ns=pl.col("end") - pl.col("ts"))
    modes = modes.with_columns(before=pl.col("ns").cum_sum().over("vcpu") - pl.col("ns"))
    at = forced.select("vcpu", tick="ts").sort("tick").join_asof(
        modes.sort("ts"), left_on="tick", right_on="ts", by="vcpu", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    at = at.with_columns(bucket=(pl.col("before") + pl.col("tick") - pl.col("ts")) // SECOND)
    counts = {(v, b): n for v, b, n in at.group_by("vcpu", "bucket").len().rows()}
    whole = shown = 0.0
    for vcpu, total in modes.group_by("vcpu").agg(pl.col("ns").sum()).rows():
        for bucket in range(total // SECOND + 1):
            length = min(total - bucket * SECOND, SECOND) / SECOND
            if length < limits["least_s"]:
                continue
            whole += length
            if counts.get((vcpu, bucket), 0) >= limits["rate"] * hz * length:
                shown += length
    return whole, shown


def _decide(e: Evidence, limits: Limits) -> Verdict:
    if not e.has("hrtimer_expire_entry"):
        return unknown("host timers are not recorded", "timer:hrtimer_expire_entry")
    reasons = e.read("guest_slice", ["reason"])["reason"].drop_nulls()
    if not len(reasons):
        return unknown("exit reasons are not recorded", "trace-cmd or perf keep kvm_exit's fields")
    if not (e.has("local_timer_entry") or e.has("irq_handler_entry")):
        return unknown(
            "which interrupt an exit was for is not recorded",
            "irq_vectors:local_timer_entry (x86) or irq:irq_handler_entry",
        )
    ticks, exits = _ticks(e), len(e.read("guest_slice", ["reason"]))
    if not len(ticks):
        named = e.read("timer", ["function_name"])["function_name"].is_not_null().any()
        if not named:
            return unknown("timers' functions have no names", "kernel symbols in the recording")
    forced, hz = _forced(e), _hz(ticks)
    numbers: dict[str, Any] = {
        "ticks": len(ticks), "exits": exits, "tick_forced_exits": len(forced),
        "tick_forced_share_of_exits": ratio(len(forced), exits), "hz": hz,
    }  # fmt: skip
    evidence = (
        Rows("timer", len(ticks), "expire_entry of the tick", first_ns(ticks)),
        Rows("guest_slice", len(forced), "ended by the tick's interrupt", first_ns(forced, "end")),
    )
    base = "on-CPU seconds of vCPUs; shares of exits beside"
    if e.emulated:
        return unknown(
            EMULATED, "the same load on a real machine", numbers=numbers, base=base,
            evidence=evidence,
        )  # fmt: skip
    if hz is None and len(ticks):
        return unknown("ticks come at no known HZ", numbers=numbers, base=base, evidence=evidence)
    whole, shown = _seconds(e, forced, hz or HZ[0], limits)
    if not whole:
        return unknown("no vCPU is long enough on a CPU", "a longer recording", numbers=numbers,
                       evidence=evidence)  # fmt: skip
    share = shown / whole
    others = (exits - len(forced)) / whole
    numbers |= {"on_cpu_s": whole, "seconds_share": share, "other_exits_per_s": others}
    holds = Deciding("share of on-CPU seconds", share, limits["holds_share"])
    if share >= limits["holds_share"]:
        matters = others <= limits["other_exits"] * (hz or 0)
        because = "ticks force exits at HZ" if matters else (
            f"ticks force exits at HZ, but {others:.0f} other exits a second make it immaterial"
        )  # fmt: skip
        return Verdict(HOLDS, because, numbers, base, holds, evidence)
    if share < limits["fails_share"]:
        fails = Deciding("share of on-CPU seconds", share, limits["fails_share"])
        because = "the tick is stopped, or lands while the host runs anyway"
        return Verdict(FAILS, because, numbers, base, fails, evidence)
    return unknown("between the two thresholds: in part of the time", numbers=numbers, base=base,
                   evidence=evidence, deciding=holds)  # fmt: skip


CLAIM = Claim("C2", "The host's timer alone forces an exit every 1 or 4 ms", "Zhang, Apr 2024",
              _decide)  # fmt: skip
