"""What would another placement have done? Placements compiled, replayed, and priced."""

from analyzer.replay.cost import CostFile, load_cost, swap_cost
from analyzer.replay.placement import (
    HOOKS,
    Placement,
    leaves_range,
    load_placement,
    shipped_placements,
)
from analyzer.replay.run import Counts, Part, Replay, Scratch

__all__ = [
    "HOOKS",
    "CostFile",
    "Counts",
    "Part",
    "Placement",
    "Replay",
    "Scratch",
    "leaves_range",
    "load_cost",
    "load_placement",
    "shipped_placements",
    "swap_cost",
]
