"""Is each kind of design priced by who moves what? Untold, hardware, emulated, demand, evicting."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.arch.x86.msrs import lookup
from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.prices.beside import set_beside
from analyzer.pipeline.prices.emulation import Emulation, break_even_of, emulation_of
from analyzer.pipeline.prices.model import pricing_of
from analyzer.pipeline.prices.one_swap import is_own, vectors_of
from analyzer.pipeline.prices.operations import recorded_operations
from analyzer.pipeline.prices.pricing import overhead_of
from analyzer.pipeline.prices.sensitivity import set_dominated
from analyzer.replay import Counts, Part, shipped_placements
from analyzer.replay import kernel as q
from analyzer.store import Store
from tests.conftest import ROOT

REAL: dict[str, Any] = {"arch": "x86", "vendor": "AuthenticAMD", "emulated": False}
MEDIATED, BACKED = "k73m-hostperf", "k73l-guestpmu"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder: Path = tmp_path_factory.mktemp("designs")
    return {
        name: ingest(
            str(ROOT / "fixtures" / f"{name}.pftrace.zst"), folder / f"{name}.vpmu",
            IngestOptions(emulated=True), lambda done, total: None,
        )
        for name in (MEDIATED, BACKED)
    }  # fmt: skip


def design(
    name: str = "loop", told: bool = True, kind: str = "swap", **more: Any
) -> dict[str, Any]:
    return {
        "name": name, "boundary": "loop", "kind": kind, "options": {"perf_told": told},
        "exits": 100, "guest_ns": 10**9, "loads_low": 10, "loads_high": 10, "puts_low": 10,
        "puts_high": 10, **more,
    }  # fmt: skip


def counted(answer: dict[str, Any], direction: int, recorded: Any = None) -> dict[str, float]:
    """Typical operations of a load (0) or put (1)."""
    pricing = pricing_of(REAL, "x86-amd", recorded, "loop" if recorded else None)
    model = pricing.models[0]
    row = vectors_of(pricing, model, answer)[direction][1]
    return {name: float(n) for name, n in zip(model.names, row, strict=True) if n}


# Six counters. KVM's load reads and compares each counter, writes each selector, and global control
# twice. Untold it makes no call to perf, and saves the host's first: it reads global control and
# switches it off, then reads each selector and counter (amd_save_host).
def test_untold_has_no_half_of_perfs_and_saves_the_hosts_registers() -> None:
    told, untold = counted(design(), 0), counted(design(told=False), 0)
    assert told == {
        "perf_guest_context": 1, "global_ctrl_write": 2, "lvtpc_write_x2apic": 1, "status_read": 1,
        "status_write": 1, "counter_read": 6, "selector_write": 6,
    }  # fmt: skip
    assert untold == {
        "global_ctrl_write": 3, "lvtpc_write_x2apic": 1, "status_read": 2, "status_write": 1,
        "counter_read": 12, "selector_write": 6, "counter_read_msr": 6,
    }  # fmt: skip
    put, untold_put = counted(design(), 1), counted(design(told=False), 1)
    more = {name: n - put.get(name, 0) for name, n in untold_put.items() if n != put.get(name, 0)}
    assert more == {"counter_write": 6, "selector_write": 6, "global_ctrl_write": 1}
    assert "perf_guest_context" not in untold_put


def test_hardware_moves_no_register_of_the_guest_and_pays_perfs_half(
    stores: dict[str, Store],
) -> None:
    assert counted(design("hardware", kind="hardware"), 0) == {"perf_guest_context": 1}
    shown = recorded_operations(stores[MEDIATED], Part())
    assert shown is not None
    found = counted(design("hardware", kind="hardware"), 0, shown)
    assert found == pytest.approx({"perf_guest_context": 1, **shown.perf["load"]})
    priced = overhead_of(
        pricing_of(REAL, "x86-amd", None, None), design("hardware", kind="hardware"), REAL
    )
    # Ten swaps each way, one call each; nothing is saved at exits.
    assert (priced["low_ns"], priced["typical_ns"], priced["high_ns"]) == (300, 800, 3000)


# `loop-demand` and `hardware` have loop's boundary, and are not what was recorded.
def test_recorded_placement_is_told_by_name_and_rule() -> None:
    pricing = pricing_of(REAL, "x86-amd", None, "loop", True)
    assert is_own(pricing, design("loop"))
    assert not is_own(pricing, design("loop", told=False))
    assert not is_own(pricing, design("loop-demand"))
    assert not is_own(pricing, design("hardware", kind="hardware"))
    assert not is_own(pricing, design("loop", has_rules=True))
    assert is_own(replace(pricing, told=None), design("loop", told=False))
    assert not is_own(pricing_of(REAL, "x86-amd", None, None), design("loop"))


# A kernel that moved registers behind perf's back shows the host's registers in KVM's own half.
def test_untold_recording_is_not_charged_twice(stores: dict[str, Store]) -> None:
    shown = recorded_operations(stores[MEDIATED], Part())
    pricing = pricing_of(REAL, "x86-amd", shown, "loop", False)
    model = pricing.models[0]
    own = vectors_of(pricing, model, design("loop", told=False))[0]
    assert shown is not None
    at = model.names.index("counter_read")
    assert own[:, at] == pytest.approx([shown.kvm["load"]["counter_read"]] * 3)
    assert own[1, model.names.index("perf_guest_context")] == 0


def plain_traps(store: Store) -> Counter[str]:
    """The guest's intercepted accesses to PMU registers, row by row."""
    found: Counter[str] = Counter()
    for row in store.read("kvm_msr", ["write", "ecx"]).to_pylist():
        register = lookup("write", row["ecx"], "AuthenticAMD")
        if register is not None and register.role is not None:
            found[f"{'write' if row['write'] else 'read'} {register.role}"] += 1
    return found


