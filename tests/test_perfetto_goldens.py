"""Do ingested recordings agree with another way of counting? Goldens are made by protobuf alone.

fixtures/make_golden.py shares nothing with the analyzer; fixtures/README.md defines its sums.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from analyzer.pipeline import IngestOptions, choose_designs, info_of, ingest, whatif
from analyzer.store import Store

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NAMES = sorted(path.stem for path in (FIXTURES / "golden").glob("*.json"))
MOD = 2**64


def golden_of(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / "golden" / f"{name}.json").read_text())
    return loaded


@pytest.fixture(scope="module", params=NAMES)
def case(request: Any, tmp_path_factory: Any) -> tuple[Store, dict[str, Any]]:
    folder = tmp_path_factory.mktemp(request.param)
    source = FIXTURES / f"{request.param}.pftrace.zst"
    options = IngestOptions(emulated=True)
    store = ingest(str(source), folder / "x.vpmu", options, lambda done, total: None)
    return store, golden_of(request.param)


def test_goldens_and_fixtures_are_the_same_set() -> None:
    stored = {path.name.removesuffix(".pftrace.zst") for path in FIXTURES.glob("*.pftrace.zst")}
    assert set(NAMES) == stored
    assert len(NAMES) >= 6


def test_every_event_is_counted_by_name(case: tuple[Store, dict[str, Any]]) -> None:
    store, golden = case
    assert info_of(store)["events"] == golden["events"]


def test_windows_and_tail_losses_follow_the_statistics(case: tuple[Store, dict[str, Any]]) -> None:
    store, golden = case
    windows = {str(row["cpu"]): [row["ts"], row["end"]] for row in store.read("window").to_pylist()}
    assert windows == golden["windows"]
    assert info_of(store)["windows"] == store.read("window").to_pylist()
    kept = ("kept_in_kernel_buffer", "final_flush_failed")
    tails = {
        str(row["cpu"]): row["events"]
        for row in store.read("data_loss").to_pylist()
        if row["cause"] in kept and row["events"]
    }
    assert tails == {cpu: tail for cpu, tail in golden["tail"].items() if tail}


def total(column: pa.ChunkedArray) -> int:
    return sum(int(v) for v in column.to_pylist() if v is not None) % MOD


# Table, filter on a column, and golden field -> column, of the events that goldens sum up.
SUMMED = {
    "kvm_entry": ("vm_entry", None, {}),
    "kvm_exit": ("vm_exit", None, {"ret": "ret", "esr_ec": "esr_ec", "vcpu_pc": "vcpu_pc"}),
    "write_msr": ("pmu_access", ("op", "write"), {"msr": "address", "val": "value"}),
    "read_msr": ("pmu_access", ("op", "read"), {"msr": "address", "val": "value"}),
    "rdpmc": ("pmu_access", ("op", "rdpmc"), {"msr": "address", "val": "value"}),
    "hrtimer_expire_entry": ("timer", ("phase", "expire_entry"), {"now": "now"}),
    "kvm_fpu": ("kvm_fpu", None, {"load": "load"}),
    "sys_enter_ioctl": ("kvm_run", ("phase", "enter"), {"fd": "fd", "cmd": "cmd"}),
}


@pytest.mark.parametrize("event", sorted(SUMMED))
def test_columns_sum_up_to_what_protobuf_reads(
    case: tuple[Store, dict[str, Any]], event: str
) -> None:
    store, golden = case
    if event not in golden["sums"]:
        assert event not in golden["events"] or golden["events"][event] == 0
        return
    table, chosen, fields = SUMMED[event]
    rows = store.read(table)
    if chosen is not None:
        rows = rows.filter(pc.equal(rows[chosen[0]].cast(pa.string()), chosen[1]))
    expected = golden["sums"][event]
    assert len(rows) == expected["n"]
    assert total(rows["ts"]) == expected["ts"]
    assert total(rows["cpu"]) == expected["cpu"]
    assert total(rows["tid"]) == expected["pid"]
    for name, column in fields.items():
        if f"field:{name}" in expected:
            assert total(rows[column]) == expected[f"field:{name}"] % MOD, name


def test_dropped_threads_of_switches_are_rebuilt(case: tuple[Store, dict[str, Any]]) -> None:
    store, golden = case
    rows = store.read("sched_switch")
    expected = golden["sums"]["sched_switch"]
    assert len(rows) == expected["n"]
    assert total(rows["ts"]) == expected["ts"]
    assert total(rows["next_pid"]) == expected["next_pid"]
    assert total(rows["prev_pid"]) == expected["prev_pid"]
    assert rows["prev_pid"].null_count == expected["prev_pid_unknown"]


def test_recorded_tables_are_in_order_of_time(case: tuple[Store, dict[str, Any]]) -> None:
    store, _ = case
    for table in ("pmu_access", "sched_switch", "interrupt", "other_event", "timer", "point"):
        ts = store.read(table, ["ts"])["ts"].to_numpy()
        assert (ts[1:] >= ts[:-1]).all(), table


def test_every_vcpu_has_the_entries_exits_and_guest_time_of_a_slow_count(
    case: tuple[Store, dict[str, Any]],
) -> None:
    store, golden = case
    slow = {
        int(tid): (row["entries"], row["exits"], row["guest_ns"])
        for tid, row in golden["timeline"].items()
    }
    vcpus = store.read("vcpu").to_pylist()
    found = {row["tid"]: (row["entries"], row["exits"]) for row in vcpus}
    assert found == {tid: counts[:2] for tid, counts in slow.items()}
    # The slow count takes pairs only: neither a guest that ran when the recording began nor one
    # that ran when it ended.
    entered = set(store.read("vm_entry")["ts"].to_pylist())
    guest = dict.fromkeys(slow, 0)
    tid_of = {row["vcpu"]: row["tid"] for row in vcpus}
    for piece in store.read("guest_slice").to_pylist():
        if piece["ended_by"] != "window" and piece["ts"] in entered:
            guest[tid_of[piece["vcpu"]]] += piece["end"] - piece["ts"]
    assert guest == {tid: counts[2] for tid, counts in slow.items()}


def test_loads_of_all_placements_agree_with_a_slow_count(
    case: tuple[Store, dict[str, Any]],
) -> None:
    store, golden = case
    answer = whatif(store, choose_designs(["all"]))
    loads = {p["name"]: (p["loads_low"], p["loads_high"]) for p in answer["placements"]}
    entries = sum(row["entries"] for row in golden["timeline"].values())
    arm64 = golden["machine"] == "aarch64"
    assert loads["exit"] == (entries, None if arm64 else entries)
    for bound, key in enumerate(("vcpu_loads_low", "vcpu_loads_high")):
        assert loads["vcpu"][bound] == sum(row[key] for row in golden["timeline"].values())
    for placement in answer["placements"]:
        assert placement["overhead"]["percent_of_guest_time"] is None
        assert placement["swaps_per_second"] is None
    if arm64:
        assert loads["loop"] == (entries, entries)
        return
    marks = sum(row["kvm_load_marks"] for row in golden["timeline"].values())
    if marks:
        # Predicted without registers: a range that contains what the kernel recorded of itself.
        truth = answer["truth"]
        fewest = sum(row["loop_low"] for row in golden["timeline"].values())
        assert (truth["predicted_loads_low"], truth["predicted_loads_high"]) == (fewest, entries)
        assert fewest <= marks <= entries
        assert truth["recorded_loads"] == marks == loads["loop"][0] == loads["loop"][1]
        assert truth["differences"] == 0


def test_modes_tile_every_vcpus_time(case: tuple[Store, dict[str, Any]]) -> None:
    store, _ = case
    modes = store.read("mode_slice").to_pylist()
    windows = store.read("window").to_pylist()
    begin, end = min(w["ts"] for w in windows), max(w["end"] for w in windows)
    for vcpu in store.read("vcpu").to_pylist():
        mine = sorted((m["ts"], m["end"]) for m in modes if m["vcpu"] == vcpu["vcpu"])
        assert mine[0][0] == begin
        assert mine[-1][1] == end
        assert all(a[1] == b[0] for a, b in pairwise(mine))


def test_blind_time_does_not_fall_from_exit_to_sched(case: tuple[Store, dict[str, Any]]) -> None:
    store, _ = case
    answers = whatif(store, choose_designs(["exit", "loop", "vcpu", "sched"]))["placements"]
    for bound in ("low", "high"):
        blind = [p["blind_ns"][f"total_{bound}"] for p in answers]
        assert blind == sorted(blind)
        residency = [p[f"residency_ns_{bound}"] for p in answers]
        assert residency == sorted(residency)
    assert len({p["guest_ns"] for p in answers}) == 1
