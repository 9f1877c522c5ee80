"""What do Perfetto's perf samples and its perf configuration become?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analyzer.pipeline import IngestOptions, ingest
from analyzer.readers.perfetto import samples
from analyzer.store import Store
from tests import perfetto_writer as w

MONOTONIC, BOOTTIME, UNHEARD_OF = 3, 6, 64


def load(tmp_path: Path, *packets: bytes) -> Store:
    path = tmp_path / "x.pftrace"
    frame = w.packet(ftrace=w.bundle(0, [(5, 7, "kvm_fpu", {"load": 1})]))
    path.write_bytes(w.trace([w.system_info(), frame, *packets]))
    return ingest(str(path), tmp_path / "x.vpmu", IngestOptions(), lambda done, total: None)


def sample(ts: int, cpu: int, clock: int | None = None, sequence: int = 3, **values: Any) -> bytes:
    body = pb.PerfSample(cpu=cpu, **values)
    given = {} if clock is None else {"timestamp_clock_id": clock}
    return w.packet(perf_sample=body, timestamp=ts, sequence=sequence, **given)


def found(store: Store, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in store.read("perf_sample").to_pylist()]


# Packets come CPU by CPU; what a packet does not say is null.
def test_samples_become_rows_in_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SPOOLED", 2)
    monkeypatch.setattr(samples, "BATCH", 2)
    store = load(
        tmp_path,
        sample(30, 0, tid=7, pid=6, cpu_mode=1, timebase_count=500, callstack_iid=4),
        sample(50, 0, tid=8, pid=6, cpu_mode=4),
        sample(40, 1, tid=9, pid=9, cpu_mode=2, sample_skipped_reason=2),
    )
    assert store.read("perf_sample").to_pylist() == [
        {"ts": 30, "cpu": 0, "tid": 7, "pid": 6, "cpu_mode": "kernel", "count": 500,
         "callstack": 4, "skipped": None},
        {"ts": 40, "cpu": 1, "tid": 9, "pid": 9, "cpu_mode": "user", "count": None,
         "callstack": None, "skipped": "unwind_stage"},
        {"ts": 50, "cpu": 0, "tid": 8, "pid": 6, "cpu_mode": "guest_kernel", "count": None,
         "callstack": None, "skipped": None},
    ]  # fmt: skip
    assert "unread_packets" not in store.manifest["trouble"]


# The clock stands in the packet, else in its sequence's defaults; snapshots lead to the trace's.
def test_samples_of_another_clock_are_brought_to_the_trace_clock(tmp_path: Path) -> None:
    defaults = pb.TracePacketDefaults(timestamp_clock_id=MONOTONIC)
    store = load(
        tmp_path,
        w.clock_snapshot({MONOTONIC: 100, BOOTTIME: 1100}),
        w.clock_snapshot({MONOTONIC: 200, BOOTTIME: 1300}),
        w.packet(trace_packet_defaults=defaults, sequence=4),
        sample(90, 0, sequence=4),
        sample(150, 0, sequence=4),
        sample(250, 0, clock=MONOTONIC),
        sample(1200, 0),
        sample(10, 0, clock=UNHEARD_OF),
    )
    assert found(store, "ts") == [(1090,), (1150,), (1200,), (1350,)]
    assert store.manifest["trouble"]["samples_without_clock"] == 1


# A loss of perf's own buffer has no time of its own, and takes nothing from the events' stream.
def test_lost_records_are_a_loss_and_no_row(tmp_path: Path) -> None:
    store = load(tmp_path, sample(30, 1, kernel_records_lost=12), sample(40, 1, tid=7))
    losses = [row for row in store.read("data_loss").to_pylist() if row["cause"] == "perf_records"]
    assert losses == [{"ts": None, "end": None, "cpu": 1, "cause": "perf_records", "events": 12}]
    assert found(store, "ts", "tid") == [(40, 7)]


def test_numbers_beyond_their_columns_are_unknown_and_no_traceback(tmp_path: Path) -> None:
    store = load(tmp_path, sample(2**64 - 1, 2**32 - 1, tid=2**32 - 1, callstack_iid=2**64 - 1))
    assert found(store, "ts", "cpu", "tid", "callstack") == [(2**63 - 1, None, None, None)]


def test_perf_configuration_lists_the_events_that_were_opened(tmp_path: Path) -> None:
    config = pb.TraceConfig()
    perf = config.data_sources.add().config.perf_event_config
    perf.timebase.frequency = 99
    perf.timebase.counter = pb.PerfEvents.HW_INSTRUCTIONS
    perf.timebase.modifiers.append(pb.PerfEvents.EVENT_MODIFIER_COUNT_USERSPACE)
    perf.followers.add().raw_event.config = 0x1C2
    perf.followers[0].raw_event.type = 4
    perf.followers.add(name="mine").tracepoint.name = "sched/sched_switch"
    config.data_sources.add().config.perf_event_config.sampling_frequency = 10
    store = load(tmp_path, w.packet(trace_config=config))
    keys = ("name", "use", "type", "config", "freq", "exclude_kernel", "exclude_user")
    rows = store.read("host_event").to_pylist()
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("HW_INSTRUCTIONS", "sampled", 0, 1, 99, True, False),
        ("raw", "counted", 4, 0x1C2, None, False, False),
        ("mine", "counted", 2, None, None, False, False),
        ("SW_CPU_CLOCK", "sampled", 1, 0, 10, False, False),
    ]
    assert {row["exclude_guest"] for row in rows} == {None}
