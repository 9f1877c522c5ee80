"""What does one swap cost? Cost files (`vpmu-analyzer/cost/1`) and their algebra."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError

__all__ = ["CostFile", "load_cost", "swap_cost"]

SCHEMA = "vpmu-analyzer/cost/1"


@dataclass(frozen=True, slots=True)
class CostFile:
    """One cost file with what it inherits: operations {low, typical, high, kind} and swaps."""

    name: str
    operations: dict[str, dict[str, Any]]
    swaps: dict[str, Any]
    counters: dict[str, Any]


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    try:
        if path.suffix == ".toml":
            text = path.read_text(encoding="utf-8")
        else:
            file = resources.files("analyzer").joinpath("costs", f"{name}.toml")
            text = file.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cost file {name}: {error}") from error
    if raw.get("schema") != SCHEMA:
        raise UsageError(
            f"cost file {name}: key 'schema' is {raw.get('schema')!r}; allowed {SCHEMA!r}"
        )
    return raw


def load_cost(name: str) -> CostFile:
    """Return a shipped cost file by name, or one by its path; UsageError where it is none."""
    raw = _read(name)
    parent = load_cost(raw["inherits"]) if "inherits" in raw else None
    operations = {**(parent.operations if parent else {}), **raw.get("op", {})}
    swaps = {**(parent.swaps if parent else {}), **raw.get("swap", {})}
    counters = {**(parent.counters if parent else {}), **raw.get("counters", {})}
    return CostFile(raw["name"], operations, swaps, counters)


def swap_cost(cost: CostFile, direction: str, state: str, level: str) -> float:
    """Return ns of one load or put (`direction`) with the guest's PMU `idle` or `busy`.

    level: low, typical or high. Operations are const + per_gp * gp + per_fixed * fixed.
    """
    recipe = cost.swaps[direction][state]
    total = 0.0
    for part, times in (
        ("const", 1),
        ("per_gp", int(cost.counters.get("gp", 0))),
        ("per_fixed", int(cost.counters.get("fixed", 0))),
    ):
        for operation, count in recipe.get(part, {}).items():
            total += times * count * float(cost.operations[operation][level])
    return total
