"""Does a what-if say first what it found, and does it fit a screen?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analyzer.pipeline.prices.model import pricing_of
from analyzer.pipeline.prices.pricing import overhead_of
from analyzer.pipeline.prices.verdict import verdict_of
from tests.conftest import ROOT, run_command

REAL: dict[str, Any] = {"arch": "x86", "vendor": "AuthenticAMD", "emulated": False}
PRICING = pricing_of(REAL, "x86-amd", None, None)


def made(
    name: str, swaps: int, met: int | None = 0, kind: str = "swap", **more: Any
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": name, "boundary": "exit", "kind": kind, "exits": swaps, "guest_ns": 10**9,
        "options": {"perf_told": True, "hook": None}, "loads_low": swaps, "loads_high": swaps,
        "puts_low": swaps, "puts_high": swaps, "unseen": None, "by_reason": [],
        "conflicts": {
            "observed": None if met is None else {"suppressed": met}, "inferred": {},
            "no_evidence": "no host event was active" if met is None else None,
        },
        **more,
    }  # fmt: skip
    answer["overhead"] = overhead_of(PRICING, answer, REAL)
    return answer


def verdict(*placements: dict[str, Any]) -> dict[str, Any]:
    return verdict_of(PRICING, {"recording": REAL, "placements": list(placements)})


# An idle pair of x86-amd is 600, 1294 or 5660 ns; ten times the swaps are dearer at any latency.
def test_cheapest_without_conflicts_wins_by_an_interval() -> None:
    found = verdict(made("many", 1000), made("few", 10), made("meets", 1, met=3))
    assert found["cheapest"] == "few"
    assert found["without_conflicts"] == ["many", "few"]
    assert found["overhead"] == {"low": 6000, "typical": 12940, "high": 56600}
    assert found["next"] == "many"
    assert found["is_decided"] is True
    assert found["gap_ns"]["low"] > 0
    assert found["cheaper"] == {"name": "meets", "typical_ns": 1294, "conflicts": 3}


def test_bounds_win_no_verdict() -> None:
    found = verdict(
        made("oracle", 0, kind="hindsight"), made("waits", 0, bound="lower"), made("real", 5)
    )
    assert found["cheapest"] == "real"
    assert found["next"] is None
    assert "whether guests use their PMU" in found["cannot_tell"]


def test_unknown_conflicts_are_said() -> None:
    found = verdict(made("a", 5, met=None), made("b", 6, met=None))
    assert found["cheapest"] == "a"
    assert found["conflicts_known"] is False
    assert found["without_conflicts"] is None
    assert "conflicts: no host event was active" in found["cannot_tell"]


# Traps instead of swaps: at 647 ns a trapped read two cost what a pair does.
def test_flip_is_a_latency_inside_its_range() -> None:
    trap = made(
        "traps", 0, kind="trap", boundary="none", bound="interval",
        extra_operations={"trapped_pmu_read": (10, 10, 10)},
    )  # fmt: skip
    trap["boundary"] = "none"
    trap["overhead"] = overhead_of(PRICING, trap, REAL)
    found = verdict(made("swaps", 7), trap)
    assert found["cheapest"] == "swaps"
    assert found["is_decided"] is False
    assert found["flips"]["to"] == "traps"
    assert found["flips"]["operation"] == "trapped_pmu_read"
    assert found["flips"]["latency_ns"] == pytest.approx(905.8)


def test_four_placements_fit_a_screen_and_full_says_more(tmp_path: Path) -> None:
    recording = str(ROOT / "fixtures" / "k73m-hostperf.pftrace.zst")
    words = ("whatif", recording, "--boundary", "exit,loop,vcpu,sched", "--emulated", "yes")
    short = run_command(tmp_path, *words).stdout.decode().splitlines()
    assert len(short) <= 45
    assert max(map(len, short)) <= 100
    assert short[0].startswith("store ")
    assert short[4].startswith("verdict: ")
    full = run_command(tmp_path, *words, "--full").stdout.decode()
    assert "what the swaps do to the guest" in full
    assert "loads by exit reason" in full
    assert max(map(len, full.splitlines())) <= 100
