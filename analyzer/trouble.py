"""Which kinds of loss and doubt the program counts: one declared list, filled while it works."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["COUNTERS", "Counter", "Trouble"]


@dataclass(frozen=True, slots=True)
class Counter:
    """One kind of trouble. `severity`: loss (data are missing), doubt (a result rests on an
    inference), note (nothing is wrong, but a reader may wonder)."""

    name: str
    severity: str
    meaning: str
    source: str
    advice: str


# Sorted by severity, then by name; `analyzer info` prints those above zero in this order.
COUNTERS: tuple[Counter, ...] = (
    Counter(
        "bundle_loss_flags",
        "loss",
        "bundles that say events were lost before them",
        "FtraceEventBundle.lost_events",
        "raise buffer_size_kb or lower drain_period_ms of the recorder",
    ),
    Counter(
        "bundle_sequence_gaps",
        "loss",
        "bundles that begin later than the one before them on that CPU ended",
        "FtraceEventBundle.previous_bundle_end_timestamp",
        "raise the size of the trace buffer, or write to a file while recording",
    ),
    Counter(
        "bundles_without_cpu",
        "loss",
        "bundles left out because they name no CPU, or one above 1023",
        "FtraceEventBundle.cpu",
        "the recording is damaged there",
    ),
    Counter(
        "compressed_packet_damaged",
        "loss",
        "compressed packets that could not be unpacked, left out with all they hold",
        "TracePacket.compressed_packets, zstd_compressed_packets",
        "copy the recording again from its host",
    ),
    Counter(
        "cpu_data_cut",
        "loss",
        "streams of CPUs that end before the size that the file gives them",
        "trace.dat: the CPUs' offsets and sizes",
        "the recorder was stopped while it wrote, or the copy is incomplete",
    ),
    Counter(
        "damaged_event",
        "loss",
        "events whose bytes contradict their length, left out with the rest of their bundle",
        "FtraceEvent",
        "the recording is damaged there",
    ),
    Counter(
        "damaged_page",
        "loss",
        "pages of a CPU's ring buffer that contradict the format, left from there on",
        "trace.dat: pages of the CPUs' data",
        "the recording is damaged there",
    ),
    Counter(
        "descriptor_missing",
        "loss",
        "generic events whose descriptor is nowhere in the file: counted by number only",
        "FtraceEventBundle.generic_event_descriptors",
        "a ring buffer has overwritten it: record with a larger one, or with fill_policy DISCARD",
    ),
    Counter(
        "dropped_events",
        "loss",
        "events that the kernel dropped because its buffer was full or busy: where is unknown",
        "trace.dat: option CPUSTAT, commit overrun and dropped events",
        "record with a larger buffer (trace-cmd record -b)",
    ),
    Counter(
        "final_flush_failed",
        "loss",
        "the recorder says that its last flush failed",
        "TraceStats.final_flush_outcome",
        "raise flush_timeout_ms; the windows' ends say what is whole",
    ),
    Counter(
        "kernel_page_errors",
        "loss",
        "pages of the kernel's buffer that the recorder could not parse",
        "FtraceEventBundle.error, FtraceStats.ftrace_parse_errors",
        "report it to the recorder's authors with the kernel's version",
    ),
    Counter(
        "kprobe_misses",
        "loss",
        "probe hits that the kernel could not record",
        "FtraceStats.kprobe_stats.misses",
        "probe fewer functions",
    ),
    Counter(
        "overrun_events",
        "loss",
        "events that the kernel's buffer lost between the recorder's two statistics",
        "FtraceStats.cpu_stats overrun, commit_overrun, dropped_events; trace.dat: CPUSTAT",
        "raise buffer_size_kb of the recorder",
    ),
    Counter(
        "page_loss_flags",
        "loss",
        "pages before which the kernel's buffer lost events that nobody had read",
        "trace.dat: bits 31 and 30 of a page's commit",
        "record with a larger buffer (trace-cmd record -b)",
    ),
    Counter(
        "packets_dropped",
        "loss",
        "packets before which the tracing service lost others of the same writer",
        "TracePacket.previous_packet_dropped",
        "raise the size of the trace buffer",
    ),
    Counter(
        "samples_without_clock",
        "loss",
        "perf samples left out because no pair of clock readings leads to the trace clock",
        "TracePacket.timestamp_clock_id, ClockSnapshot",
        "record with the default clocks (boot)",
    ),
    Counter(
        "tail_events",
        "loss",
        "events that stayed in the kernel's buffer when the recorder stopped",
        "FtraceStats, formats.md 1.6",
        "raise flush_timeout_ms, or stop the load before the recorder",
    ),
    Counter(
        "tail_unknown",
        "loss",
        "CPUs without final statistics: how much is missing at their end is unknown",
        "FtraceStats",
        "raise flush_timeout_ms",
    ),
    Counter(
        "trace_buffer_loss",
        "loss",
        "chunks that the tracing service overwrote, discarded or could not read",
        "TraceStats.buffer_stats",
        "raise the size of the trace buffer",
    ),
    Counter(
        "truncated_packet",
        "loss",
        "the file ends inside a packet, which is left out",
        "TracePacket",
        "the recorder was stopped while it wrote, or the copy is incomplete",
    ),
    Counter(
        "clock_without_unit",
        "doubt",
        "the trace clock does not count nanoseconds: times and durations are in its own unit",
        "trace.dat: option TRACECLOCK without TSC2NSEC",
        "record with -C mono, boot or local",
    ),
    Counter(
        "clock_unpaired",
        "doubt",
        "bundles on another clock than the rest, without a pair of readings to convert by",
        "FtraceEventBundle.ftrace_timestamp, boot_timestamp",
        "record with the default clock (boot)",
    ),
    Counter(
        "event_format_missing",
        "doubt",
        "events whose number no format in the file has: counted by number only",
        "trace.dat: event formats",
        "the event was made after recording began: make probes first",
    ),
    Counter(
        "events_out_of_order",
        "doubt",
        "events earlier than the one before them on their CPU, put at that one's time",
        "FtraceEvent.timestamp",
        "record with a clock that does not step (boot, mono)",
    ),
    Counter(
        "guest_times_unshifted",
        "doubt",
        "the file tells how to put its times on its host's clock, which needs the host's file",
        "trace.dat: option TIME_SHIFT",
        "compare times within this file only",
    ),
    Counter(
        "kvm_fields_missing",
        "doubt",
        "kvm_entry and kvm_exit events that arrived without any field",
        "formats.md 1.5: the recorder's types know only arm64's fields",
        "for exit reasons record the same load with trace-cmd or perf",
    ),
    Counter(
        "prev_pid_unknown",
        "doubt",
        "compact context switches whose previous thread nothing tells",
        "compact_sched",
        "set compact_sched.enabled to false in the recorder's configuration",
    ),
    Counter(
        "switch_contradictions",
        "doubt",
        "context switches from another thread than the last one that was switched in",
        "sched_switch",
        "events are missing there that no counter tells of",
    ),
    Counter(
        "vendor_contradicted",
        "doubt",
        "the vendor that the user named is not the one that the recording shows, which is taken",
        "kvm_exit.isa, MSR numbers of a core PMU",
        "leave --vendor away",
    ),
    Counter(
        "array_fields_missing",
        "note",
        "fields that the recorder left out or mangled in events that have a table",
        "formats.md 1.3",
        "record with trace-cmd or perf if you need them",
    ),
    Counter(
        "machine_not_named",
        "note",
        "the recording does not name its machine: its family is told by events that no other has",
        "facts: uname",
        "trace-cmd split and extract drop it: keep the whole recording",
    ),
    Counter(
        "failed_events",
        "note",
        "events that were asked for and could not be recorded: their absence means nothing",
        "FtraceStats.failed_ftrace_events, unknown_ftrace_events",
        "the kernel does not have them under that name, or refused",
    ),
    Counter(
        "instance_other_clock",
        "note",
        "instances on another clock than the top one, left out",
        "trace.dat: clock of a buffer",
        "record all instances with one clock",
    ),
    Counter(
        "other_machine_events",
        "note",
        "events of other machines in the same file, left out",
        "TracePacket.machine_id",
        "name the machine with --machine",
    ),
    Counter(
        "pointers_renumbered",
        "note",
        "pointer fields that hold the order of their first appearance, not addresses",
        "formats.md 1.3",
        "equality means identity only within one drain_period_ms; functions have names where the "
        "recorder's symbolize_ksyms was on",
    ),
    Counter(
        "unread_packets",
        "note",
        "packets of kinds that this program does not read",
        "TracePacket",
        "none needed",
    ),
    Counter(
        "unknown_event_type",
        "note",
        "events of types newer than the installed perfetto package",
        "FtraceEvent",
        "install a newer version of the perfetto package",
    ),
)
_BY_NAME = {counter.name: counter for counter in COUNTERS}
# How many examples of one kind of trouble are kept with their place; chosen by us: enough to
# look them up by hand, few enough to print.
EXAMPLES_KEPT = 5


@dataclass(slots=True)
class Trouble:
    """Counts of one run, with the first examples of each kind."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, count: int = 1, example: str | None = None) -> None:
        """Count `count` more of a declared kind; KeyError for one that is not in COUNTERS."""
        if name not in _BY_NAME:
            raise KeyError(f"trouble counter {name} is not declared")
        if count <= 0:
            return
        self.counts[name] = self.counts.get(name, 0) + count
        kept = self.examples.setdefault(name, [])
        if example is not None and len(kept) < EXAMPLES_KEPT:
            kept.append(example)

    def above_zero(self) -> list[tuple[Counter, int]]:
        """Return the counters above zero in declared order."""
        return [(c, self.counts[c.name]) for c in COUNTERS if self.counts.get(c.name, 0) > 0]
