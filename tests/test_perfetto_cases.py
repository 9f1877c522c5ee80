"""What the Perfetto reader makes of small traces, seen through ingest and the store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from analyzer.errors import InputError
from analyzer.pipeline import IngestOptions, ingest
from analyzer.store import Store
from tests import perfetto_writer as w

WRITE_MSR = w.Dense(
    65536, "msr", "write_msr", (("msr", w.UINT64), ("val", w.UINT64), ("failed", w.INT64))
)
MSR = {"msr": 0xC1, "val": 1 << 63 | 5, "failed": 0}
TABLES = ("vm_entry", "kvm_fpu", "pmu_access", "sched_switch", "wakeup", "event_count", "data_loss")
GLOBAL = 2


def load(
    tmp_path: Path, data: bytes | Iterable[bytes], name: str = "x", machine: int | None = None
) -> Store:
    path = tmp_path / f"{name}.pftrace"
    path.write_bytes(data if isinstance(data, bytes) else w.trace(data))
    target = tmp_path / f"{name}.vpmu"
    return ingest(str(path), target, IngestOptions(machine=machine), lambda done, total: None)


def column(store: Store, table: str, name: str) -> list[Any]:
    return list(store.read(table, [name]).column(name).to_pylist())


def rows(store: Store, table: str, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(column(store, table, name) for name in names), strict=True))


def everything(store: Store) -> dict[str, Any]:
    return {name: store.read(name).to_pylist() for name in TABLES}


def losses(store: Store, cause: str) -> list[tuple[Any, ...]]:
    found = rows(store, "data_loss", "cause", "ts", "end", "cpu", "events")
    return [row[1:] for row in found if row[0] == cause]


def fpu(cpu: int | None, *times: int, pid: int = 7, **options: Any) -> bytes:
    """A packet with a bundle of kvm_fpu events."""
    machine = options.pop("machine", None)
    events = [(ts, pid, "kvm_fpu", {"load": 1}) for ts in times]
    return w.packet(ftrace=w.bundle(cpu, events, **options), machine=machine)


def mixed(width: int = 0) -> list[bytes]:
    """Two CPUs' packets with every encoding of events that goes to a table."""
    out = [w.system_info()]
    for cpu in (0, 1):
        events: list[w.EventRow] = [
            (100 + cpu, 7, "kvm_entry", {"vcpu_id": 3, "rip": 0xFFFFFFFF81000000}),
            (110 + cpu, 7, "kvm_fpu", {"load": 0}),
            (120 + cpu, 7, "write_msr", MSR),
        ]
        body = w.bundle(
            cpu,
            events,
            dense=[WRITE_MSR],
            legacy=["kvm_entry"],
            switches=[(115 + cpu, 1, 9, 120, "a"), (130 + cpu, 0, 8, 110, "b")],
            wakings=[(105 + cpu, 9, 1, 120, "a")],
            width=width,
        )
        out.append(w.packet(ftrace=body, width=width))
    return out


@pytest.mark.parametrize("pack", [w.deflate, w.zstd])
def test_compressed_packets_give_the_same_tables(tmp_path: Path, pack: Any) -> None:
    plain = everything(load(tmp_path, mixed(), "plain"))
    assert [len(plain[name]) for name in TABLES[:5]] == [2, 2, 2, 4, 2]
    packed = load(tmp_path, [mixed()[0], pack(mixed()[1:])], "packed")
    assert everything(packed) == plain
    assert packed.manifest["damage"] == []


def test_padded_varints_give_the_same_tables(tmp_path: Path) -> None:
    plain = everything(load(tmp_path, mixed(), "plain"))
    assert everything(load(tmp_path, w.trace(mixed(4), 4), "padded")) == plain


def test_descriptor_in_a_later_bundle_than_its_first_use(tmp_path: Path) -> None:
    first = w.bundle(0, [(100, 7, "write_msr", MSR)], dense=[WRITE_MSR], describe=[])
    second = w.bundle(0, [(200, 7, "write_msr", MSR)], dense=[WRITE_MSR])
    store = load(tmp_path, [w.packet(ftrace=first), w.packet(ftrace=second)])
    found = rows(store, "pmu_access", "ts", "op", "address", "value", "failed")
    assert found == [(ts, "write", MSR["msr"], MSR["val"], False) for ts in (100, 200)]
    assert "descriptor_missing" not in store.manifest["trouble"]


