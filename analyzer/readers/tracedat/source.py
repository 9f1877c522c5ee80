"""How are bytes of a file taken without running past its end? One bounded cursor for all of them.

A read that does not fit leaves the cursor where it was and raises one line that names the
structure, its offset and both numbers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.errors import FormatError, InputError, TruncatedError

__all__ = ["Cursor", "FileBytes", "PlainBytes"]

# Longest name that we look for the NUL of; the kernel's and trace-cmd's own stay below 256.
NAME_LIMIT = 4096


class FileBytes:
    """The bytes of an opened file."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.fd = path, fd
        self.size = os.fstat(fd).st_size
        self.where = ""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes; fewer only at the end of the file."""
        parts = []
        while size > 0:
            try:
                part = os.pread(self.fd, size, offset)
            except OSError as error:
                problem = error.strerror or str(error)
                raise InputError(self.path, "file", offset, problem) from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, room: np.ndarray[Any, Any]) -> int:
        """Fill uint8[n] from `offset` on; return how many bytes there were."""
        done = 0
        while done < room.size:
            try:
                got = os.preadv(self.fd, [room[done:].data], offset + done)
            except OSError as error:
                problem = error.strerror or str(error)
                raise InputError(self.path, "file", offset, problem) from error
            if got == 0:
                break
            done += got
        return done


@dataclass(slots=True)
class PlainBytes:
    """Bytes that were unpacked out of a section; `where` says so in every error."""

    path: str
    plain: bytes
    where: str

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.plain)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes."""
        return self.plain[offset : offset + size]


class Cursor:
    """Takes numbers, names and blocks from [at, end) of a source, in the file's endianness."""

    def __init__(self, source: FileBytes | PlainBytes, at: int, end: int, big: bool) -> None:
        self.source, self.at, self.end, self.big = source, at, min(end, source.size), big

    def _named(self, structure: str) -> str:
        return f"{structure}{self.source.where}"

    def fail(self, structure: str, problem: str, at: int | None = None) -> FormatError:
        """Return the error to raise for a structure here (or at `at`)."""
        offset = self.at if at is None else at
        return FormatError(self.source.path, self._named(structure), offset, problem)

    def skip(self, structure: str, size: int) -> int:
        """Step over `size` bytes; return where they began."""
        left = self.end - self.at
        if size > left:
            problem = f"needs {size} bytes, {max(0, left)} are left"
            raise TruncatedError(self.source.path, self._named(structure), self.at, problem)
        begin = self.at
        self.at += size
        return begin

    def take(self, structure: str, size: int) -> bytes:
        """Return the next `size` bytes."""
        begin = self.skip(structure, size)
        return self.source.read(begin, size)

    def number(self, structure: str, size: int) -> int:
        """Return the next unsigned number of that many bytes."""
        return int.from_bytes(self.take(structure, size), "big" if self.big else "little")

    def name(self, structure: str) -> str:
        """Return the text up to the next NUL, and step over the NUL."""
        limit = min(NAME_LIMIT, self.end - self.at)
        raw = self.source.read(self.at, limit) if limit > 0 else b""
        length = raw.find(0)
        if length < 0:
            raise self.fail(structure, f"no NUL in {len(raw)} bytes, {NAME_LIMIT} are allowed")
        self.at += length + 1
        return raw[:length].decode("utf-8", "backslashreplace")

    def text(self, structure: str, width: int) -> str:
        """Return text behind its length, a number of `width` bytes."""
        begin = self.at
        size = self.number(f"size of {structure}", width)
        try:
            return self.take(structure, size).decode("utf-8", "backslashreplace").rstrip("\0")
        except TruncatedError:
            self.at = begin
            raise
