"""Does `moves` say what an assumption would turn? Held against what-ifs that have it moved."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.replay import load_cost
from analyzer.store import Store
from tests.conftest import ROOT

NAMES = ["exit", "vcpu", "sched", "exit-demand", "hardware", "emulated", "oracle"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("moved") / "x.vpmu"
    recording = ROOT / "fixtures" / "k73m-overcommit.pftrace.zst"
    return ingest(str(recording), path, IngestOptions(emulated=True), lambda done, total: None)


def asked(store: Store, cost: str | None = None) -> dict[str, Any]:
    return whatif(store, choose_designs(NAMES), cost)


def typical(answer: dict[str, Any]) -> dict[str, float | None]:
    return {p["name"]: p["overhead"]["typical_ns"] for p in answer["placements"]}


def cheaper(prices: dict[str, float | None]) -> set[tuple[str, str]]:
    return {
        (a, b)
        for a, b in permutations(prices, 2)
        if (x := prices[a]) is not None and (y := prices[b]) is not None and x * (1 + 1e-9) < y
    }


def of(answer: dict[str, Any], name: str) -> Any:
    return next(item["moves"] for item in answer["assumptions"] if item["id"] == name)


def test_latencies_turn_what_cost_files_with_one_of_them_moved_turn(
    store: Store, tmp_path: Path
) -> None:
    plain = asked(store)
    first, turned, leaders = cheaper(typical(plain)), set(), set()
    clean = plain["verdict"]["without_conflicts"] or NAMES
    for name, cost in load_cost("x86-amd").operations.items():
        for end in ("low", "high"):
            moved = {**cost, "typical": cost[end]}
            path = tmp_path / f"{name}-{end}.toml"
            rows = "\n".join(f"{k} = {v!r}" for k, v in moved.items() if k != "note")
            head = 'schema = "vpmu-analyzer/cost/1"\nname = "moved"\ninherits = "x86-amd"\n'
            path.write_text(f"{head}[op.{name}]\n{rows}\n")
            prices = typical(asked(store, str(path)))
            turned |= {(a, b) for a, b in first if (b, a) in cheaper(prices)}
            known = {n: p for n, p in prices.items() if n in clean and n != "oracle" and p}
            leaders.add(min(known, key=lambda n: known[n]))
    assert turned
    assert len(leaders) > 1
    found = of(plain, "priced-not-measured")
    assert {tuple(pair) for pair in found["turned"]} == turned
    assert set(found["cheapest"]) == leaders - {plain["verdict"]["cheapest"]}


def test_an_assumption_that_one_placement_rests_on_moves_that_one_only(store: Store) -> None:
    answer = asked(store)
    resting = {
        item["id"]: {p["name"] for p in answer["placements"] if item["id"] in p["assumptions"]}
        for item in answer["assumptions"]
    }
    for item in answer["assumptions"]:
        for pair in (item["moves"] or {"turned": []})["turned"]:
            assert resting[item["id"]] & set(pair), item["id"]
    assert of(answer, "guest-work-fixed") is None