def test_dense_event_without_descriptor_is_counted_by_number(tmp_path: Path) -> None:
    body = w.bundle(0, [(100, 7, "write_msr", MSR)] * 2, dense=[WRITE_MSR], describe=[])
    store = load(tmp_path, [w.packet(ftrace=body)])
    assert store.manifest["trouble"]["descriptor_missing"] == 2
    assert rows(store, "event_count", "count", "table") == [(2, "other_event")]
    assert "65536" in column(store, "event_count", "name")[0]


def test_legacy_generic_events_fill_pmu_access(tmp_path: Path) -> None:
    values = {"msr": 0xC0000303, "val": 77, "failed": 1}
    other = {"ecx": 0xC1, "data": 5}
    events: list[w.EventRow] = [(100, 7, "write_msr", values), (110, 7, "kvm_pio", other)]
    body = w.bundle(0, events, legacy=["write_msr", "kvm_pio"])
    store = load(tmp_path, [w.packet(ftrace=body)])
    found = rows(store, "pmu_access", "ts", "tid", "op", "address", "value", "failed")
    assert found == [(100, 7, "write", 0xC0000303, 77, True)]
    assert rows(store, "other_event", "ts", "name") == [(110, "kvm_pio")]


@pytest.mark.parametrize("form", ["dense", "legacy"])
def test_kvm_msr_fills_its_table_and_names_no_vcpu(tmp_path: Path, form: str) -> None:
    names = ("write", "ecx", "data", "exception")
    kind = w.Dense(65601, "kvm", "kvm_msr", tuple((name, w.UINT64) for name in names))
    values: list[tuple[int, ...]] = [(1, 0x6E0, 2**64 - 2, 0), (0, 0xC0010200, 5, 1)]
    events: list[w.EventRow] = [
        (100 + n, 7, "kvm_msr", dict(zip(names, row, strict=True))) for n, row in enumerate(values)
    ]
    forms: dict[str, Any] = {"dense": {"dense": [kind]}, "legacy": {"legacy": ["kvm_msr"]}}
    store = load(tmp_path, [w.packet(ftrace=w.bundle(0, events, **forms[form]))])
    assert rows(store, "kvm_msr", "ts", "cpu", "tid", *names) == [
        (100, 0, 7, True, 0x6E0, 2**64 - 2, False),
        (101, 0, 7, False, 0xC0010200, 5, True),
    ]
    assert rows(store, "event_count", "name", "count", "table") == [("kvm_msr", 2, "kvm_msr")]
    assert rows(store, "other_event", "ts") == []
    assert store.read("vcpu").num_rows == 0


def test_kprobe_events_go_to_function_span(tmp_path: Path) -> None:
    probes = {"vcpu_load": 1, "vcpu_load_ret": 2, "vcpu_mark": 3}
    events: list[w.EventRow] = [(100 + n, 7, name, {}) for n, name in enumerate(probes)]
    store = load(tmp_path, [w.packet(ftrace=w.bundle(0, events, kprobes=probes))])
    phases = ("enter", "return", "instant")
    assert rows(store, "function_span", "name", "phase") == list(zip(probes, phases, strict=True))


def switches(store: Store) -> list[tuple[Any, ...]]:
    return rows(store, "sched_switch", "ts", "prev_pid", "prev_pid_from", "next_pid", "next_comm")


def test_compact_switches_get_the_previous_thread(tmp_path: Path) -> None:
    both = [(110, 1, 8, 120, "a"), (120, 0, 9, 120, "b")]
    one = w.bundle(0, [(100, 7, "kvm_fpu", {"load": 1})], switches=both)
    store = load(tmp_path, [w.packet(ftrace=one)])
    first, second = (110, 7, "current_thread", 8, "a"), (120, 8, "previous_switch", 9, "b")
    assert switches(store) == [first, second]
    assert rows(store, "thread", "tid", "name") == [(8, "a"), (9, "b")]


def test_after_a_loss_the_previous_thread_is_null(tmp_path: Path) -> None:
    one = w.bundle(0, [(100, 7, "kvm_fpu", {"load": 1})], switches=[(110, 1, 8, 120, "a")])
    two = w.bundle(0, switches=[(200, 1, 5, 120, "a"), (210, 1, 6, 120, "a")], lost=True)
    store = load(tmp_path, [w.packet(ftrace=one), w.packet(ftrace=two)])
    found = switches(store)[1:]
    assert found == [(200, None, "none", 5, "a"), (210, 5, "previous_switch", 6, "a")]
    assert store.manifest["trouble"]["prev_pid_unknown"] == 1


