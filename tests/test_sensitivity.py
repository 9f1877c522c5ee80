"""Do break-even, rates and regions say what pricing the moved counts anew would say?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import UsageError
from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.prices.model import Pricing, pricing_of
from analyzer.pipeline.prices.pricing import overhead_of
from analyzer.pipeline.prices.sensitivity import add_sensitivity, set_dominated
from analyzer.pipeline.prices.ticks import Ticks
from analyzer.store import Store
from tests.conftest import ROOT, run_command

REAL: dict[str, Any] = {"arch": "x86", "vendor": "GenuineIntel", "emulated": False}
SWAPPING = ["exit", "loop", "vcpu", "sched"]
COST = "intel-sapphire-rapids"
LEVELS = ("low", "typical", "high")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    recording = ROOT / "fixtures" / "k73mi-guestpmu.pftrace.zst"
    target = tmp_path_factory.mktemp("sensitivity") / "x.vpmu"
    return ingest(str(recording), target, IngestOptions(emulated=True), lambda done, total: None)


def made(
    name: str, swaps: int, blind: int = 0, conflicts: dict[str, int] | None = None,
    *, exits: int = 1000, boundary: str | None = None, reasons: dict[str, int] | None = None,
    kind: str = "swap",
) -> dict[str, Any]:  # fmt: skip
    """A placement of `whatif` with exact numbers; `reasons`: loads after exits of that reason."""
    rows = [
        {
            "reason": reason, "exits": 0 if reason == "none" else 100, "loads_low": n,
            "loads_high": n, "puts_low": n, "puts_high": n,
        }
        for reason, n in (reasons or {"HLT": swaps}).items()
    ]  # fmt: skip
    return {
        "name": name, "boundary": boundary or name, "kind": kind, "exits": exits, "guest_ns": 10**9,
        "loads_low": swaps, "loads_high": swaps, "puts_low": swaps, "puts_high": swaps,
        "blind_ns_low": blind, "blind_ns_high": blind, "by_reason": rows, "dominated_by": None,
        "conflicts": None if conflicts is None else {"observed": conflicts, "inferred": {}},
    }  # fmt: skip


def pricing(cost: str | None = COST) -> Pricing:
    return pricing_of(REAL, cost, None, None)


def test_operations_add_up_to_the_price(store: Store) -> None:
    answer = whatif(store, choose_designs(SWAPPING), sensitivity=True)
    latencies = answer["sensitivity"]["operations"]
    for p in answer["placements"]:
        found = p["sensitivity"]["operations"]
        total = sum(row["count"] * latencies[name]["typical"] for name, row in found.items())
        assert total == pytest.approx(p["overhead"]["typical_ns"])
        assert sum(row["percent_per_percent"] for row in found.values()) == pytest.approx(1)


# 1 ns more for an operation costs as many ns as it is done; the loop below prices it anew.
def test_slope_is_what_one_ns_more_costs(store: Store, tmp_path: Path) -> None:
    before = whatif(store, choose_designs(["loop"]), "x86-intel", sensitivity=True)["placements"][0]
    path = tmp_path / "my.toml"
    path.write_text(
        "schema = 'vpmu-analyzer/cost/1'\nname = 'my'\ninherits = 'x86-intel'\n"
        "[op.selector_write]\nlow = 36\ntypical = 53\nhigh = 121\nkind = 'assumed'\n"
        "source = ['test']\n"
    )
    after = whatif(store, choose_designs(["loop"]), str(path))["placements"][0]
    slope = before["sensitivity"]["operations"]["selector_write"]["ns_per_ns"]
    moved = after["overhead"]["typical_ns"] - before["overhead"]["typical_ns"]
    assert moved == pytest.approx(slope)


# 40 loops of a dear swap against 100 of a cheap one: at some latency they meet, and it says where.
def test_break_even_latency_makes_two_placements_cost_the_same(tmp_path: Path) -> None:
    # `exit` has no save of global control at exits: 1000 VMREADs against 9 swaps more.
    answers = [made("exit", 49), made("loop", 40)]
    add_sensitivity(pricing(), answers, REAL)
    rows = answers[0]["sensitivity"]["break_even"]
    [row] = [row for row in rows if row["operation"] == "vmread"]
    path = tmp_path / "even.toml"
    path.write_text(
        f"schema = 'vpmu-analyzer/cost/1'\nname = 'even'\ninherits = '{COST}'\n"
        f"[op.vmread]\nlow = 0\ntypical = {row['latency_ns']!r}\nhigh = 1e3\nkind = 'assumed'\n"
        "source = ['test']\n"
    )
    prices = [overhead_of(pricing(str(path)), one, REAL)["typical_ns"] for one in answers]
    assert prices[0] == pytest.approx(prices[1])
    assert row["is_in_range"] == (6 <= row["latency_ns"] <= 11)
    assert [r for r in rows if r["operation"] == "all"] == []


def test_cheapest_shares_add_up_and_conflicts_take_out() -> None:
    answers = [
        made("exit", 100, conflicts={}), made("loop", 90, conflicts={}),
        made("sched", 10, conflicts={"tick": 3}),
    ]  # fmt: skip
    add_sensitivity(pricing(), answers, REAL)
    shares = [a["sensitivity"]["cheapest_share"] for a in answers]
    without = [a["sensitivity"]["cheapest_share_without_conflicts"] for a in answers]
    assert sum(shares) == pytest.approx(1)
    assert sum(without) == pytest.approx(1)
    assert shares[2] == 1
    assert without[2] == 0
    answers[0]["conflicts"] = None
    add_sensitivity(pricing(), answers, REAL)
    assert answers[1]["sensitivity"]["cheapest_share_without_conflicts"] is None


def test_dominated_by_names_who_is_no_worse_in_anything() -> None:
    answers = [
        made("loop", 100, conflicts={}), made("vcpu", 10, blind=50, conflicts={}),
        made("mine", 9, blind=0, conflicts={}, boundary="loop"),
        made("sched", 5, blind=60, conflicts={"tick": 1}),
    ]  # fmt: skip
    # The formula spans idle to busy, a factor of three: 9 busy swaps still cost less than 100 idle
    # ones, but not surely less than 10.
    set_dominated(pricing(), answers)
    assert [a["dominated_by"] for a in answers] == [["mine"], [], [], []]
    answers[3]["conflicts"] = None
    for answer in answers:
        answer["dominated_by"] = None
    set_dominated(pricing(), answers)
    assert [a["dominated_by"] for a in answers] == [None] * 4


# Ticks at another HZ: forced exits grow with HZ, and each brings the swaps of such an exit.
@pytest.mark.parametrize("boundary", ["exit", "loop", "vcpu", "sched"])
def test_hz_prices_the_forced_exits_anew(boundary: str) -> None:
    reasons = {"HLT": 300, "EXTERNAL_INTERRUPT": 100 if boundary in ("exit", "loop") else 5}
    swaps = sum(reasons.values())
    answer = made(boundary, swaps, reasons=reasons)
    add_sensitivity(pricing(), [answer], REAL, Ticks(80, 250))
    found = answer["sensitivity"]["hz"]
    each = reasons["EXTERNAL_INTERRUPT"] / 100
    assert found["swaps_per_tick"]["typical"] == each
    assert (found["forced_exits"], found["recorded_hz"]) == (80, 250)
    for name, ticks in (("100", 32), ("250", 80), ("1000", 320), ("nohz_full", 0)):
        more = ticks - 80
        moved = made(boundary, 0, exits=1000 + more)
        for key in ("loads_low", "loads_high", "puts_low", "puts_high"):
            moved[key] = swaps + more * each
        plain = overhead_of(pricing(), moved, REAL)
        for level in LEVELS:
            assert found["overhead_ns"][name][level] == pytest.approx(plain[f"{level}_ns"])


def test_hz_without_a_count_of_ticks_prices_one_of_them() -> None:
    answers = [made("loop", 100), made("vcpu", 10), made("mine", 10)]
    add_sensitivity(pricing(), answers, REAL)
    loop, vcpu, mine = (answer["sensitivity"]["hz"] for answer in answers)
    one = overhead_of(pricing(), made("loop", 1, exits=1), REAL)
    assert loop["per_tick_ns"] == pytest.approx({x: one[f"{x}_ns"] for x in LEVELS})
    assert loop["per_guest_second_ns"]["1000"]["typical"] == 1000 * loop["per_tick_ns"]["typical"]
    assert loop["per_guest_second_ns"]["nohz_full"]["typical"] == 0
    assert vcpu["swaps_per_tick"]["typical"] == 0
    # Nobody knows what a placement of the user's own does at a tick.
    assert mine["per_tick_ns"]["typical"] is None
    assert loop["overhead_ns"] is None
    assert loop["forced_exits"] is None


def test_rates_per_second_are_null_on_an_emulated_machine(store: Store) -> None:
    for p in whatif(store, choose_designs(SWAPPING), sensitivity=True)["placements"]:
        assert p["sensitivity"]["hz"]["per_guest_second_ns"] is None
        assert p["sensitivity"]["hz"]["per_tick_ns"]["high"] >= 0


# Swaps that no exit precedes stay as many; all others and the saves at exits grow.
@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from(["exit", "loop", "vcpu"]))
def test_exit_rate_moves_what_follows_exits(after: int, before: int, boundary: str) -> None:
    answer = made(boundary, after + before, reasons={"HLT": after, "none": before})
    add_sensitivity(pricing(), [answer], REAL)
    found = answer["sensitivity"]["exit_rate"]["overhead_ns"]
    for name, factor in (("0.5", 0.5), ("2", 2), ("10", 10)):
        moved = made(boundary, 0, exits=round(1000 * factor))
        for key in ("loads_low", "loads_high", "puts_low", "puts_high"):
            moved[key] = after * factor + before
        plain = overhead_of(pricing(), moved, REAL)
        for level in LEVELS:
            assert found[name][level] == pytest.approx(plain[f"{level}_ns"])


# What has no known bound has no typical and no high, and does not stop the others.
def test_unknown_bounds_stay_unknown() -> None:
    answers = [made("exit", 100), made("vcpu", 10)]
    answers[0]["loads_high"] = answers[0]["puts_high"] = None
    for row in answers[0]["by_reason"]:
        row["loads_high"] = row["puts_high"] = None
    add_sensitivity(pricing(), answers, REAL)
    first, second = (answer["sensitivity"] for answer in answers)
    assert first["operations"] == {}
    assert first["break_even"] == []
    assert first["exit_rate"]["overhead_ns"]["2"]["high"] is None
    assert second["cheapest_share"] == 1
    json.dumps(answers, allow_nan=False)


def test_two_cost_files_have_no_common_latencies() -> None:
    two = pricing_of({**REAL, "vendor": None}, None, None, None)
    with pytest.raises(UsageError, match="--cost x86-amd or x86-intel"):
        add_sensitivity(two, [made("loop", 1)], REAL)


def test_command_prints_tables_of_100_columns_and_json(store: Store, tmp_path: Path) -> None:
    arguments = ("whatif", str(store.path), "--sensitivity")
    for more in ((), ("--emulated", "no")):
        done = run_command(tmp_path, *arguments, *more)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.decode().splitlines()
        assert max(map(len, lines)) <= 100
        assert any("by operation" in line for line in lines)
    answer = json.loads(run_command(tmp_path, *arguments, "--json").stdout)
    assert answer["sensitivity"]["cost_file"] == "x86-intel"
    answer = json.loads(run_command(tmp_path, "whatif", str(store.path), "--json").stdout)
    assert answer["sensitivity"] is None
    assert {p["sensitivity"] for p in answer["placements"]} == {None}


# A perf-backed PMU pays for what nobody counted here, and hindsight is no choice: neither may win.
def test_what_is_not_priced_or_cannot_be_built_wins_against_none() -> None:
    answers = [
        made("loop", 100, conflicts={}), made("emulated", 0, conflicts={}, boundary="none"),
        made("oracle", 1, conflicts={}, kind="hindsight"),
    ]  # fmt: skip
    set_dominated(pricing(), answers)
    add_sensitivity(pricing(), answers, REAL)
    assert [a["dominated_by"] for a in answers] == [[], [], []]
    for key in ("cheapest_share", "cheapest_share_without_conflicts"):
        assert [a["sensitivity"][key] for a in answers] == [1, 0, 0]
    found = overhead_of(pricing(), answers[1], REAL)
    assert (found["low_ns"], found["typical_ns"], found["high_ns"]) == (0, None, None)
