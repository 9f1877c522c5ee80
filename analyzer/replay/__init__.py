"""What would another placement have done? Placements compiled, replayed, and priced."""

from analyzer.replay.cost import CostFile, load_cost
from analyzer.replay.placement import (
    HOOKS,
    Placement,
    has_rules,
    leaves_range,
    load_placement,
    shipped_placements,
    transition_table,
)
from analyzer.replay.run import Counts, Part, Replay

__all__ = [
    "HOOKS",
    "CostFile",
    "Counts",
    "Part",
    "Placement",
    "Replay",
    "has_rules",
    "leaves_range",
    "load_cost",
    "load_placement",
    "shipped_placements",
    "transition_table",
]