def test_flag_of_a_bundle_without_events_holds_for_the_next(tmp_path: Path) -> None:
    two = w.bundle(0, switches=[(200, 1, 5, 120, "a")])
    empty = w.packet(ftrace=w.bundle(0, lost=True))
    store = load(tmp_path, [fpu(0, 100), empty, w.packet(ftrace=two)])
    assert switches(store) == [(200, None, "none", 5, "a")]
    assert losses(store, "bundle_flag") == [(100, 200, 0, None)]


def test_waker_is_rebuilt_from_the_running_thread(tmp_path: Path) -> None:
    wakings = [(ts, 40, 3, 120, "w") for ts in (90, 105, 115)]
    body = w.bundle(
        0, [(100, 7, "kvm_fpu", {"load": 1})], switches=[(110, 1, 8, 120, "a")], wakings=wakings
    )
    store = load(tmp_path, [w.packet(ftrace=body)])
    found = rows(store, "wakeup", "ts", "tid", "pid", "target_cpu", "comm", "phase")
    assert [row[:2] for row in found] == [(90, None), (105, 7), (115, 8)]
    assert {row[2:] for row in found} == {(40, 3, "w", "waking")}


def test_lost_events_give_a_loss_from_bundle_to_bundle(tmp_path: Path) -> None:
    packets = [fpu(0, 100, 150), fpu(0, 300, 310, lost=True, previous_end=150), fpu(1, 120)]
    store = load(tmp_path, packets)
    assert losses(store, "bundle_flag") == [(150, 300, 0, None)]
    assert losses(store, "bundle_gap") == []
    assert store.manifest["trouble"]["bundle_loss_flags"] == 1


@pytest.mark.parametrize(
    ("end", "gap"), [(150, []), (140, []), (0, []), (220, [(150, 220, 0, None)])]
)
def test_bundle_that_begins_behind_the_one_before_is_a_gap(
    tmp_path: Path, end: int, gap: list[tuple[Any, ...]]
) -> None:
    store = load(tmp_path, [fpu(0, 100, 150), fpu(0, 300, previous_end=end)])
    assert losses(store, "bundle_gap") == gap
    assert store.manifest["trouble"].get("bundle_sequence_gaps", 0) == len(gap)


def test_one_clock_for_all_keeps_its_times(tmp_path: Path) -> None:
    packets = [fpu(0, 100, clock=GLOBAL, pair=(90, 5090)), fpu(1, 110, clock=GLOBAL)]
    store = load(tmp_path, packets)
    assert store.manifest["recording"]["clock"] == "global"
    assert column(store, "kvm_fpu", "ts") == [100, 110]


def test_mixed_clocks_are_brought_to_boot(tmp_path: Path) -> None:
    packets = [fpu(0, 5000), fpu(1, 100, clock=GLOBAL, pair=(90, 5090))]
    packets.append(fpu(1, 200, clock=GLOBAL, previous_end=100))
    store = load(tmp_path, packets)
    assert store.manifest["recording"]["clock"] == "boot"
    assert rows(store, "kvm_fpu", "ts", "cpu") == [(5000, 0), (5100, 1), (5200, 1)]
    assert losses(store, "bundle_gap") == []
    assert "clock_unpaired" not in store.manifest["trouble"]
    store = load(tmp_path, [packets[0], packets[2]], "unpaired")
    assert store.manifest["trouble"]["clock_unpaired"] == 1


def test_events_of_other_machines_are_left_out(tmp_path: Path) -> None:
    packets = [fpu(0, 100), fpu(0, 105, 115, machine=7)]
    host = load(tmp_path, packets, "host")
    assert column(host, "kvm_fpu", "ts") == [100]
    assert host.manifest["trouble"]["other_machine_events"] == 2
    guest = load(tmp_path, packets, "guest", machine=7)
    assert column(guest, "kvm_fpu", "ts") == [105, 115]
    assert guest.manifest["trouble"]["other_machine_events"] == 1


