"""The test writer itself: the official protobuf classes read back what it wrote."""

from __future__ import annotations

import zlib

import zstandard
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tests import perfetto_writer as w

WRITE_MSR = w.Dense(65536, "msr", "write_msr", (("msr", w.UINT64), ("failed", w.INT64)))


def parse(data: bytes) -> pb.Trace:
    return pb.Trace.FromString(data)


def test_varints_are_padded_on_request() -> None:
    assert w.varint(11) == b"\x0b"
    assert w.varint(11, 4) == b"\x8b\x80\x80\x00"
    assert w.varint(300) == b"\xac\x02"
    assert len(w.varint(-1)) == 10


def test_bundle_reads_back_in_every_encoding() -> None:
    for width in (0, 4):
        body = w.bundle(
            3,
            [
                (100, 7, "kvm_entry", {}),
                (110, 7, "kvm_fpu", {"load": 0}),
                (120, 7, "write_msr", {"msr": 0xC0000303, "failed": -1}),
                (130, 7, "rdpmc", {"msr": 2, "error": -5, "text": "x"}),
                (140, 7, "__kvm_vcpu_run", {}),
            ],
            dense=[WRITE_MSR],
            legacy=["rdpmc"],
            kprobes={"__kvm_vcpu_run": 2},
            switches=[(105, 1, 7, 120, "a"), (125, 0, 8, 120, "b")],
            wakings=[(101, 7, 3, 120, "a")],
            lost=True,
            previous_end=90,
            clock=3,
            pair=(1, 2),
            errors=[(99, 4)],
            width=width,
        )
        read = parse(w.trace([w.packet(ftrace=body, width=width)], width)).packet[0].ftrace_events
        assert (read.cpu, read.lost_events, read.previous_bundle_end_timestamp) == (3, True, 90)
        assert (read.ftrace_clock, read.ftrace_timestamp, read.boot_timestamp) == (3, 1, 2)
        assert (read.error[0].timestamp, read.error[0].status) == (99, 4)
        assert [(e.timestamp, e.pid) for e in read.event] == [(t, 7) for t in range(100, 150, 10)]
        kinds = [e.WhichOneof("event") for e in read.event]
        assert kinds == ["kvm_entry", "kvm_fpu", None, "generic", "kprobe_event"]
        assert read.event[1].kvm_fpu.HasField("load")
        unknown = UnknownFieldSet(read.event[2])[0]
        assert unknown.field_number == 65536
        assert unknown.data == WRITE_MSR.body({"msr": 0xC0000303, "failed": -1})
        fields = read.event[3].generic.field
        assert [f.name for f in fields] == ["msr", "error", "text"]
        assert (fields[0].uint_value, fields[1].int_value, fields[2].str_value) == (2, -5, "x")
        assert read.event[4].kprobe_event.name == "__kvm_vcpu_run"
        assert read.event[4].kprobe_event.type == 2
        sched = read.compact_sched
        assert list(sched.switch_timestamp) == [105, 20]
        assert list(sched.switch_next_pid) == [7, 8]
        assert list(sched.intern_table) == ["a", "b"]
        assert list(sched.waking_timestamp) == [101]
        assert list(sched.waking_comm_index) == [0]
        generic = read.generic_event_descriptors[0]
        assert (generic.field_id, generic.group_name) == (65536, "msr")
        message = DescriptorProto.FromString(generic.event_descriptor)
        assert message.name == "write_msr"
        assert [(f.name, f.number, f.type) for f in message.field] == [
            ("msr", 1, w.UINT64),
            ("failed", 2, w.INT64),
        ]


def test_a_descriptor_can_stand_in_another_bundle() -> None:
    row = (1, 2, "write_msr", {"msr": 5})
    first = w.bundle(0, [row], dense=[WRITE_MSR], describe=[])
    second = w.bundle(1, describe=[WRITE_MSR])
    a, b = parse(w.trace([w.packet(ftrace=first), w.packet(ftrace=second)])).packet
    assert not a.ftrace_events.generic_event_descriptors
    assert b.ftrace_events.generic_event_descriptors[0].field_id == 65536


def test_packet_fields_and_other_payloads() -> None:
    packets = [
        w.packet(ftrace=w.bundle(None), sequence=9, dropped=1, machine=4, timestamp=77),
        w.clock_snapshot({6: 10, 1: 20}, primary=6),
        w.system_info("aarch64", "7.2.0"),
        w.ftrace_stats(2, {1: {"entries": 5, "oldest_event_ts": 1.5}}, unknown_ftrace_events=["x"]),
        w.trace_stats(2, chunks_overwritten=3),
        w.packet(sequence=9, trusted_uid=1),
    ]
    p = parse(w.trace(packets)).packet
    assert p[0].HasField("ftrace_events")
    assert not p[0].ftrace_events.HasField("cpu")
    assert (p[0].trusted_packet_sequence_id, p[0].previous_packet_dropped) == (9, 1)
    assert (p[0].machine_id, p[0].timestamp) == (4, 77)
    assert [(c.clock_id, c.timestamp) for c in p[1].clock_snapshot.clocks] == [(6, 10), (1, 20)]
    assert p[2].system_info.utsname.machine == "aarch64"
    assert p[3].ftrace_stats.phase == pb.FtraceStats.END_OF_TRACE
    assert p[3].ftrace_stats.cpu_stats[0].entries == 5
    assert p[3].ftrace_stats.cpu_stats[0].oldest_event_ts == 1.5
    assert p[4].trace_stats.final_flush_outcome == pb.TraceStats.FINAL_FLUSH_FAILED
    assert p[4].trace_stats.buffer_stats[0].chunks_overwritten == 3
    assert p[5].trusted_uid == 1


def test_compressed_packets_hold_a_trace() -> None:
    inner = [w.packet(ftrace=w.bundle(0, [(1, 2, "kvm_exit", {})])), w.packet(timestamp=3)]
    a, b = parse(w.trace([w.deflate(inner), w.zstd(inner)])).packet
    assert zlib.decompress(a.compressed_packets) == w.trace(inner)
    assert zstandard.ZstdDecompressor().decompress(b.zstd_compressed_packets) == w.trace(inner)
