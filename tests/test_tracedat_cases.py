"""What does the trace.dat reader make of each small form of the format?"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analyzer.errors import ClockError, InputError
from analyzer.readers.recording import ReadOptions, RecordingFacts
from analyzer.readers.registry import find_reader
from analyzer.readers.tracedat.reader import TraceDatRecording
from analyzer.trouble import Trouble
from tests.tracedat_writer import FORMATS, Instance, Shape, format_text, write

EXIT, ENTRY, MSR, SWITCH, IRQ, IPI, IPI_EXIT, PROBE, RETURN, CLASH, LONELY = range(100, 111)
GRAPH = 11


class Read:
    """A file read to its end: rows of all tables, the stream as tuples, facts, trouble."""

    def __init__(self, path: Path) -> None:
        self.trouble = Trouble()
        reader = find_reader(str(path), "a.dat")
        assert reader.name == "trace.dat"
        recording = reader.open(str(path), ReadOptions(), self.trouble)
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.stream: list[tuple[int, int, int, str, int, int, int]] = []
        streams = []
        try:
            for batch in recording.batches(lambda done, total: None):
                for name, rows in batch.tables.items():
                    self.tables.setdefault(name, []).extend(
                        pa.Table.from_batches([rows]).to_pylist()
                    )
                streams.append(batch.stream)
        finally:
            recording.close()
        self.facts: RecordingFacts = recording.facts
        names = self.facts.event_names
        for s in streams:
            for ts, cpu, tid, kind, first, second, flags in zip(
                *(s[c].tolist() for c in ("ts", "cpu", "tid", "kind", "first", "second", "flags")),
                strict=True,
            ):
                self.stream.append((ts, cpu, tid, names[kind], first, second, flags))

    @property
    def heads(self) -> list[tuple[int, int, int, str]]:
        return [row[:4] for row in self.stream]


def read(tmp_path: Path, raw: bytes) -> Read:
    path = tmp_path / "a.dat"
    path.write_bytes(raw)
    return Read(path)


SHAPES = [
    Shape(version, compression, big, long_size)
    for version, compression, big, long_size in itertools.product(
        (6, 7), ("none", "zlib", "zstd"), (False, True), (4, 8)
    )
    if version == 7 or compression == "none"
]


def name_of(shape: Shape) -> str:
    order = "big" if shape.big else "little"
    return f"v{shape.version}-{shape.compression}-{order}-long{shape.long_size}"


every_shape = pytest.mark.parametrize("shape", SHAPES, ids=name_of)


def exits(shape: Shape, pid: int, reason: int, vcpu: int, flags: int = 0) -> bytes:
    return shape.record(
        EXIT, pid, shape.pack("IIQII", reason, 0, 0xFFFFFFFF81000000, 1, vcpu), flags
    )


def small(shape: Shape) -> list[Instance]:
    """Two CPUs with two pages each."""
    entry = shape.record(ENTRY, 7, shape.pack("I", 3))
    msr = shape.record(MSR, 7, shape.pack("IIQi", 0x1D9, 0, (1 << 64) - 2, -1))
    return [
        Instance(
            {
                0: [
                    shape.page(1000, shape.event(0, entry), shape.event(5, exits(shape, 7, 12, 3))),
                    shape.page(2000, shape.event(1, msr)),
                ],
                1: [
                    shape.page(1002, shape.event(0, entry)),
                    shape.page(1500, shape.event(0, entry), shape.event(1000, entry)),
                ],
            }
        )
    ]


# The same events come out of every version, compression, endianness and size of long.
@every_shape
def test_every_shape_of_file_gives_the_same_events(shape: Shape, tmp_path: Path) -> None:
    got = read(tmp_path, write(shape, small(shape)).raw)
    assert got.heads == [
        (1000, 0, 7, "kvm_entry"),
        (1002, 1, 7, "kvm_entry"),
        (1005, 0, 7, "kvm_exit"),
        (1500, 1, 7, "kvm_entry"),
        (2001, 0, 7, "write_msr"),
        (2500, 1, 7, "kvm_entry"),
    ]
    assert got.facts.event_counts == {
        "kvm_entry": (4, "vm_entry"), "kvm_exit": (1, "vm_exit"), "write_msr": (1, "pmu_access"),
    }  # fmt: skip
    [row] = got.tables["vm_exit"]
    assert (row["isa"], row["reason"], row["guest_rip"]) == ("VMX", "HLT", 0xFFFFFFFF81000000)
    [access] = got.tables["pmu_access"]
    assert (access["address"], access["value"], access["failed"]) == (0x1D9, (1 << 64) - 2, True)
    facts = got.facts
    assert (facts.machine, facts.kernel, facts.recorder) == (
        "x86_64", "6.12.0-test", "trace-cmd 3.3.1",
    )  # fmt: skip
    assert (facts.clock, facts.cpus, facts.vcpu_ids) == ("local", 2, {7: 3})
    assert [(w.cpu, w.ts, w.end, w.events) for w in facts.windows] == [
        (0, 1000, 2001, 3), (1, 1002, 2500, 3),
    ]  # fmt: skip
    assert [(t.tid, t.name) for t in facts.threads] == [(7, "worker with blanks")]
    assert facts.losses == []
    assert facts.damage == []
    assert facts.lost_events == 0


# 27 bits of delta, more by TIME_EXTEND; an absolute stamp takes its top 5 bits from the time so
# far, and moves on where that would go back; discarded events pass their time on; padding ends.
@every_shape
def test_times_follow_every_kind_of_head(shape: Shape, tmp_path: Path) -> None:
    top = 1 << 59
    entry = shape.record(ENTRY, 1, shape.pack("I", 0))
    pages = [
        shape.page(100, shape.extend(1 << 30), shape.event(1, entry), shape.discard(10, 12),
                   shape.event(1, entry), shape.padding(), shape.event(1, entry)),
        shape.page(5 << 30, shape.stamp(7 << 30), shape.stamp(6 << 30), shape.event(2, entry)),
        shape.page(top + 5000, shape.stamp(6000), shape.event(0, entry), shape.stamp(10),
                   shape.event(0, entry)),
        shape.page(2 * top + 11, shape.long_event(0, entry + bytes(30)), shape.event(3, entry)),
    ]  # fmt: skip
    got = read(tmp_path, write(shape, [Instance({0: pages})]).raw)
    assert [row[0] for row in got.stream] == [
        100 + (1 << 30) + 1, 100 + (1 << 30) + 12, (6 << 30) + 2, top + 6000, 2 * top + 10,
        2 * top + 11, 2 * top + 14,
    ]  # fmt: skip


# Flag alone: nobody knows how many; with a count: that many; before the first event: no begin.
@every_shape
def test_missed_events_become_losses(shape: Shape, tmp_path: Path) -> None:
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    pages = [
        shape.page(10, entry, lost=4),
        shape.page(20, entry),
        shape.page(30, entry, lost=-1),
        shape.page(40, lost=6),
        shape.page(50, entry, lost=7),
        shape.page(60, lost=2),
    ]
    got = read(tmp_path, write(shape, [Instance({0: pages})]).raw)
    assert [(x.ts, x.end, x.cpu, x.cause, x.events) for x in got.facts.losses] == [
        (None, 10, 0, "ring_buffer_overrun", 4),
        (20, 30, 0, "ring_buffer_overrun", None),
        (30, 50, 0, "ring_buffer_overrun", 13),
        (50, None, 0, "ring_buffer_overrun", 2),
    ]
    assert got.facts.lost_events is None
    assert got.trouble.counts == {"page_loss_flags": 4}


# What the flags do not place: all that is left belongs to the only gap without a number; without
# such a gap it was overwritten before the first event; drops are counted, not placed.
def test_statistics_number_what_flags_do_not(tmp_path: Path) -> None:
    shape = Shape()
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    pages = {
        0: [shape.page(10, entry), shape.page(20, entry, lost=4), shape.page(30, entry, lost=-1)],
        1: [shape.page(11, entry), shape.page(21, entry, lost=4)],
    }
    statistics = [
        (2, b"CPU: 0\nentries: 0\noverrun: 10\ncommit overrun: 0\ndropped events: 0\n\0"),
        (2, b"CPU: 1\nentries: 0\noverrun: 9\ncommit overrun: 1\ndropped events: 2\n\0"),
        (2, b"\nBuffer: inner\n\n\0"),
        (2, b"CPU: 1\noverrun: 100\n\0"),
    ]
    got = read(tmp_path, write(shape, [Instance(pages)], options=statistics).raw)
    assert [(x.ts, x.end, x.cpu, x.cause, x.events) for x in got.facts.losses] == [
        (None, 11, 1, "ring_buffer_overrun", 5),
        (10, 20, 0, "ring_buffer_overrun", 4),
        (11, 21, 1, "ring_buffer_overrun", 4),
        (20, 30, 0, "ring_buffer_overrun", 6),
        (11, None, 1, "dropped_events", 3),
    ]
    assert got.facts.lost_events == 22


@every_shape
def test_fields_are_read_by_the_formats(shape: Shape, tmp_path: Path) -> None:
    text = b"eth0\0"
    data_loc = shape.record(IRQ, 0, shape.pack("iI", -5, len(text) << 16 | 16) + text, 9)
    rel_loc = shape.record(IPI, 0, shape.pack("I", 3 << 16 | 2) + b"??abcd")
    literal = shape.record(IPI_EXIT, 0, shape.pack("Q", 0xFFFFFFFF82000000))
    outside = shape.record(IRQ, 0, shape.pack("iI", 1, 5 << 16 | 4000))
    switch = shape.record(
        SWITCH, 5,
        b"before\0rubbish\0\0" + shape.pack("iiq", 5, 120, 256)
        + b"exactly 16 bytes" + shape.pack("ii", 6, -1),
    )  # fmt: skip
    lonely = shape.record(LONELY, 0, b"\xff")
    events = [shape.event(1, x) for x in (data_loc, rel_loc, literal, outside, switch, lonely)]
    shape.page_size = 512
    got = read(tmp_path, write(shape, [Instance({0: [shape.page(0, *events)]})]).raw)
    assert [(r["vector"], r["text"]) for r in got.tables["interrupt"]] == [
        (-5, "eth0"), (None, "abc"), (None, "Rescheduling interrupts"), (1, None),
    ]  # fmt: skip
    assert got.stream[0][6] == 9
    [row] = got.tables["sched_switch"]
    assert {k: row[k] for k in list(row)[3:]} == {
        "prev_comm": "before", "prev_pid": 5, "prev_pid_from": "recorded", "prev_prio": 120,
        "prev_state": 256, "next_comm": "exactly 16 bytes", "next_pid": 6, "next_prio": -1,
    }  # fmt: skip
    assert got.stream[4] == (5, 0, 5, "sched_switch", 6, 256, 0)
    assert (6, "exactly 16 bytes") in [(t.tid, t.name) for t in got.facts.threads]


# Probes go by their fields, not by their names; a tracepoint keeps a name that a probe shares; a
# traced function is named by the symbol that holds it, an unknown one by its address.
@every_shape
def test_functions_have_names(shape: Shape, tmp_path: Path) -> None:
    records = [
        shape.record(PROBE, 1, shape.pack("Q", 0xFFFFFFFF81000104)),
        shape.record(RETURN, 1, shape.pack("QQ", 0xFFFFFFFF81000200, 1)),
        shape.record(PROBE, 1, shape.pack("Q", 0x400000)),
        shape.record(CLASH, 1, shape.pack("Q", 0xFFFFFFFF81000000)),
        shape.record(GRAPH, 1, shape.pack("QQ", 0xFFFFFFFF81000190, 0)),
        shape.record(GRAPH, 1, shape.pack("QQ", 0x10, 0)),
    ]
    events = [shape.event(1, record) for record in records]
    got = read(tmp_path, write(shape, [Instance({0: [shape.page(0, *events)]})]).raw)
    assert [(r["name"], r["phase"], r["function"]) for r in got.tables["function_span"]] == [
        ("my_probe", "enter", "helper"),
        ("my_return", "return", "swap_guest_pmu"),
        ("my_probe", "enter", None),
        ("kprobes:kvm_entry", "enter", "_text"),
        ("helper", "enter", "helper"),
        ("0x10", "enter", "0x10"),
    ]
    address = 0xFFFFFFFF81000190 - (1 << 64)
    assert (got.stream[4][3], got.stream[4][4]) == ("funcgraph_entry", address)
    assert got.facts.symbols[address] == "helper"
    assert got.facts.event_counts["kprobes:kvm_entry"] == (1, "function_span")


@pytest.mark.parametrize("version", [6, 7])
def test_instances_on_one_clock_are_merged_and_others_left_out(
    version: int, tmp_path: Path
) -> None:
    shape = Shape(version)
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    instances = [
        Instance({0: [shape.page(10, entry), shape.page(30, entry)]}),
        Instance({0: [shape.page(20, entry)], 1: [shape.page(10, entry)]}, "inner"),
    ]
    if version == 7:
        instances.append(Instance({0: [shape.page(5, entry)]}, "other", "mono"))
    got = read(tmp_path, write(shape, instances).raw)
    assert [row[:2] for row in got.stream] == [(10, 0), (10, 1), (20, 0), (30, 0)]
    assert got.trouble.counts == ({"instance_other_clock": 1} if version == 7 else {})


def test_tsc_becomes_nanoseconds_without_the_offset(tmp_path: Path) -> None:
    shape = Shape()
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    ticks = (1 << 61) + 12345
    scale = (14, shape.pack("IIQ", 1_431_655_766, 33, 99))
    raw = write(
        shape, [Instance({0: [shape.page(ticks, entry)]}, clock="x86-tsc")], options=[scale],
        clock="local [x86-tsc]",
    ).raw  # fmt: skip
    got = read(tmp_path, raw)
    assert got.stream[0][0] == ticks * 1_431_655_766 >> 33
    assert (got.facts.clock, got.trouble.counts) == ("x86-tsc", {})
    beyond = (14, shape.pack("IIQ", 0xFFFFFFFF, 0, 0))
    raw = write(
        shape, [Instance({0: [shape.page(ticks, entry)]}, clock="x86-tsc")], options=[beyond],
        clock="[x86-tsc]",
    ).raw  # fmt: skip
    with pytest.raises(ClockError, match="above 2\\^62"):
        read(tmp_path, raw)


def test_dates_shifts_and_clocks_without_a_unit_are_told(tmp_path: Path) -> None:
    shape = Shape()
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    options = [(1, b"0x10\0"), (7, b"-3\0"), (12, bytes(16))]
    pages = Instance({0: [shape.page(7, entry)]}, clock="counter")
    got = read(tmp_path, write(shape, [pages], options=options, clock="[counter]").raw)
    assert got.facts.realtime_offset_ns == 16 * 1000 - 3
    assert got.trouble.counts == {"clock_without_unit": 1, "guest_times_unshifted": 1}


def test_events_without_a_format_are_counted_by_number(tmp_path: Path) -> None:
    shape = Shape()
    page = shape.page(1, shape.event(0, shape.record(4321, 1)))
    got = read(tmp_path, write(shape, [Instance({0: [page]})]).raw)
    assert got.facts.event_counts == {"(event 4321)": (1, "other_event")}
    assert got.trouble.counts == {"event_format_missing": 1}


def test_a_time_that_steps_back_is_put_at_the_one_before(tmp_path: Path) -> None:
    shape = Shape()
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    pages = [shape.page(50, entry), shape.page(40, entry), shape.page(60, entry)]
    got = read(tmp_path, write(shape, [Instance({0: pages})]).raw)
    assert [row[0] for row in got.stream] == [50, 50, 60]
    assert got.trouble.counts == {"events_out_of_order": 1}


# Pages stand at fixed places: what follows a damaged page is read on.
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda s: s.head(0, 0) + s.pack("I", 4000), "ends behind the page's data"),
        (lambda s: s.head(0, 0) + s.pack("I", 3), "ends behind the page's data"),
        (lambda s: s.head(28, 0), "ends behind the page's data"),
        (lambda s: s.event(0, b"ab"), "shorter than its common fields"),
        (lambda s: s.extend((1 << 59) - 1) * 9, "a time is beyond 2^62"),
    ],
    ids=["too long", "too short", "over the end", "tiny", "time"],
)
def test_a_damaged_page_is_left_and_the_next_one_read(bad: Any, words: str, tmp_path: Path) -> None:
    shape = Shape()
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    begin = 1 << 61 if "2^62" in words else 10
    pages = [shape.page(begin, entry, bad(shape)), shape.page(begin + 10, entry)]
    got = read(tmp_path, write(shape, [Instance({0: pages})]).raw)
    assert [row[0] for row in got.stream] == [begin, begin + 10]
    [line] = got.facts.damage
    assert words in line
    assert "at offset 0x" in line
    losses = [(x.ts, x.end, x.cause) for x in got.facts.losses]
    assert losses[0] == (begin, begin + 10, "damaged_page")


def test_a_page_that_claims_more_data_than_it_has_keeps_its_events(tmp_path: Path) -> None:
    shape = Shape()
    entry = shape.event(0, shape.record(ENTRY, 1, shape.pack("I", 0)))
    page = bytearray(shape.page(10, entry, shape.padding()))
    page[8:12] = struct.pack("<I", 100_000)
    got = read(tmp_path, write(shape, [Instance({0: [bytes(page)]})]).raw)
    assert len(got.stream) == 1
    assert "more bytes of data" in got.facts.damage[0]


# A cut keeps whole events with a line and a loss, or is one line; never anything else.
@pytest.mark.parametrize(
    "shape", [Shape(6), Shape(7), Shape(7, "zstd"), Shape(7, "zlib", True, 4)], ids=name_of
)
def test_a_cut_anywhere_is_a_loss_or_one_line(shape: Shape, tmp_path: Path) -> None:
    written = write(shape, small(shape))
    whole = read(tmp_path, written.raw).heads
    size = len(written.raw)
    cuts = {*written.marks, *(mark + 3 for mark in written.marks), 8, 64, 256, size * 3 // 4}
    kept = 0
    refused: list[InputError] = []
    for cut in sorted(c for c in cuts if 0 < c < size):
        try:
            got = read(tmp_path, written.raw[:cut])
        except InputError as error:
            refused.append(error)
            continue
        kept += 1
        assert [row for row in whole if row in got.heads] == got.heads
        assert got.facts.damage, cut
        assert any(loss.cause in ("damaged_file", "damaged_page") for loss in got.facts.losses)
        assert got.facts.lost_events is None
    assert len(refused) > 10
    for error in refused:
        assert "\n" not in str(error)
        assert error.offset is not None
        assert any(c.isdigit() for c in error.problem), str(error)
    # In version 6 everything stands in front of the events; in 7 the last options are behind them.
    assert (kept > 3) == (shape.version == 6)


# The table of CPUs may promise more than the file holds, in version 7 too.
def test_data_behind_the_end_of_the_file_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    shape = Shape()
    raw = write(shape, small(shape)).raw
    at = raw.rindex(shape.pack("I", 1) + shape.pack("Q", raw.rindex(shape.pack("Q", 1002))))
    longer = raw[: at + 12] + shape.pack("Q", 1 << 40) + raw[at + 20 :]
    got = read(tmp_path, longer)
    assert len(got.stream) >= 6
    assert any("are left" in line for line in got.facts.damage)
    assert any(x.cause == "damaged_file" and x.cpu == 1 for x in got.facts.losses)


def refusal(tmp_path: Path, raw: bytes) -> str:
    path = tmp_path / "bad.dat"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        Read(path)
    return str(caught.value).replace(str(path), "bad.dat")


def test_bad_heads_are_one_line_each(tmp_path: Path) -> None:
    shape = Shape()
    raw = write(shape, small(shape)).raw

    def patched(at: int, new: bytes) -> bytes:
        return raw[:at] + new + raw[at + len(new) :]

    assert "version at offset 0xa: is '5'" in refusal(tmp_path, patched(10, b"5"))
    assert "endianness at offset 0xc: is 9" in refusal(tmp_path, patched(12, b"\x09"))
    assert "size of long at offset 0xd: is 7" in refusal(tmp_path, patched(13, b"\x07"))
    assert "page size at offset 0xe: 3 is no" in refusal(tmp_path, patched(14, b"\x03\0\0\0"))
    assert "page size" in refusal(tmp_path, patched(14, b"\0\0\0\xf0"))
    assert "has not finished this file" in refusal(tmp_path, patched(27, bytes(8)))
    assert "lies behind the end" in refusal(tmp_path, patched(27, b"\xff" * 7 + b"\0"))
    assert "has id" in refusal(tmp_path, patched(27, b"\x01" + bytes(7)))


def test_options_that_follow_themselves_are_refused(tmp_path: Path) -> None:
    shape = Shape()
    raw = write(shape, small(shape)).raw
    first = raw[27:35]
    again = raw[: len(raw) - 8] + first
    assert "follows itself" in refusal(tmp_path, again)


def test_sizes_that_nobody_can_believe_are_refused(tmp_path: Path) -> None:
    shape = Shape(compression="zstd")
    raw = write(shape, small(shape)).raw
    at = raw.index(b"\x28\xb5\x2f\xfd") - 4
    assert "plain bytes" in refusal(tmp_path, raw[:at] + b"\xff\xff\xff\x7f" + raw[at + 4 :])
    assert "do not unpack" in refusal(tmp_path, raw[:at] + b"\x09\0\0\0" + raw[at + 4 :])
    assert "do not unpack" in refusal(tmp_path, raw[: at + 4] + bytes(9) + raw[at + 13 :])
    plain = Shape(6)
    raw = write(plain, small(plain)).raw
    at = raw.index(b"flyrecord\0") + 10
    overlapping = raw[:at] + raw[at + 16 : at + 32] + raw[at + 16 :]
    assert "begin before the end" in refusal(tmp_path, overlapping)
    at = raw.index(b"options  \0") - 4
    many = raw[:at] + plain.pack("I", 1 << 20) + raw[at + 4 :]
    assert "count of CPUs" in refusal(tmp_path, many)


def test_other_tracers_text_is_refused_by_name(tmp_path: Path) -> None:
    shape = Shape(6)
    raw = write(shape, small(shape)).raw.replace(b"flyrecord\0", b"latency  \0")
    assert "latency text at offset" in refusal(tmp_path, raw)
    shape = Shape(7)
    text = [(22, shape.pack("Q", 99) + b"\0local\0")]
    raw = write(shape, small(shape), options=text).raw
    assert "latency text at offset" in refusal(tmp_path, raw)


def test_formats_that_contradict_themselves_are_refused_or_read_as_absent(tmp_path: Path) -> None:
    shape = Shape()
    far = format_text("kvm_entry", 101, ("unsigned int vcpu_id", 60000, 4, 0))
    formats = [("kvm", far), *(f for f in FORMATS if "ID: 101" not in f[1])]
    got = read(tmp_path, write(shape, small(shape), formats=formats).raw)
    assert [row["vcpu_id"] for row in got.tables["vm_entry"]] == [None] * 4


def test_damaged_kallsyms_leave_events_without_names(tmp_path: Path) -> None:
    shape = Shape(compression="zlib")
    record = shape.record(GRAPH, 1, shape.pack("QQ", 0xFFFFFFFF81000190, 0))
    written = write(shape, [Instance({0: [shape.page(1, shape.event(0, record))]})])
    raw = bytearray(written.raw)
    at = next(m for m in written.marks if raw[m : m + 4] == b"\x13\0\x01\0")
    raw[at + 24 : at + 40] = bytes(16)
    got = read(tmp_path, bytes(raw))
    assert [row["name"] for row in got.tables["function_span"]] == ["0xffffffff81000190"]
    assert "KALLSYMS" in got.facts.damage[0]


def test_many_pieces_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape()
    entry = shape.record(ENTRY, 1, shape.pack("I", 0))
    pages = {
        cpu: [
            shape.page(n * 97 + cpu, *(shape.event(d, entry) for d in (0, 0, 30 * cpu, 13)))
            for n in range(40 + 10 * cpu)
        ]
        for cpu in range(3)
    }
    raw = write(shape, [Instance(pages)]).raw
    one = read(tmp_path, raw)
    monkeypatch.setattr("analyzer.readers.tracedat.batches.PIECE", 256)
    monkeypatch.setattr("analyzer.readers.tracedat.batches.LEAST_BLOCK", 512)
    many = read(tmp_path, raw)
    assert many.stream == one.stream
    assert many.tables == one.tables
    assert [row[:2] for row in one.stream] == sorted(row[:2] for row in one.stream)


def test_closing_twice_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(write(Shape(), small(Shape())).raw)
    recording = TraceDatRecording(str(path), ReadOptions(), Trouble())
    recording.close()
    recording.close()
