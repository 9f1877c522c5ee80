"""What stands in a trace.dat before its events? The head of both versions and the body of v6."""

from __future__ import annotations

from itertools import pairwise

from analyzer.errors import FormatError, LimitError, TruncatedError
from analyzer.readers.tracedat.formats import parse_fields
from analyzer.readers.tracedat.parts import (
    MOST_CPUS,
    Buffer,
    CpuData,
    Option,
    OptionId,
    Parts,
    read_formats,
    read_ftrace_formats,
    read_header_info,
)
from analyzer.readers.tracedat.sections import read_sections
from analyzer.readers.tracedat.source import Cursor, FileBytes

__all__ = ["MAGIC", "read_parts"]

MAGIC = b"\x17\x08\x44tracing"
LARGEST_PAGE = 16 * 1024 * 1024  # far above the kernel's largest sub-buffer; chosen by us


def read_parts(source: FileBytes) -> Parts:
    """Return everything of the file but its events; InputError where a structure is damaged."""
    cursor = Cursor(source, 0, source.size, False)
    magic = cursor.take("magic", len(MAGIC))
    if magic != MAGIC:
        raise cursor.fail("magic", f"is {magic.hex(' ')}, not {MAGIC.hex(' ')}", 0)
    begin = cursor.at
    version = cursor.name("version")
    if version not in ("6", "7"):
        raise cursor.fail("version", f"is {version[:20]!r}; read are 6 and 7", begin)
    begin = cursor.at
    endian = cursor.number("endianness", 1)
    if endian > 1:
        raise cursor.fail("endianness", f"is {endian}; 0 and 1 are known", begin)
    cursor.big = endian == 1
    begin = cursor.at
    long_size = cursor.number("size of long", 1)
    if long_size not in (4, 8):
        raise cursor.fail("size of long", f"is {long_size}; 4 and 8 are known", begin)
    begin = cursor.at
    page_size = cursor.number("page size", 4)
    check_page_size(source.path, begin, page_size)
    parts = Parts(int(version), cursor.big, long_size, page_size)
    if parts.version == 7:
        parts.compression = cursor.name("compression")
        cursor.name("version of the compression")
        read_sections(source, cursor, parts)
    else:
        _read_v6(source, cursor, parts)
    if not parts.buffers:
        raise FormatError(
            source.path, "options", cursor.at, "no buffer with events: 0 of at least 1"
        )
    _check_ranges(source, parts)
    return parts


def check_page_size(path: str, offset: int, size: int) -> None:
    """Raise where a page size cannot be one."""
    if size < 64 or size % 4:
        raise FormatError(path, "page size", offset, f"{size} is no multiple of 4 from 64 on")
    if size > LARGEST_PAGE:
        raise LimitError(path, "page size", offset, f"{size} is above {LARGEST_PAGE}")


def _read_v6(source: FileBytes, cursor: Cursor, parts: Parts) -> None:
    parts.header_at = cursor.at
    parts.header_page = read_header_info(cursor)
    _enlarge_pages(parts)
    parts.formats = read_ftrace_formats(cursor) + read_formats(cursor)
    for name in ("kallsyms", "printk"):
        size = cursor.number(f"size of {name}", 4)
        begin = cursor.skip(name, size)

        def read(begin: int = begin, size: int = size) -> bytes:
            return source.read(begin, size)

        setattr(parts, name, read)
    parts.cmdlines = cursor.text("cmdlines", 8)
    begin = cursor.at
    cpus = _cpu_count(cursor, begin, cursor.number("count of CPUs", 4))
    _tail(source, cursor, parts, "", cpus)


def _enlarge_pages(parts: Parts) -> None:
    # The head has the page size of the machine, and version 6 no other place for that of the
    # buffer, which may be larger since linux 6.8 (buffer_subbuf_size_kb): header_page shows it.
    place = parse_fields(parts.header_page).get("data")
    if place is not None:
        size = place.offset + place.size
        if parts.page_size < size <= LARGEST_PAGE and size % parts.page_size == 0:
            parts.page_size = size


