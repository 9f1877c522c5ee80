"""Which latencies and which recorded operations is a recording priced with?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.errors import UsageError
from analyzer.pipeline.prices.operations import RecordedOperations
from analyzer.replay.cost import CostFile, is_assumed, latencies, load_cost

__all__ = ["Model", "Pricing", "cost_files_of", "pricing_of"]

Array = np.ndarray[Any, Any]
# Cost files by what is known of the CPU; without a vendor the hull of both is taken.
FILES = {
    "AuthenticAMD": ("x86-amd",),
    "GenuineIntel": ("x86-intel",),
    "arm64": ("arm64",),
    None: ("x86-amd", "x86-intel"),
}


@dataclass(frozen=True, slots=True)
class Model:
    """One cost file as arrays: k operation names, latencies float64[3, k] in ns, bool[k]."""

    file: CostFile
    names: tuple[str, ...]
    latencies: Array
    assumed: Array

    def vector(self, operations: dict[str, float]) -> Array:
        """Return float64[k]; UsageError for an operation that the file has no price for."""
        for name in operations:
            if name not in self.names:
                raise UsageError(f"cost file {self.file.name}: there is no [op.{name}]")
        return np.array([operations.get(name, 0.0) for name in self.names], np.float64)


@dataclass(frozen=True, slots=True)
class Pricing:
    """How this recording is priced: cost files, and the operations that it shows (or None).

    placement, told: the recorded kernel's own, None where not known. on_share: in which share of
    the swaps the guest's PMU is on; None: as often as recorded, or never where nothing is. A demand
    placement swaps for such guests only.
    """

    models: tuple[Model, ...]
    recorded: RecordedOperations | None
    placement: str | None
    on_share: float | None = None
    told: bool | None = None


def cost_files_of(recording: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the shipped files for a recording's vendor; two where none is known."""
    return FILES.get(recording["vendor"], FILES[None])


def pricing_of(
    recording: dict[str, Any],
    cost: str | None,
    recorded: RecordedOperations | None,
    placement: str | None,
    told: bool | None = None,
) -> Pricing:
    """Return the pricing with the user's cost file, else the vendor's. `placement` and `told`: the
    recorded kernel's own, None where not known."""
    models = []
    for name in (cost,) if cost else cost_files_of(recording):
        file = load_cost(name)
        arch = recording["arch"]
        if arch is not None and file.arch not in (None, arch):
            raise UsageError(f"cost file {name} is for {file.arch}; the recording is of {arch}")
        for direction in ("load", "put"):
            for state in ("idle", "busy"):
                if state not in file.swaps.get(direction, {}):
                    raise UsageError(f"cost file {name}: there is no [swap.{direction}.{state}]")
        names = tuple(sorted(file.operations))
        models.append(Model(file, names, latencies(file, names), is_assumed(file, names)))
    return Pricing(tuple(models), recorded, placement, told=told)
