"""Which number has which name in a Perfetto trace? Answered by the perfetto package's descriptors.

Dense generic events (field numbers from 65536 on) are named by the recording itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.readers.event_map import EventTarget, target_of
from analyzer.readers.perfetto import layout

# perfetto:protos/perfetto/trace/ftrace/ftrace_event.proto reserves 65536..131072 for events that
# the recording describes itself.
DENSE_FIRST, DENSE_LAST = 65536, 131072
# Fields that hold pointers: the recorder replaces them by serial numbers (formats.md 1.3).
POINTER_COLUMNS = frozenset({"hrtimer", "function", "func", "csd", "callsite", "handler"})


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event: its name, where its rows go, and its fields' numbers by name."""

    name: str
    target: EventTarget
    fields: dict[str, int]
    form: str  # typed, dense, compact, legacy, kprobe or unknown


def message(name: str) -> Any:
    """Return the descriptor of perfetto.protos.NAME; KeyError where the package has none."""
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2

    return perfetto_trace_pb2.DESCRIPTOR.message_types_by_name[name]


def field_number(descriptor: Any, name: str) -> int:
    """Return a field's number; -1 where this version of the package has no such field."""
    found = descriptor.fields_by_name.get(name)
    return int(found.number) if found is not None else -1


def packet_numbers() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the `numbers` of layout.scan_packets."""
    packet = message("TracePacket")
    names = (
        "timestamp",
        "trusted_packet_sequence_id",
        "previous_packet_dropped",
        "machine_id",
        "first_packet_on_sequence",
    )
    return np.array([field_number(packet, name) for name in names], np.int64)


def bundle_numbers() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the `numbers` of layout.scan_bundle and of the walk."""
    bundle = message("FtraceEventBundle")
    compact = bundle.nested_types_by_name["CompactSched"]
    generic = bundle.nested_types_by_name["GenericEventDescriptor"]
    event = message("FtraceEvent")
    numbers = np.zeros(15, np.int64)
    for slot, descriptor, name in (
        (layout.N_CPU, bundle, "cpu"),
        (layout.N_EVENT, bundle, "event"),
        (layout.N_LOST, bundle, "lost_events"),
        (layout.N_COMPACT, bundle, "compact_sched"),
        (layout.N_CLOCK, bundle, "ftrace_clock"),
        (layout.N_FTRACE_TS, bundle, "ftrace_timestamp"),
        (layout.N_BOOT_TS, bundle, "boot_timestamp"),
        (layout.N_ERROR, bundle, "error"),
        (layout.N_PREVIOUS_END, bundle, "previous_bundle_end_timestamp"),
        (layout.N_DESCRIPTOR, bundle, "generic_event_descriptors"),
        (layout.N_EVENT_TIME, event, "timestamp"),
        (layout.N_EVENT_PID, event, "pid"),
        (layout.N_SWITCH_TIME, compact, "switch_timestamp"),
        (layout.N_WAKING_TIME, compact, "waking_timestamp"),
        (layout.N_DESCRIPTOR_ID, generic, "field_id"),
    ):
        numbers[slot] = field_number(descriptor, name)
    return numbers


def compact_columns() -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the `columns` of walk.walk_compact: CompactSched's fields by number."""
    compact = message("FtraceEventBundle").nested_types_by_name["CompactSched"]
    rows = {
        "switch_timestamp": 0,
        "switch_prev_state": 1,
        "switch_next_pid": 2,
        "switch_next_prio": 3,
        "switch_next_comm_index": 4,
        "waking_timestamp": 16,
        "waking_pid": 17,
        "waking_target_cpu": 18,
        "waking_prio": 19,
        "waking_comm_index": 20,
        "waking_common_flags": 21,
        "intern_table": 32,
    }
    columns = np.full(64, -1, np.int32)
    for name, row in rows.items():
        number = field_number(compact, name)
        if 0 <= number < columns.size:
            columns[number] = row
    return columns


def legacy_numbers() -> tuple[int, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the number of GenericFtraceEvent.event_name and the `numbers` of legacy_fields."""
    generic = message("GenericFtraceEvent")
    inner = generic.nested_types_by_name["Field"]
    numbers = [field_number(generic, "field")]
    numbers += [field_number(inner, n) for n in ("name", "str_value", "int_value", "uint_value")]
    return field_number(generic, "event_name"), np.array(numbers, np.int64)


class EventKinds:
    """All kinds of event of one recording, numbered as they are met.

    `lut` maps a field number of FtraceEvent to the number of its kind, -1 where none is known.
    """

    def __init__(self) -> None:
        self.kinds: list[EventKind] = []
        self.lut = np.full(DENSE_LAST + 1, -1, np.int32)
        self.systems: dict[str, str] = {}
        event = message("FtraceEvent")
        self.legacy_field = field_number(event, "generic")
        self.kprobe_field = field_number(event, "kprobe_event")
        # The pseudo kinds come first, so that their numbers are fixed.
        self.compact_switch = self._add("sched_switch", {}, "compact")
        self.compact_waking = self._add("sched_waking", {}, "compact")
        self.legacy = self._add("(legacy generic event)", {}, "legacy")
        self.kprobe = self._add("(probe)", {}, "kprobe")
        self.lut[self.legacy_field] = self.legacy
        self.lut[self.kprobe_field] = self.kprobe
        headers = {"timestamp", "pid", "common_flags"}
        for found in event.fields:
            special = found.number in (self.legacy_field, self.kprobe_field)
            if found.name in headers or special or found.message_type is None:
                continue
            fields = {inner.name: int(inner.number) for inner in found.message_type.fields}
            self.lut[found.number] = self._add(found.name, fields, "typed")

    def _add(self, name: str, fields: dict[str, int], form: str) -> int:
        self.kinds.append(EventKind(name, target_of(name), fields, form))
        return len(self.kinds) - 1

    def add_descriptor(self, raw: bytes) -> None:
        """Learn a dense generic event from one GenericEventDescriptor; ValueError if damaged."""
        from google.protobuf.descriptor_pb2 import DescriptorProto
        from google.protobuf.message import DecodeError
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2

        generic = perfetto_trace_pb2.FtraceEventBundle.GenericEventDescriptor()
        layout_of_event = DescriptorProto()
        try:
            generic.ParseFromString(raw)
            layout_of_event.ParseFromString(generic.event_descriptor)
        except DecodeError as error:
            raise ValueError(str(error)) from error
        number = int(generic.field_id)
        if not DENSE_FIRST <= number <= DENSE_LAST or self.lut[number] >= 0:
            return
        fields = {found.name: int(found.number) for found in layout_of_event.field}
        self.systems[layout_of_event.name] = generic.group_name
        self.lut[number] = self._add(layout_of_event.name, fields, "dense")

    def add_unknown(self, number: int) -> int:
        """Return the kind of an event that only its field number names."""
        if number == 0:
            return self._add("(event without payload)", {}, "unknown")
        kind = self._add(f"(ftrace event field {number})", {}, "unknown")
        self.lut[number] = kind
        return kind
