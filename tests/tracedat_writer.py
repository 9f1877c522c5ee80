"""Writes small trace.dat files for tests: both versions, any endianness, any page.

`event`, `long_event`, `extend`, `stamp`, `padding` and `discard` make a page's contents, `page` a
page, `write` the file; `write` also tells where each structure begins, so tests can cut there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import zstandard

COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
"""


def format_text(name: str, number: int, *fields: tuple[str, int, int, int]) -> str:
    """An event's format; fields are (declaration, offset, size, signed)."""
    lines = "".join(
        f"\tfield:{what};\toffset:{at};\tsize:{size};\tsigned:{signed};\n"
        for what, at, size, signed in fields
    )
    return f'name: {name}\nID: {number}\nformat:\n{COMMON}\n{lines}\nprint fmt: "%d", REC->x\n'


FORMATS: tuple[tuple[str, str], ...] = (
    (
        "kvm",
        format_text(
            "kvm_exit",
            100,
            ("unsigned int exit_reason", 8, 4, 0),
            ("unsigned long guest_rip", 16, 8, 0),
            ("u32 isa", 24, 4, 0),
            ("unsigned int vcpu_id", 28, 4, 0),
        ),
    ),
    ("kvm", format_text("kvm_entry", 101, ("unsigned int vcpu_id", 8, 4, 0))),
    (
        "msr",
        format_text(
            "write_msr",
            102,
            ("unsigned int msr", 8, 4, 0),
            ("u64 val", 16, 8, 0),
            ("int failed", 24, 4, 1),
        ),
    ),
    (
        "sched",
        format_text(
            "sched_switch",
            103,
            ("char prev_comm[16]", 8, 16, 0),
            ("pid_t prev_pid", 24, 4, 1),
            ("int prev_prio", 28, 4, 1),
            ("long prev_state", 32, 8, 1),
            ("char next_comm[16]", 40, 16, 0),
            ("pid_t next_pid", 56, 4, 1),
            ("int next_prio", 60, 4, 1),
        ),
    ),
    (
        "irq",
        format_text(
            "irq_handler_entry", 104, ("int irq", 8, 4, 1), ("__data_loc char[] name", 12, 4, 0)
        ),
    ),
    ("ipi", format_text("ipi_entry", 105, ("__rel_loc char[] reason", 8, 4, 0))),
    ("ipi", format_text("ipi_exit", 106, ("const char * reason", 8, 8, 0))),
    ("kprobes", format_text("my_probe", 107, ("unsigned long __probe_ip", 8, 8, 0))),
    (
        "kprobes",
        format_text(
            "my_return",
            108,
            ("unsigned long __probe_func", 8, 8, 0),
            ("unsigned long __probe_ret_ip", 16, 8, 0),
        ),
    ),
    ("kprobes", format_text("kvm_entry", 109, ("unsigned long __probe_ip", 8, 8, 0))),
    ("other", format_text("lonely", 110, ("s8 small", 8, 1, 1))),
)
FTRACE_FORMATS = (
    format_text(
        "funcgraph_entry", 11, ("unsigned long func", 8, 8, 0), ("unsigned long depth", 16, 8, 0)
    ),
)
KALLSYMS = """\
ffffffff81000000 T _text
ffffffff81000000 T alias_of_text
ffffffff81000100 t helper\t[some_module]
ffffffff81000180 d not_code
ffffffff81000200 T swap_guest_pmu
"""
PRINTK = '0xffffffff82000000 : "Rescheduling interrupts"\n'


@dataclass
class Instance:
    """One buffer: its name ("" top), clock (v7) and pages by CPU."""

    pages: Mapping[int, Sequence[bytes]]
    name: str = ""
    clock: str = "local"


