"""Which placements are there, and is this file one? What the user may replay, declared."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError
from analyzer.replay import (
    Placement,
    default_guard,
    load_placement,
    read_placement,
    shipped_placements,
    shipped_text,
)

__all__ = ["check_placement", "list_placements", "show_placement"]


def _declared(placement: Placement) -> dict[str, Any]:
    # Every key, those that the file leaves out with what they mean then.
    made = asdict(placement)
    if placement.guard is None:
        made["guard"] = default_guard(placement.perf_told)
    return made


def list_placements() -> dict[str, Any]:
    """Return the shipped placements, innermost first; `schema` is vpmu-analyzer/placements/1."""
    rows = [_declared(placement) for placement in shipped_placements().values()]
    return {"schema": "vpmu-analyzer/placements/1", "placements": rows}


def show_placement(name: str) -> dict[str, Any]:
    """Return one shipped placement: its text as declared, and every key.

    UsageError for a name that there is not.
    """
    text = shipped_text(name)
    declared = _declared(load_placement(text, f"{name}.toml"))
    return {"schema": "vpmu-analyzer/placement/1", "text": text, "placement": declared}


def check_placement(path: Path) -> dict[str, Any]:
    """Return what a user's file declares; UsageError names the key and what is allowed."""
    placement = read_placement(path)
    if placement.name in shipped_placements():
        problem = "a shipped placement has that name"
        raise UsageError(f"{path}: key 'name' is {placement.name!r}: {problem}")
    return {"schema": "vpmu-analyzer/placement/1", "placement": _declared(placement)}