def _cpu_count(cursor: Cursor, begin: int, count: int) -> int:
    if count > MOST_CPUS:
        problem = f"{count} is above {MOST_CPUS}"
        raise LimitError(cursor.source.path, "count of CPUs", begin, problem)
    return count


def _tail(source: FileBytes, cursor: Cursor, parts: Parts, name: str, cpus: int) -> None:
    # The 10-byte words and what each of them announces; for the top buffer and every instance.
    inner: list[tuple[int, str]] = []
    while True:
        begin = cursor.at
        word = cursor.take("word before the CPUs' data", 10)
        if word.startswith(b"options"):
            inner += _options_v6(cursor, parts)
        elif word.startswith(b"latency"):
            raise cursor.fail(
                "latency text", "is text of another tracer; we read events (flyrecord)", begin
            )
        elif word.startswith(b"flyrecord"):
            break
        else:
            problem = f"is {word!r}, not options, latency or flyrecord"
            raise cursor.fail("word before the CPUs' data", problem, begin)
    parts.cpus = max(cpus, parts.cpus or 0)
    counted = [o for o in parts.options if o.id == OptionId.CPUCOUNT and len(o.raw) >= 4]
    extra = False
    if counted and not name:
        raised = int.from_bytes(counted[-1].raw[:4], "big" if cursor.big else "little")
        _cpu_count(cursor, counted[-1].offset, raised)
        # Old readers trust the number in front; for them stands one empty pair more.
        extra = raised > cpus
        cpus = max(cpus, raised)
    table = []
    for cpu in range(cpus):
        offset = cursor.number(f"offset of CPU {cpu}'s data", 8)
        size = cursor.number(f"size of CPU {cpu}'s data", 8)
        if size:
            table.append(CpuData(cpu, offset, size))
    if extra:
        cursor.skip("empty pair for old readers", 16)
    clock = _clock_v6(cursor) if any(o.id == OptionId.TRACECLOCK for o in parts.options) else None
    if not name:
        parts.clock = clock
    parts.buffers.append(Buffer(name, clock, parts.page_size, False, tuple(table)))
    for offset, instance in inner:
        if not name and instance:
            at = Cursor(source, offset, source.size, cursor.big)
            _tail(source, at, parts, instance, cpus)


def _clock_v6(cursor: Cursor) -> str:
    # An old writer left this block damaged; the peer takes the clock for "local" then.
    begin = cursor.at
    try:
        text = cursor.text("trace clock", 8)
    except TruncatedError:
        cursor.at = begin
        return "local"
    return text


def _options_v6(cursor: Cursor, parts: Parts) -> list[tuple[int, str]]:
    # Returns the instances that BUFFER options announce: offset and name.
    found: list[tuple[int, str]] = []
    while True:
        number = cursor.number("option", 2)
        if number == OptionId.DONE:
            return found
        size = cursor.number(f"size of option {number}", 4)
        begin = cursor.at
        option = Option(number, cursor.take(f"option {number}", size), begin)
        parts.options.append(option)
        if number == OptionId.BUFFER:
            at = Cursor(cursor.source, begin, begin + size, cursor.big)
            offset = at.number("offset of an instance", 8)
            found.append((offset, at.name("name of an instance")))


def _check_ranges(source: FileBytes, parts: Parts) -> None:
    # Data of two CPUs that overlap would count events twice.
    ranges = sorted(
        (data.offset, data.size, data.cpu, buffer.name)
        for buffer in parts.buffers
        for data in buffer.cpus
        if data.size
    )
    for before, after in pairwise(ranges):
        end = before[0] + before[1]
        if after[0] < end:
            raise FormatError(
                source.path,
                f"data of CPU {after[2]}",
                after[0],
                f"begin before the end {end:#x} of CPU {before[2]}'s",
            )
