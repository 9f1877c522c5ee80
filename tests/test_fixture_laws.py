"""The laws of the design on the recordings in fixtures/, through the store and its tables."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.store import Store

FIXTURES = sorted((Path(__file__).resolve().parents[1] / "fixtures").glob("*.zst"))


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda path: path.name.removesuffix(".zst"))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    target = tmp_path_factory.mktemp("laws") / "x.vpmu"
    return ingest(str(request.param), target, IngestOptions(emulated=True), lambda d, t: None)


@pytest.fixture(scope="module")
def answer(store: Store) -> dict[str, Any]:
    return whatif(store, choose_designs(["all"], ["told", "untold"], ["perf", "notifier"]))


def by(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["ts"], row["end"])):
        found.setdefault(row[key], []).append(row)
    return found


def windows(store: Store) -> dict[int, tuple[int, int]]:
    return {row["cpu"]: (row["ts"], row["end"]) for row in store.read("window").to_pylist()}


def losses(store: Store, cpu: int) -> list[tuple[int, int]]:
    # A loss with neither end known (the recorder's own buffer overran) has no place on a CPU.
    rows = [
        row
        for row in store.read("data_loss").to_pylist()
        if row["ts"] is not None or row["end"] is not None
    ]
    begin, end = windows(store)[cpu]
    return [
        (begin if row["ts"] is None else row["ts"], end if row["end"] is None else row["end"])
        for row in rows
        if row["cpu"] in {None, cpu} and (row["end"] is None or row["end"] > begin)
    ]


def test_recorded_owners_tile_every_window_and_are_unknown_in_a_loss(store: Store) -> None:
    rows = by(store.read("owner_slice").to_pylist(), "cpu")
    if not store.manifest["marks"]["swaps_recorded"]:
        assert rows == {}
        return
    assert rows.keys() == windows(store).keys()
    for cpu, (begin, end) in windows(store).items():
        mine = rows[cpu]
        assert (mine[0]["ts"], mine[-1]["end"]) == (begin, end)
        assert all(one["end"] == other["ts"] for one, other in pairwise(mine))
        assert all((row["owner"] == "vcpu") == (row["vcpu"] is not None) for row in mine)
        for lost_from, lost_to in losses(store, cpu):
            inside = [x for x in mine if x["ts"] < min(lost_to, end) and x["end"] > lost_from]
            assert {x["owner"] for x in inside} <= {"unknown"}


def test_the_kernels_own_swaps_give_a_cpu_one_owner_and_a_vcpu_one_cpu(store: Store) -> None:
    stays = [row for row in store.read("owner_slice").to_pylist() if row["owner"] == "vcpu"]
    for mine in by(stays, "vcpu").values():
        assert all(one["end"] <= other["ts"] for one, other in pairwise(mine))


def test_stays_of_every_design_lie_in_known_time_and_sum_up_to_its_residency(
    store: Store, answer: dict[str, Any]
) -> None:
    (path,) = (store.path / "whatif").glob("*/owner_slice.parquet")
    rows = pq.read_table(path).to_pylist()
    for placement in answer["placements"]:
        told, hook = placement["options"]["perf_told"], placement["options"]["hook"]
        key = (placement["name"], told, hook)
        mine = [r for r in rows if (r["placement"], r["perf_told"], r["hook"]) == key]
        assert {row["owner"] for row in mine} <= {"vcpu"}
        for cpu, stays in by(mine, "cpu").items():
            begin, end = windows(store)[cpu]
            assert begin <= stays[0]["ts"]
            assert stays[-1]["end"] <= end
            assert all(one["end"] <= other["ts"] for one, other in pairwise(stays))
            for lost_from, lost_to in losses(store, cpu):
                assert not [s for s in stays if s["ts"] < lost_to and s["end"] > lost_from]
        for stays in by(mine, "vcpu").values():
            assert all(one["end"] <= other["ts"] for one, other in pairwise(stays))
        # Slices are of the bound with the most swaps or the longest stays.
        bounds = {placement["residency_ns_low"], placement["residency_ns_high"]}
        assert sum(row["end"] - row["ts"] for row in mine) in bounds


def test_loads_balance_puts_under_every_design(answer: dict[str, Any]) -> None:
    for p in answer["placements"]:
        for row in p["by_vcpu"]:
            if row["loads_low"] == row["loads_high"] and row["puts_low"] == row["puts_high"]:
                loads = row["loads_low"] + row["loaded_at_start"]
                assert loads == row["puts_low"] + row["loaded_at_end"], (p["name"], row["vcpu"])


def test_predicted_swaps_are_the_recorded_ones(store: Store, answer: dict[str, Any]) -> None:
    truth = answer["truth"]
    if answer["recorded"]["placement"] is None:
        assert truth is None
        return
    moved = {"k73v": "vcpu", "k73s": "sched"}.get(store.path.name[:4], "loop")
    filters = answer["recorded"]["what"] == "el0_filters"  # arm64's, set at vcpu_load
    assert truth["boundary"] == ("vcpu" if filters else moved)
    assert (truth["differences"], truth["difference_rows"]) == (0, [])
    if any(losses(store, cpu) for cpu in windows(store)):
        return  # stays that a loss cuts are counted on one side only
    for what in ("loads", "puts"):
        low, high = truth[f"predicted_{what}_low"], truth[f"predicted_{what}_high"]
        assert low <= truth[f"recorded_{what}"] <= high


# Where no host perf is recorded there is nothing to answer from: null, not 0.
def test_no_host_episode_no_conflict_and_no_evidence(store: Store, answer: dict[str, Any]) -> None:
    (path,) = (store.path / "whatif").glob("*/conflict.parquet")
    observed = store.manifest["tables"].get("host_episode", 0)
    for p in answer["placements"]:
        known = p["conflicts"]["observed"] is not None
        assert known == bool(observed)
        assert (p["conflicts"]["no_evidence"] is None) == known
    if not observed:
        guest = {row["context"] for row in pq.read_table(path).to_pylist()}
        assert guest <= {"guest_pmi"}
