"""How are the parts of a trace.dat of version 7 found? By its options, which name sections."""

from __future__ import annotations

from collections.abc import Callable

from analyzer.errors import FormatError, LimitError, TruncatedError
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
from analyzer.readers.tracedat.source import Cursor, FileBytes, PlainBytes
from analyzer.readers.tracedat.unpack import SECTION_LIMIT, unpack

__all__ = ["read_sections"]

COMPRESSED = 1
# Sections of options follow each other by offset; a real file has two or three.
MOST_OPTION_SECTIONS = 1024


def _section(source: FileBytes, parts: Parts, offset: int, wanted: int) -> tuple[Cursor, bool]:
    # Returns a cursor on a section's plain content and whether the section is compressed; that of
    # a buffer's is not unpacked here.
    name = f"section {OptionId(wanted).name}"
    if offset > source.size:
        problem = f"lies behind the end of the file, {source.size:#x}"
        raise TruncatedError(source.path, name, offset, problem)
    cursor = Cursor(source, offset, source.size, parts.big)
    number = cursor.number(f"id of {name}", 2)
    if number != wanted:
        raise cursor.fail(name, f"has id {number}, not {wanted}", offset)
    flags = cursor.number(f"flags of {name}", 2)
    cursor.skip(f"name of {name}", 4)
    size = cursor.number(f"size of {name}", 8)
    packed = bool(flags & COMPRESSED)
    if wanted == OptionId.BUFFER:
        return cursor, packed
    begin = cursor.skip(name, size)
    if not packed:
        return Cursor(source, begin, begin + size, parts.big), False
    inner = Cursor(source, begin, begin + size, parts.big)
    packed_size = inner.number(f"compressed size of {name}", 4)
    plain_size = inner.number(f"plain size of {name}", 4)
    raw = inner.take(name, packed_size)
    plain = unpack(source.path, name, begin, parts.compression, raw, plain_size, SECTION_LIMIT)
    where = f" (unpacked from {offset:#x})"
    return Cursor(PlainBytes(source.path, plain, where), 0, plain_size, parts.big), True


def read_sections(source: FileBytes, cursor: Cursor, parts: Parts) -> None:
    """Fill `parts` from the cursor, which stands at the offset of the first options."""
    begin = cursor.at
    offset = cursor.number("offset of the first options", 8)
    if offset == 0:
        problem = "is 0: the recorder has not finished this file"
        raise FormatError(source.path, "offset of the first options", begin, problem)
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= MOST_OPTION_SECTIONS:
            problem = f"follows itself after {len(seen)} sections, {MOST_OPTION_SECTIONS} allowed"
            raise LimitError(source.path, "options", offset, problem)
        seen.add(offset)
        offset = _options(source, parts, offset)
    for option in list(parts.options):
        _follow(source, parts, option)


def _options(source: FileBytes, parts: Parts, offset: int) -> int:
    # Takes the options of one section; returns where the next one is, 0 for none.
    cursor, _ = _section(source, parts, offset, OptionId.DONE)
    while True:
        number = cursor.number("option", 2)
        size = cursor.number(f"size of option {number}", 4)
        begin = cursor.at
        raw = cursor.take(f"option {number}", size)
        if number == OptionId.DONE:
            if size != 8:
                raise cursor.fail("option DONE", f"has {size} bytes, not 8", begin)
            return int.from_bytes(raw, "big" if parts.big else "little")
        parts.options.append(Option(number, raw, begin))


def _follow(source: FileBytes, parts: Parts, option: Option) -> None:
    if option.id == OptionId.BUFFER:
        _buffer(source, parts, option)
        return
    wanted = (
        OptionId.HEADER_INFO,
        OptionId.FTRACE_EVENTS,
        OptionId.EVENT_FORMATS,
        OptionId.KALLSYMS,
        OptionId.PRINTK,
        OptionId.CMDLINES,
        OptionId.BUFFER_TEXT,
    )
    if option.id not in wanted:
        return
    if len(option.raw) < 8:
        problem = f"has {len(option.raw)} bytes, an offset needs 8"
        name = f"option {OptionId(option.id).name}"
        raise FormatError(source.path, name, option.offset, problem)
    offset = int.from_bytes(option.raw[:8], "big" if parts.big else "little")
    if option.id == OptionId.BUFFER_TEXT:
        problem = "is text of another tracer; we read events (flyrecord)"
        raise FormatError(source.path, "latency text", offset, problem)
    if option.id in (OptionId.KALLSYMS, OptionId.PRINTK):
        read = _later(source, parts, offset, option.id)
        if option.id == OptionId.KALLSYMS:
            parts.kallsyms = read
        else:
            parts.printk = read
        return
    cursor, _ = _section(source, parts, offset, option.id)
    if option.id == OptionId.HEADER_INFO:
        parts.header_at = offset
        parts.header_page = read_header_info(cursor)
    elif option.id == OptionId.FTRACE_EVENTS:
        parts.formats += read_ftrace_formats(cursor)
    elif option.id == OptionId.EVENT_FORMATS:
        parts.formats += read_formats(cursor)
    else:
        parts.cmdlines = cursor.text("cmdlines", 8)


def _later(source: FileBytes, parts: Parts, offset: int, number: int) -> Callable[[], bytes]:
    # Names of functions are two thirds of many files: read only when one is asked for.
    def read() -> bytes:
        cursor, _ = _section(source, parts, offset, number)
        size = cursor.number(f"size of {OptionId(number).name}", 4)
        return cursor.take(OptionId(number).name, size)

    return read


def _buffer(source: FileBytes, parts: Parts, option: Option) -> None:
    where = f" (in the option at {option.offset:#x})"
    plain = PlainBytes(source.path, option.raw, where)
    what = Cursor(plain, 0, len(option.raw), parts.big)
    offset = what.number("offset of a buffer", 8)
    name = what.name("name of a buffer")
    clock = what.name("clock of a buffer")
    begin = what.at
    page_size = what.number("page size of a buffer", 4)
    if page_size < 64 or page_size % 4 or page_size > SECTION_LIMIT:
        problem = f"{page_size} is no multiple of 4 from 64 to {SECTION_LIMIT}"
        raise what.fail("page size of a buffer", problem, begin)
    begin = what.at
    count = what.number("count of CPUs", 4)
    if count > MOST_CPUS:
        raise LimitError(source.path, "count of CPUs", begin, f"{count} is above {MOST_CPUS}")
    parts.cpus = max(count, parts.cpus or 0)
    cpus = []
    for _ in range(count):
        begin = what.at
        cpu = what.number("number of a CPU", 4)
        if cpu >= MOST_CPUS:
            raise LimitError(
                source.path, "number of a CPU", begin, f"{cpu} is not below {MOST_CPUS}"
            )
        at = what.number(f"offset of CPU {cpu}'s data", 8)
        size = what.number(f"size of CPU {cpu}'s data", 8)
        if size:
            cpus.append(CpuData(cpu, at, size))
    _, packed = _section(source, parts, offset, OptionId.BUFFER)
    parts.buffers.append(Buffer(name, clock or None, page_size, packed, tuple(cpus)))
