"""What does the timeline conclude from small histories: edges, losses, cancelled, late exits?

Each history is a few events on one or two CPUs, written with tests/perfetto_writer.py; the rule it
proves stands in the test's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analyzer.arch import family_of_machine
from analyzer.errors import LimitError
from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.store import Store
from analyzer.timeline import build
from analyzer.timeline.marks import Property, codes_of_names
from tests import perfetto_writer as w

IOCTL_IN = w.Dense(65600, "syscalls", "sys_enter_ioctl", (("cmd", w.UINT64),))
IOCTL_OUT = w.Dense(65601, "syscalls", "sys_exit_ioctl", (("ret", w.INT64),))
NMI = w.Dense(65602, "nmi", "nmi_handler", (("delta_ns", w.INT64), ("handled", w.INT64)))
KINDS = (IOCTL_IN, IOCTL_OUT, NMI)
RUN = {"cmd": 0xAE80}
VCPU, OTHER = 7, 9


def load(tmp_path: Path, *packets: bytes, machine: str = "x86_64") -> Store:
    path = tmp_path / "x.pftrace"
    path.write_bytes(w.trace([w.system_info(machine=machine), *packets]))
    options = IngestOptions(emulated=True)
    return ingest(str(path), tmp_path / "x.vpmu", options, lambda done, total: None)


def cpu(number: int, *events: tuple[int, int, str, dict[str, Any]], **options: Any) -> bytes:
    return w.packet(ftrace=w.bundle(number, list(events), dense=KINDS, **options))


def switch(
    ts: int, prev: int, following: int, state: int = 1
) -> tuple[int, int, str, dict[str, Any]]:
    fields = {"prev_pid": prev, "prev_state": state, "next_pid": following}
    return (ts, prev, "sched_switch", fields)


def entry(ts: int, tid: int = VCPU) -> tuple[int, int, str, dict[str, Any]]:
    return (ts, tid, "kvm_entry", {})


def leave(ts: int, tid: int = VCPU) -> tuple[int, int, str, dict[str, Any]]:
    return (ts, tid, "kvm_exit", {})


def run_in(ts: int, tid: int = VCPU) -> list[tuple[int, int, str, dict[str, Any]]]:
    return [(ts, tid, "sys_enter_ioctl", RUN), (ts + 1, tid, "kvm_fpu", {"load": 1})]


def run_out(ts: int, tid: int = VCPU) -> list[tuple[int, int, str, dict[str, Any]]]:
    return [
        (ts, tid, "kvm_fpu", {"load": 0}),
        (ts + 1, tid, "kvm_userspace_exit", {"reason": 2}),
        (ts + 2, tid, "sys_exit_ioctl", {"ret": 0}),
    ]


def modes(store: Store) -> list[tuple[Any, ...]]:
    return [(m["ts"], m["end"], m["mode"]) for m in store.read("mode_slice").to_pylist()]


def counts(store: Store, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = whatif(store, choose_designs([name]))["placements"][0]
    keys = ("loads_low", "loads_high", "puts_low", "puts_high", "loaded_at_start", "loaded_at_end")
    return {key: answer[key] for key in keys}


def test_one_whole_run_gives_one_swap_pair_everywhere_and_modes_tile(tmp_path: Path) -> None:
    events = [switch(10, OTHER, VCPU), *run_in(20), entry(30), leave(50), *run_out(60)]
    store = load(tmp_path, cpu(0, *events, switch(80, VCPU, OTHER), switch(90, OTHER, 0)))
    for name in ("exit", "loop", "vcpu", "sched"):
        found = counts(store, name)
        assert (found["loads_low"], found["loads_high"]) == (1, 1), name
        assert (found["puts_low"], found["puts_high"]) == (1, 1), name
    assert modes(store) == [
        (10, 20, "user"),
        (20, 30, "kvm"),
        (30, 50, "guest"),
        (50, 62, "kvm"),
        (62, 80, "user"),
        (80, 90, "blocked"),
    ]


def test_switch_between_ioctl_and_kvm_fpu_leaves_vcpu_loads_a_range(tmp_path: Path) -> None:
    gap = [switch(22, VCPU, OTHER, 0), switch(25, OTHER, VCPU)]
    events = [switch(10, OTHER, VCPU), (20, VCPU, "sys_enter_ioctl", RUN), *gap]
    events += [(27, VCPU, "kvm_fpu", {"load": 1}), entry(30), leave(50), *run_out(60)]
    found = counts(load(tmp_path, cpu(0, *events, switch(80, VCPU, 0))), "vcpu")
    assert (found["loads_low"], found["loads_high"]) == (1, 2)
    assert (found["puts_low"], found["puts_high"]) == (1, 2)


def test_vcpu_that_is_inside_at_both_edges_counts_no_swap_there(tmp_path: Path) -> None:
    store = load(
        tmp_path, cpu(0, leave(10), entry(20), leave(30), entry(40), (50, OTHER, "print", {}))
    )
    assert counts(store, "vcpu") == {
        "loads_low": 0, "loads_high": 0, "puts_low": 0, "puts_high": 0,
        "loaded_at_start": 1, "loaded_at_end": 1,
    }  # fmt: skip
    vcpu = store.read("vcpu").to_pylist()[0]
    assert (vcpu["inside_at_start"], vcpu["inside_at_end"]) == (True, True)
    assert (vcpu["cancelled"], vcpu["lost"], vcpu["unpaired"]) == (0, 0, 0)


def test_entry_without_exit_in_whole_data_is_cancelled_and_no_guest_time(tmp_path: Path) -> None:
    events = [switch(10, OTHER, VCPU), *run_in(20), entry(30), entry(40), leave(50), *run_out(60)]
    store = load(tmp_path, cpu(0, *events, switch(80, VCPU, 0)))
    vcpu = store.read("vcpu").to_pylist()[0]
    assert (vcpu["entries"], vcpu["exits"], vcpu["cancelled"]) == (2, 1, 1)
    assert vcpu["guest_ns"] == 10


def test_exit_that_a_loss_took_is_lost_and_time_inside_is_unknown(tmp_path: Path) -> None:
    first = cpu(0, switch(10, OTHER, VCPU), *run_in(20), entry(30), (40, VCPU, "print", {}))
    second = cpu(0, entry(100), leave(120), *run_out(130), switch(140, VCPU, 0), lost=True)
    store = load(tmp_path, first, second)
    vcpu = store.read("vcpu").to_pylist()[0]
    assert (vcpu["lost"], vcpu["cancelled"]) == (1, 0)
    assert (40, 100, "unknown") in modes(store)
    found = counts(store, "vcpu")
    # One load before the loss; the stay goes on in the dark and is put after it.
    assert (found["loads_low"], found["puts_low"]) == (1, 1)
    assert (found["loaded_at_start"], found["loaded_at_end"]) == (1, 1)


def test_nmi_that_hits_the_guest_ends_the_slice_where_its_handler_began(tmp_path: Path) -> None:
    nmi = (45, VCPU, "nmi_handler", {"delta_ns": 5, "handled": 1})
    events = [switch(10, OTHER, VCPU), *run_in(20), entry(30), nmi, leave(50), *run_out(60)]
    store = load(tmp_path, cpu(0, *events, switch(80, VCPU, 0)))
    piece = store.read("guest_slice").to_pylist()[0]
    assert (piece["ts"], piece["end"], piece["ended_by"], piece["exit_ts"]) == (30, 40, "nmi", 50)
    # `loop` without a mark is a range: swapping at every exit sees nothing of the handler.
    blind = whatif(store, choose_designs(["loop"]))["placements"][0]["blind_ns"]
    assert (blind["interrupt_low"], blind["interrupt_high"]) == (0, 5)


def test_late_exit_of_arm64_ends_the_guest_at_the_first_host_event(tmp_path: Path) -> None:
    irq = [(40, VCPU, "irq_handler_entry", {"irq": 1}), (45, VCPU, "irq_handler_exit", {"irq": 1})]
    exit_event = (50, VCPU, "kvm_exit", {"ret": 0, "esr_ec": 0})
    events = [switch(10, OTHER, VCPU), entry(30), *irq, exit_event, switch(80, VCPU, 0)]
    store = load(tmp_path, cpu(0, *events), machine="aarch64")
    piece = store.read("guest_slice").to_pylist()[0]
    assert (piece["end"], piece["ended_by"], piece["reason"]) == (40, "host_event", "IRQ")
    assert store.read("vcpu").to_pylist()[0]["late_ns"] == 10


# With ECV each world switch has one kvm_get_timer_map in and one out, around the guest.
def test_second_timer_map_of_one_entry_is_the_way_out_of_the_guest(tmp_path: Path) -> None:
    def around(ts: int, *maps: int) -> list[tuple[int, int, str, dict[str, Any]]]:
        back = (ts + 20, VCPU, "kvm_exit", {"ret": 0, "esr_ec": 0})
        return [entry(ts), *((at, VCPU, "kvm_get_timer_map", {}) for at in maps), back]

    load_map = (25, VCPU, "kvm_get_timer_map", {})  # vcpu_load has one too: before the entry
    events = [switch(10, OTHER, VCPU), load_map, *around(30, 31, 47), *around(60, 61)]
    store = load(tmp_path, cpu(0, *events, switch(90, VCPU, 0)), machine="aarch64")
    pieces = store.read("guest_slice").to_pylist()
    assert [(x["ts"], x["end"], x["ended_by"]) for x in pieces] == [
        (30, 47, "host_event"),
        (60, 80, "exit"),
    ]
    assert store.read("vcpu").to_pylist()[0]["late_ns"] == 3


def test_lateness_on_x86_is_seen_in_the_recording_not_in_a_version(tmp_path: Path) -> None:
    timer = [(40, VCPU, "local_timer_entry", {"vector": 236})]
    timer += [(45, VCPU, "local_timer_exit", {"vector": 236})]
    events = [switch(10, OTHER, VCPU), *run_in(20), entry(30), *timer, leave(50), *run_out(60)]
    store = load(tmp_path, cpu(0, *events, switch(80, VCPU, 0)))
    assert store.manifest["marks"]["kvm_exit_is_late"] is True
    assert store.read("guest_slice").to_pylist()[0]["end"] == 40


def test_loop_is_a_range_over_gaps_that_hold_only_allowed_events(tmp_path: Path) -> None:
    runs = [entry(30), leave(40), (41, VCPU, "hrtimer_start", {}), entry(50), leave(60)]
    runs += [(61, VCPU, "softirq_raise", {"vec": 1}), entry(70), leave(80)]
    events = [switch(10, OTHER, VCPU), *run_in(20), *runs, *run_out(90), switch(99, VCPU, 0)]
    found = counts(load(tmp_path, cpu(0, *events)), "loop")
    assert (found["loads_low"], found["loads_high"]) == (2, 3)


def test_tid_that_dies_and_is_reused_is_two_vcpus(tmp_path: Path) -> None:
    one = [switch(10, OTHER, VCPU), *run_in(20), entry(30), leave(40), *run_out(50)]
    two = [switch(90, OTHER, VCPU), *run_in(100), entry(110), leave(120), *run_out(130)]
    events = [*one, switch(60, VCPU, OTHER, 0x10), *two, switch(140, VCPU, 0)]
    vcpus = load(tmp_path, cpu(0, *events)).read("vcpu").to_pylist()
    assert [(v["tid"], v["entries"]) for v in vcpus] == [(VCPU, 1), (VCPU, 1)]


@pytest.mark.parametrize("vendor", [None, "GenuineIntel"])
def test_without_a_vendor_the_price_is_the_hull_of_both(tmp_path: Path, vendor: str | None) -> None:
    events = [switch(10, OTHER, VCPU), *run_in(20), entry(30), leave(50), *run_out(60)]
    path = tmp_path / "x.pftrace"
    packets = [w.system_info(), cpu(0, *events, switch(80, VCPU, 0))]
    path.write_bytes(w.trace(packets))
    store = ingest(str(path), tmp_path / "y.vpmu", IngestOptions(vendor=vendor), lambda d, t: None)
    overhead = whatif(store, choose_designs(["loop"]))["placements"][0]["overhead"]
    assert len(overhead["cost_files"]) == (2 if vendor is None else 1)
    assert (overhead["typical_ns"] is None) == (vendor is None)
    assert overhead["low_ns"] < overhead["high_ns"]


# At the limit all are kept; the thread behind it is refused, and no store is left.
def test_more_vcpus_than_the_limit_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "VCPU_LIMIT", 2)
    events = [one for n in (1, 2, 3) for one in (entry(10 * n, n), leave(10 * n + 5, n))]
    assert load(tmp_path, cpu(0, *events[:4])).manifest["recording"]["vcpus"] == 2
    (tmp_path / "more").mkdir()
    with pytest.raises(LimitError) as refused:
        load(tmp_path / "more", cpu(0, *events))
    line = "x.pftrace: table vcpu: at least 3 threads run one; allowed are 2"
    assert str(refused.value).endswith(line)
    assert not list((tmp_path / "more").glob("*.vpmu"))


# With function_graph, 89 fast-path re-entries of an Intel recording were taken for inner loops of
# their own, and the number of loops still called exact.
def test_traced_function_between_exit_and_entry_ends_no_loop() -> None:
    names, tables = ["vmx_vcpu_run", "kvm_entry", "lonely"], ["function_span"] * 2 + ["other_event"]
    found = codes_of_names(names, tables, family_of_machine("x86_64"))
    assert (found.property & Property.GAP != 0).tolist() == [True, True, False]
    assert not codes_of_names(names, tables, None).property.any()
