"""What does the trace.dat reader make of damage? Whole events and a loss, or one line."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from analyzer.errors import InputError, VpmuError
from tests.tracedat_reading import ENTRY, GRAPH, Read, name_of, read, small
from tests.tracedat_writer import FORMATS, Instance, Shape, format_text, write


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


# Any byte may be any other: what comes is rows or a refusal, and never takes long.
@pytest.mark.parametrize(
    "shape", [Shape(6), Shape(7), Shape(7, "zstd"), Shape(6, big=True, long_size=4)], ids=name_of
)
def test_any_changed_byte_is_rows_or_a_refusal(shape: Shape, tmp_path: Path) -> None:
    raw = write(shape, small(shape)).raw
    chance = random.Random(7)
    refused = 0
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(chance.choice((1, 1, 4))):
            changed[chance.randrange(len(raw))] = chance.choice((0, 1, 0x7F, 0xFF, 0x20))
        try:
            read(tmp_path, bytes(changed))
        except VpmuError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0