def plain_touches(store: Store) -> int:
    actors = store.read("pmu_attribution", ["actor"])["actor"].to_pylist()
    return sum(actor in ("vpmu_emulation", "vpmu_sched") for actor in actors)


# Perfetto drops exit reasons, so the RDPMC exits are not told and the price is a lower bound.
def test_emulated_is_counted_from_a_perf_backed_recording(stores: dict[str, Store]) -> None:
    store = stores[BACKED]
    found = emulation_of(store, Part())
    plain = plain_traps(store)
    roles = ("counter", "global_ctrl", "global_status", "global_status_reset", "selector", "lvtpc")
    assert found.facts["perf_backed"] is True
    assert found.facts["trapped"] == {k: n for k, n in plain.items() if k.split()[1] in roles}
    assert found.facts["reprogramming_accesses"] == plain_touches(store) > 0
    assert found.facts["trapped_rdpmc"] is None
    assert found.is_lower
    writes = {k.split()[1]: n for k, n in plain.items() if k.startswith("write")}
    low, typical, high = found.operations()["trapped_pmu_write"]
    assert low == writes["counter"]
    assert typical == low + writes["global_ctrl"] + writes["global_status_reset"]
    assert high == sum(writes[role] for role in writes if role in roles)
    registers = sum(
        n[0] for name, n in found.operations().items()
        if not name.startswith(("trapped", "perf_event", "pmi"))
    )  # fmt: skip
    assert registers == plain_touches(store)


def test_emulated_from_a_mediated_recording_is_a_lower_bound(stores: dict[str, Store]) -> None:
    found = emulation_of(stores[MEDIATED], Part())
    assert found.is_lower
    assert found.facts["perf_backed"] is False
    # A selector that is written anew reprograms its event; so does an overflow.
    last: dict[tuple[int, int], int] = {}
    changed = 0
    for row in stores[MEDIATED].read("kvm_msr").to_pylist():
        register = lookup("write", row["ecx"], "AuthenticAMD")
        if register is None or register.role != "selector" or not row["write"]:
            continue
        key = row["tid"], row["ecx"]
        changed += key in last and last[key] != row["data"]
        last[key] = row["data"]
    pmis = stores[MEDIATED].read("point", ["kind"])["kind"].to_pylist().count(14)
    assert found.operations()["perf_reprogram"] == (changed + pmis,) * 3
    [answer] = whatif(stores[MEDIATED], choose_designs(["emulated"]))["placements"]
    assert answer["bound"] == "lower"
    assert answer["overhead"]["low_ns"] > 0
    assert answer["overhead"]["typical_ns"] is answer["overhead"]["high_ns"] is None
    assert "instead-of-swaps" in answer["assumptions"]


# x86-amd: an idle pair is 40 + 2 * 75 + 50 + 50 + 75 + 6 * (12 + 95) = 1007 and 40 + 75 + 50 + 50 +
# 6 * 12 = 287 ns, a trapped write 1200 and a PMI 2200 + 3000.
def test_break_even_of_traps_and_loop() -> None:
    pricing = pricing_of(REAL, "x86-amd", None, None)
    facts = {"trapped": {"read counter": 3}, "trapped_rdpmc": 1}
    found = break_even_of(pricing, Emulation({}, False, facts), 8)
    assert found is not None
    assert found["writes"]["typical"] == pytest.approx(1294 / 1200)
    assert found["pmis"]["typical"] == pytest.approx(1294 / 5200)
    assert found["recorded_accesses_per_exit"] == 0.5
    assert found["reads"]["low"] <= found["reads"]["typical"] <= found["reads"]["high"]


