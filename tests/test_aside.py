"""What stands beside the table: rates, idle VMs and needs, held against the kernel's own swaps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from analyzer.pipeline import Asked, IngestOptions, choose_designs, ingest, whatif
from analyzer.replay import shipped_placements
from analyzer.store import Store
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = ROOT / "fixtures" / "k73m-overcommit.pftrace.zst"
    target = tmp_path_factory.mktemp("aside") / "x.vpmu"
    return ingest(str(path), target, IngestOptions(emulated=True), lambda d, t: None)


def answers(store: Store, **more: Any) -> dict[str, dict[str, Any]]:
    found = whatif(store, choose_designs(["all"]), "x86-amd", **more)["placements"]
    return {p["name"]: p for p in found}


def test_swaps_of_each_cpu_are_those_that_the_kernel_made_there(store: Store) -> None:
    made = Counter(
        (row["cpu"], row["kind"])
        for row in store.read("recorded_swap", ["cpu", "kind"]).to_pylist()
    )
    rows = answers(store)["loop"]["by_cpu"]
    assert len(rows) > 1
    for row in rows:
        assert row["loads_low"] == row["loads_high"] == made[row["cpu"], "load"]
        assert row["puts_low"] == row["puts_high"] == made[row["cpu"], "put"]


@pytest.mark.parametrize("asked", [Asked(), Asked(0.2, 0.9), Asked(cpus=(1,))], ids=str)
def test_cpus_and_vcpus_add_up_to_the_same_swaps(store: Store, asked: Asked) -> None:
    for p in answers(store, asked=asked).values():
        for name in ("loads", "puts"):
            low, high = (sum(row[f"{name}_{b}"] for row in p["by_cpu"]) for b in ("low", "high"))
            # A CPU's fewest may be of one bound and another's of the other.
            assert low <= p[f"{name}_low"] <= p[f"{name}_high"] <= high
            if p["loads_low"] == p["loads_high"] and p["puts_low"] == p["puts_high"]:
                assert low == high or p["boundary"] == "vcpu"


def test_rates_are_counts_by_the_time_recorded_and_null_where_time_means_nothing(
    store: Store,
) -> None:
    assert all(p["rates"] is None for p in answers(store).values())
    seconds = None
    for p in answers(store, emulated=False).values():
        rates = p["rates"]
        total = sum(row["high"] for row in rates["swaps_per_second_by_vcpu"])
        if p["swaps_per_second"]:
            seconds = (p["loads"] + p["puts"]) / p["swaps_per_second"]
            assert total == pytest.approx(p["swaps_per_second"])
        met = p["conflicts"]["by_context"]
        assert (met is None) == (rates["episodes_per_second"] is None)
    assert seconds == pytest.approx(store.manifest["recording"]["duration_ns"] / 1e9, rel=0.1)


def test_idle_vms_pay_for_every_swap_and_nothing_where_the_first_use_is_waited_for(
    store: Store,
) -> None:
    for name, p in answers(store).items():
        idle = p["idle_guest_ns"]
        if name in ("exit-demand", "loop-demand", "emulated"):
            assert set(idle.values()) == {0.0}
            continue
        assert 0 < idle["low"] <= idle["typical"] <= idle["high"] <= p["overhead"]["high_ns"] * 1.01
        assert idle["low"] == pytest.approx(p["overhead"]["low_ns"], rel=0.02)


def test_every_placement_says_who_must_change_what(store: Store) -> None:
    found = answers(store)
    assert set(found) == set(shipped_placements())
    assert all(set(p["needs"]) == {"changes", "hardware", "deterministic", "proposed_by"}
               for p in found.values())  # fmt: skip
    assert found["loop"]["needs"]["changes"] == []
    assert "KVM" in found["vcpu"]["needs"]["changes"]
