"""Does `whatif` count only what was asked for, and say what the recording hasn't?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analyzer.errors import UsageError
from analyzer.pipeline import Asked, IngestOptions, choose_designs, ingest, whatif
from analyzer.store import Store
from tests.conftest import ROOT, run_command

FIXTURE = ROOT / "fixtures" / "k73m-migrate.pftrace.zst"
SUMS = ("loads_low", "loads_high", "puts_low", "puts_high", "guest_ns", "residency_ns_low")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    target = tmp_path_factory.mktemp("part") / "x.vpmu"
    return ingest(str(FIXTURE), target, IngestOptions(emulated=False), lambda done, total: None)


def answers(store: Store, **asked: Any) -> dict[str, Any]:
    return whatif(store, choose_designs(["all"]), asked=Asked(**asked))


def sums(*found: dict[str, Any]) -> list[list[int]]:
    return [[sum(one["placements"][at][key] for one in found) for key in SUMS] for at in range(4)]


def test_parts_of_a_recording_add_up_to_its_answer(store: Store) -> None:
    whole = answers(store)
    assert whole["asked"] is None
    cpus = store.read("window")["cpu"].to_pylist()
    tids = [row["tid"] for row in whole["vcpus"]]
    assert len(cpus) > 1
    for parts in (
        [{"to_s": 0.1}, {"from_s": 0.1, "to_s": 0.25}, {"from_s": 0.25}],
        [{"cpus": (cpu,)} for cpu in cpus],
        [{"vcpus": (tid,)} for tid in tids],
    ):
        found = [answers(store, **part) for part in parts]
        assert sums(*found) == sums(whole)
        loads = [one["recorded"]["loads"] for one in found]
        assert sum(loads) == whole["recorded"]["loads"]
        predicted = [one["truth"]["predicted_loads_high"] for one in found]
        assert sum(predicted) == whole["truth"]["predicted_loads_high"]


# What was counted by hand over the store's own tables.
def test_part_agrees_with_the_tables(store: Store) -> None:
    begin = store.manifest["recording"]["begin_ns"]
    low, high = begin + 100_000_000, begin + 250_000_000
    answer = answers(store, from_s=0.1, to_s=0.25, cpus=(0,))
    exits = [row for row in store.read("vm_exit").to_pylist() if row["cpu"] == 0]
    inside = [row for row in exits if low <= row["ts"] < high]
    assert 0 < len(inside) < len(exits)
    by_reason = answer["placements"][0]["by_reason"]
    assert sum(row["exits"] for row in by_reason) == len(inside)
    guest = sum(
        max(0, min(row["end"], high) - max(row["ts"], low))
        for row in store.read("guest_slice").to_pylist()
        if row["cpu"] == 0
    )
    assert answer["placements"][0]["guest_ns"] == guest
    swaps = answer["placements"][0]["loads"] + answer["placements"][0]["puts"]
    (window,) = (row for row in store.read("window").to_pylist() if row["cpu"] == 0)
    seconds = (min(high, window["end"]) - max(low, window["ts"])) / 1e9
    assert 0 < seconds <= 0.15
    assert answer["placements"][0]["swaps_per_second"] == pytest.approx(swaps / seconds)


# A stay across a cut is listed up to the cut, so that the rows sum up to what was counted.
@pytest.mark.parametrize(
    "part", [{"from_s": 0.1, "to_s": 0.25}, {"cpus": (1,)}, {"to_s": 0.2, "cpus": (0,)}, {}]
)
def test_owner_slices_are_those_of_the_part(store: Store, part: dict[str, Any]) -> None:
    for folder in (store.path / "whatif").glob("*"):
        shutil.rmtree(folder)
    answer = answers(store, **part)
    (path,) = (store.path / "whatif").glob("*/owner_slice.parquet")
    rows = pq.read_table(path).to_pylist()
    begin = store.manifest["recording"]["begin_ns"]
    low = begin + round(part.get("from_s", 0) * 1e9)
    high = begin + round(part.get("to_s", 1e3) * 1e9)
    assert all(low <= row["ts"] <= row["end"] <= high for row in rows)
    assert {row["cpu"] for row in rows} <= set(part.get("cpus", (0, 1, 2, 3)))
    for placement in answer["placements"]:
        mine = [row for row in rows if row["placement"] == placement["name"]]
        bounds = {placement["residency_ns_low"], placement["residency_ns_high"]}
        assert sum(row["end"] - row["ts"] for row in mine) in bounds


def test_only_the_vcpus_asked_for_are_listed(store: Store) -> None:
    tid = answers(store)["vcpus"][-1]["tid"]
    answer = answers(store, vcpus=(tid,))
    assert [row["tid"] for row in answer["vcpus"]] == [tid]
    assert {len(p["by_vcpu"]) for p in answer["placements"]} == {1}
    assert answer["asked"]["vcpus"] == [tid]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"from_s": 2.0, "to_s": 1.0}, "--from is 2.0; allowed: less than --to, 1.0"),
        ({"from_s": -1.0}, "--from is -1.0"),
        ({"to_s": float("nan")}, "--to is nan"),
        ({"cpus": (77,)}, "--cpu 77 is not in this recording; there are: 0, 1"),
        ({"vcpus": (1,)}, "--vcpu 1 is not in this recording"),
    ],
)
def test_what_the_recording_has_not_is_refused(
    store: Store, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        answers(store, **asked)


def test_flags_reach_the_answer_and_bad_ones_are_refused(store: Store, tmp_path: Path) -> None:
    flags = ("whatif", str(store.path), "-b", "exit", "--from", "0.1", "--to", "0.2")
    done = run_command(tmp_path, *flags, "-C", "0-1", "--json")
    assert done.returncode == 0, done.stderr
    wanted = {"from_s": 0.1, "to_s": 0.2, "cpus": [0, 1], "vcpus": None}
    assert json.loads(done.stdout)["asked"] == wanted
    drawn = run_command(tmp_path, *flags, "--cpu", "0").stdout.decode()
    assert "counted below: from 0.1 s; to 0.2 s; CPUs 0 (all" in drawn
    for bad in ("x", "3-1", "", "0,", "0-99999999"):
        refused = run_command(tmp_path, "whatif", str(store.path), "--cpu", bad)
        assert refused.returncode == 2, bad
        assert refused.stderr.startswith(b"analyzer: --cpu ")