@dataclass
class Shape:
    """What a file looks like, whatever is in it."""

    version: int = 7
    compression: str = "none"
    big: bool = False
    long_size: int = 8  # of the kernel's commit field
    page_size: int = 256
    end: str = field(init=False)

    def __post_init__(self) -> None:
        self.end = ">" if self.big else "<"

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.end + form, *values)

    # What stands in a page.

    def head(self, type_len: int, delta: int) -> bytes:
        word = type_len << 27 | delta if self.big else delta << 5 | type_len
        return self.pack("I", word)

    def event(self, delta: int, record: bytes) -> bytes:
        record += bytes(-len(record) % 4)
        return self.head(len(record) // 4, delta) + record

    def long_event(self, delta: int, record: bytes) -> bytes:
        length = self.pack("I", len(record) + 4)
        return self.head(0, delta) + length + record + bytes(-len(record) % 4)

    def extend(self, delta: int) -> bytes:
        return self.head(30, delta & 0x7FFFFFF) + self.pack("I", delta >> 27)

    def stamp(self, ts: int) -> bytes:
        ts &= (1 << 59) - 1
        return self.head(31, ts & 0x7FFFFFF) + self.pack("I", ts >> 27)

    def padding(self) -> bytes:
        return self.head(29, 0)

    def discard(self, delta: int, size: int) -> bytes:
        return self.head(29, delta) + self.pack("I", size) + bytes(size - 4)

    def record(self, number: int, pid: int, payload: bytes = b"", flags: int = 0) -> bytes:
        return self.pack("HBBi", number, flags, 0, pid) + payload

    def page(self, ts: int, *events: bytes, lost: int | None = None) -> bytes:
        """A page; lost: None nothing, -1 some, else how many events were lost before it."""
        body = b"".join(events)
        commit = len(body)
        if lost is not None:
            commit |= 1 << 31
            if lost >= 0:
                commit |= 1 << 30
                body += self.pack("Q" if self.long_size == 8 else "I", lost)
        form = "QQ" if self.long_size == 8 else "QI"
        whole = self.pack(form, ts, commit) + body
        assert len(whole) <= self.page_size, len(whole)
        return whole + bytes(self.page_size - len(whole))

    # What stands around the pages.

    def header_info(self) -> bytes:
        start = 8 + self.long_size
        text = (
            "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{self.long_size};\tsigned:1;\n"
            "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:{start};\tsize:{self.page_size - start};\tsigned:1;\n"
        ).encode()
        out = b"header_page\0" + self.pack("Q", len(text)) + text
        return out + b"header_event\0" + self.pack("Q", 3) + b"# x"

    def texts(self, texts: Sequence[str]) -> bytes:
        raw = [text.encode() for text in texts]
        return self.pack("I", len(raw)) + b"".join(self.pack("Q", len(t)) + t for t in raw)

    def event_formats(self, formats: Sequence[tuple[str, str]]) -> bytes:
        systems = list(dict.fromkeys(system for system, _ in formats))
        out = self.pack("I", len(systems))
        for system in systems:
            out += system.encode() + b"\0"
            out += self.texts([text for owner, text in formats if owner == system])
        return out

    def squeeze(self, plain: bytes) -> bytes:
        if self.compression == "zstd":
            return zstandard.ZstdCompressor().compress(plain)
        return zlib.compress(plain)

    def chunks(self, pages: Sequence[bytes], in_each: int = 2) -> bytes:
        """A CPU's data in a compressed buffer."""
        groups = [b"".join(pages[n : n + in_each]) for n in range(0, len(pages), in_each)]
        out = self.pack("I", len(groups))
        for plain in groups:
            packed = self.squeeze(plain)
            out += self.pack("II", len(packed), len(plain)) + packed
        return out


@dataclass
class Written:
    """A file and where each of its structures begins."""

    raw: bytes
    marks: list[int]


def write(
    shape: Shape,
    instances: Sequence[Instance],
    *,
    options: Sequence[tuple[int, bytes]] = (),
    formats: Sequence[tuple[str, str]] = FORMATS,
    cmdlines: str = "7 worker with blanks\n",
    clock: str = "[local] global",
    kallsyms: str = KALLSYMS,
    machine: str | None = "x86_64",
) -> Written:
    """Write a file; `options` are (number, bytes) beside those that every file has. machine: None
    leaves uname away, as trace-cmd split does."""
    head = b"\x17\x08\x44tracing" + str(shape.version).encode() + b"\0"
    head += bytes([shape.big, 8]) + shape.pack("I", shape.page_size)
    named = [] if machine is None else [(5, f"Linux lab 6.12.0-test {machine}\0".encode())]
    common = [*named, (9, b"3.3.1\0"), *options]
    parts = (
        (16, shape.header_info()),
        (17, shape.texts(FTRACE_FORMATS)),
        (18, shape.event_formats(formats)),
        (19, shape.pack("I", len(kallsyms)) + kallsyms.encode()),
        (20, shape.pack("I", len(PRINTK)) + PRINTK.encode()),
        (21, shape.pack("Q", len(cmdlines)) + cmdlines.encode()),
    )
    make = _version_6 if shape.version == 6 else _version_7
    return make(shape, head, parts, common, instances, clock)


def _aligned(out: bytearray, page_size: int) -> int:
    out += bytes(-len(out) % page_size)
    return len(out)


def _version_6(
    shape: Shape, head: bytes, parts: Sequence[tuple[int, bytes]],
    options: Sequence[tuple[int, bytes]], instances: Sequence[Instance], clock: str,
) -> Written:  # fmt: skip
    out, marks = bytearray(head), [0, 10, len(head)]
    for _, raw in parts:
        marks.append(len(out))
        out += raw
    marks.append(len(out))
    cpus = 1 + max(cpu for instance in instances for cpu in instance.pages)
    out += shape.pack("I", cpus)
    marks.append(len(out))
    out += b"options  \0"
    holes: list[tuple[int, Instance]] = []
    for number, raw in [*options, (4, b"")]:
        out += shape.pack("HI", number, len(raw)) + raw
        marks.append(len(out))
    for instance in instances[1:]:
        raw = bytes(8) + instance.name.encode() + b"\0"
        out += shape.pack("HI", 3, len(raw))
        holes.append((len(out), instance))
        out += raw
    out += shape.pack("H", 0)
    text = clock.encode()
    tables: list[tuple[int, Instance]] = []

    def flyrecord(instance: Instance) -> None:
        marks.append(len(out))
        out.extend(b"flyrecord\0")
        tables.append((len(out), instance))
        out.extend(bytes(16 * cpus) + shape.pack("Q", len(text)) + text)

    flyrecord(instances[0])
    for at, instance in holes:
        out[at : at + 8] = shape.pack("Q", len(out))
        flyrecord(instance)
    for at, instance in tables:
        for cpu, pages in instance.pages.items():
            begin = _aligned(out, shape.page_size)
            raw = b"".join(pages)
            out[at + 16 * cpu : at + 16 * cpu + 16] = shape.pack("QQ", begin, len(raw))
            marks += range(begin, begin + len(raw), shape.page_size)
            out += raw
    return Written(bytes(out), sorted(marks))


def _version_7(
    shape: Shape, head: bytes, parts: Sequence[tuple[int, bytes]],
    options: Sequence[tuple[int, bytes]], instances: Sequence[Instance], clock: str,
) -> Written:  # fmt: skip
    packs = shape.compression != "none"
    out = bytearray(head + shape.compression.encode() + b"\0" + b"1.0\0")
    marks = [0, 10, len(head), len(out)]
    hole = len(out)
    out += bytes(8)

    def section(number: int, raw: bytes, packed: bool) -> int:
        begin = len(out)
        marks.extend((begin, begin + 16))
        if packed:
            squeezed = shape.squeeze(raw)
            raw = shape.pack("II", len(squeezed), len(raw)) + squeezed
        out.extend(shape.pack("HHIQ", number, int(packed), 0, len(raw)) + raw)
        return begin

    where = [(number, shape.pack("Q", section(number, raw, packs))) for number, raw in parts]
    first = [*where, (4, clock.encode() + b"\0"), *options]
    run = b"".join(shape.pack("HI", number, len(raw)) + raw for number, raw in first)
    last_run = b""
    out[hole : hole + 8] = shape.pack("Q", len(out))
    begin = section(0, run + shape.pack("HIQ", 0, 8, 0), False)
    following = begin + 16 + len(run) + 6
    for instance in instances:
        marks.append(len(out))
        at = len(out)
        out += bytes(16)
        table = b""
        for cpu, pages in instance.pages.items():
            data = _aligned(out, shape.page_size)
            raw = shape.chunks(pages) if packs and pages else b"".join(pages)
            marks += [data, data + 4] if packs else range(data, data + len(raw), shape.page_size)
            table += shape.pack("IQQ", cpu, data, len(raw))
            out += raw
        out[at : at + 16] = shape.pack("HHIQ", 3, int(packs), 0, len(out) - at - 16)
        raw = shape.pack("Q", at) + instance.name.encode() + b"\0" + instance.clock.encode() + b"\0"
        raw += shape.pack("II", shape.page_size, len(instance.pages)) + table
        last_run += shape.pack("HI", 3, len(raw)) + raw
    out[following : following + 8] = shape.pack("Q", len(out))
    section(0, last_run + shape.pack("HIQ", 0, 8, 0), False)
    return Written(bytes(out), sorted(marks))
