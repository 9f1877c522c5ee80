"""How is a whole recording attributed? Chunk after chunk, with what later chunks decide patched in.

A burst is decided when it ends, which may be in a later chunk than its first access: what was not
yet known then is a patch, applied before anything is read back. Swaps and episodes are written in
order of their end; one whose end is later than the begin of a burst that is still open waits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.attribution import parse as p
from analyzer.timeline.attribution.handlers import Handlers
from analyzer.timeline.attribution.kernel import attribute
from analyzer.timeline.attribution.match import compile_grammars
from analyzer.timeline.attribution.rows import attributed_rows
from analyzer.timeline.attribution.tokens import Tokens
from analyzer.timeline.marks import KindCodes
from analyzer.timeline.spool import Chunk, Spool

__all__ = ["Attribution", "Waiting"]

Array = np.ndarray[Any, Any]
FOREVER = 2**63 - 1


@dataclass(slots=True)
class Waiting:
    """Rows that wait for their turn in order of time."""

    columns: int
    end: int
    rows: list[Array] = field(default_factory=list)

    def take(self, before: int) -> Array:
        """Return those whose time is before it, in order, and forget them."""
        rows = np.concatenate(self.rows) if self.rows else np.zeros((0, self.columns), np.int64)
        ready = rows[:, self.end] < before
        self.rows = [rows[~ready]]
        rows = rows[ready]
        return rows[np.argsort(rows[:, self.end], kind="stable")]


class Attribution:
    """Marks every access of a spool, and finds swaps and host episodes on the way."""

    def __init__(self, spool: Spool, codes: KindCodes, vendor: str | None, slot: Array) -> None:
        self.spool, self.codes, self.vendor, self.slot = spool, codes, vendor, slot
        self.grammars = compile_grammars(vendor)
        self._file = tempfile.TemporaryFile(prefix="vpmu-analyzer-")  # noqa: SIM115
        self._at: list[tuple[int, int, int]] = []  # event number, place in the file, events
        self.count = np.zeros(4, np.int64)
        self._last: dict[int, bool] = {}  # whether the guest's state is on, per CPU
        self.mediated = False
        self.chunk: Chunk | None = None  # the one that `run` is at
        self.settled = 0  # rows that are yet to come end here or later
        self.filters = False  # EL0's filters are set at vcpu load and put, no register is swapped
        self.unshown = 0  # swaps found by grammars that no recording of ours shows

    def close(self) -> None:
        """Remove the marks."""
        self._file.close()

    def run(self, handlers: Handlers) -> Iterator[tuple[Array, Array]]:
        """Yield rows of swaps and of episodes in order of their end; then marks can be read.

        Each is int64[n, bursts.SWAP_ROW] and int64[n, bursts.EPISODE_ROW].
        """
        # Whether any swap is recorded decides what other accesses of a vCPU's thread are.
        self.mediated = False
        if self.grammars.names:
            self.mediated = True
            for swaps, _ in self._pass(handlers):
                if len(swaps):
                    break
            else:
                self.mediated = False
            self._at, self.count = [], np.zeros(4, np.int64)
            self._file.truncate(0)
            self._last = {}
        for swaps, episodes in self._pass(handlers):
            shown = self.grammars.shown[swaps[:, b.S_GRAMMAR]]
            self.unshown += int(np.count_nonzero(~shown))
            yield swaps, episodes

    def _pass(self, handlers: Handlers) -> Iterator[tuple[Array, Array]]:
        cpus = self.spool.top_cpu + 1
        state = np.zeros((cpus, x.CPU_COLUMNS), np.int64)
        state[:, (x.X_PREVIOUS, x.X_NEXT)] = x.NOBODY
        state[:, x.X_WHOLE : x.X_PLACE] = x.NOBODY
        state[:, b.X_EXIT] = -1
        accesses = np.zeros((cpus * b.LEVELS, b.ROOM, b.ACCESS_COLUMNS), np.int64)
        burst = np.zeros((cpus * b.LEVELS, b.BURST_COLUMNS), np.int64)
        found = np.empty((b.ROOM, p.SWAP_COLUMNS), np.int64)
        shadow = np.full((cpus, b.SHADOWS), b.UNKNOWN_VALUE, np.int64)
        swaps, episodes = Waiting(b.SWAP_ROW, b.S_END), Waiting(b.EPISODE_ROW, b.E_END)
        tokens = Tokens(self.vendor)
        at = 0
        for number in range(self.spool.chunks):
            chunk = self.chunk = self.spool.chunk(number, self.codes)
            size = chunk.ts.size
            classes = handlers.classes(chunk.code, chunk.kind, chunk.first, chunk.second)
            marks, episodes_of = np.zeros(size, np.uint16), np.full(size, -1, np.int32)
            out = self._outputs(size + cpus * b.LEVELS * b.ROOM)
            ends = number == self.spool.chunks - 1
            attribute(
                at, chunk.ts, chunk.cpu, chunk.tid, chunk.code, chunk.flags, chunk.first,
                chunk.second, classes, tokens.key, tokens.token, tokens.index, self.slot,
                self.mediated, handlers.timers_recorded, handlers.named, ends,
                self.grammars.steps, self.grammars.direction, found, state, accesses, burst,
                shadow, self.count, marks, episodes_of, *out,
            )  # fmt: skip
            self._keep(at, marks, episodes_of)
            self._settle(out, swaps, episodes)
            at += size
            open_since = self._open_since(accesses, burst)
            yield self._found(swaps, episodes, open_since)

    def _found(self, swaps: Waiting, episodes: Waiting, before: int) -> tuple[Array, Array]:
        self.settled = before
        swap, episode = swaps.take(before), episodes.take(before)
        # An NMI's burst ends before the swap that it lies in: whether the guest's state was on is
        # only known when that swap is.
        for cpu in range(self.spool.top_cpu + 1):
            mine = np.flatnonzero(episode[:, b.E_CPU] == cpu)
            done = swap[swap[:, b.S_CPU] == cpu]
            last = self._last.get(cpu, False)
            if len(done):
                self._last[cpu] = bool(done[-1, b.S_KIND] == p.LOAD)
            if mine.size:
                done = done[np.argsort(done[:, b.S_DONE], kind="stable")]
                at = np.searchsorted(done[:, b.S_DONE], episode[mine, b.E_TS]) - 1
                states = np.append(done[:, b.S_KIND] == p.LOAD, last)
                episode[mine, b.E_LOADED] = states[at]
        return swap, episode

    def _outputs(self, room: int) -> tuple[Array, Array, Array, Array]:
        # A swap has at least six accesses, an episode one.
        return (
            np.empty((room, 3), np.int64),
            np.empty((room // 6 + 1, b.SWAP_ROW), np.int64),
            np.empty((room, b.EPISODE_ROW), np.int64),
            np.zeros(3, np.int64),
        )

    def _open_since(self, accesses: Array, burst: Array) -> int:
        is_open = np.flatnonzero(burst[:, b.B_SIZE] > 0)
        return int(accesses[is_open, 0, b.A_TS].min()) if is_open.size else FOREVER

    def _keep(self, at: int, marks: Array, episodes_of: Array) -> None:
        place = self._file.seek(0, 2)
        self._at.append((at, place, marks.size))
        self._file.write(marks.data)
        self._file.write(episodes_of.data)

    def _settle(self, out: tuple[Array, ...], swaps: Waiting, episodes: Waiting) -> None:
        patches, swap_rows, episode_rows, filled = out
        swaps.rows.append(swap_rows[: filled[0]].copy())
        episodes.rows.append(episode_rows[: filled[1]].copy())
        begins = np.array([at for at, _, _ in self._at], np.int64)
        for event, bits, episode in patches[: filled[2]].tolist():
            begin, place, size = self._at[int(np.searchsorted(begins, event, "right")) - 1]
            here = place + 2 * (event - begin)
            self._file.seek(here)
            before = int.from_bytes(self._file.read(2), "little")
            self._file.seek(here)
            self._file.write((before | bits).to_bytes(2, "little"))
            if episode >= 0:
                self._file.seek(place + 2 * size + 4 * (event - begin))
                self._file.write(episode.to_bytes(4, "little"))

    def rows(
        self, chunk: Chunk, marks: Array, episodes: Array
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield rows of pmu_attribution of one chunk."""
        yield from attributed_rows(chunk, marks, episodes)

    def marks(self, number: int) -> tuple[Array, Array]:
        """Return marks uint16[n] (words.Mark) and episodes int32[n] (-1: none) of a chunk."""
        _, place, size = self._at[number]
        self._file.seek(place)
        return (
            np.frombuffer(bytearray(self._file.read(2 * size)), np.uint16),
            np.frombuffer(bytearray(self._file.read(4 * size)), np.int32),
        )
