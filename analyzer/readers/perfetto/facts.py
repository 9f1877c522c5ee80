"""What do a trace's small packets say: configuration, system, threads, clocks, statistics?

Sources: perfetto:protos/perfetto/trace/{clock_snapshot,system_info,ps/process_tree}.proto,
perfetto:protos/perfetto/trace/ftrace/ftrace_stats.proto; facts/formats.md 1.6 to 1.8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from analyzer.readers.perfetto.names import message
from analyzer.readers.perfetto.samples import host_events
from analyzer.readers.recording import RecordingFacts, ThreadName
from analyzer.trouble import Trouble

# FtraceClock in the bundle -> what we call it; 0 (absent) is boot.
CLOCKS = {0: "boot", 1: "unknown", 2: "global", 3: "local", 4: "mono_raw"}
REALTIME, BOOTTIME, MONOTONIC_RAW = 1, 6, 5
# What we call it -> BuiltinClock; the others are in no snapshot.
SNAPSHOT_CLOCKS = {"boot": BOOTTIME, "mono_raw": MONOTONIC_RAW}


@dataclass(slots=True)
class CpuStatistics:
    """One CPU's kernel buffer at the recorder's first start and last end statistics."""

    start: Any = None
    end: Any = None


@dataclass(slots=True)
class SmallPackets:
    """What the packets say, apart from events."""

    cpus: dict[int, CpuStatistics] = field(default_factory=dict)
    snapshots: list[dict[int, int]] = field(default_factory=list)
    final_flush_failed: bool = False
    buffer_loss: int = 0
    names: dict[int, ThreadName] = field(default_factory=dict)


def read_small_packets(packets: list[Any], facts: RecordingFacts, trouble: Trouble) -> SmallPackets:
    """Fill `facts` with what the packets say of the recording as a whole; return the rest."""
    small = SmallPackets()
    failed: set[str] = set()
    for packet in packets:
        if packet.HasField("trace_config"):
            _config(packet.trace_config, facts)
        if packet.HasField("system_info"):
            _system(packet.system_info, facts)
        if packet.HasField("ftrace_stats"):
            _ftrace_stats(packet.ftrace_stats, small, failed, trouble)
        if packet.HasField("trace_stats"):
            _trace_stats(packet.trace_stats, small)
        if packet.HasField("clock_snapshot"):
            small.snapshots.append(
                {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
            )
        if packet.HasField("process_tree"):
            _threads(packet.process_tree, small)
    facts.failed_events = sorted(failed)
    trouble.add("failed_events", len(failed), ", ".join(facts.failed_events))
    if small.final_flush_failed:
        trouble.add("final_flush_failed")
    trouble.add("trace_buffer_loss", small.buffer_loss)
    return small


def _config(config: Any, facts: RecordingFacts) -> None:
    for source in config.data_sources:
        if source.config.HasField("ftrace_config"):
            asked = list(source.config.ftrace_config.ftrace_events)
            facts.asked_events = sorted(set(facts.asked_events or []) | set(asked))
        if source.config.HasField("perf_event_config"):
            facts.host_events += host_events(source.config.perf_event_config)


def _system(system: Any, facts: RecordingFacts) -> None:
    facts.kernel = system.utsname.release or facts.kernel
    facts.machine = system.utsname.machine or facts.machine
    facts.recorder = system.tracing_service_version or facts.recorder
    facts.cpus = system.num_cpus or facts.cpus


def _ftrace_stats(stats: Any, small: SmallPackets, failed: set[str], trouble: Trouble) -> None:
    phases = message("FtraceStats").enum_types_by_name["Phase"].values_by_name
    failed.update(stats.failed_ftrace_events)
    failed.update(stats.unknown_ftrace_events)
    if stats.phase == phases["END_OF_TRACE"].number:
        trouble.add("kprobe_misses", stats.kprobe_stats.misses)
        trouble.add("kernel_page_errors", len(stats.ftrace_parse_errors))
    for cpu in stats.cpu_stats:
        known = small.cpus.setdefault(cpu.cpu, CpuStatistics())
        # A pair comes with every flush: the first start and the last end frame the recording.
        if stats.phase == phases["START_OF_TRACE"].number and known.start is None:
            known.start = cpu
        if stats.phase == phases["END_OF_TRACE"].number:
            known.end = cpu


def _trace_stats(stats: Any, small: SmallPackets) -> None:
    outcome = stats.DESCRIPTOR.fields_by_name.get("final_flush_outcome")
    if outcome is not None:
        failed = outcome.enum_type.values_by_name["FINAL_FLUSH_FAILED"].number
        small.final_flush_failed = stats.final_flush_outcome == failed
    loss = stats.invalid_packets
    for buffer in stats.buffer_stats:
        loss += buffer.chunks_overwritten + buffer.chunks_discarded + buffer.patches_failed
        loss += buffer.readaheads_failed + buffer.abi_violations + buffer.trace_writer_packet_loss
        loss += getattr(buffer, "oversized_packets_dropped", 0)
    small.buffer_loss = loss  # the numbers are running totals: the last packet holds all


def _threads(tree: Any, small: SmallPackets) -> None:
    for process in tree.processes:
        line = " ".join(process.cmdline) or None
        name = line.split()[0].rsplit("/", 1)[-1] if line else None
        small.names[process.pid] = ThreadName(process.pid, process.pid, name, line)
    for thread in tree.threads:
        known = small.names.get(thread.tid)
        cmdline = known.cmdline if known else None
        name = thread.name or (known.name if known else None)
        small.names[thread.tid] = ThreadName(thread.tid, thread.tgid or None, name, cmdline)


def realtime_offset(small: SmallPackets, clock: str, boot_minus_trace: int | None) -> int | None:
    """Return CLOCK_REALTIME minus the trace clock in ns by the first snapshot that has both.

    boot_minus_trace: a pair of readings out of a bundle, for clocks that no snapshot holds.
    """
    for snapshot in small.snapshots:
        if REALTIME not in snapshot:
            continue
        if clock == "mono_raw" and MONOTONIC_RAW in snapshot:
            return snapshot[REALTIME] - snapshot[MONOTONIC_RAW]
        if BOOTTIME not in snapshot:
            continue
        if clock == "boot":
            return snapshot[REALTIME] - snapshot[BOOTTIME]
        if boot_minus_trace is not None:
            return snapshot[REALTIME] - snapshot[BOOTTIME] + boot_minus_trace
    return None