def test_file_cut_inside_its_last_packet_keeps_the_whole_ones(tmp_path: Path) -> None:
    whole, last = w.trace([fpu(0, 100)]), w.trace([fpu(0, 200)])
    store = load(tmp_path, whole + last[:-3])
    assert column(store, "kvm_fpu", "ts") == [100]
    assert store.manifest["trouble"]["truncated_packet"] == 1
    (line,) = store.manifest["damage"]
    assert f"offset {len(whole):#x}" in line
    assert f"length {len(last) - 2}, but the file has only {len(last) - 5} bytes" in line


def test_garbage_after_the_packets_is_reported(tmp_path: Path) -> None:
    whole = w.trace([fpu(0, 100)])
    store = load(tmp_path, whole + b"\xff" * 30)
    assert column(store, "kvm_fpu", "ts") == [100]
    (line,) = store.manifest["damage"]
    assert f"offset {len(whole):#x}" in line


@pytest.mark.parametrize("data", [b"", b"hello\nworld\n", b"\nhello world\n", b"\n\n\n\n\n\n"])
def test_files_that_are_no_trace_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, data)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "x.vpmu").exists()


def test_damaged_compressed_packet_is_left_out_and_reported(tmp_path: Path) -> None:
    packed = bytearray(w.deflate([fpu(0, 200, 210)]))
    for at in range(len(packed) // 2, len(packed)):
        packed[at] ^= 0xFF
    store = load(tmp_path, [fpu(0, 100), bytes(packed), fpu(0, 300)])
    assert column(store, "kvm_fpu", "ts") == [100, 300]
    assert store.manifest["trouble"]["compressed_packet_damaged"] == 1
    assert len(store.manifest["damage"]) == 1


def test_cut_compressed_packet_is_left_out_and_reported(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(w.trace([fpu(0, *range(200, 900, 7))]))
    store = load(tmp_path, [fpu(0, 100), w.blob(133, packed[:-4])])
    assert column(store, "kvm_fpu", "ts") == [100]
    assert store.manifest["trouble"]["compressed_packet_damaged"] == 1


def test_damaged_event_leaves_out_the_rest_of_its_bundle(tmp_path: Path) -> None:
    body = w.bundle(0, [(200, 7, "kvm_fpu", {"load": 1})]) + w.blob(2, b"\x08\xff")
    store = load(tmp_path, [fpu(0, 100), w.packet(ftrace=body), fpu(0, 300)])
    assert column(store, "kvm_fpu", "ts") == [100, 200, 300]
    assert store.manifest["trouble"]["damaged_event"] == 1
    assert len(store.manifest["damage"]) == 1


@pytest.mark.parametrize("order", ["0123", "3210", "2031"])
def test_bundles_in_any_order_give_tables_in_order_of_time(tmp_path: Path, order: str) -> None:
    packets = [fpu(0, 100, 200), fpu(1, 150, 250), fpu(0, 300, 400), fpu(1, 350, 450)]
    store = load(tmp_path, [packets[int(n)] for n in order])
    assert rows(store, "kvm_fpu", "ts", "cpu") == [(n * 50, n % 2) for n in range(2, 10)]


def test_failed_events_have_no_count(tmp_path: Path) -> None:
    stats = w.ftrace_stats(1, {}, failed_ftrace_events=["msr/rdpmc"])
    store = load(tmp_path, [fpu(0, 100), stats])
    found = rows(store, "event_count", "name", "count", "asked")
    assert found == [("kvm_fpu", 1, None), ("msr/rdpmc", None, True)]
    assert store.manifest["failed_events"] == ["msr/rdpmc"]


@pytest.mark.parametrize("outcome", [1, 2])
def test_events_kept_in_the_kernel_buffer_are_a_tail_loss(tmp_path: Path, outcome: int) -> None:
    start = w.ftrace_stats(1, {0: {"entries": 0, "read_events": 10, "now_ts": 1e-6}})
    at_end = {"entries": 4, "read_events": 12, "oldest_event_ts": 5e-6, "now_ts": 9e-6}
    end = w.ftrace_stats(2, {0: at_end})
    store = load(tmp_path, [start, fpu(0, 2000, 3000), end, w.trace_stats(outcome)])
    cause = "final_flush_failed" if outcome == 2 else "kept_in_kernel_buffer"
    assert rows(store, "data_loss", "cause", "ts", "end", "events") == [(cause, 5000, 9000, 4)]
    assert store.manifest["trouble"]["tail_events"] == 4
    assert store.manifest["trouble"].get("final_flush_failed", 0) == outcome - 1
