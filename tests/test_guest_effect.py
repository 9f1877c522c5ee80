"""What do swaps do to the guest? Hand-written histories, and recordings against a plain count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.pipeline import Asked, IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.part import part_of
from analyzer.pipeline.prices.guest_effect import price_times, set_guest_effect
from analyzer.pipeline.prices.model import pricing_of
from analyzer.pipeline.prices.pricing import overhead_of
from analyzer.pipeline.replays import Outcome, cpus_of, replay_all
from analyzer.pipeline.swaps import Course, Ground, course_of, walk_of
from analyzer.replay import Counts, Part, shipped_placements
from analyzer.replay import kernel as q
from analyzer.store import Store
from tests import replayed
from tests.conftest import ROOT
from tests.reference_swaps import Swaps, swaps_of
from tests.test_walk_laws import assert_walk_agrees

REAL: dict[str, Any] = {"arch": "x86", "vendor": "AuthenticAMD", "emulated": False}
# x86-amd, an idle guest: ns of one load and one put, low and typical.
LOAD_LOW, LOAD, PUT_LOW, PUT = 475, 1007, 125, 287


def course(
    entries: list[tuple[int, int, int]], blocks: list[tuple[int, int, int]],
    exits: list[tuple[int, int]] | None = None,
) -> Course:  # fmt: skip
    def columns(rows: Any, width: int) -> Any:
        return np.array(rows or np.empty((0, width)), np.int64).reshape(-1, width)

    return Course(columns(entries, 3), columns(blocks, 3), columns(exits, 2), 0, 10_000)


def outcome(*stays: tuple[int, int, int, int], loaded: int = 1) -> Outcome:
    """Stays (ts, end, cpu, vcpu), each put at its end; loaded 0: nobody loaded them here."""
    rows = np.zeros((len(stays), q.SLICE_ROW), np.int64)
    for n, (ts, end, cpu, vcpu) in enumerate(stays):
        rows[n, [q.S_TS, q.S_END, q.S_CPU, q.S_VCPU, q.S_WHOLE]] = ts, end, cpu, vcpu, 1
        rows[n, q.S_LOADED] = loaded
    counts = Counts(
        np.zeros((2, q.COUNTS), np.int64), np.zeros((1, 4), np.int64), np.zeros(q.TOTALS, np.int64)
    )
    return replayed.outcome_of(replayed.written(counts, rows))


def swaps(of: Course, stays: Outcome) -> Swaps:
    assert_walk_agrees(of, stays.runs[0], Part(), 2, 1)
    return swaps_of(of, replayed.slices(stays.runs[0]), Part())


# The guest runs at 100, 300 and, after a block from 420 to 800, at 900. Its loop swaps at each.
THREE = course([(100, 0, 0), (300, 0, 0), (900, 0, 0)], [(420, 800, 0)], [(200, 0), (400, 0)])
LOOP = outcome((100, 200, 0, 0), (300, 400, 0, 0), (900, 1000, 0, 0))


def test_put_before_a_block_is_absorbed() -> None:
    found = swaps(THREE, LOOP)
    assert found.ts.tolist() == [100, 200, 300, 400, 900, 1000]
    assert found.is_load.tolist() == [True, False] * 3
    assert found.is_absorbed.tolist() == [False, False, False, True, False, False]
    assert found.entry.tolist()[:5] == [0, 1, 1, 2, 2]


def effect_of(of: Course, stays: Outcome, loads: int, puts: int, name: str = "loop") -> Any:
    answer: dict[str, Any] = {
        "name": name, "boundary": "exit", "kind": "swap", "options": {"perf_told": True},
        "exits": len(of.exits), "guest_ns": 10**6, "loads_low": loads, "loads_high": loads,
        "puts_low": puts, "puts_high": puts,
    }  # fmt: skip
    pricing = pricing_of(REAL, "x86-amd", None, None)
    answer["overhead"] = overhead_of(pricing, answer, REAL)
    ground = Ground(of, Part(), 2, 1)
    both = (walk_of(ground, stays.runs[0]),) * 2
    set_guest_effect(pricing, answer, shipped_placements()[name], both, ground)
    times = [{"loads": n == 0, "puts": n == 1, "exits": 0} for n in range(3)]
    answer["prices"] = price_times(pricing, answer, times)
    return answer


# Before the entries stand: a load; a put and a load; after the block only the load.
def test_latency_of_entries_and_wakeups_by_hand() -> None:
    answer = effect_of(THREE, LOOP, 3, 3)
    effect, overhead = answer["guest_effect"], answer["overhead"]
    assert overhead["absorbed_ns"] == PUT
    assert overhead["critical_ns"] == 3 * LOAD + 2 * PUT
    assert overhead["critical_ns"] + overhead["absorbed_ns"] == overhead["typical_ns"]
    assert (overhead["critical_ns_low"], overhead["absorbed_ns_low"]) == (
        3 * LOAD_LOW + 2 * PUT_LOW,
        PUT_LOW,
    )
    assert effect["entries"] == effect["entries_with_swap_low"] == 3
    entry = effect["entry_latency_ns"]
    assert entry["median"]["typical"] == LOAD
    assert entry["max"]["typical"] == entry["p99"]["typical"] == LOAD + PUT
    assert entry["max"]["low"] == LOAD_LOW + PUT_LOW
    assert effect["wakeups"] == 1
    assert effect["wakeup_latency_ns"]["median"]["typical"] == LOAD
    assert effect["interrupts_off"]["per_exit_ns"]["typical"] == (3 * LOAD + 3 * PUT) / 2
    assert effect["interrupts_off"]["longest_ns"]["typical"] == LOAD
    assert effect["longest_residency_ns_high"] == 100


def test_a_bucket_of_time_costs_what_its_swaps_cost() -> None:
    rows = effect_of(THREE, LOOP, 3, 3)["prices"]
    assert [row["overhead_typical_ns"] for row in rows] == [LOAD, PUT, 0]
    assert [row["overhead_low_ns"] for row in rows] == [LOAD_LOW, PUT_LOW, 0]


# vCPU 1 comes to CPU 0, where vCPU 0's state was kept over its block: that put is in 1's way.
def test_displaced_put_is_in_the_way_of_who_displaces() -> None:
    of = course([(100, 0, 0), (500, 0, 1)], [(250, 900, 0)])
    found = swaps(of, outcome((100, 500, 0, 0), (500, 600, 0, 1)))
    at = [(int(t), bool(load)) for t, load in zip(found.ts, found.is_load, strict=True)]
    put = at.index((500, False))
    assert found.vcpu[put] == 0
    assert found.payer[put] == 1
    assert found.entry[put] == 1
    assert not found.is_absorbed[put]


# Evicted while its vCPU sleeps: nobody waits for that.
def test_put_during_a_block_is_absorbed() -> None:
    of = course([(100, 0, 0), (950, 0, 0)], [(250, 900, 0)])
    found = swaps(of, outcome((100, 500, 0, 0)))
    assert found.is_absorbed.tolist() == [False, True]


# A window that begins in the guest is loaded, and nobody loads it there.
def test_stay_from_the_start_is_no_load() -> None:
    found = swaps(course([], []), outcome((100, 200, 0, 0), loaded=0))
    assert found.is_load.tolist() == [False]


def test_exits_count_only_with_the_state_on() -> None:
    of = course([(100, 0, 0)], [], exits=[(150, 0), (200, 0), (201, 0), (150, 1)])
    walk = walk_of(Ground(of, Part(), 2, 1), outcome((100, 200, 0, 0)).runs[1])
    assert walk.exits.tolist() == [2, 0]


@pytest.fixture(scope="module", params=["k73m-hostperf", "k73mi-guestpmu", "k73m-overcommit"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder: Path = tmp_path_factory.mktemp("effect")
    name = request.param
    return ingest(
        str(ROOT / "fixtures" / f"{name}.pftrace.zst"), folder / f"{name}.vpmu",
        IngestOptions(emulated=True), lambda done, total: None,
    )  # fmt: skip


def plain_absorbed(store: Store, found: Swaps) -> list[bool]:
    """One swap after the other: does its payer block before its next entry?"""
    entries = store.read("guest_slice", ["ts", "vcpu"]).to_pylist()
    modes = store.read("mode_slice", ["ts", "end", "vcpu", "mode"]).to_pylist()
    result = []
    for n in range(found.ts.size):
        ts, vcpu = found.ts[n], found.payer[n]
        at_once = found.is_load[n] or found.payer[n] != found.vcpu[n]
        later = [
            e["ts"] for e in entries
            if e["vcpu"] == vcpu and (e["ts"] >= ts if at_once else e["ts"] > ts)
        ]  # fmt: skip
        mine = [m for m in modes if m["vcpu"] == vcpu and m["mode"] == "blocked"]
        blocks = [m["ts"] for m in mine if m["ts"] >= ts]
        asleep = any(m["ts"] <= ts < m["end"] for m in mine) and not at_once
        result.append(asleep or min(blocks, default=2**63) < min(later, default=2**63 - 1))
    return result


@pytest.mark.parametrize("name", ["loop", "vcpu", "sched", "lazy-core"])
def test_recording_agrees_with_a_plain_count(store: Store, name: str) -> None:
    designs = choose_designs([name])
    part = part_of(store, Asked())
    outcomes, _ = replay_all(store, designs, part)
    of = course_of(store, part)
    [answer] = whatif(store, designs, "x86-amd", by_time=True)["placements"]
    for bound in (0, 1):
        run = outcomes[designs[0]].runs[bound]
        assert_walk_agrees(of, run, part, len(run.counts.vcpus), cpus_of(store))
        found = swaps_of(of, replayed.slices(run), part)
        loads = int(found.is_load.sum())
        assert answer["loads_low"] <= loads <= answer["loads_high"]
        assert answer["puts_low"] <= found.ts.size - loads <= answer["puts_high"]
        assert found.is_absorbed.tolist() == plain_absorbed(store, found)
    overhead = answer["overhead"]
    assert overhead["critical_ns"] + overhead["absorbed_ns"] == pytest.approx(
        overhead["typical_ns"]
    )
    extra = answer["extra_operations"].get("ipi_roundtrip", (0, 0, 0))[1] * 2000
    # A time bucket has a row for each bound, and typical lies midway between them.
    bounds = len({row["bound"] for row in answer["by_time"]})
    price = sum(row["overhead_typical_ns"] for row in answer["by_time"]) / bounds
    assert price == pytest.approx(overhead["typical_ns"] - extra)
    assert sum(row["exits"] for row in answer["by_time"]) == answer["exits"] * bounds
    for rows in ("by_vcpu", "by_reason"):
        price = sum(row["overhead_typical_ns"] for row in answer[rows])
        assert price == pytest.approx(overhead["typical_ns"] - extra), rows
        assert sum(row["loads_low"] for row in answer[rows]) == answer["loads_low"]
        assert sum(row["exits"] for row in answer[rows]) == answer["exits"]


# Law 5 for prices: parts side by side add up.
def test_parts_add_up(store: Store) -> None:
    half = store.manifest["recording"]["duration_ns"] / 2e9
    designs = choose_designs(["loop", "sched"])
    whole, first, second = (
        whatif(store, designs, "x86-amd", asked=asked)["placements"]
        for asked in (Asked(), Asked(to_s=half), Asked(from_s=half))
    )
    for all_of_it, a, b in zip(whole, first, second, strict=True):
        entries = [p["guest_effect"]["entries"] for p in (all_of_it, a, b)]
        assert entries[0] == entries[1] + entries[2]
        for key in ("loads_low", "puts_low"):
            sums = [sum(row[key] for row in p["by_reason"]) for p in (all_of_it, a, b)]
            assert sums[0] == sums[1] + sums[2] == all_of_it[key]
