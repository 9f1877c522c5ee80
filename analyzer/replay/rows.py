"""Where do a replay's rows stay until somebody asks? Packed, beyond a megabyte in unnamed files.

A run gives a row for every stay and every meeting, and all placements together more rows than there
are points. Held in memory they would grow with the recording, so they go aside as the kernel wrote
them and come back a piece at a time.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from analyzer.replay import kernel as q

__all__ = ["PIECE", "Rows", "meetings_of", "slices_of"]

Array = np.ndarray[Any, Any]
# Rows that come back at a time, and bytes that stay in memory; chosen by us, some megabytes a run.
PIECE = 128 * 1024
KEPT_BYTES = 1 << 20


class Rows:
    """Packed rows, int64[n, width], in the order in which they were added."""

    def __init__(self, width: int) -> None:
        self.size = 0
        self._width = width
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(KEPT_BYTES)  # noqa: SIM115
        # There is no block whose end is the rows' end: whoever asks last is the last to need them.
        weakref.finalize(self, self._file.close)

    def add(self, rows: Array) -> None:
        """Take int64[n, width] that follow all before."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(rows).data)
        self.size += len(rows)

    def pieces(self, rows: int = PIECE) -> Iterator[Array]:
        """Yield int64[at most rows, width] until there are no more."""
        each = rows * self._width * 8
        for begin in range(0, self.size * self._width * 8, each):
            self._file.seek(begin)
            yield np.frombuffer(self._file.read(each), np.int64).reshape(-1, self._width)

    def read(self) -> Array:
        """Return all of them."""
        return next(self.pieces(max(self.size, 1)), np.empty((0, self._width), np.int64))


def slices_of(packed: Array) -> Array:
    """Return int64[n, SLICE_ROW], columns kernel.S_*, of rows as the kernel writes them."""
    rows = np.empty((len(packed), q.SLICE_ROW), np.int64)
    rows[:, q.S_TS], rows[:, q.S_END] = packed[:, q.P_TS], packed[:, q.P_END]
    rows[:, q.S_ENTERED] = packed[:, q.P_ENTERED]
    rows[:, q.S_STAY], rows[:, q.S_ENTRIES] = _halves(packed[:, q.P_STAY])
    who = packed[:, q.P_WHO]
    rows[:, q.S_VCPU], rows[:, q.S_CPU] = _vcpu_and_cpu(who)
    rows[:, q.S_LOADED], rows[:, q.S_WHOLE] = who >> 1 & 1, who & 1
    return rows


def meetings_of(packed: Array) -> Array:
    """Return int64[n, MEETING_ROW], columns kernel.E_*, of rows as the kernel writes them."""
    rows = np.empty((len(packed), q.MEETING_ROW), np.int64)
    rows[:, q.E_TS], detail = packed[:, q.M_TS], packed[:, q.M_DETAIL]
    rows[:, q.E_EPISODE], rows[:, q.E_CONTEXT] = detail >> q.SHIFT, detail & 0xFF
    rows[:, q.E_STAY], rows[:, q.E_ENTRIES] = _halves(packed[:, q.M_STAY])
    who = packed[:, q.M_WHO]
    rows[:, q.E_VCPU], rows[:, q.E_CPU] = _vcpu_and_cpu(who)
    rows[:, q.E_COUNTED] = who & 1
    return rows


def _halves(word: Array) -> tuple[Array, Array]:
    # A number and the entries below it.
    return word >> q.STAY_SHIFT, word & ((1 << q.STAY_SHIFT) - 1)


def _vcpu_and_cpu(who: Array) -> tuple[Array, Array]:
    return who >> q.VCPU_SHIFT, who >> q.CPU_SHIFT & ((1 << q.VCPU_SHIFT - q.CPU_SHIFT) - 1)
