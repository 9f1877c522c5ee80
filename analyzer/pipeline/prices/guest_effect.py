"""What does a placement's swapping do to the guest? Critical and absorbed time, latency, phases.

Every load of a placement is priced alike, and so is every put: low an idle guest's, high a busy
one's. So a distribution shows how many swaps stand before an entry, and not how the operations of
one differ from those of another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.pipeline.prices.emulation import Emulation
from analyzer.pipeline.prices.model import Pricing
from analyzer.pipeline.prices.one_swap import vectors_of
from analyzer.pipeline.prices.pricing import amounts_of, counts_of, is_lower_bound
from analyzer.pipeline.swaps import Ground, Walk
from analyzer.replay import Placement
from analyzer.replay.algebra import intervals
from analyzer.replay.cost import LEVELS

__all__ = ["price_rows", "price_times", "price_vcpu", "set_guest_effect"]

Array = np.ndarray[Any, Any]
Levels = dict[str, float | None]
QUANTILES = {"median": 0.5, "p99": 0.99, "max": 1.0}
# Edges at which KVM has interrupts off (x86.c:vcpu_enter_guest); at vcpu_load and vcpu_put, and in
# the notifier that runs as a thread comes, they are on.
INTERRUPTS_OFF = {"load": ("entry", "loop_begin"), "put": ("guest_end", "loop_end")}


def _unit_prices(pricing: Pricing, answer: dict[str, Any]) -> Array:
    # float64[m, u, 3]: ns of one load, put and exit, by cost file and level.
    return np.stack(
        [
            (vectors_of(pricing, model, answer) * model.latencies).sum(axis=2)
            for model in pricing.models
        ]
    )


def _hull(prices: Array) -> Array:
    # float64[..., 3] of float64[m, ..., 3]: the lowest and the highest file's; typical of one only.
    result: Array = prices[0].copy()
    if len(prices) > 1:
        result[..., 0], result[..., 2] = prices[..., 0].min(axis=0), prices[..., 2].max(axis=0)
        result[..., 1] = np.nan
    return result


def _levels(values: Array) -> Levels:
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(LEVELS, values, strict=True)
    }


def price_rows(
    pricing: Pricing, answer: dict[str, Any], swaps: tuple[Array, Array], exits: Array
) -> list[dict[str, float | None]]:
    """Return overhead_{low,typical,high}_ns of rows that share a placement's swaps and exits.

    swaps: float64[r, 2] of loads and of puts, by bound of the marks in order, NaN where not known.
    exits: float64[r]. What a placement does beside (extra_operations) belongs to no row.
    """
    whole = amounts_of(pricing, answer)[:, 2]
    share = exits / max(answer["exits"], 1)
    columns = [np.stack([some[:, 0], some.mean(axis=1), some[:, 1]], axis=1) for some in swaps]
    amounts = np.stack([*columns, share[:, None] * whole[None, :]], axis=2)
    prices = np.einsum("rlu,mul->mrl", amounts, _unit_prices(pricing, answer))
    if is_lower_bound(answer) or answer["kind"] == "trap":
        prices[:] = np.nan
    found = _hull(prices)
    return [{f"overhead_{k}_ns": v for k, v in _levels(row).items()} for row in found]


def price_vcpu(pricing: Pricing, emulation: Emulation, vcpu: int) -> dict[str, float | None]:
    """Return overhead_{low,typical,high}_ns of one vCPU under a perf-backed PMU."""
    extra = emulation.by_vcpu.get(vcpu, {})
    found = []
    for model in pricing.models:
        rows = [model.vector({name: n[at] for name, n in extra.items()}) for at in range(3)]
        found.append(intervals(np.stack(rows)[None], model.latencies)[0])
    prices = _hull(np.stack(found))
    if emulation.is_lower:
        prices[1:] = np.nan
    return {f"overhead_{k}_ns": v for k, v in _levels(prices).items()}


def price_times(
    pricing: Pricing, answer: dict[str, Any], rows: list[dict[str, Any]]
) -> list[dict[str, float | None]]:
    """Return overhead_{low,typical,high}_ns of rows of `placement_time`, each of its own bound."""
    swaps = []
    for name in ("loads", "puts"):
        pair = np.array([[row[name]] * 2 for row in rows], np.float64)
        if answer[f"{name}_high"] is None:
            pair[:, 1] = np.nan
        swaps.append(pair)
    exits = np.array([row["exits"] for row in rows], np.float64)
    return price_rows(pricing, answer, (swaps[0], swaps[1]), exits)


def _distribution(units: Array, per_bound: list[Array]) -> dict[str, Levels]:
    # {median, p99, max: {low, typical, high}} of loads and puts before each entry, by bound as
    # Walk.before has them. A typical one lies midway between the bounds', as everywhere.
    ordered = []
    for pairs in per_bound:
        amounts, times = pairs[:, :2].astype(np.float64), pairs[:, 2]
        # [m, pairs, 3]
        prices = np.einsum("pu,mul->mpl", amounts, units[:, :2])
        rows = np.empty((len(QUANTILES), len(units), 3))
        for m in range(len(units)):
            for level in range(3):
                order = np.argsort(prices[m, :, level], kind="stable")
                reached = np.cumsum(times[order]) / times.sum()
                for at, share in enumerate(QUANTILES.values()):
                    rank = min(int(np.searchsorted(reached, share)), order.size - 1)
                    rows[at, m, level] = prices[m, order[rank], level]
        ordered.append(rows.transpose(1, 0, 2))
    both = np.stack(ordered)
    joined = np.stack(
        [both[..., 0].min(axis=0), both[..., 1].mean(axis=0), both[..., 2].max(axis=0)], axis=-1
    )
    hull = _hull(joined)
    return {name: _levels(hull[at]) for at, name in enumerate(QUANTILES)}


def _absorbed(
    pricing: Pricing, answer: dict[str, Any], walks: tuple[Walk, Walk], units: Array
) -> tuple[Array, Array]:
    # float64[3] each, ns: critical and absorbed; they add up at typical.
    model_prices = np.stack(
        [
            intervals(counts_of(pricing, model, answer)[None], model.latencies)[0]
            for model in pricing.models
        ]
    )
    # Loads first.
    per = np.stack([walk.sums[::-1, 1] for walk in walks]).astype(np.float64)
    every = np.stack([walk.sums[::-1].sum(axis=1) for walk in walks]).astype(np.float64)

    def priced(bounds: Array) -> Array:
        low, high = np.sort(bounds, axis=0)
        amounts = np.stack([low, (low + high) / 2, high])
        found: Array = np.einsum("lu,mul->ml", amounts, units[:, :2])
        return found

    absorbed, critical = priced(per), priced(every - per)
    beside = model_prices - priced(every)
    critical = critical + beside
    return _hull(critical), _hull(absorbed)


def _interrupts_off(
    pricing: Pricing, answer: dict[str, Any], placement: Placement, units: Array
) -> dict[str, Any] | None:
    amounts = amounts_of(pricing, answer)
    parts = {
        direction: any(word in words for word in getattr(placement, direction))
        for direction, words in INTERRUPTS_OFF.items()
    }
    # The put that a host event asks for comes before they are on (rule B of Oct 2023).
    parts["put"] |= placement.host_events == "any"
    if not any(parts.values()):
        return None
    of = np.array([parts["load"], parts["put"]], np.float64)
    total = _hull(np.einsum("lu,mul->ml", amounts[:, :2] * of, units[:, :2]))
    longest = _hull((units[:, :2] * of[None, :, None]).max(axis=1))
    exits = answer["exits"]
    return {
        "at": [direction for direction, is_off in parts.items() if is_off],
        "per_exit_ns": _levels(total / exits) if exits else None,
        "longest_ns": _levels(longest) if answer["loads_low"] or answer["loads_high"] else None,
    }


def set_guest_effect(
    pricing: Pricing, answer: dict[str, Any], placement: Placement, walks: tuple[Walk, Walk],
    ground: Ground,
) -> None:  # fmt: skip
    """Set `guest_effect`, and critical and absorbed time of `overhead`; walks: of both bounds."""
    units = _unit_prices(pricing, answer)
    overhead = answer["overhead"]
    critical, absorbed = _absorbed(pricing, answer, walks, units)
    if answer["loads_high"] is None:
        critical[1:] = absorbed[1:] = np.nan
    for name, values in (("critical", critical), ("absorbed", absorbed)):
        low, typical, high = _levels(values).values()
        overhead[f"{name}_ns"] = typical
        overhead[f"{name}_ns_low"], overhead[f"{name}_ns_high"] = low, high
    before = [walk.before for walk in walks]
    entries, wakeups = (int(np.count_nonzero(mask)) for mask in (ground.held, ground.woken))
    effect: dict[str, Any] = {"entries": entries}
    with_swap = sorted(int(pairs[pairs[:, :2].any(axis=1), 2].sum()) for pairs in before)
    effect["entries_with_swap_low"], effect["entries_with_swap_high"] = with_swap
    effect["entry_latency_ns"] = effect["wakeup_latency_ns"] = None
    # Without swaps the latency is the traps', and which entry each delays is not asked here.
    known = answer["loads_high"] is not None and answer["kind"] != "trap"
    known &= not is_lower_bound(answer)
    if known and entries:
        effect["entry_latency_ns"] = _distribution(units, before)
    effect["wakeups"] = wakeups
    if known and wakeups:
        effect["wakeup_latency_ns"] = _distribution(units, [walk.after for walk in walks])
    effect["interrupts_off"] = _interrupts_off(pricing, answer, placement, units)
    longest = sorted(walk.longest_ns for walk in walks)
    effect["longest_residency_ns_low"], effect["longest_residency_ns_high"] = longest
    answer["guest_effect"] = effect
