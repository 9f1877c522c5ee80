"""How is a stream of any length read three times, once of them backwards? From a spool file.

What the reader only knows at the end (windows, losses, where NMI handlers began) is put in between
at its time when a chunk is read, the same way in every pass.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.jit import kernel
from analyzer.readers.recording import NO_FLAGS, STREAM_DTYPE, RecordingFacts
from analyzer.timeline.marks import Code, KindCodes, Property

Array = np.ndarray[Any, Any]
CHUNK = 128 * 1024
NAMES = STREAM_DTYPE.names or ()
# Our own events break no gap and end no guest slice by themselves.
OWN_PROPERTIES = int(Property.GAP | Property.WAY_IN)
CPU_NUMBERS = 2**15  # as many as STREAM_DTYPE's int16 can tell apart
NOT_MET = -(2**62)  # no thread's number


@dataclass(slots=True)
class Chunk:
    """Events of one chunk as columns, ours included: their `kind` is -code.

    Views of buffers that the spool fills again for the next chunk.
    """

    ts: Array
    cpu: Array
    tid: Array
    code: Array
    property: Array
    first: Array
    second: Array
    kind: Array
    flags: Array


@kernel
def place(places, width, recorded, own, out):  # type: ignore[no-untyped-def]
    """Write one column of recorded events with our own in between to out.

    places: int64[m], non-decreasing, before which recorded event each of ours stands. recorded,
    own, out: the bytes of n, m and n + m values of that width, so that one compiled loop does for
    columns of any type. Between two of our own events that is a plain copy, as fast as memory.
    """
    # Unsigned places are never negative, so the compiler need not look out and copies in blocks.
    begin, moved, wide = np.uint64(0), np.uint64(0), np.uint64(width)
    for shift in range(places.size):
        end = np.uint64(places[shift]) * wide
        for n in range(begin, end):
            out[n + moved] = recorded[n]
        for n in range(moved, moved + wide):
            out[n + end] = own[n]
        begin, moved = end, moved + wide
    for n in range(begin, np.uint64(recorded.size)):
        out[n + moved] = recorded[n]


@kernel
def code_kinds(kind, code_of_kind, property_of_kind, code, property):  # type: ignore[no-untyped-def]
    """Write code uint8[n] and property uint8[n] of events by their kind int16[n]."""
    for n in range(kind.size):
        which = kind[n]
        if which >= 0:
            code[n], property[n] = code_of_kind[which], property_of_kind[which]
        else:
            code[n], property[n] = -which, OWN_PROPERTIES


@kernel
def meet(cpu, tid, first_tid, tops):  # type: ignore[no-untyped-def]
    """Keep the thread of each CPU's first event in first_tid int64[cpus], and tops int64[2]."""
    for n in range(cpu.size):
        tops[0], tops[1] = max(tops[0], cpu[n]), max(tops[1], tid[n])
        if first_tid[cpu[n]] == NOT_MET:
            first_tid[cpu[n]] = tid[n]


