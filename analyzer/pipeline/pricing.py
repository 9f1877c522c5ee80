"""What do counted swaps cost on this machine? An interval, and its share of guest time."""

from __future__ import annotations

from typing import Any

from analyzer.replay import load_cost, swap_cost

__all__ = ["overhead_of"]

# Cost files by what is known of the CPU; without a vendor the hull of both is taken.
FILES = {
    "AuthenticAMD": ("x86-amd",),
    "GenuineIntel": ("x86-intel",),
    "arm64": ("arm64",),
    None: ("x86-amd", "x86-intel"),
}
STATE = {"low": "idle", "typical": "idle", "high": "busy"}


def overhead_of(
    answer: dict[str, Any], recording: dict[str, Any], cost: str | None
) -> dict[str, Any]:
    """Return overhead {low_ns, typical_ns, high_ns, percent_of_guest_time, …} of one placement.

    Swaps are priced: low with an idle guest PMU at the lowest latencies, typical idle, high with
    a busy one at the highest. Percentages are null on an emulated machine. A bound of swaps that
    is unknown leaves high (and typical) null.
    """
    files = (cost,) if cost else FILES.get(recording["vendor"], FILES[None])
    prices: dict[str, float | None] = {}
    for level, state in STATE.items():
        found = []
        for name in files:
            file = load_cost(name)
            loads, puts = (_swaps(answer, key, level) for key in ("loads", "puts"))
            if loads is None or puts is None:
                continue
            one_load = swap_cost(file, "load", state, level)
            found.append(loads * one_load + puts * swap_cost(file, "put", state, level))
        pick = max if level == "high" else min
        prices[level] = (
            pick(found) if found and not (level == "typical" and len(files) > 1) else None
        )
    percent: dict[str, float] | None = None
    guest = answer["guest_ns"]
    if recording["emulated"] is not True and guest:
        percent = {k: (None if v is None else 100 * v / guest) for k, v in prices.items()}  # type: ignore[misc]
    return {
        "low_ns": prices["low"],
        "typical_ns": prices["typical"],
        "high_ns": prices["high"],
        "percent_of_guest_time": percent,
        "critical_ns": None,
        "absorbed_ns": None,
        "cost_files": list(files),
    }


def _swaps(answer: dict[str, Any], key: str, level: str) -> float | None:
    low, high = answer[f"{key}_low"], answer[f"{key}_high"]
    if level == "low":
        return low  # type: ignore[no-any-return]
    if high is None:
        return None
    return high if level == "high" else (low + high) / 2  # type: ignore[no-any-return]
