"""Which conflicts, one by one? Rows with the recorded events around each on its CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from analyzer.errors import MissingEvents, UsageError
from analyzer.pipeline.meetings.conflicts import (
    conflict_rows,
    load_episodes,
    summary_of,
    timer_interrupts,
    timer_interrupts_met,
)
from analyzer.pipeline.part import Asked, part_of
from analyzer.pipeline.replays import Design, replay_all
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline.attribution import CONTEXTS

__all__ = ["conflicts_of"]

Array = np.ndarray[Any, Any]
# Recorded events shown before and after each.
AROUND = 2
BESIDE = ("ts", "cpu", "tid")
# Tables of recorded events, all with ts and cpu; what one line shows of each beside its name.
SHOWN = {
    "vm_entry": ("vcpu_id",),
    "vm_exit": ("reason",),
    "userspace_exit": ("reason",),
    "kvm_run": ("phase", "cmd", "ret"),
    "kvm_fpu": ("load",),
    "kvm_msr": ("write", "ecx", "data", "exception"),
    "pmu_access": ("op", "register", "index", "value"),
    "interrupt": ("name", "phase", "vector", "handler_name"),
    "function_call": ("phase", "func_name"),
    "timer": ("phase", "function_name"),
    "sched_switch": ("prev_pid", "next_pid"),
    "wakeup": ("phase", "pid"),
    "function_span": ("name", "phase"),
    "other_event": ("name",),
}


def conflicts_of(
    store: Store, designs: list[Design], context: str | None, limit: int | None,
    asked: Asked | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the conflicts of each design with the lines around them, `limit` of each at most.

    `asked` restricts what is listed and counted; all of the recording is replayed.

    `schema` is vpmu-analyzer/conflicts/1. MissingEvents where nothing could show any; UsageError
    for a context that there is not.
    """
    if context is not None and context not in CONTEXTS[1:]:
        known = ", ".join(dict.fromkeys(CONTEXTS[1:]))
        raise UsageError(f"--context is {context!r}; allowed: {known}")
    episodes = load_episodes(store)
    if not episodes.recorded and not len(episodes.context):
        problem = "no register accesses are recorded, so no episode of host perf is known"
        raise MissingEvents(f"{store.path}: {problem}; record msr:read_msr, write_msr and rdpmc")
    vendor = store.manifest["recording"]["vendor"]
    part = part_of(store, asked or Asked())
    outcomes, _ = replay_all(store, designs, part)
    timed = timer_interrupts(store, part)
    lists: list[dict[str, Any]] = []
    for design in designs:
        outcome = outcomes[design]
        rows, fewest = (
            conflict_rows(design, outcome, episodes, vendor, part, bound) for bound in (1, 0)
        )
        if context is not None:
            rows, fewest = rows.filter(context=context), fewest.filter(context=context)
        timers = timer_interrupts_met(timed, outcome.runs[1], part)
        chosen = rows if limit is None else rows.head(limit)
        lists.append(
            {
                "placement": design.placement.name,
                "options": design.options,
                "summary": summary_of(rows, fewest, episodes, timers),
                "rows_of_all": len(rows),
                "rows": chosen.to_dicts(),
            }
        )
    _add_lines(store, [row for item in lists for row in item["rows"]])
    begin = store.manifest["recording"]["begin_ns"]
    said = (asked or Asked()).as_json()
    return {
        "schema": "vpmu-analyzer/conflicts/1", "begin_ns": begin, "asked": said, "designs": lists,
    }  # fmt: skip


def _add_lines(store: Store, rows: list[dict[str, Any]]) -> None:
    # Every row gets `event`, what was recorded of it first, and `lines`: the events around that in
    # order of time on its CPU. Events of one time keep the order of their tables.
    if not rows:
        return
    wanted: dict[int, Array] = {}
    for cpu in {row["cpu"] for row in rows}:
        wanted[cpu] = np.unique(np.array([r["ts"] for r in rows if r["cpu"] == cpu], np.int64))
    first = _first_accesses(store, {row["episode"] for row in rows} - {None})
    near = pl.concat([_near(store, table, wanted) for table in SHOWN])
    for cpu in wanted:
        mine = near.filter(cpu=cpu).sort("ts", "order", "row")
        stamps = mine["ts"].to_numpy()
        place = {pair: at for at, pair in enumerate(mine.select("table", "row").rows())}
        exits = dict(mine.filter(table="vm_exit").select("ts", "row").rows())
        for row in rows:
            if row["cpu"] != cpu:
                continue
            # A guest's overflow shows by its exit; an inferred episode by nothing.
            table, number = "vm_exit", exits.get(row["ts"])
            if row["episode"] is not None:
                table, number = "pmu_access", first.get(row["episode"])
            row["event"] = None
            if number is not None:
                row["event"] = {"table": table, "row": number, "ts": row["ts"], "cpu": cpu}
            at = place.get((table, number), int(np.searchsorted(stamps, row["ts"])))
            part = mine.slice(max(0, at - AROUND), min(at, AROUND) + 1 + AROUND)
            row["lines"] = part.drop("cpu", "order").to_dicts()


def _first_accesses(store: Store, episodes: set[int]) -> dict[int, int]:
    # Row of each episode's first access in pmu_access, which pmu_attribution has row by row.
    found: dict[int, int] = {}
    wanted = np.array(sorted(episodes), np.int64)
    at = 0
    for batch in store.batches("pmu_attribution", ["episode"], 1 << 20):
        numbers = batch.column("episode").fill_null(-1).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.isin(numbers, wanted)).tolist():
            found.setdefault(int(numbers[place]), at + place)
        at += len(numbers)
    return found


def _near(store: Store, table: str, wanted: dict[int, Array]) -> pl.DataFrame:
    # Of one table, the last AROUND events before and the first AROUND + 1 from each wanted time.
    kept = []
    first = 0
    columns = [*BESIDE, *SHOWN[table]]
    for batch in store.batches(table, columns, 1 << 20):
        frame = frame_of(batch)
        frame = frame.with_row_index("row", first)
        first += len(frame)
        for cpu, times in wanted.items():
            mine = frame.filter(cpu=cpu)
            stamps = mine["ts"].to_numpy()
            at = np.searchsorted(stamps, times)
            around = (at[:, None] + np.arange(-AROUND, AROUND + 1)[None, :]).ravel()
            around = np.unique(around[(around >= 0) & (around < len(stamps))])
            if around.size:
                kept.append(mine[around.astype(np.uint32)])
    if not kept:
        return pl.DataFrame(
            schema={"ts": pl.Int64, "cpu": pl.Int32, "order": pl.Int32, "table": pl.String,
                    "row": pl.UInt32, "text": pl.String, "tid": pl.Int32}
        )  # fmt: skip
    found = pl.concat(kept)
    text = pl.concat_str(
        [pl.col(name).cast(pl.String).fill_null("-") for name in SHOWN[table]], separator=" "
    )
    return found.select(
        "ts", "cpu", pl.lit(list(SHOWN).index(table), pl.Int32).alias("order"),
        pl.lit(table).alias("table"), "row", text.alias("text"), "tid",
    )  # fmt: skip
