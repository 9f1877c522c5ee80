"""What did the operations cost on the recorded machine itself? Latencies out of gaps in bursts.

An msr event is stamped after its instruction, so between two consecutive accesses of one burst lie
the record of the first (the tracer's own cost T), the code between them, and the instruction of the
second: gap = T + L. Only that sum is seen. Every record costs the same (the three msr events share
one layout), so differences of gaps are differences of latencies, and one latency has to be taken
from elsewhere: that of the operation with the smallest median gap, the anchor, from the inherited
cost file. T = the anchor's median gap less that; L = an operation's median gap less T. What is
wrong in the anchor's latency is wrong in all by as much, and no more than its own few ns.

Code between two accesses is in L. KVM's and perf's paths differ in it, so each operation is taken
where it is tightest: from the actor with its smallest median.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.arch.x86.operations import OPERATION_NAMES
from analyzer.errors import MissingEvents, OutputError, UsageError
from analyzer.pipeline.prices.model import cost_files_of
from analyzer.pipeline.prices.operations import accesses
from analyzer.replay.cost import LEVELS, SCHEMA, CostFile, load_cost
from analyzer.store import Store
from analyzer.timeline.attribution.words import ACTORS, Actor

if TYPE_CHECKING:
    import polars as pl

__all__ = ["calibrate", "cost_toml", "write_cost_file"]

Array = np.ndarray[Any, Any]
BURSTS = (Actor.KVM_LOAD, Actor.KVM_PUT, Actor.PERF_LOAD, Actor.PERF_PUT, Actor.HOST_PERF)
# Chosen by us: below this an order statistic of the 5th percentile rests on less than five gaps.
LEAST_GAPS = 100
# Of a normal law: the rank interval of a median at 99 %.
Z99 = 2.576


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps before one operation, made by one actor; ns. low and high: 99 % interval of the median
    by order statistics, widened by half a step of the clock."""

    operation: str
    actor: str
    gaps: int
    least: float
    p5: float
    low: float
    median: float
    high: float
    p95: float


def _count_gaps(store: Store) -> pl.DataFrame:
    # (operation, actor, gap) with how often: what a burst's consecutive accesses on one CPU give.
    import polars as pl

    keys = ["operation", "actor", "gap"]
    found, carried = [], None
    columns = ["ts", "cpu", "actor", "episode", "operation"]
    for rows in accesses(store, ["ts", "cpu"], ["episode"]):
        # What is nobody's access of the PMU stands between two that are all the same.
        rows = rows.select(columns)
        rows = rows if carried is None else pl.concat([carried, rows])
        before = pl.col("ts", "actor", "episode").shift(1).over("cpu").name.prefix("last_")
        gaps = rows.with_columns(before).filter(
            pl.col("actor").is_in(BURSTS),
            pl.col("actor") == pl.col("last_actor"),
            pl.col("episode").eq_missing(pl.col("last_episode")),
        )
        gaps = gaps.with_columns(gap=pl.col("ts") - pl.col("last_ts"))
        found.append(gaps.group_by(keys).len())
        carried = rows.group_by("cpu", maintain_order=True).last().select(columns)
    if not found:
        return pl.DataFrame(schema={**dict.fromkeys(keys, pl.Int64), "len": pl.Int64})
    return pl.concat(found).group_by(keys).agg(pl.col("len").sum()).sort(keys)


