"""Are swaps priced by what the recording shows of them, and does law 10 hold for whole answers?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.arch.x86.operations import OPERATIONS
from analyzer.errors import UsageError
from analyzer.pipeline import Asked, IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.part import part_of
from analyzer.pipeline.prices import operations
from analyzer.pipeline.prices.model import Pricing, pricing_of
from analyzer.pipeline.prices.one_swap import vectors_of
from analyzer.pipeline.prices.operations import RecordedOperations, recorded_operations
from analyzer.pipeline.prices.pricing import overhead_of
from analyzer.replay import Part
from analyzer.store import Store
from tests.conftest import ROOT

SWAPPING = ["exit", "loop", "vcpu", "sched"]
AMD, INTEL, ARM = "k73m-hostperf", "k73mi-guestpmu", "A-arm64-k72-guestpmu"
REAL: dict[str, Any] = {"arch": None, "vendor": None, "emulated": False}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("pricing")
    return {
        name: ingest(
            str(ROOT / "fixtures" / f"{name}.pftrace.zst"), folder / f"{name}.vpmu",
            IngestOptions(emulated=True), lambda done, total: None,
        )
        for name in (AMD, INTEL, ARM)
    }  # fmt: skip


def plain_counts(store: Store, actor: str) -> Counter[str]:
    """Operations of one actor, row by row."""
    rows = store.read("pmu_access", ["op", "role"]).to_pylist()
    actors = store.read("pmu_attribution", ["actor"])["actor"].to_pylist()
    return Counter(
        OPERATIONS[row["op"], row["role"]]
        for row, one in zip(rows, actors, strict=True)
        if one == actor
    )


def totals(found: RecordedOperations, half: dict[str, dict[str, float]], kind: str) -> Any:
    swaps = found.swaps[kind]
    registers = set(OPERATIONS.values())
    return {name: round(mean * swaps, 6) for name, mean in half[kind].items() if name in registers}


# The first swap's load of the Intel recording is before its window, so its put has no state.
@pytest.mark.parametrize("name", [AMD, INTEL])
def test_recorded_operations_are_those_of_a_plain_count(
    stores: dict[str, Store], name: str
) -> None:
    store = stores[name]
    found = recorded_operations(store, Part())
    assert found is not None
    for kind in ("load", "put"):
        assert totals(found, found.kvm, kind) == plain_counts(store, f"kvm_{kind}")
        assert totals(found, found.perf, kind) == plain_counts(store, f"perf_{kind}")
    swaps = store.read("recorded_swap").to_pylist()
    for kind in ("load", "put"):
        mine = [row for row in swaps if row["kind"] == kind]
        assert sum(row["kvm_reads"] + row["kvm_writes"] for row in mine) == round(
            sum(found.kvm[kind].values()) * len(mine)
        )
    assert found.exit_reads == sum(plain_counts(store, "kvm_exit_read").values())


def test_counters_and_apic_are_those_of_the_recording(stores: dict[str, Store]) -> None:
    amd, intel = (recorded_operations(stores[name], Part()) for name in (AMD, INTEL))
    assert amd is not None
    assert intel is not None
    assert (amd.gp, amd.fixed, amd.apic) == ((6, 6, 6), (0, 0, 0), "xapic")
    assert (intel.gp, intel.fixed, intel.apic) == ((4, 4, 4), (3, 3, 3), "x2apic")


# Batches end where they end, and parts side by side add up.
def test_batches_and_parts_change_nothing(
    stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[INTEL]
    whole = recorded_operations(store, Part())
    monkeypatch.setattr(operations, "BATCH_ROWS", 997)
    assert recorded_operations(store, Part()) == whole
    assert whole is not None
    half = store.manifest["recording"]["duration_ns"] / 2e9
    sums: Counter[str] = Counter()
    for asked in (Asked(to_s=half), Asked(from_s=half)):
        part = recorded_operations(store, part_of(store, asked))
        assert part is not None
        sums.update(totals(part, part.kvm, "load"))
    assert sums == pytest.approx(totals(whole, whole.kvm, "load"))


def test_nothing_recorded_is_priced_by_the_formula(stores: dict[str, Store]) -> None:
    assert recorded_operations(stores[ARM], Part()) is None
    [answer] = whatif(stores[ARM], choose_designs(["vcpu"]))["placements"]
    found = answer["overhead"]["operations"]["load"]
    assert (found["typical_from"], found["ends_from"]) == ("formula", "formula")
    assert found["operations"]["sysreg_write"] == {"low": 21, "typical": 21, "high": 21}
    assert {"guest-pmu-state", "no-host-events"} <= set(answer["assumptions"])


def test_recorded_placement_pays_for_what_was_recorded(stores: dict[str, Store]) -> None:
    answers = {p["name"]: p for p in whatif(stores[AMD], choose_designs(SWAPPING))["placements"]}
    own, other = answers["loop"]["overhead"], answers["vcpu"]["overhead"]
    for found in own["operations"].values():
        assert (found["typical_from"], found["ends_from"]) == ("recorded", "recorded")
        for count in found["operations"].values():
            assert count["low"] == count["typical"] == count["high"]
    for found in other["operations"].values():
        assert (found["typical_from"], found["ends_from"]) == ("recorded", "formula")
        for count in found["operations"].values():
            assert count["low"] <= count["typical"] <= count["high"]
    assert "recorded-operations" in answers["loop"]["assumptions"]
    assert "modelled-operations" in answers["vcpu"]["assumptions"]
    assert own["assumed_share"] == 1
    # The store to the xAPIC and the calls of perf leave no event, and cost something all the same.
    load = own["operations"]["load"]["operations"]
    assert load["lvtpc_write_xapic"]["typical"] == load["perf_guest_context"]["typical"] == 1
    assert "lvtpc_write_x2apic" not in load


def test_percentages_are_null_on_an_emulated_machine_only(stores: dict[str, Store]) -> None:
    for emulated, is_null in ((None, True), (True, True), (False, False)):
        for p in whatif(stores[AMD], choose_designs(SWAPPING), emulated=emulated)["placements"]:
            assert (p["overhead"]["percent_of_guest_time"] is None) == is_null
            assert p["overhead"]["typical_ns"] > 0


@pytest.mark.parametrize("name", [AMD, INTEL])
def test_a_dearer_file_never_makes_a_placement_cheaper(
    stores: dict[str, Store], tmp_path: Path, name: str
) -> None:
    parent = {AMD: "x86-amd", INTEL: "x86-intel"}[name]
    before = whatif(stores[name], choose_designs(SWAPPING), parent)["placements"]
    for operation in ("counter_write", "perf_event_in", "vm_roundtrip_slow", "status_read"):
        path = tmp_path / f"{operation}.toml"
        path.write_text(
            f"schema = 'vpmu-analyzer/cost/1'\nname = 'dear'\ninherits = '{parent}'\n"
            f"[op.{operation}]\nlow = 1e4\ntypical = 2e4\nhigh = 3e4\nkind = 'assumed'\n"
            "source = ['test']\n"
        )
        after = whatif(stores[name], choose_designs(SWAPPING), str(path))["placements"]
        for old, new in zip(before, after, strict=True):
            for level in ("low_ns", "typical_ns", "high_ns"):
                assert new["overhead"][level] >= old["overhead"][level], operation


def counted(low: int, more: int, exits: int, boundary: str, known: bool = True) -> dict[str, Any]:
    high = low + more if known else None
    return {
        "boundary": boundary, "exits": exits, "guest_ns": 10**9, "loads_low": low,
        "loads_high": high, "puts_low": low, "puts_high": high,
    }  # fmt: skip


ANSWERS = st.builds(
    counted, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6),
    st.sampled_from(["exit", "loop", "vcpu", "sched", "mine"]), st.booleans(),
)  # fmt: skip
FILES = [
    "x86-amd", "x86-intel", "intel-sapphire-rapids", "intel-skylake-sp", "amd-zen5", "arm64",
    "loongarch", "power9",
]  # fmt: skip


# Law 10 for whole answers, with and without a known bound, of every shipped file.
@pytest.mark.laws
@given(ANSWERS, st.sampled_from([*FILES, None]), st.floats(0, 1))
def test_low_typical_high_stand_in_order(
    answer: dict[str, Any], cost: str | None, on_share: float
) -> None:
    pricing = replace(pricing_of(REAL, cost, None, None), on_share=on_share)
    found = overhead_of(pricing, answer, REAL)
    low, typical, high = (found[f"{level}_ns"] for level in ("low", "typical", "high"))
    assert low is not None
    assert low >= 0
    if answer["loads_high"] is None:
        assert high is None
        assert typical is None
    else:
        assert low <= high
        assert (typical is None) == (cost is None)
        assert typical is None or low <= typical <= high
    share = found["assumed_share"]
    assert share is None or 0 <= share <= 1 + 1e-12


@pytest.mark.laws
@given(ANSWERS, st.sampled_from(FILES))
def test_free_operations_cost_nothing(answer: dict[str, Any], cost: str) -> None:
    pricing = pricing_of(REAL, cost, None, None)
    free = [replace(model, latencies=model.latencies * 0) for model in pricing.models]
    found = overhead_of(replace(pricing, models=tuple(free)), answer, REAL)
    assert found["low_ns"] == 0
    if answer["loads_high"] is not None:
        assert found["typical_ns"] == found["high_ns"] == 0
        assert found["assumed_share"] is None


# What later placements do besides swapping is priced like the rest.
def test_extra_operations_are_added() -> None:
    pricing = pricing_of(REAL, "x86-intel", None, None)
    plain = counted(10, 0, 0, "loop")
    traps = {"extra_operations": {"trapped_pmu_read": (5, 6, 7)}}
    before, after = (overhead_of(pricing, one, REAL) for one in (plain, {**plain, **traps}))
    more = [after[f"{level}_ns"] - before[f"{level}_ns"] for level in ("low", "typical", "high")]
    assert more == pytest.approx([5 * 450, 6 * 700, 7 * 1300])
    with pytest.raises(UsageError, match=r"op\.unheard_of"):
        overhead_of(pricing, {**plain, "extra_operations": {"unheard_of": (1, 1, 1)}}, REAL)


# The more guests use their PMU, the more operations a typical swap has.
@pytest.mark.parametrize("cost", FILES)
def test_share_of_busy_guests_moves_typical_between_the_ends(cost: str) -> None:
    rows = []
    for share in (0.0, 0.5, 1.0):
        pricing = replace(pricing_of(REAL, cost, None, None), on_share=share)
        rows.append(vectors_of(pricing, pricing.models[0], counted(0, 0, 0, "loop"))[0])
    low, typical, high = np.stack(rows).transpose(1, 0, 2)
    assert (typical[0] == low[0]).all()
    assert (typical[2] == high[0]).all()
    assert typical[1] == pytest.approx((low[0] + high[0]) / 2)


def test_hull_of_two_vendors_has_no_typical() -> None:
    pricing: Pricing = pricing_of(REAL, None, None, None)
    found = overhead_of(pricing, counted(10, 0, 10, "loop"), REAL)
    each = [
        overhead_of(pricing_of(REAL, name, None, None), counted(10, 0, 10, "loop"), REAL)
        for name in ("x86-amd", "x86-intel")
    ]
    assert found["cost_files"] == ["x86-amd", "x86-intel"]
    assert found["typical_ns"] is None
    assert found["low_ns"] == min(one["low_ns"] for one in each)
    assert found["high_ns"] == max(one["high_ns"] for one in each)


# Without recorded swaps nothing else would keep an x86 host from arm64's prices.
def test_file_of_another_architecture_is_refused(stores: dict[str, Store]) -> None:
    with pytest.raises(UsageError, match="powerpc; the recording is of x86"):
        whatif(stores[AMD], choose_designs(["loop"]), "power9")


def test_architecture_without_a_swap_is_not_priced() -> None:
    with pytest.raises(UsageError, match=r"swap\.load\.idle"):
        pricing_of(REAL, "riscv", None, None)


def test_file_without_a_swap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("schema = 'vpmu-analyzer/cost/1'\nname = 'my'\n")
    with pytest.raises(UsageError, match=r"swap\.load\.idle"):
        pricing_of(REAL, str(path), None, None)
