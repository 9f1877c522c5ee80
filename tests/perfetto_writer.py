"""Writes small Perfetto traces for tests: raw wire encoding outside, pb2 for the payloads.

A trace is `trace([packet(...), ...])`; a packet is bytes, so tests can reorder, cut and damage it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import zstandard
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

Value = int | str | bytes
# (ts, pid, name, {field: value})
EventRow = tuple[int, int, str, Mapping[str, Value]]
# (ts, prev_state, next_pid, prio, comm)
SwitchRow = tuple[int, int, int, int, str]
# (ts, pid, target_cpu, prio, comm)
WakingRow = tuple[int, int, int, int, str]

MASK = (1 << 64) - 1
INT64 = FieldDescriptorProto.TYPE_INT64
UINT64 = FieldDescriptorProto.TYPE_UINT64
STRING = FieldDescriptorProto.TYPE_STRING
BYTES = FieldDescriptorProto.TYPE_BYTES


def varint(value: int, width: int = 0) -> bytes:
    """`value` (negative: two's complement) as a varint of at least `width` bytes."""
    value &= MASK
    out = bytearray()
    while value > 0x7F or len(out) + 1 < width:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int, width: int = 0) -> bytes:
    return varint(field << 3) + varint(value, width)


def blob(field: int, data: bytes, width: int = 0) -> bytes:
    """A length-delimited field; `width` pads its length as Perfetto's writers do (4)."""
    return varint(field << 3 | 2) + varint(len(data), width) + data


def either(field: int, value: Value) -> bytes:
    if isinstance(value, int):
        return number(field, value)
    return blob(field, value.encode() if isinstance(value, str) else value)


class Dense(NamedTuple):
    """The descriptor of a dense generic event: fields are (name, type), numbered from 1."""

    field_id: int
    group: str
    name: str
    fields: tuple[tuple[str, FieldDescriptorProto.Type.ValueType], ...]

    def encode(self) -> bytes:
        message = DescriptorProto(name=self.name)
        for i, (name, kind) in enumerate(self.fields, 1):
            message.field.add(name=name, number=i, type=kind)
        descriptor = blob(2, message.SerializeToString())
        return number(1, self.field_id) + descriptor + blob(3, self.group.encode())

    def body(self, values: Mapping[str, Value]) -> bytes:
        numbers = {name: i for i, (name, _) in enumerate(self.fields, 1)}
        return b"".join(either(numbers[name], value) for name, value in values.items())


def legacy_body(name: str, values: Mapping[str, Value]) -> bytes:
    event = pb.GenericFtraceEvent(event_name=name)
    for key, value in values.items():
        field = event.field.add(name=key)
        if isinstance(value, int):
            if value < 0:
                field.int_value = value
            else:
                field.uint_value = value
        else:
            field.str_value = value if isinstance(value, str) else value.decode()
    return bytes(event.SerializeToString())


def typed_body(name: str, values: Mapping[str, Value]) -> tuple[int, bytes]:
    field = pb.FtraceEvent.DESCRIPTOR.fields_by_name[name]
    message = getattr(pb.FtraceEvent(), name).__class__(**values)
    return field.number, message.SerializeToString()


def compact(switches: Sequence[SwitchRow], wakings: Sequence[WakingRow]) -> bytes:
    out = pb.FtraceEventBundle.CompactSched()
    comms: dict[str, int] = {}
    last = 0
    for ts, state, next_pid, prio, comm in switches:
        out.switch_timestamp.append(ts - last)
        out.switch_prev_state.append(state)
        out.switch_next_pid.append(next_pid)
        out.switch_next_prio.append(prio)
        out.switch_next_comm_index.append(comms.setdefault(comm, len(comms)))
        last = ts
    last = 0
    for ts, pid, target, prio, comm in wakings:
        out.waking_timestamp.append(ts - last)
        out.waking_pid.append(pid)
        out.waking_target_cpu.append(target)
        out.waking_prio.append(prio)
        out.waking_comm_index.append(comms.setdefault(comm, len(comms)))
        out.waking_common_flags.append(0)
        last = ts
    out.intern_table.extend(comms)
    return bytes(out.SerializeToString())


