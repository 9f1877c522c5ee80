"""Which parts does a trace.dat have, whatever its version? The words between head and reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from analyzer.errors import LimitError
from analyzer.readers.tracedat.source import Cursor

__all__ = ["MOST_CPUS", "Buffer", "CpuData", "Option", "OptionId", "Parts", "read_formats"]

# linux:arch/x86/Kconfig NR_CPUS_RANGE_END with MAXSMP, the largest of all architectures.
MOST_CPUS = 8192
# Ids of events are 16 bits wide; a file that names more formats than that contradicts itself.
MOST_FORMATS = 65536


class OptionId(IntEnum):
    """Options, sections and their numbers (trace-cmd:lib/trace-cmd/include/private)."""

    DONE = 0
    DATE = 1
    CPUSTAT = 2
    BUFFER = 3
    TRACECLOCK = 4
    UNAME = 5
    HOOK = 6
    OFFSET = 7
    CPUCOUNT = 8
    VERSION = 9
    PROCMAPS = 10
    TRACEID = 11
    TIME_SHIFT = 12
    GUEST = 13
    TSC2NSEC = 14
    STRINGS = 15
    HEADER_INFO = 16
    FTRACE_EVENTS = 17
    EVENT_FORMATS = 18
    KALLSYMS = 19
    PRINTK = 20
    CMDLINES = 21
    BUFFER_TEXT = 22


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its number, its bytes, and where they stand in the file."""

    id: int
    raw: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class CpuData:
    """Where one CPU's pages stand; size as the table says it, packed or not."""

    cpu: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """The pages of one tracing instance; the top one has the name "".

    `packed`: each CPU's data are compressed chunks. `clock`: None where its entry does not tell.
    """

    name: str
    clock: str | None
    page_size: int
    packed: bool
    cpus: tuple[CpuData, ...]


@dataclass(slots=True)
class Parts:
    """Everything of a trace.dat but the events. `kallsyms` and `printk` read when asked."""

    version: int
    big: bool
    long_size: int
    page_size: int
    compression: str = "none"
    header_page: str = ""
    header_at: int = 0
    formats: list[tuple[str, str]] = field(default_factory=list)
    kallsyms: Callable[[], bytes] = bytes
    printk: Callable[[], bytes] = bytes
    cmdlines: str = ""
    cpus: int | None = None
    clock: str | None = None
    options: list[Option] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)


def _count(cursor: Cursor, structure: str) -> int:
    begin = cursor.at
    count = cursor.number(structure, 4)
    if count > MOST_FORMATS:
        problem = f"{count} is above {MOST_FORMATS}"
        raise LimitError(cursor.source.path, structure, begin, problem)
    return count


def read_header_info(cursor: Cursor) -> str:
    """Return the text of header_page; header_event, which no rule of ours needs, is skipped."""
    text = ""
    for wanted in ("header_page", "header_event"):
        begin = cursor.at
        found = cursor.name(wanted)
        if found != wanted:
            raise cursor.fail(wanted, f"is named {found[:40]!r}", begin)
        read = cursor.text(wanted, 8)
        text = text or read
    return text


def read_ftrace_formats(cursor: Cursor) -> list[tuple[str, str]]:
    """Return (system, format text) of the built-in events."""
    count = _count(cursor, "count of ftrace formats")
    return [("ftrace", cursor.text("ftrace format", 8)) for _ in range(count)]


def read_formats(cursor: Cursor) -> list[tuple[str, str]]:
    """Return (system, format text) of all tracepoints and probes."""
    formats: list[tuple[str, str]] = []
    for _ in range(_count(cursor, "count of event systems")):
        system = cursor.name("event system")
        begin = cursor.at
        count = _count(cursor, f"count of formats of system {system[:40]!r}")
        if len(formats) + count > MOST_FORMATS:
            problem = f"{len(formats) + count} formats in all, {MOST_FORMATS} are allowed"
            raise LimitError(cursor.source.path, "event formats", begin, problem)
        formats += [(system, cursor.text("event format", 8)) for _ in range(count)]
    return formats