def _statistics(operation: str, actor: str, gaps: Array, times: Array, step: int) -> Gaps:
    # gaps: int64[m] rising and different, times: int64[m] how often each.
    reached = np.cumsum(times)
    number = int(reached[-1])

    def at(rank: float) -> float:
        rank = min(max(int(rank), 0), number - 1)
        return float(gaps[np.searchsorted(reached, rank, side="right")])

    half = Z99 * number**0.5 / 2
    return Gaps(
        operation, actor, number, float(gaps[0]), at(0.05 * number),
        at(number / 2 - half) - step / 2, (at((number - 1) // 2) + at(number // 2)) / 2,
        at(number / 2 + half) + step / 2, at(0.95 * number),
    )  # fmt: skip


def _tightest(counted: pl.DataFrame) -> tuple[dict[str, Gaps], dict[str, int], int]:
    # By operation: the actor with the smallest median; how many gaps in all; the clock's step.
    step = int(np.gcd.reduce(counted["gap"].to_numpy())) if counted.height else 0
    best: dict[str, Gaps] = {}
    total: dict[str, int] = {}
    for (operation, actor), rows in counted.group_by(["operation", "actor"], maintain_order=True):
        gaps, times = rows["gap"].to_numpy(), rows["len"].to_numpy().astype(np.int64)
        found = _statistics(OPERATION_NAMES[operation], ACTORS[actor], gaps, times, step)
        total[found.operation] = total.get(found.operation, 0) + found.gaps
        other = best.get(found.operation)
        if found.gaps >= LEAST_GAPS and (other is None or found.median < other.median):
            best[found.operation] = found
    return best, total, step


def _refuse_unfit(store: Store, emulated: bool | None) -> None:
    recording = store.manifest["recording"]
    known = recording["emulated"]
    if known is True or emulated is True:
        raise MissingEvents(
            f"{store.path}: the machine was emulated or a guest itself, so its latencies mean "
            "nothing; record on bare metal"
        )
    if known is None and emulated is None:
        raise UsageError(
            f"{store.path}: nothing tells whether the machine was emulated: say --emulated no if "
            "it was bare metal"
        )
    if not store.rows("pmu_access"):
        raise MissingEvents(f"{store.path}: no register access is recorded: record the msr events")


def calibrate(
    store: Store, cost: str | None = None, emulated: bool | None = None
) -> dict[str, Any]:
    """Return {schema, recording, inherits, tracer_ns, anchor, operations, refused, …}, JSON-ready.

    cost: the file to inherit from, else the vendor's. MissingEvents for an emulated machine and
    where nothing can be told; UsageError where nobody says whether it was one, or whose CPU it was.
    """
    _refuse_unfit(store, emulated)
    recording = store.manifest["recording"]
    names = (cost,) if cost else cost_files_of(recording)
    if len(names) != 1:
        raise UsageError(f"{store.path}: no vendor is known: name --cost, {' or '.join(names)}")
    file = load_cost(names[0])
    best, total, step = _tightest(_count_gaps(store))
    best = {name: found for name, found in best.items() if name in file.operations}
    if len(best) < 2:
        raise MissingEvents(
            f"{store.path}: {len(best)} kinds of register access with {LEAST_GAPS} gaps inside "
            "bursts; allowed: 2 or more, since one alone cannot be told from the tracer's own cost"
        )
    anchor = min(best.values(), key=lambda found: (found.median, found.operation))
    known = file.operations[anchor.operation]
    tracer = (
        max(anchor.low - known["high"], 0.0),
        max(anchor.median - known["typical"], 0.0),
        max(anchor.high - known["low"], 0.0),
    )
    measured, refused = [], _refused(file, best, total)
    for name, found in sorted(best.items()):
        latency = (found.low - tracer[2], found.median - tracer[1], found.high - tracer[0])
        if name == anchor.operation:
            because = "the anchor: only its sum with the tracer's own cost is seen"
        elif found.low <= anchor.high or latency[0] <= 0:
            because = f"cannot be told from {anchor.operation} and the tracer's own cost"
        else:
            measured.append(_measured(found, latency, file))
            continue
        refused.append({"operation": name, "because": because})
    return {
        "schema": "vpmu-analyzer/calibrate/1",
        "recording": recording,
        "inherits": names[0],
        "clock_step_ns": step,
        "tracer_ns": dict(zip(LEVELS, tracer, strict=True)),
        # T varies from record to record; no record can have cost more than the smallest gap left.
        "cheapest_record_at_most_ns": anchor.least,
        "anchor": {
            "operation": anchor.operation,
            "median_gap_ns": anchor.median,
            "latency_ns": {level: known[level] for level in LEVELS},
            "kind": known["kind"],
        },
        "operations": measured,
        "refused": sorted(refused, key=lambda row: row["operation"]),
        "output": None,
    }


def _measured(found: Gaps, latency: tuple[float, float, float], file: CostFile) -> dict[str, Any]:
    return {
        "operation": found.operation,
        "actor": found.actor,
        "gaps": found.gaps,
        "least_ns": found.least,
        "p5_ns": found.p5,
        "median_ns": found.median,
        "median_interval_ns": [found.low, found.high],
        "p95_ns": found.p95,
        "latency_ns": dict(zip(LEVELS, latency, strict=True)),
        "inherited_ns": {level: file.operations[found.operation][level] for level in LEVELS},
    }


def _refused(file: CostFile, best: dict[str, Gaps], total: dict[str, int]) -> list[dict[str, str]]:
    # What no gap can tell, by name, so that nobody takes an inherited number for a measured one.
    rows = []
    for name in sorted(file.operations.keys() - best.keys()):
        if name == "trace_record":
            because = "estimated beside the rest, but with the code between two accesses in it"
        elif name not in OPERATION_NAMES:
            because = "no register access that an event shows: needs a loop of its own"
        elif total.get(name, 0):
            because = f"{total[name]} gaps, of one actor less than the {LEAST_GAPS} needed"
        else:
            because = "not recorded, or only as the first access of a burst, which ends no gap"
        rows.append({"operation": name, "because": because})
    return rows


def _text(value: str) -> str:
    # TOML's basic strings take JSON's escapes; what is not printable is shown as its code.
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value)
    return json.dumps(shown, ensure_ascii=False)


def cost_toml(answer: dict[str, Any], name: str) -> str:
    """Return the cost file of a calibration: every fitted operation is `measured`, with its n."""
    recording, tracer, anchor = answer["recording"], answer["tracer_ns"], answer["anchor"]
    span = " / ".join(f"{tracer[level]:.1f}" for level in LEVELS)
    says = (
        f"gaps between consecutive msr events of one burst, less the tracer's own {span} ns a "
        f"record, which is the median gap before {anchor['operation']}, "
        f"{anchor['median_gap_ns']:.1f} ns, less its inherited latency ({anchor['kind']})"
    )
    lines = [
        f"schema = {_text(SCHEMA)}",
        'unit = "ns"',
        f"name = {_text(name)}",
        f"inherits = {_text(answer['inherits'])}",
        f"title = {_text('calibrated from ' + str(recording['path']))}",
        "",
        "# Inherited as they are:",
        *(f"#   {row['operation']}: {row['because']}" for row in answer["refused"]),
    ]
    for row in answer["operations"]:
        low, high = row["median_interval_ns"]
        note = (
            f"n = {row['gaps']} gaps of {row['actor']}; median {row['median_ns']:.1f} "
            f"(99 %: {low:.1f} .. {high:.1f}), p5 {row['p5_ns']:.0f}, p95 {row['p95_ns']:.0f}, "
            "tracer's own cost in all; low and high hold its uncertainty"
        )
        lines += ["", f"[op.{row['operation']}]"]
        lines += [f"{level} = {row['latency_ns'][level]:.2f}" for level in LEVELS]
        lines += ['kind = "measured"', 'source = ["recording"]', f"note = {_text(note)}"]
    where = ", ".join(
        str(recording[key]) for key in ("vendor", "kernel", "recorder") if recording.get(key)
    )
    lines += ["", "[[source]]", 'id = "recording"', f"title = {_text(str(recording['path']))}"]
    lines += [f"where = {_text(where or 'not recorded')}", f"says = {_text(says)}"]
    return "\n".join(lines) + "\n"


def write_cost_file(answer: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write the calibration as a cost file, whole or not at all, and return it with `output`.

    UsageError for a name that `--cost` would not take as a path; OutputError where it fails.
    """
    if output.suffix != ".toml":
        raise UsageError(f"-o is {str(output)!r}; allowed: a name that ends in .toml")
    aside = None
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(cost_toml(answer, output.stem))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, output)
    except OSError as error:
        if aside is not None and os.path.exists(aside):
            os.unlink(aside)
        raise OutputError(f"{output}: cannot write: {error.strerror}") from error
    return {**answer, "output": str(output)}
