"""Which pages does one CPU's stream hold next? A bounded block of them, plain or packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from analyzer.errors import InputError
from analyzer.readers.tracedat.parts import Buffer, CpuData, Parts
from analyzer.readers.tracedat.source import Cursor, FileBytes
from analyzer.readers.tracedat.unpack import CHUNK_LIMIT, unpack

__all__ = ["PageBlocks"]

Array = np.ndarray[Any, Any]


class PageBlocks:
    """Blocks of whole pages of one CPU, in order. What is damaged is told to `note` in one line.

    `done`: bytes of the file taken so far. `cut`: whether the stream ended in damage.
    """

    def __init__(
        self,
        source: FileBytes,
        parts: Parts,
        buffer: Buffer,
        place: CpuData,
        note: Callable[[str], None],
    ) -> None:
        self.source, self.parts, self.buffer, self.place = source, parts, buffer, place
        self.note = note
        self.name = f"data of CPU {place.cpu}"
        if buffer.name:
            self.name += f" in instance {buffer.name[:40]!r}"
        self.at, self.end = place.offset, place.offset + place.size
        self.cut = False
        self.ended = False
        self.chunks_left = -1
        if self.end > source.size:
            self._damage(
                self.at, f"needs {place.size} bytes, {max(0, source.size - self.at)} are left"
            )
            self.end = max(self.at, source.size)

    @property
    def size(self) -> int:
        """How many bytes of the file belong to it, as far as the file goes."""
        return self.end - self.place.offset

    @property
    def done(self) -> int:
        """How many bytes of the file were taken."""
        return self.at - self.place.offset

    def _damage(self, offset: int, problem: str) -> None:
        self.cut = True
        self.note(f"{self.source.path}: {self.name} at offset {offset:#x}: {problem}")

    def next_block(self, size: int, kept: Array) -> tuple[Array, int]:
        """Return about `size` bytes of pages behind those of `kept` as uint8[n], and where the
        pages begin in the file.

        No pages at the stream's end. Only the last page of all may be cut.
        """
        if self.buffer.packed:
            return self._unpacked(size, kept)
        begin = self.at
        wanted = max(1, size // self.buffer.page_size) * self.buffer.page_size
        block = np.empty(kept.size + max(0, min(wanted, self.end - begin)), np.uint8)
        block[: kept.size] = kept
        read = self.source.read_into(begin, block[kept.size :])
        self.at += read
        self.ended = self.at >= self.end or not read
        return block[: kept.size + read], begin

    def _unpacked(self, size: int, kept: Array) -> tuple[Array, int]:
        begin = self.at
        cursor = Cursor(self.source, self.at, self.end, self.parts.big)
        pieces: list[bytes] = [kept.tobytes()]
        room = 0
        try:
            if self.chunks_left < 0 and self.at < self.end:
                self.chunks_left = cursor.number(f"count of chunks, {self.name},", 4)
            while self.chunks_left > 0 and room < size:
                pieces.append(self._chunk(cursor))
                room += len(pieces[-1])
                self.chunks_left -= 1
        except InputError as error:
            self.cut = True
            self.note(str(error))
            self.chunks_left = 0
        self.at = cursor.at
        if self.chunks_left <= 0:
            self.ended = True
            self.at = self.end
        return np.frombuffer(bytearray(b"".join(pieces)), np.uint8), begin

    def _chunk(self, cursor: Cursor) -> bytes:
        name, begin = f"chunk of the {self.name}", cursor.at
        packed = cursor.number(f"packed size of a {name}", 4)
        plain = cursor.number(f"plain size of a {name}", 4)
        if plain == 0 or plain % self.buffer.page_size:
            problem = f"{plain} plain bytes, no multiple of the page size {self.buffer.page_size}"
            raise cursor.fail(name, problem, begin)
        raw = cursor.take(name, packed)
        method = self.parts.compression
        return unpack(self.source.path, name, begin, method, raw, plain, CHUNK_LIMIT)