def bundle(
    cpu: int | None,
    events: Iterable[EventRow] = (),
    *,
    dense: Sequence[Dense] = (),
    describe: Sequence[Dense] | None = None,
    legacy: Iterable[str] = (),
    kprobes: Mapping[str, int] | Iterable[str] = (),
    switches: Sequence[SwitchRow] = (),
    wakings: Sequence[WakingRow] = (),
    lost: bool = False,
    previous_end: int = 0,
    clock: int | None = None,
    pair: tuple[int, int] | None = None,
    errors: Iterable[tuple[int, int]] = (),
    width: int = 0,
) -> bytes:
    """An FtraceEventBundle.

    `dense` are the layouts to encode by; `describe` those to write into this bundle (default: all
    of `dense`; `[]` leaves them to another bundle). Names in `legacy` go out as field 327, names in
    `kprobes` (name: 1 begin, 2 end, 3 instant; a bare name: 1) as field 542, others as typed ones.
    `pair` is (ftrace time, boot time); `width` pads every nested length.
    """
    layouts = {d.name: d for d in dense}
    old = set(legacy)
    probes = dict(kprobes) if isinstance(kprobes, Mapping) else dict.fromkeys(kprobes, 1)
    out = b"" if cpu is None else number(1, cpu)
    for ts, pid, name, values in events:
        if name in probes:
            field, body = 542, blob(1, name.encode()) + number(2, probes[name])
        elif name in old:
            field, body = 327, legacy_body(name, values)
        elif name in layouts:
            field, body = layouts[name].field_id, layouts[name].body(values)
        else:
            field, body = typed_body(name, values)
        event = number(1, ts) + number(2, pid) + blob(field, body, width)
        out += blob(2, event, width)
    if lost:
        out += number(3, 1)
    if switches or wakings:
        out += blob(4, compact(switches, wakings), width)
    if clock is not None:
        out += number(5, clock)
    if pair is not None:
        out += number(6, pair[0]) + number(7, pair[1])
    for ts, status in errors:
        out += blob(8, number(1, ts) + number(2, status), width)
    if previous_end:
        out += number(10, previous_end)
    for layout in dense if describe is None else describe:
        out += blob(11, layout.encode(), width)
    return out


def packet(
    *,
    ftrace: bytes | None = None,
    sequence: int | None = None,
    dropped: int | None = None,
    machine: int | None = None,
    timestamp: int | None = None,
    width: int = 0,
    raw: bytes = b"",
    **messages: Any,
) -> bytes:
    """A TracePacket: `ftrace` a bundle's bytes, `dropped` previous_packet_dropped, `raw` more,
    `messages` any field by its name (pb2 message or plain value)."""
    out = b"" if ftrace is None else blob(1, ftrace, width)
    out += bytes(pb.TracePacket(**messages).SerializeToString()) + raw
    given = ((8, timestamp), (10, sequence), (42, dropped), (98, machine))
    return out + b"".join(number(field, value) for field, value in given if value is not None)


def trace(packets: Iterable[bytes], width: int = 0) -> bytes:
    return b"".join(blob(1, p, width) for p in packets)


def deflate(packets: Iterable[bytes]) -> bytes:
    """A packet that holds `packets` in zlib."""
    return blob(50, zlib.compress(trace(packets)))


def zstd(packets: Iterable[bytes]) -> bytes:
    """A packet that holds `packets` in zstd."""
    return blob(133, zstandard.ZstdCompressor().compress(trace(packets)))


def clock_snapshot(clocks: Mapping[int, int], primary: int | None = None) -> bytes:
    message = pb.ClockSnapshot(primary_trace_clock=primary)
    for clock_id, ts in clocks.items():
        message.clocks.add(clock_id=clock_id, timestamp=ts)
    return packet(clock_snapshot=message)


def system_info(machine: str = "x86_64", release: str = "7.3.4", **fields: Any) -> bytes:
    name = pb.Utsname(sysname="Linux", release=release, version="#1", machine=machine)
    return packet(system_info=pb.SystemInfo(utsname=name, **fields))


def ftrace_stats(phase: int, cpus: Mapping[int, Mapping[str, int | float]], **fields: Any) -> bytes:
    """`phase` 1 start, 2 end; `cpus` {cpu: {FtraceCpuStats field: value}}."""
    message = pb.FtraceStats(phase=phase, **fields)
    for cpu, values in cpus.items():
        message.cpu_stats.add(cpu=cpu, **values)
    return packet(ftrace_stats=message)


def trace_stats(final_flush: int | None = None, **buffer: int) -> bytes:
    """`final_flush` 1 succeeded, 2 failed; `buffer` the fields of one BufferStats."""
    message = pb.TraceStats(final_flush_outcome=final_flush)
    if buffer:
        message.buffer_stats.add(**buffer)
    return packet(trace_stats=message)
