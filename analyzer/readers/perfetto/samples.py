"""Which samples did perf take, and what events was it asked to open? Packets of linux.perf.

Samples come CPU by CPU, so they are spooled and put in order at the end; in memory stand two
numbers of each. Source: perfetto:protos/perfetto/trace/profiling/profile_packet.proto,
config/profiling/perf_event_config.proto; src/profiling/perf/perf_producer.cc.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.readers.columns import enum_column, number_column, record_batch
from analyzer.readers.recording import Loss
from analyzer.tables import BY_NAME
from analyzer.trouble import Trouble

__all__ = ["BOOTTIME", "Samples", "host_events"]

Array = np.ndarray[Any, Any]
BOOTTIME = 6  # BuiltinClock; a trace's packets are on it unless they say otherwise
INT32, INT64 = 2**31 - 1, 2**63 - 1
BATCH = 128 * 1024
SPOOLED = 8 * 1024
# -1: the packet does not say.
SAMPLE = np.dtype(
    [
        ("ts", "<i8"), ("machine", "<i8"), ("callstack", "<i8"), ("count", "<u8"), ("cpu", "<i4"),
        ("pid", "<i4"), ("tid", "<i4"), ("clock", "<i4"), ("mode", "<i2"), ("skipped", "<i2"),
        ("counted", "u1"),
    ]
)  # fmt: skip
MODES = ("unknown", "kernel", "user", "hypervisor", "guest_kernel", "guest_user")
SKIPPED = ("unknown", "read_stage", "unwind_stage", "unwind_enqueue", "not_in_scope")


class Samples:
    """Samples while they are found, then as rows of perf_sample."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self._clock_of_sequence: dict[int, int] = {}
        self._pending: list[tuple[int, ...]] = []
        self._file: Any = None
        self._count = 0

    def take_defaults(self, packet: Any) -> None:
        """Note what a sequence says once of all its packets."""
        if packet.trace_packet_defaults.HasField("timestamp_clock_id"):
            clock = packet.trace_packet_defaults.timestamp_clock_id
            self._clock_of_sequence[packet.trusted_packet_sequence_id] = clock

    def take(self, packet: Any) -> None:
        """Take one packet with a perf_sample."""
        sample = packet.perf_sample
        if sample.HasField("kernel_records_lost"):
            # "Since the last record of that buffer": the packet's own time is that of its writing.
            cpu = sample.cpu if sample.HasField("cpu") else None
            lost = Loss(None, None, cpu, "perf_records", sample.kernel_records_lost)
            self.losses.append(lost)
            return
        if sample.HasField("producer_event"):
            return
        clock = packet.timestamp_clock_id or self._clock_of_sequence.get(
            packet.trusted_packet_sequence_id, BOOTTIME
        )

        def told(name: str, top: int = INT32) -> int:
            # What is beyond its column is damage, and known as little as what is absent.
            found = int(getattr(sample, name)) if sample.HasField(name) else -1
            return found if found <= top else -1

        self._pending.append(
            (
                min(packet.timestamp, INT64), packet.machine_id, told("callstack_iid", INT64),
                sample.timebase_count, told("cpu"), told("pid"), told("tid"), min(clock, INT32),
                told("cpu_mode"), told("sample_skipped_reason"), sample.HasField("timebase_count"),
            )
        )  # fmt: skip
        if len(self._pending) >= SPOOLED:
            self._spool()

    def _spool(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="vpmu-analyzer-")  # noqa: SIM115
        self._file.write(np.array(self._pending, SAMPLE).tobytes())
        self._count += len(self._pending)
        self._pending = []

    def batches(
        self, machine: int, clock: int | None, snapshots: list[dict[int, int]], trouble: Trouble
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of perf_sample in order of time, for once.

        clock: BuiltinClock of the trace clock, None where no snapshot can hold it; snapshots:
        readings by clock, in order of time.
        """
        if self._pending:
            self._spool()
        if self._file is None:
            return
        self._file.flush()
        rows: Array = np.memmap(self._file, SAMPLE, "r", shape=(self._count,))
        ts = np.array(rows["ts"])
        known = rows["machine"] == machine
        trouble.add("other_machine_events", int(np.count_nonzero(~known)), "perf_sample")
        for found in np.unique(rows["clock"]).tolist():
            here = rows["clock"] == found
            if found == clock:
                continue
            pairs = [s for s in snapshots if found in s and clock in s]
            if clock is None or not pairs:
                trouble.add("samples_without_clock", int(np.count_nonzero(here & known)))
                known &= ~here
                continue
            ours = np.array([s[found] for s in pairs], np.int64)
            shift = np.array([s[clock] for s in pairs], np.int64) - ours
            ts[here] += shift[np.maximum(np.searchsorted(ours, ts[here], side="right") - 1, 0)]
        order = np.flatnonzero(known)
        order = order[np.lexsort((rows["cpu"][order], ts[order]))]
        for begin in range(0, order.size, BATCH):
            at = order[begin : begin + BATCH]
            yield _rows(rows[at], ts[at])
        self._file.close()


def _rows(part: Array, ts: Array) -> pa.RecordBatch:
    table = BY_NAME["perf_sample"]
    columns = {
        name: number_column(table.column(name), part[source], part[source] >= 0)
        for name, source in (("cpu", "cpu"), ("tid", "tid"), ("pid", "pid"))
    }
    callstack = part["callstack"]
    columns["ts"] = number_column(table.column("ts"), ts)
    columns["count"] = number_column(table.column("count"), part["count"], part["counted"] == 1)
    columns["callstack"] = number_column(table.column("callstack"), callstack, callstack >= 0)
    for name, words in (("mode", MODES), ("skipped", SKIPPED)):
        codes = np.where(part[name] < len(words), part[name], 0)
        columns["cpu_mode" if name == "mode" else name] = enum_column(codes, words)
    return record_batch("perf_sample", columns, part.size)


# perf_event_attr's type and config of PerfEvents.Counter; linux:include/uapi/linux/perf_event.h.
HARDWARE, SOFTWARE, TRACEPOINT = 0, 1, 2
_HARDWARE = (
    "HW_CPU_CYCLES", "HW_INSTRUCTIONS", "HW_CACHE_REFERENCES", "HW_CACHE_MISSES",
    "HW_BRANCH_INSTRUCTIONS", "HW_BRANCH_MISSES", "HW_BUS_CYCLES", "HW_STALLED_CYCLES_FRONTEND",
    "HW_STALLED_CYCLES_BACKEND", "HW_REF_CPU_CYCLES",
)  # fmt: skip
_SOFTWARE = (
    "SW_CPU_CLOCK", "SW_TASK_CLOCK", "SW_PAGE_FAULTS", "SW_CONTEXT_SWITCHES", "SW_CPU_MIGRATIONS",
    "SW_PAGE_FAULTS_MIN", "SW_PAGE_FAULTS_MAJ", "SW_ALIGNMENT_FAULTS", "SW_EMULATION_FAULTS",
    "SW_DUMMY",
)  # fmt: skip


def host_events(config: Any) -> list[dict[str, Any]]:
    """Return rows of host_event for a PerfEventConfig: its timebase, then what follows it.

    The recorder opens them for all threads of each CPU. exclude_guest and pinned are null: the
    configuration has no word for them.
    """
    timebase = config.timebase
    first = _host_event(timebase, "sampled")
    first["freq"] = timebase.frequency or config.sampling_frequency or None
    first["period"] = timebase.period or None
    return [first, *(_host_event(follower, "counted") for follower in config.followers)]


def _host_event(event: Any, use: str) -> dict[str, Any]:
    # A PerfEvents.Timebase or a FollowerEvent; without an event it is the CPU clock.
    row: dict[str, Any] = {"use": use, "scope": "cpu", "type": SOFTWARE, "config": 0}
    row["source"] = "recording"
    name = "SW_CPU_CLOCK"
    if event.HasField("tracepoint"):
        name = event.tracepoint.name
        row["type"], row["config"] = TRACEPOINT, None  # its number is the running kernel's
    elif event.HasField("raw_event"):
        raw = event.raw_event
        name = raw.pmu_name or "raw"
        # A PMU's type has a number of its own in every running kernel.
        row["type"], row["config"] = (None if raw.pmu_name else raw.type), raw.config
    elif event.HasField("counter"):
        name = (
            event.DESCRIPTOR.fields_by_name["counter"]
            .enum_type.values_by_number[event.counter]
            .name
        )
        names = _HARDWARE if name in _HARDWARE else _SOFTWARE
        row["type"] = HARDWARE if name in _HARDWARE else SOFTWARE
        row["config"] = names.index(name) if name in names else None
    row["name"] = event.name or name
    words = event.DESCRIPTOR.fields_by_name["modifiers"].enum_type.values_by_name
    for column, word in (("exclude_kernel", "KERNEL"), ("exclude_user", "USERSPACE")):
        counted = words[f"EVENT_MODIFIER_COUNT_{word}"].number
        row[column] = bool(event.modifiers) and counted not in event.modifiers
    return row