def counts_with(**totals: int) -> Counts:
    row = np.zeros(q.TOTALS, np.int64)
    for name, n in totals.items():
        row[getattr(q, name)] = n
    return Counts(np.zeros((1, q.COUNTS), np.int64), np.zeros((1, 4), np.int64), row)


ARMING = {"never": (0, 0, 0), "once_used": (0, 2, 2), "while_used": (3, 3, 5)}


def test_state_left_on_another_cpu_costs_an_ipi() -> None:
    answer: dict[str, Any] = {}
    pair = counts_with(T_REMOTE=4, T_CORE=1), counts_with(T_REMOTE=2, T_CORE=3, T_SPURIOUS=1)
    set_beside(answer, shipped_placements()["lazy-core"], pair, ARMING, None)
    assert answer["extra_operations"] == {"ipi_roundtrip": (2, 3, 4)}
    assert answer["evictions"]["perf_core"] == {"low": 1, "high": 3}
    assert answer["evictions"]["spurious"] == {"low": 0, "high": 1}


def test_first_use_of_a_demand_placement_traps() -> None:
    for name, traps in (("exit-demand", (3, 3, 5)), ("loop-demand", (0, 2, 2))):
        answer: dict[str, Any] = {}
        set_beside(answer, shipped_placements()[name], (counts_with(),) * 2, ARMING, None)
        assert answer["extra_operations"] == {"trapped_pmu_write": traps}
        assert answer["bound"] is None


# Nobody knows when a guest first used its PMU: 0 swaps are no news.
def test_unknown_use_makes_a_lower_bound() -> None:
    answer = design("loop-demand", loads_low=0, loads_high=0, puts_low=0, puts_high=0)
    set_beside(answer, shipped_placements()["loop-demand"], (counts_with(),) * 2, None, None)
    found = overhead_of(pricing_of(REAL, "x86-amd", None, None), answer, REAL)
    assert (found["low_ns"], found["typical_ns"], found["high_ns"]) == (0, None, None)


# By their kind, whatever a file of the user's own calls them.
def test_hindsight_and_lower_bounds_win_against_none() -> None:
    pricing = pricing_of(REAL, "x86-amd", None, None)
    met = {"conflicts": {"observed": {}, "inferred": {}}, "blind_ns_low": 0, "blind_ns_high": 0}
    none = {"loads_low": 0, "loads_high": 0, "puts_low": 0, "puts_high": 0}
    answers = [
        design("loop", **met), design("mine", kind="hindsight", **met, **none),
        design("waits", **met, **none, bound="lower"),
    ]  # fmt: skip
    set_dominated(pricing, answers)
    assert answers[0]["dominated_by"] == []


# Law 10 for every shipped placement, told and untold.
def test_law_10_for_every_design(stores: dict[str, Store], tmp_path: Path) -> None:
    designs = choose_designs(["all"], ["told", "untold"])
    before = whatif(stores[MEDIATED], designs, "x86-amd")["placements"]
    text = "schema = 'vpmu-analyzer/cost/1'\nname = 'other'\ninherits = 'x86-amd'\n"

    def priced(name: str, operations: list[str], ns: tuple[float, float, float]) -> Any:
        path = tmp_path / f"{name}.toml"
        low, typical, high = ns
        path.write_text(
            text + "".join(
                f"[op.{op}]\nlow = {low}\ntypical = {typical}\nhigh = {high}\nkind = 'assumed'\n"
                "source = ['test']\n" for op in operations
            )
        )  # fmt: skip
        return whatif(stores[MEDIATED], designs, str(path))["placements"]

    every = list(pricing_of(REAL, "x86-amd", None, None).models[0].names)
    dear = ["counter_read_msr", "perf_guest_context", "ipi_roundtrip", "trapped_pmu_write"]
    for old, new in zip(before, priced("dear", dear, (1e4, 2e4, 3e4)), strict=True):
        levels = [old["overhead"][f"{level}_ns"] for level in ("low", "typical", "high")]
        known = [level for level in levels if level is not None]
        assert known == sorted(known)
        for level in ("low_ns", "typical_ns", "high_ns", "critical_ns", "absorbed_ns"):
            if old["overhead"][level] is not None:
                assert new["overhead"][level] >= old["overhead"][level] - 1e-6
    for new in priced("free", every, (0, 0, 0)):
        found = new["overhead"]
        assert all(found[f"{k}_ns"] in (0, None) for k in ("low", "typical", "high", "critical"))