class Spool:
    """The stream on disk, with our own events beside it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="vpmu-analyzer-")  # noqa: SIM115
        self._tags = tempfile.TemporaryFile(prefix="vpmu-analyzer-")  # noqa: SIM115
        self._tags_at: dict[int, tuple[int, int]] = {}
        # Where each chunk stands in the file, how many events it has, and its last time.
        self._places: list[tuple[int, int]] = []
        self._buffer = np.empty(CHUNK * STREAM_DTYPE.itemsize, np.uint8)
        self._woven = {name: np.empty(0, STREAM_DTYPE[name]) for name in NAMES}
        self._coded = np.empty((2, 0), np.uint8)
        self._last: list[int] = []
        # Highest CPU and thread so far; the thread of each CPU's first event, NOT_MET before it.
        self._tops = np.zeros(2, np.int64)
        self._first_tid = np.full(CPU_NUMBERS, NOT_MET, np.int64)
        self._own: dict[str, Array] = {}
        self._behind: Array = np.zeros(0, np.bool_)
        self._cuts: Array = np.zeros(0, np.int64)

    def append(self, stream: dict[str, Array]) -> None:
        """Take events later than all before (columns of STREAM_DTYPE)."""
        count = stream["ts"].size
        # Even parts: a chunk costs something for itself, and a short one as much as a long one.
        size_of_part = -(-count // max(1, -(-count // CHUNK)))
        for begin in range(0, count, max(1, size_of_part)):
            part = {name: column[begin : begin + size_of_part] for name, column in stream.items()}
            size = part["ts"].size
            self._places.append((self._file.tell(), size))
            for name in NAMES:
                self._file.write(part[name].data)
            self._last.append(int(part["ts"][-1]))
            meet(part["cpu"], part["tid"], self._first_tid, self._tops)

    def frame(self, facts: RecordingFacts, codes: KindCodes) -> None:
        """Make our own events out of windows, losses and NMI handlers."""
        made: list[tuple[int, int, int, int]] = []
        for window in facts.windows:
            met = int(self._first_tid[window.cpu])
            running = met if met != NOT_MET else -1
            made.append((window.ts, Code.WINDOW_BEGIN, window.cpu, running + 1))
            made.append((window.end, Code.WINDOW_END, window.cpu, 0))
            for loss in facts.losses:
                if loss.cpu != window.cpu or loss.ts is None or loss.end is None:
                    continue
                if window.ts < loss.end <= window.end and window.ts <= loss.ts:
                    made.append((loss.ts, Code.LOSS_BEGIN, window.cpu, 0))
                    made.append((loss.end, Code.LOSS_END, window.cpu, 0))
        own = np.zeros(len(made), STREAM_DTYPE)
        for row, (ts, code, cpu, first) in enumerate(made):
            own[row] = (ts, first, 0, -1, cpu, -int(code), NO_FLAGS)
        nmis = [own]
        is_nmi = codes.code == Code.NMI
        for number in range(len(self._places)) if is_nmi.any() else ():
            raw = self._raw(number)
            hit = np.flatnonzero(is_nmi[raw["kind"]])
            hit = hit[raw["first"][hit] > 0]
            begun = np.zeros(hit.size, STREAM_DTYPE)
            begun["ts"] = raw["ts"][hit] - raw["first"][hit]
            begun["cpu"], begun["tid"] = raw["cpu"][hit], raw["tid"][hit]
            begun["kind"], begun["flags"] = -int(Code.NMI_IN), NO_FLAGS
            nmis.append(begun)
        every = np.concatenate(nmis)
        # Ends stand behind recorded events of the same time, beginnings before them.
        behind = np.isin(every["kind"], (-int(Code.WINDOW_END), -int(Code.LOSS_BEGIN)))
        order = np.lexsort((every["cpu"], behind, every["ts"]))
        self._own = {name: np.ascontiguousarray(every[name][order]) for name in NAMES}
        self._behind = behind[order]
        self._cuts = np.searchsorted(self._own["ts"], np.array(self._last, np.int64), side="right")
        if len(self._cuts):
            self._cuts[-1] = every.size

    def _raw(self, number: int) -> dict[str, Array]:
        # Views of a buffer that the next call fills again: nothing of it may be handed out.
        at, count = self._places[number]
        self._file.seek(at)
        self._file.readinto(self._buffer[: count * STREAM_DTYPE.itemsize].data)
        columns, begin = {}, 0
        for name in NAMES:
            end = begin + count * STREAM_DTYPE[name].itemsize
            columns[name] = self._buffer[begin:end].view(STREAM_DTYPE[name])
            begin = end
        return columns

    @property
    def top_cpu(self) -> int:
        """The highest number of a CPU."""
        return int(self._tops[0])

    @property
    def top_tid(self) -> int:
        """The highest number of a thread."""
        return int(self._tops[1])

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self._cuts)

    def own_events(self, number: int) -> int:
        """How many events of ours stand in a chunk."""
        return int(self._cuts[number] - (self._cuts[number - 1] if number else 0))

    def chunk(self, number: int, codes: KindCodes) -> Chunk:
        """Return chunk `number`, our own events in their places.

        Its columns are overwritten by the next call.
        """
        columns = self._raw(number)
        low, high = (int(self._cuts[number - 1]) if number else 0), int(self._cuts[number])
        if low < high:
            columns = self._with_own(columns, low, high)
        count = columns["ts"].size
        if self._coded.shape[1] < count:
            self._coded = np.empty((2, count), np.uint8)
        code, properties = self._coded[:, :count]
        code_kinds(columns["kind"], codes.code, codes.property, code, properties)
        return Chunk(code=code, property=properties, **columns)

    def _with_own(self, raw: dict[str, Array], low: int, high: int) -> dict[str, Array]:
        own = {name: self._own[name][low:high] for name in NAMES}
        places = np.where(
            self._behind[low:high],
            np.searchsorted(raw["ts"], own["ts"], side="right"),
            np.searchsorted(raw["ts"], own["ts"], side="left"),
        )
        count = raw["ts"].size + places.size
        if self._woven["ts"].size < count:
            self._woven = {name: np.empty(count, STREAM_DTYPE[name]) for name in NAMES}
        out = {name: column[:count] for name, column in self._woven.items()}
        for name in NAMES:
            column, mine, made = (c[name].view(np.uint8) for c in (raw, own, out))
            place(places, STREAM_DTYPE[name].itemsize, column, mine, made)
        return out

    def keep_tags(self, number: int, tags: Array) -> None:
        """Put aside what the backward pass found for a chunk."""
        self._tags_at[number] = (self._tags.seek(0, 2), tags.size)
        self._tags.write(tags.data)

    def tags(self, number: int) -> Array:
        """Return what was put aside for a chunk: uint8[n]."""
        at, size = self._tags_at[number]
        self._tags.seek(at)
        tags = np.empty(size, np.uint8)
        self._tags.readinto(tags.data)
        return tags

    def close(self) -> None:
        """Remove the spool."""
        self._file.close()
        self._tags.close()
