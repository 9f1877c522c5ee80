"""What does an operation cost, and which operations is a swap? Files `vpmu-analyzer/cost/1`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import UsageError

__all__ = [
    "KINDS",
    "LEVELS",
    "CostFile",
    "is_assumed",
    "latencies",
    "load_cost",
    "swap_cost",
    "swap_operations",
]

SCHEMA = "vpmu-analyzer/cost/1"
LEVELS = ("low", "typical", "high")
KINDS = ("measured", "derived", "assumed")
PARTS = ("const", "per_gp", "per_fixed")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class CostFile:
    """One cost file with what it inherits: operations {low, typical, high, kind} and swaps.

    arch: whose operations they are; None where a file of the user's own does not say.
    """

    name: str
    arch: str | None
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
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cost file {name}: {error}") from error
    if raw.get("schema") != SCHEMA:
        raise UsageError(
            f"cost file {name}: key 'schema' is {raw.get('schema')!r}; allowed {SCHEMA!r}"
        )
    return raw


def _check_operation(file: str, name: str, cost: Any) -> None:
    # A number without its kind and source is none that a result may rest on.
    where = f"cost file {file}: [op.{name}]"
    if not isinstance(cost, dict):
        raise UsageError(f"{where} is no table")
    for level in LEVELS:
        value: Any = cost.get(level)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0:
            raise UsageError(f"{where}: key {level!r} is {value!r}; allowed: ns, 0 or more")
    if not cost["low"] <= cost["typical"] <= cost["high"]:
        raise UsageError(f"{where}: allowed: low <= typical <= high")
    if cost.get("kind") not in KINDS:
        raise UsageError(f"{where}: key 'kind' is {cost.get('kind')!r}; allowed: {KINDS}")
    source = cost.get("source")
    if not isinstance(source, list) or not source:
        raise UsageError(f"{where}: key 'source' must be a list of [[source]] ids")


def _check_swaps(file: str, swaps: dict[str, Any], operations: dict[str, Any]) -> None:
    for direction, recipes in swaps.items():
        for state, recipe in recipes.items():
            for part, counts in recipe.items():
                for name in counts if isinstance(counts, dict) else ():
                    if name not in operations:
                        raise UsageError(
                            f"cost file {file}: [swap.{direction}.{state}] {part} names "
                            f"{name!r}, which has no [op.{name}]"
                        )


def load_cost(name: str) -> CostFile:
    """Return a shipped cost file by name, or one by its path (.toml).

    UsageError where it is none, names what has no price, or gives a number without kind or source.
    """
    return _load(name, ())


def _load(name: str, heirs: tuple[str, ...]) -> CostFile:
    if name in heirs:
        raise UsageError(f"cost file {name}: inherits itself over {', '.join(heirs)}")
    raw = _read(name)
    for key in ("op", "swap", "counters"):
        if not isinstance(raw.get(key, {}), dict):
            raise UsageError(f"cost file {name}: key {key!r} must be a table")
    parent = _load(str(raw["inherits"]), (*heirs, name)) if "inherits" in raw else None
    for operation, cost in raw.get("op", {}).items():
        _check_operation(name, operation, cost)
    operations = {**(parent.operations if parent else {}), **raw.get("op", {})}
    swaps = {**(parent.swaps if parent else {}), **raw.get("swap", {})}
    # Only what is indexed by direction and state: arm64's filters have no states.
    two_level = {d: s for d, s in swaps.items() if d in ("load", "put", "exit")}
    _check_swaps(name, two_level, operations)
    counters = {**(parent.counters if parent else {}), **raw.get("counters", {})}
    arch = raw.get("arch", parent.arch if parent else None)
    return CostFile(str(raw.get("name", name)), arch, operations, swaps, counters)


def swap_operations(
    cost: CostFile, direction: str, state: str, gp: float | None = None, fixed: float | None = None
) -> dict[str, float]:
    """Return how often each operation stands in one swap, by the architecture's formula.

    direction: load or put; state: idle or busy guest PMU; or exit, extra: what an exit costs while
    the guest's state stays on the CPU (empty where the file has no such line). gp and fixed: how
    many counters the guest has, the file's own where None. const + per_gp * gp + per_fixed * fixed.
    """
    recipe = cost.swaps.get(direction, {}).get(state, {})
    times = (
        1.0,
        float(cost.counters.get("gp", 0) if gp is None else gp),
        float(cost.counters.get("fixed", 0) if fixed is None else fixed),
    )
    total: dict[str, float] = {}
    for part, factor in zip(PARTS, times, strict=True):
        for operation, count in recipe.get(part, {}).items():
            total[operation] = total.get(operation, 0.0) + factor * count
    return total


def latencies(cost: CostFile, names: Sequence[str]) -> Array:
    """Return float64[3, k], ns: low, typical and high of each named operation."""
    rows = [[float(cost.operations[name][level]) for name in names] for level in LEVELS]
    return np.array(rows, np.float64).reshape(3, len(names))


def is_assumed(cost: CostFile, names: Sequence[str]) -> Array:
    """Return bool[k]: which of the named operations' latencies nobody measured or derived."""
    return np.array([cost.operations[name]["kind"] == "assumed" for name in names], bool)


def swap_cost(cost: CostFile, direction: str, state: str, level: str) -> float:
    """Return ns of KVM's half of one load or put by the formula; state as swap_operations has it,
    level one of LEVELS."""
    operations = swap_operations(cost, direction, state)
    return sum(n * float(cost.operations[name][level]) for name, n in operations.items())
