"""When does a placement swap and blind? Its loads, puts, stays and blind time by buckets of time.

The replay notes its counts at every edge between two buckets: a bucket has what they grew by.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.pipeline.replays import Design, Outcome
from analyzer.replay import Part
from analyzer.replay import kernel as q
from analyzer.store import Store

__all__ = ["BUCKETS", "bucket_edges", "time_rows"]

Array = np.ndarray[Any, Any]
# How many unless asked for otherwise: a column of a chart each; chosen by us.
BUCKETS = 100
BOUNDS = ("fewest", "most")
BLIND = [q.N_KVM, q.N_USER, q.N_INTERRUPT, q.N_OTHER]


def bucket_edges(store: Store, part: Part, buckets: int = BUCKETS) -> Array:
    """Return int64[buckets + 1], ns: the part's time in equal buckets, to the nanosecond that
    division leaves. All edges but the outermost are stops of `replay_all`."""
    windows = store.read("window", ["ts", "end"]).to_pylist()
    begin = min(row["ts"] for row in windows) if part.begin is None else part.begin
    end = max(row["end"] for row in windows) if part.end is None else part.end
    edges: Array = begin + np.arange(buckets + 1, dtype=np.int64) * (end - begin) // buckets
    return edges


def time_rows(
    designs: list[tuple[Design, Outcome]], edges: Array, exits: Array
) -> dict[tuple[str, str | None], list[dict[str, Any]]]:
    """Return the rows of table `placement_time` by placement and hook, less those two and prices.

    edges: as `bucket_edges` gives them. exits: int64[e], ts of those in the part.
    Where the marks leave a range both bounds are there, in full: each sums up to its own totals.
    """
    # The last bucket has both its ends: what is at the very end of a recording is in it.
    bucket = np.searchsorted(edges[1:-1], exits, side="right")
    out = np.bincount(bucket, minlength=edges.size - 1)
    found: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for design, outcome in designs:
        key = (design.placement.name, design.hook)
        if key not in found:
            fewest, most = outcome.runs
            words = ("exact",) if fewest is most else BOUNDS
            found[key] = [
                row
                for word, run in zip(words, outcome.runs, strict=False)
                for row in _rows(word, np.diff(run.sums, axis=0, prepend=0), edges, out)
            ]
    return found


def _rows(word: str, grown: Array, edges: Array, exits: Array) -> list[dict[str, Any]]:
    return [
        {
            "bound": word, "bucket": n, "ts": int(edges[n]), "end": int(edges[n + 1]),
            "loads": int(counts[q.N_LOADS]), "puts": int(counts[q.N_PUTS]),
            "residency_ns": int(counts[q.N_RESIDENCY]), "blind_ns": int(counts[BLIND].sum()),
            "exits": int(exits[n]),
        }
        for n, counts in enumerate(grown)
    ]  # fmt: skip
