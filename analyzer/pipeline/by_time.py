"""When does a placement swap and blind? Its loads, puts, stays and blind time by buckets of time.

Loads, puts and residency come from owner slices. Blind is what of the residency is not guest mode;
guest mode is read off the points once for all designs, by the replay's own rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.pipeline.replays import COLUMNS, POINTS, Design, Outcome
from analyzer.replay import Part
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline.points import Kind, Level

__all__ = ["BUCKETS", "time_rows"]

Array = np.ndarray[Any, Any]
# How many unless asked for otherwise: a column of a chart each; chosen by us.
BUCKETS = 100
BOUNDS = ("fewest", "most")


def _edges(store: Store, part: Part, buckets: int) -> Array:
    # int64[buckets + 1]: the part's time in equal buckets, to the nanosecond that division leaves.
    windows = store.read("window", ["ts", "end"]).to_pylist()
    begin = min(row["ts"] for row in windows) if part.begin is None else part.begin
    end = max(row["end"] for row in windows) if part.end is None else part.end
    return begin + np.arange(buckets + 1, dtype=np.int64) * (end - begin) // buckets


def _bucket(edges: Array, ts: Array) -> Array:
    # The last bucket has both its ends: what is at the very end of a recording is in it.
    found: Array = np.searchsorted(edges[1:-1], ts, side="right")
    return found


def _pieces(edges: Array, begin: Array, end: Array) -> tuple[Array, Array, Array, Array]:
    # Intervals cut at the edges: of which interval, bucket, begin and end of each piece.
    begin, end = np.maximum(begin, edges[0]), np.minimum(end, edges[-1])
    kept = np.flatnonzero(end > begin)
    first = _bucket(edges, begin[kept])
    count = _bucket(edges, end[kept] - 1) - first + 1
    of = np.repeat(np.arange(kept.size), count)
    bucket = first[of] + np.arange(of.size) - np.repeat(np.cumsum(count) - count, count)
    pieces = (
        np.maximum(begin[kept[of]], edges[bucket]),
        np.minimum(end[kept[of]], edges[bucket + 1]),
    )
    return kept[of], bucket, *pieces


def _sum(buckets: int, bucket: Array, ns: Array) -> Array:
    found = np.zeros(buckets, np.int64)
    np.add.at(found, bucket, ns)
    return found


class _Stays:
    # The stays of one bound that the part counts, and what of them is guest mode, bucket by bucket.

    def __init__(self, slices: Array, edges: Array, part: Part) -> None:
        kept = np.ones(len(slices), bool)
        for column, chosen in ((q.S_CPU, part.cpus), (q.S_VCPU, part.vcpus)):
            if chosen is not None:
                kept &= np.isin(slices[:, column], chosen)
        mine = slices[kept]
        self._edges, buckets = edges, edges.size - 1
        inside = part.holds(*(mine[:, c] for c in (q.S_TS, q.S_CPU, q.S_VCPU)))
        loads = mine[inside & (mine[:, q.S_LOADED] == 1), q.S_TS]
        inside = part.holds(*(mine[:, c] for c in (q.S_END, q.S_CPU, q.S_VCPU)))
        puts = mine[inside & (mine[:, q.S_WHOLE] == 1), q.S_END]
        self.loads, self.puts = (
            np.bincount(_bucket(edges, ts), minlength=buckets) for ts in (loads, puts)
        )
        _, bucket, begin, end = _pieces(edges, mine[:, q.S_TS], mine[:, q.S_END])
        self.residency = _sum(buckets, bucket, end - begin)
        self.guest = np.zeros(buckets, np.int64)
        # By CPU: begins, ends, and how long stays lasted before each.
        self._by_cpu: dict[int, tuple[Array, Array, Array]] = {}
        for cpu in np.unique(mine[:, q.S_CPU]).tolist():
            of = mine[mine[:, q.S_CPU] == cpu]
            of = of[np.lexsort((of[:, q.S_STAY], of[:, q.S_TS]))]
            length = of[:, q.S_END] - of[:, q.S_TS]
            before = np.cumsum(length) - length
            self._by_cpu[cpu] = of[:, q.S_TS].copy(), length, before

    def add(self, cpu: int, bucket: Array, begin: Array, end: Array) -> None:
        """Take stretches of guest mode on a CPU, none of which crosses an edge."""
        if cpu not in self._by_cpu or not begin.size:
            return
        since, length, before = self._by_cpu[cpu]

        def spent(ts: Array) -> Array:
            at = np.searchsorted(since, ts, side="right") - 1
            return np.where(at < 0, 0, before[at] + np.minimum(ts - since[at], length[at]))

        self.guest += _sum(self.guest.size, bucket, spent(end) - spent(begin))


def _last(where: Array, value: Array, first: int) -> Array:
    # int64[n]: the value at the last row up to each where `where` holds, `first` before any.
    at = np.maximum.accumulate(np.where(where, np.arange(where.size), -1))
    return np.where(at < 0, first, value[at])


class _GuestTime:
    # Which stretches of each CPU are guest mode: the rule of kernel._account, point by point.

    def __init__(self) -> None:
        self._before: dict[int, tuple[int, int, int]] = {}

    def stretches(self, ts: Array, cpu: Array, vcpu: Array, kind: Array, detail: Array) -> Any:
        """Yield cpu, begins and ends; one that is open goes on in the next points."""
        named = (detail & int(Level.GUEST)) != 0
        # A STATE without a vCPU turns on nothing; a point from EPISODE on moves no level.
        on = named & (kind <= Kind.ENTRY) & ((kind != Kind.STATE) | (vcpu >= 0))
        left = (kind == Kind.SWITCH_OUT) | (kind == Kind.LOST)
        off = (named & (kind >= Kind.GUEST_END) & (kind <= Kind.SWITCH_OUT)) | left
        for one in np.unique(cpu).tolist():
            rows = np.flatnonzero(cpu == one)
            guest, irq, since = self._before.get(one, (0, 0, 0))
            guests = _last(on[rows] | off[rows], on[rows].astype(np.int64), guest)
            moved = (kind[rows] == Kind.IRQ_IN) | (kind[rows] == Kind.IRQ_OUT) | left[rows]
            irqs = _last(moved, (kind[rows] == Kind.IRQ_IN).astype(np.int64), irq)
            times = np.concatenate([[since], ts[rows]])
            running = np.concatenate([[guest & (1 - irq)], guests & (1 - irqs)])[:-1] == 1
            yield one, times[:-1][running], times[1:][running]
            self._before[one] = int(guests[-1]), int(irqs[-1]), int(times[-1])


def time_rows(
    store: Store, designs: list[tuple[Design, Outcome]], part: Part, exits: Array,
    buckets: int = BUCKETS,
) -> dict[tuple[str, str | None], list[dict[str, Any]]]:  # fmt: skip
    """Return the rows of table `placement_time` by placement and hook, less those two and prices.

    exits: int64[e], ts of those in the part.
    Where the marks leave a range both bounds are there, in full: each sums up to its own totals.
    """
    edges = _edges(store, part, buckets)
    by_bound: dict[tuple[str, str | None], list[_Stays]] = {}
    for design, outcome in designs:
        key = (design.placement.name, design.hook)
        if key not in by_bound:
            one = outcome.slices[0] is outcome.slices[1]
            by_bound[key] = [
                _Stays(slices, edges, part) for slices in outcome.slices[: 1 if one else 2]
            ]
    every = [stays for pair in by_bound.values() for stays in pair]
    guest = _GuestTime()
    for batch in store.batches("point", COLUMNS, POINTS):
        columns = []
        for name in COLUMNS:
            column = batch.column(name)
            filled = column.fill_null(-1) if name == "vcpu" else column
            columns.append(filled.to_numpy(zero_copy_only=False).astype(np.int64))
        for cpu, begin, end in guest.stretches(*columns):
            _, bucket, first, last = _pieces(edges, begin, end)
            for stays in every:
                stays.add(cpu, bucket, first, last)
    out = np.bincount(_bucket(edges, exits), minlength=buckets)
    return {key: _rows(pair, edges, out) for key, pair in by_bound.items()}


def _rows(bounds: list[_Stays], edges: Array, exits: Array) -> list[dict[str, Any]]:
    words = ("exact",) if len(bounds) == 1 else BOUNDS
    found = []
    for word, stays in zip(words, bounds, strict=True):
        blind = stays.residency - stays.guest
        for n in range(edges.size - 1):
            found.append(
                {
                    "bound": word, "bucket": n, "ts": int(edges[n]), "end": int(edges[n + 1]),
                    "loads": int(stays.loads[n]), "puts": int(stays.puts[n]),
                    "residency_ns": int(stays.residency[n]), "blind_ns": int(blind[n]),
                    "exits": int(exits[n]),
                }
            )  # fmt: skip
    return found
