"""How are all CPUs' pages put in order of time, a piece at a time?

Every stream (a CPU of an instance) has a block of decoded rows at hand. What is earlier than the
earliest end of a block that has more behind it can be placed; the rest waits. Nothing is sorted as
a whole; memory is bounded by two blocks a stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.readers import assemble
from analyzer.readers.merge import merge_runs, straighten
from analyzer.readers.tracedat.clocks import TscScale
from analyzer.readers.tracedat.kinds import EventKinds
from analyzer.readers.tracedat.layout import BAD_PAGE_WORDS, L_PAGE_SIZE, walk_pages
from analyzer.readers.tracedat.streams import PageBlocks

__all__ = ["Pieces", "Rows", "Stream"]

Array = np.ndarray[Any, Any]
# All blocks together: some 100,000 events, large enough that what is done once a piece does not
# count. With many CPUs a block is still some pages, or each piece would hold next to nothing.
PIECE = 4 * 1024 * 1024
LEAST_BLOCK = 16 * 1024
EVERYTHING = 2**63 - 1
# Damaged pages that are told one by one; chosen by us, the rest is counted.
PAGES_TOLD = 5


@dataclass(slots=True)
class Rows(assemble.Rows):
    """Decoded events of many streams, with the kernel's common_flags."""

    flags: Array


@dataclass(frozen=True, slots=True)
class Gap:
    """Events missing before time `end` (None: behind the last). count None: nobody knows."""

    ts: int | None
    end: int | None
    cause: str
    count: int | None


COLUMNS = ("ts", "off", "size", "kind", "tid", "flags")


