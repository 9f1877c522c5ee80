"""What do counted operations cost, at one cost point or thousands? Linear algebra, no replay.

A placement's overhead is its operation counts times their latencies, so another cost file, a sweep,
a break-even or a comparison needs the counts only. Three rows stand for what is not known exactly:
low, typical and high, each no less than the one before. An unknown count is NaN and stays so.

Shapes: p placements, k operations, n cost points, u units of work, 3 levels. Latencies are ns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "SAME",
    "assumed_share",
    "break_even",
    "cheapest_share",
    "count_operations",
    "dominates",
    "intervals",
    "price",
    "sample_between",
    "slopes",
    "sweep",
]

Array = np.ndarray[Any, Any]
# Two prices that differ by less, relative to the larger, are one: sums of floats in another order.
SAME = 1e-12


def count_operations(amounts: Array, vectors: Array) -> Array:
    """Return float64[3, k]: how often each operation is done, low, typical and high.

    amounts: float64[3, u], how much of each unit of work is done (loads, puts, exits, traps).
    vectors: float64[u, 3, k], the operations of one unit. Both non-decreasing over the levels.
    """
    # A unit that is never done has no operations, even if nobody knows which they would be.
    parts = np.where(
        amounts[:, :, None] == 0, 0.0, amounts[:, :, None] * vectors.transpose(1, 0, 2)
    )
    total: Array = parts.sum(axis=1)
    return total


def intervals(counts: Array, latencies: Array) -> Array:
    """Return float64[p, 3], ns: low counts at low latencies, typical at typical, high at high.

    counts: float64[p, 3, k]; latencies: float64[3, k].
    """
    total: Array = (counts * latencies).sum(axis=2)
    return total


def price(counts: Array, points: Array) -> Array:
    """Return float64[n, p], ns: every placement's overhead at every cost point.

    counts: float64[p, k]; points: float64[n, k].
    """
    result: Array = points @ counts.T
    return result


def sweep(low: Array, high: Array, points: Array, at: Array) -> Array:
    """Return float64[n, p], ns: overheads where the counts move from low to high, too.

    low, high: float64[p, k]. at: float64[n] in 0..1, the same for all placements, since it is one
    guest with one set of marks that does more or less in all of them.
    """
    floor = price(low, points)
    result: Array = floor + at[:, None] * (price(high, points) - floor)
    return result


def assumed_share(counts: Array, latencies: Array, assumed: Array) -> Array:
    """Return float64[p] in 0..1: the share of the price whose latencies are assumed.

    counts: float64[p, k]; latencies: float64[k]; assumed: bool[k]. NaN where nothing is paid.
    """
    paid = counts * latencies
    total = paid.sum(axis=1)
    result: Array = np.divide(
        paid[:, assumed].sum(axis=1), total, out=np.full(total.shape, np.nan), where=total > 0
    )
    return result


def slopes(counts: Array, latencies: Array) -> tuple[Array, Array]:
    """Return d(overhead)/d(latency) float64[p, k] (how often it is done), and its elasticity.

    Elasticity float64[p, k]: by how many percent the overhead rises with 1 % of that latency; a
    row adds up to 1, or is NaN where nothing is paid. counts: float64[p, k]; latencies: [k], ns.
    """
    paid = counts * latencies
    total = paid.sum(axis=1, keepdims=True)
    relative = np.divide(paid, total, out=np.full(paid.shape, np.nan), where=total > 0)
    return counts, relative


def break_even(counts: Array, latencies: Array, groups: Array) -> Array:
    """Return float64[p, p, m]: the factor on a group's latencies at which two placements cost the
    same; NaN where none does (the group is alike in both, or the factor would be negative).

    groups: bool[m, k], which operations are scaled together. One column a single operation gives
    its break-even latency as factor times latency; a group of all has none but 0, since costs are
    proportional to it: then only what is not in the group could turn the order.
    """
    paid = counts * latencies
    total = paid.sum(axis=1)
    of_group = paid @ groups.T.astype(np.float64)
    gap = (total[:, None] - total[None, :])[:, :, None]
    moved = of_group[:, None, :] - of_group[None, :, :]
    scale = np.maximum(of_group[:, None, :], of_group[None, :, :])
    matters = np.abs(moved) > SAME * scale
    factor = np.full(moved.shape, np.nan)
    np.divide(gap, moved, out=factor, where=matters)
    factor = 1 - factor
    # Rounding may leave a hair below zero where nothing but the group is paid.
    factor[np.abs(factor) < SAME] = 0.0
    factor[factor < 0] = np.nan
    return factor


def sample_between(low: Array, high: Array, points: int, seed: int = 1) -> Array:
    """Return float64[n, k]: cost points that fill the box evenly (Latin hypercube, fixed seed).

    Each operation's latency takes each n-th of its range once, evenly in its logarithm: ranges
    span orders of magnitude, and a factor of two is as likely at their foot as at their head.
    A range that begins at 0 is taken evenly itself. low, high: float64[k].
    """
    random = np.random.default_rng(seed)
    operations = low.shape[0]
    strata = np.argsort(random.random((operations, points)), axis=1).T
    at = (strata + random.random((points, operations))) / points
    is_log = (low > 0) & (high > low)
    floor, roof = (np.log(np.where(is_log, end, 1.0)) for end in (low, high))
    found = np.where(is_log, np.exp(floor + at * (roof - floor)), low + at * (high - low))
    result: Array = np.clip(found, low, high)
    return result


def cheapest_share(overheads: Array, eligible: Array) -> Array:
    """Return float64[p]: at which share of the cost points each placement is the cheapest.

    overheads: float64[n, p], NaN where not known: such a placement is never the cheapest.
    eligible: bool[p], those without conflicts. Ties are shared, so the shares add up to 1, or to 0
    where nobody is eligible.
    """
    asked = np.where(eligible & ~np.isnan(overheads), overheads, np.inf)
    best = asked.min(axis=1, keepdims=True)
    wins = (asked <= best * (1 + SAME)) & np.isfinite(asked)
    each = wins / np.maximum(wins.sum(axis=1, keepdims=True), 1)
    result: Array = each.mean(axis=0)
    return result


def dominates(
    low: Array, high: Array, latencies: Array, other_low: Array, other_high: Array
) -> Array:
    """Return bool[p, p]: [a, b] says that a is no worse than b in anything, and better in one.

    low, high: float64[p, k], bounds of the operation counts. latencies: float64[3, k]: a's most
    operations must cost no more than b's fewest at every cost point of the box, the same point for
    both, as they would run on one machine. other_low, other_high: float64[p, m], bounds of what
    else counts (blind time, conflicts). Whatever is NaN is not known, and proves nothing.
    """
    excess = high[:, None, :] - low[None, :, :]
    bounds = latencies[[0, 2]][:, None, None, :] * excess
    most, least = bounds.max(axis=0).sum(axis=2), bounds.min(axis=0).sum(axis=2)
    scale = (low * latencies[2]).sum(axis=1)[None, :] * SAME
    # Nowhere dearer, and cheaper somewhere: at the edge of the box two may meet.
    cheaper_or_same, cheaper = most <= scale, least < -scale
    no_worse = (other_high[:, None, :] <= other_low[None, :, :]).all(axis=2)
    better = (other_high[:, None, :] < other_low[None, :, :]).any(axis=2)
    result: Array = cheaper_or_same & no_worse & (cheaper | better)
    np.fill_diagonal(result, False)
    return result
