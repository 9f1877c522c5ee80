"""What does a reader hand on? The words between every format and the rest of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from analyzer.trouble import Trouble

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ABSENT",
    "NO_FLAGS",
    "STREAM_DTYPE",
    "Batch",
    "CpuWindow",
    "Loss",
    "ReadOptions",
    "ReaderDescriptor",
    "Recording",
    "RecordingFacts",
    "ThreadName",
]

# One event as the timeline needs it: `kind` is an index into RecordingFacts.event_names, `first`
# and `second` are the fields that readers.event_map names for it, ABSENT where it has none;
# `flags` is the kernel's common_flags.
STREAM_DTYPE = np.dtype(
    [
        ("ts", "<i8"),
        ("first", "<i8"),
        ("second", "<i8"),
        ("tid", "<i4"),
        ("cpu", "<i2"),
        ("kind", "<i2"),
        ("flags", "u1"),
    ]
)
# `flags` of a format that does not carry the kernel's common_flags (linux:
# include/linux/trace_events.h: 1 interrupts off, 8 hard interrupt, 0x10 softirq, 0x40 NMI).
NO_FLAGS = 255
# "not recorded" inside the stream; never in a table.
ABSENT = -(2**63)


@dataclass(frozen=True, slots=True)
class Loss:
    """A stretch in which events are missing. `ts` None: before the window; `cpu` None: any."""

    ts: int | None
    end: int | None
    cpu: int | None
    cause: str
    events: int | None


@dataclass(frozen=True, slots=True)
class CpuWindow:
    """The stretch of one CPU in which its stream is complete, but for losses inside."""

    cpu: int
    ts: int
    end: int
    events: int


@dataclass(frozen=True, slots=True)
class ThreadName:
    """What the recording says of one thread."""

    tid: int
    tgid: int | None
    name: str | None
    cmdline: str | None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user says of a recording. `machine`: id of the machine whose events are wanted."""

    machine: int | None = None


@dataclass(slots=True)
class RecordingFacts:
    """What is known of a recording; complete only when its batches have all been read.

    `event_names[kind]` names the kinds of the stream, `reasons[n]` the exits' reasons.
    `realtime_offset_ns`: CLOCK_REALTIME minus the trace clock, None where nothing tells.
    `symbols`: names of the kernel functions that stand as numbers in the stream's fields, by that
    number: an address (as int64, so a kernel's is negative), or the reader's own where addresses
    were not recorded. Where it is empty those fields hold what was recorded.
    `probes`: kinds that are probes at a function's entry, with the function by its symbol (None: no
    symbol tells); probes at a return are none of them.
    `host_events`: rows of the table of that name.
    """

    format: str
    machine: str | None = None
    kernel: str | None = None
    recorder: str | None = None
    clock: str = "unknown"
    realtime_offset_ns: int | None = None
    cpus: int | None = None
    event_names: list[str] = field(default_factory=list)
    event_counts: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    asked_events: list[str] | None = None
    failed_events: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    windows: list[CpuWindow] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    threads: list[ThreadName] = field(default_factory=list)
    vcpu_ids: dict[int, int] = field(default_factory=dict)
    symbols: dict[int, str] = field(default_factory=dict)
    probes: dict[int, str | None] = field(default_factory=dict)
    host_events: list[dict[str, Any]] = field(default_factory=list)
    lost_events: int | None = 0
    damage: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """Some of the recording, later than every batch before it. Rows are in order of time.

    tables: name -> record batch as analyzer.tables declares it; stream: the columns of
    STREAM_DTYPE by name, one row for every event of the batch.
    """

    tables: dict[str, pa.RecordBatch]
    stream: dict[str, np.ndarray[Any, Any]]


class Recording(Protocol):
    """An opened recording: read its batches once, then its facts are complete."""

    facts: RecordingFacts
    trouble: Trouble

    def batches(self, progress: Callable[[int, int], None]) -> Iterator[Batch]:
        """Yield all batches; `progress(done, total)` is called with bytes of work done."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@dataclass(frozen=True, slots=True)
class ReaderDescriptor:
    """One format: its name, what its first bytes look like, and how it is opened.

    `sniff(head)` gets up to 64 KiB from the file's start. `open(path, options, trouble)` raises
    InputError for what it cannot read at all.
    """

    name: str
    sniff: Callable[[bytes], bool]
    open: Callable[[str, ReadOptions, Trouble], Recording]