class Stream:
    """One CPU's events of one instance: decoded rows at hand, and what was learnt on the way."""

    def __init__(
        self, blocks: PageBlocks, layout: Array, kinds: EventKinds, scale: TscScale | None
    ):
        self.blocks, self.kinds, self.scale = blocks, kinds, scale
        self.layout = layout.copy()
        self.layout[L_PAGE_SIZE] = blocks.buffer.page_size
        self.cpu = blocks.place.cpu
        self.buf = np.zeros(0, np.uint8)
        self.columns: dict[str, Array] = {
            "ts": np.zeros(0, np.int64), "off": np.zeros(0, np.int64),
            "size": np.zeros(0, np.int32), "kind": np.zeros(0, np.int32),
            "tid": np.zeros(0, np.int32), "flags": np.zeros(0, np.uint8),
        }  # fmt: skip
        self.head = 0
        self.filled = 0  # rows that waited after the last fill
        self.events = 0
        self.first: int | None = None
        self.last: int | None = None
        self.gaps: list[Gap] = []
        self.out_of_order = 0
        self.bad_pages = 0
        # A gap whose far side has no event yet: cause and count.
        self._open: tuple[str, int | None] | None = None

    @property
    def left(self) -> int:
        """How many decoded rows wait."""
        return int(self.columns["ts"].size) - self.head

    def fill(self, size: int) -> None:
        """Decode one more block behind the rows that wait."""
        low = int(self.columns["off"][self.head]) if self.left else self.buf.size
        kept = self.buf[low:]
        self.buf, begin = self.blocks.next_block(size, kept)
        raw = self.buf[kept.size :]
        # Rows that wait and new ones stand in one array: the new are decoded right behind.
        left, room = self.left, raw.size // 8
        columns: dict[str, Array] = {}
        for name, column in self.columns.items():
            columns[name] = np.empty(left + room, column.dtype)
            columns[name][:left] = column[self.head :]
        columns["off"][:left] -= low
        count = self._walk(raw, begin, {name: column[left:] for name, column in columns.items()})
        columns["off"][left : left + count] += kept.size
        self.columns = {name: column[: left + count] for name, column in columns.items()}
        self.head = 0
        self.filled = self.left

    def _walk(self, raw: Array, begin: int, rows: dict[str, Array]) -> int:
        # Decodes to `rows`; returns how many there are.
        page_size = int(self.layout[L_PAGE_SIZE])
        pages = np.zeros((3, -(-raw.size // page_size)), np.int64)
        count = int(
            walk_pages(
                raw, self.layout, self.kinds.lut, rows["ts"], rows["off"], rows["size"],
                rows["kind"], rows["tid"], rows["flags"], pages,
            )
        )  # fmt: skip
        rows = {name: column[:count] for name, column in rows.items()}
        ts = rows["ts"]
        if self.scale is not None:
            ts[:] = self.scale.apply(ts)
        self._order(ts)
        self._note_pages(pages, ts, begin, page_size)
        unknown = np.flatnonzero(rows["kind"] < 0)
        if unknown.size:
            for value in np.unique(rows["kind"][unknown]).tolist():
                rows["kind"][rows["kind"] == value] = self.kinds.of_unknown(-2 - value)
        if count:
            self.first = int(ts[0]) if self.first is None else self.first
            self.last = int(ts[-1])
            self.events += count
        return count

    def _order(self, ts: Array) -> None:
        if self.last is not None and ts.size and ts[0] < self.last:
            early = ts < self.last
            self.out_of_order += int(np.count_nonzero(early))
            ts[early] = self.last
        ends = np.array([ts.size], np.int64)
        self.out_of_order += int(straighten(ts, np.zeros(1, np.int64), ends))

    def _note_pages(self, pages: Array, ts: Array, begin: int, page_size: int) -> None:
        # Gaps of this block, in order of its pages. A gap ends at the next event, so one behind
        # the block's last event stays open, and several before one event are one gap.
        at = 0
        for page in np.flatnonzero((pages[1] != 0) | (pages[2] != 0)).tolist():
            row, lost, bad = (int(number) for number in pages[:, page])
            if lost:
                self._close_gap(at, row, ts)
                at = row
                self._widen_gap("ring_buffer_overrun", lost if lost > 0 else None)
            if bad:
                self._bad_page(bad, begin + page * page_size)
                row = int(pages[0, page + 1]) if page + 1 < pages.shape[1] else ts.size
                self._close_gap(at, row, ts)
                at = row
                self._widen_gap("damaged_page", None)
        self._close_gap(at, ts.size, ts)

    def _widen_gap(self, cause: str, count: int | None) -> None:
        if self._open is not None:
            before, known = self._open
            cause = before if count is not None else cause
            count = known + count if known is not None and count is not None else None
        self._open = (cause, count)

    def _close_gap(self, at: int, upto: int, ts: Array) -> None:
        # The open gap lies before row `at`; it ends there if that row is before `upto`.
        if self._open is not None and at < upto:
            before = int(ts[at - 1]) if at > 0 else self.last
            self.gaps.append(Gap(before, int(ts[at]), *self._open))
            self._open = None

    def _bad_page(self, code: int, at: int) -> None:
        self.bad_pages += 1
        if self.bad_pages <= PAGES_TOLD:
            where = "in the chunks " if self.blocks.buffer.packed else ""
            self.blocks.note(
                f"{self.blocks.source.path}: page of the {self.blocks.name} {where}at offset "
                f"{at:#x}: byte {code & 0xFFFFFFFF} of {int(self.layout[L_PAGE_SIZE])}: "
                f"{BAD_PAGE_WORDS[code >> 32]}"
            )

    def close(self) -> None:
        """Note a gap that nothing follows."""
        if self._open is not None:
            self.gaps.append(Gap(self.last, None, *self._open))
            self._open = None
        if self.blocks.cut:
            self.gaps.append(Gap(self.last, None, "damaged_file", None))

    def take(self, upto: int) -> tuple[Array, dict[str, Array]]:
        """Return the bytes and rows before row `upto`, and let them go."""
        part = {name: column[self.head : upto] for name, column in self.columns.items()}
        low = int(part["off"][0])
        high = int(part["off"][-1]) + int(part["size"][-1])
        self.head = upto
        return self.buf[low:high], part


class Pieces:
    """Yields decoded rows in pieces, each with the order in which its rows happened."""

    def __init__(self, streams: list[Stream]) -> None:
        # At equal times the smaller CPU goes first, as in trace-cmd report.
        self.streams = sorted(streams, key=lambda stream: stream.cpu)

    @property
    def done(self) -> int:
        """How many bytes of the file were taken."""
        return sum(stream.blocks.done for stream in self.streams)

    def __iter__(self) -> Iterator[tuple[Rows, Array]]:
        """Yield (rows, order int64[n])."""
        # A busy CPU gets a larger part: else its small blocks would cut everybody's pieces.
        total = max(1, sum(stream.blocks.size for stream in self.streams))
        blocks = [max(LEAST_BLOCK, PIECE * stream.blocks.size // total) for stream in self.streams]
        while True:
            for stream, block in zip(self.streams, blocks, strict=True):
                # Half a block of every stream is placed at least, so no piece is tiny.
                while not stream.blocks.ended and stream.left <= stream.filled // 2:
                    stream.fill(block)
            ends = [
                int(stream.columns["ts"][-1])
                for stream in self.streams
                if stream.left and not stream.blocks.ended
            ]
            horizon = min(ends, default=EVERYTHING)
            parts = self._cut(horizon)
            if not parts and ends:
                # A whole block at one time: what follows at this time is placed behind it.
                parts = self._cut(horizon + 1)
            if parts:
                yield self._joined(parts)
            elif not any(stream.left or not stream.blocks.ended for stream in self.streams):
                break
        for stream in self.streams:
            stream.close()

    def _cut(self, horizon: int) -> list[tuple[Stream, Array, dict[str, Array]]]:
        parts = []
        for stream in self.streams:
            if stream.left:
                waiting = stream.columns["ts"][stream.head :]
                upto = stream.head + int(np.searchsorted(waiting, horizon, side="left"))
                if upto > stream.head:
                    parts.append((stream, *stream.take(upto)))
        return parts

    @staticmethod
    def _joined(parts: list[tuple[Stream, Array, dict[str, Array]]]) -> tuple[Rows, Array]:
        counts = np.array([part["ts"].size for _, _, part in parts], np.int64)
        bytes_before = np.cumsum([0] + [buf.size for _, buf, _ in parts])
        joined = {
            name: np.concatenate([part[name] for _, _, part in parts])
            for name in COLUMNS
            if name != "off"
        }
        off = np.concatenate(
            [
                part["off"] + (int(base) - int(part["off"][0]))
                for (_, _, part), base in zip(parts, bytes_before, strict=False)
            ]
        )
        cpu = np.repeat(np.array([stream.cpu for stream, _, _ in parts], np.int32), counts)
        buf = np.concatenate([buf for _, buf, _ in parts])
        rows = Rows(
            buf, joined["ts"], cpu, joined["tid"], joined["kind"], off, joined["size"],
            joined["flags"],
        )  # fmt: skip
        tails = np.cumsum(counts)
        order = np.empty(rows.ts.size, np.int64)
        merge_runs(rows.ts, tails - counts, tails, EVERYTHING, np.empty_like(tails), order)
        return rows, order
