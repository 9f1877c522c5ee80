"""What would another placement have done? Placements compiled, replayed, and priced."""

from analyzer.replay.cost import CostFile, load_cost, swap_cost
from analyzer.replay.placement import (
    CLEARINGS,
    GUARDS,
    HOOKS,
    Placement,
    default_guard,
    has_rules,
    leaves_range,
    load_placement,
    read_placement,
    shipped_placements,
    shipped_text,
    transition_table,
)
from analyzer.replay.rows import PIECE, Rows, meetings_of, slices_of
from analyzer.replay.run import Counts, Part, Replay, Scratch, ones_at

__all__ = [
    "CLEARINGS",
    "GUARDS",
    "HOOKS",
    "PIECE",
    "CostFile",
    "Counts",
    "Part",
    "Placement",
    "Replay",
    "Rows",
    "Scratch",
    "default_guard",
    "has_rules",
    "leaves_range",
    "load_cost",
    "load_placement",
    "meetings_of",
    "ones_at",
    "read_placement",
    "shipped_placements",
    "shipped_text",
    "slices_of",
    "swap_cost",
    "transition_table",
]
