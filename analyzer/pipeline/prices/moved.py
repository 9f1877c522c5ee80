"""Which assumptions decide the order of the placements? Each is moved to its ends, others held.

Algebra over the counts of one replay, as in sensitivity; there it is latencies that move alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from analyzer.pipeline.prices.model import Model, Pricing
from analyzer.pipeline.prices.one_swap import vectors_of
from analyzer.pipeline.prices.pricing import amounts_of, extra_of, is_lower_bound
from analyzer.pipeline.prices.sensitivity import competes, label_of
from analyzer.replay.algebra import SAME, count_operations

__all__ = ["moves_of"]

Array = np.ndarray[Any, Any]
LOW, TYPICAL, HIGH = range(3)
# What of a price an assumption holds at its typical value. Of those that are not here nobody knows
# the ends: what they would move is null.
SWAPS, EXITS, OPERATIONS, EXTRA, LATENCIES, FILE = range(6)
HELD = {
    "priced-not-measured": LATENCIES,
    "loop-range": SWAPS,
    "vcpu-marks": SWAPS,
    "midpoint": SWAPS,
    "guest-pmu-state": OPERATIONS,
    "modelled-operations": OPERATIONS,
    "host-saved-by-kvm": OPERATIONS,
    "selective": OPERATIONS,
    "exit-save": EXITS,
    "emulation-counted": EXTRA,
    "arming-traps": EXTRA,
    "vendor-unknown": FILE,
}


@dataclass(frozen=True, slots=True)
class _Parts:
    # One placement under one cost file: amounts float64[3, u], vectors float64[u, 3, k], and what
    # it does besides, float64[3, k].
    amounts: Array
    vectors: Array
    extra: Array
    is_bound: bool

    def counts(self, swaps: int, exits: int, operations: int, extra: int) -> Array:
        # float64[k], each part at the level asked for.
        done = np.append(self.amounts[swaps, :2], self.amounts[exits, 2:])
        swapped = count_operations(done[None], self.vectors[:, [operations]])[0]
        total: Array = swapped + self.extra[extra]
        return np.full_like(total, np.nan) if self.is_bound else total


def _parts(pricing: Pricing, model: Model, answer: dict[str, Any]) -> _Parts:
    return _Parts(
        amounts_of(pricing, answer), vectors_of(pricing, model, answer), extra_of(model, answer),
        is_lower_bound(answer),
    )  # fmt: skip


def _prices(model: Model, parts: list[_Parts], moves: Array, held: int, end: int) -> Array:
    # float64[p], ns: every placement at typical, but for those that rest on the assumption.
    rows = []
    for part, is_moved in zip(parts, moves, strict=True):
        levels = [TYPICAL] * 4
        if is_moved and held < len(levels):
            levels[held] = end
        rows.append(part.counts(*levels))
    result: Array = np.stack(rows) @ model.latencies[TYPICAL]
    return result


def _by_latency(model: Model, parts: list[_Parts]) -> list[Array]:
    # Each operation alone at both ends of its range.
    counts = np.stack([part.counts(*[TYPICAL] * 4) for part in parts])
    typical = counts @ model.latencies[TYPICAL]
    used = np.flatnonzero(np.nanmax(counts, axis=0, initial=0) > 0)
    return [
        typical + counts[:, k] * (model.latencies[end, k] - model.latencies[TYPICAL, k])
        for k, end in product(used, (LOW, HIGH))
    ]


def moves_of(
    pricing: Pricing, answers: list[dict[str, Any]], candidates: list[str] | None
) -> dict[str, dict[str, Any] | None]:
    """Return, by id of every assumption that a placement rests on, what moving it would turn.

    None where nobody knows its ends. Else `cheapest`: the labels of the placements that become the
    cheapest of `candidates` (labels; None: of all that have a price) at one of its ends, and
    `turned`: pairs of labels, the first cheaper at typical and dearer at an end. Two cost files
    have no typical: then the first file's stands for it, and the second is the end.
    """
    labels = [label_of(answer, answers) for answer in answers]
    every = [[_parts(pricing, model, answer) for answer in answers] for model in pricing.models]
    model, parts = pricing.models[0], every[0]
    nobody = np.zeros(len(answers), bool)
    typical = _prices(model, parts, nobody, FILE, TYPICAL)
    eligible = np.array(
        [
            competes(answer) and (candidates is None or label in candidates)
            for answer, label in zip(answers, labels, strict=True)
        ]
    )
    found: dict[str, dict[str, Any] | None] = {}
    for name in dict.fromkeys(name for answer in answers for name in answer["assumptions"]):
        held = HELD.get(name)
        if held is None:
            found[name] = None
            continue
        rests = np.array([name in answer["assumptions"] for answer in answers])
        if held == LATENCIES:
            ends = [row for m, each in zip(pricing.models, every, strict=True)
                    for row in _by_latency(m, each)]  # fmt: skip
        elif held == FILE:
            ends = [
                _prices(m, each, nobody, FILE, TYPICAL)
                for m, each in zip(pricing.models[1:], every[1:], strict=True)
            ]
        else:
            ends = [_prices(model, parts, rests, held, end) for end in (LOW, HIGH)]
        found[name] = _turned(typical, np.reshape(ends, (-1, len(labels))), eligible, labels)
    return found


def _first(prices: Array, eligible: Array) -> int | None:
    known = np.where(eligible & np.isfinite(prices), prices, np.inf)
    # Of equals the first, whatever their sums' last digits are.
    cheapest = np.flatnonzero(known <= known.min() * (1 + SAME))
    return int(cheapest[0]) if np.isfinite(known).any() else None


def _turned(typical: Array, ends: Array, eligible: Array, labels: list[str]) -> dict[str, Any]:
    # Comparisons with what has no price are false: such a placement turns with nobody.
    before = typical[:, None] * (1 + SAME) < typical[None, :]
    after = (ends[:, :, None] > ends[:, None, :] * (1 + SAME)).any(axis=0)
    was = _first(typical, eligible)
    firsts = [_first(row, eligible) for row in ends]
    return {
        "cheapest": [labels[n] for n in dict.fromkeys(firsts) if n is not None and n != was],
        "turned": [[labels[a], labels[b]] for a, b in np.argwhere(before & after)],
    }
