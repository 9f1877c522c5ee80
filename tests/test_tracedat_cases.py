"""What does the trace.dat reader make of each small form of the format?"""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.errors import ClockError
from analyzer.readers.recording import ReadOptions
from analyzer.readers.tracedat.reader import TraceDatRecording
from analyzer.trouble import Trouble
from tests.tracedat_reading import (
    CLASH,
    ENTRY,
    GRAPH,
    IPI,
    IPI_EXIT,
    IRQ,
    LONELY,
    PROBE,
    RETURN,
    SWITCH,
    every_shape,
    read,
    small,
)
from tests.tracedat_writer import Instance, Shape, write


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


# The option GUEST maps host threads to vCPUs; an event that carries a number knows better.
def test_a_guests_threads_are_known_beforehand(tmp_path: Path) -> None:
    shape = Shape(big=True)
    guest = b"guest\0" + shape.pack("QI", 1, 2) + shape.pack("IIII", 0, 70, 1, 7)
    got = read(tmp_path, write(shape, small(shape), options=[(13, guest)]).raw)
    assert got.facts.vcpu_ids == {70: 0, 7: 3}


# Sub-buffers larger than a page: version 6 tells of them in header_page only.
@pytest.mark.parametrize("version", [6, 7])
def test_pages_may_be_larger_than_the_machines(version: int, tmp_path: Path) -> None:
    shape = Shape(version, page_size=512)
    raw = bytearray(write(shape, small(shape)).raw)
    raw[14:18] = shape.pack("I", 256)
    got = read(tmp_path, bytes(raw))
    assert len(got.stream) == 6
    assert got.facts.damage == []


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
