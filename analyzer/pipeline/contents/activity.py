"""Who touched the PMU, how often, and when was host perf active? Sums over attribution."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from analyzer.store import Store
from analyzer.store.frames import frame_of

__all__ = ["attribution_of", "host_activity_of"]

ROWS = 1 << 20
# Pieces of the recording that activity is shown for; chosen by us, to fit a screen.
BUCKETS = 10
# Bit 32 on: fixed counters; analyzer.timeline.attribution.bursts.
FIXED_SHIFT = 32


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    return frame_of(batch, words=True)


def attribution_of(store: Store) -> list[dict[str, Any]]:
    """Return accesses by actor, role of the register and context, most first.

    Rows of pmu_access and pmu_attribution belong together one by one.
    """
    sums: list[pl.DataFrame] = []
    keys = ["actor", "role", "context"]
    whose = store.batches("pmu_attribution", ["actor", "context"], ROWS)
    for accesses, owned in zip(store.batches("pmu_access", ["role"], ROWS), whose, strict=True):
        rows = pl.concat([_frame(accesses), _frame(owned)], how="horizontal")
        sums.append(rows.filter(pl.col("actor").is_not_null()).group_by(keys).len("accesses"))
    if not sums:
        return []
    total = pl.concat(sums).group_by(keys).sum().sort("accesses", *keys, descending=True)
    return total.to_dicts()


def host_activity_of(store: Store) -> dict[str, Any] | None:
    """Return host perf's episodes by context, and over time with the counters that they touch.

    None where register accesses are not recorded. Counters touched are a lower bound of active
    events: perf touches an event's counter only where it changes or reads it.
    """
    recording = store.manifest["recording"]
    counts = {row["name"]: row["count"] for row in store.read("event_count").to_pylist()}
    if not any(counts.get(name) for name in ("read_msr", "write_msr", "rdpmc")):
        return None
    columns = ["ts", "cpu", "context", "evidence", "accesses", "counters"]
    frame = frame_of(store.read("host_episode", columns))
    begin, length = recording["begin_ns"], max(1, recording["duration_ns"])
    frame = frame.with_columns(
        pl.col("context", "evidence").cast(pl.String),
        bucket=((pl.col("ts") - begin) * BUCKETS // length).clip(0, BUCKETS - 1),
    )
    frame = frame.filter(evidence="observed")
    contexts = frame.group_by("context").agg(pl.len().alias("n"), pl.col("accesses").sum())
    buckets = []
    for number in range(BUCKETS):
        mine = frame.filter(bucket=number)
        touched = 0
        for mask in mine["counters"].unique().to_list():
            touched |= mask
        kinds = mine.group_by("context").len().rows()
        buckets.append(
            {
                "from": begin + number * length // BUCKETS,
                "to": begin + (number + 1) * length // BUCKETS,
                "episodes": {context: int(n) for context, n in sorted(kinds)},
                "counters": [bit for bit in range(FIXED_SHIFT) if touched >> bit & 1],
                "fixed_counters": [bit for bit in range(16) if touched >> (FIXED_SHIFT + bit) & 1],
            }
        )
    return {
        "episodes": {
            row["context"]: {"episodes": row["n"], "accesses": row["accesses"]}
            for row in contexts.sort("context").to_dicts()
        },
        "over_time": buckets,
    }
