"""Which kernel function holds this address? Out of the recording's kallsyms, read when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from analyzer.errors import InputError
from analyzer.jit import typed_kernel

__all__ = ["Symbols"]

Array = np.ndarray[Any, Any]
# A line holds at least an address, a type, a name and what parts them.
SHORTEST_LINE = 6
# An address further than this behind a symbol's start is in none: the largest functions of a
# kernel stay far below 1 MiB. Chosen by us; kallsyms has no sizes.
FARTHEST = 1 << 20


@typed_kernel("int64(uint8[::1], uint64[::1], int64[::1], int64[::1])")
def parse_lines(buf, address, begin, length):  # type: ignore[no-untyped-def]
    """Read lines `hex type name[ module]` of functions (types t, T, w, W); return how many.

    address, begin, length: one row a function; begin and length are its name in buf, where all
    names are moved to the front. Lines of other shapes are stepped over. There must be room for
    buf.size / 6 + 1 rows.
    """
    found = 0
    written = 0
    at = 0
    while at < buf.size:
        value = np.uint64(0)
        digits = 0
        while at < buf.size:
            c = buf[at]
            if 48 <= c <= 57:
                digit = c - 48
            elif 97 <= c <= 102:
                digit = c - 87
            elif 65 <= c <= 70:
                digit = c - 55
            else:
                break
            value = (value << np.uint64(4)) | np.uint64(digit)
            digits += 1
            at += 1
        good = 0 < digits <= 16 and at + 3 < buf.size and buf[at] == 32 and buf[at + 2] == 32
        if good:
            kind = buf[at + 1] | 32
            start = at + 3
            at = start
            while at < buf.size and buf[at] > 32:
                at += 1
            if (kind == 116 or kind == 119) and at > start and value > 0:
                address[found] = value
                begin[found] = written
                length[found] = at - start
                for byte in range(start, at):
                    buf[written] = buf[byte]
                    written += 1
                found += 1
        while at < buf.size and buf[at] != 10:
            at += 1
        at += 1
    return found


class Symbols:
    """Names of functions by address; the text is read and sorted at the first question.

    A text that cannot be read is told to `note` in one line, and no address has a name then.
    """

    def __init__(self, read: Callable[[], bytes], note: Callable[[str], None]) -> None:
        self._read, self._note = read, note
        self._address: Array | None = None
        self._begin = self._length = np.zeros(0, np.int64)
        self._names = b""

    def _load(self) -> Array:
        if self._address is None:
            try:
                raw = bytearray(self._read() or b"\0")
            except InputError as error:
                self._note(str(error))
                raw = bytearray(1)
            buf = np.frombuffer(raw, np.uint8)
            room = buf.size // SHORTEST_LINE + 1
            address = np.empty(room, np.uint64)
            begin, length = np.empty(room, np.int64), np.empty(room, np.int64)
            found = int(parse_lines(buf, address, begin, length))
            # Of several names of one address the first counts, as in the kernel's own lookup.
            self._address, first = np.unique(address[:found], return_index=True)
            self._begin, self._length = begin[first], length[first]
            self._names = buf[: int(length[:found].sum())].tobytes()
        return self._address

    def _name(self, at: int) -> str:
        begin = int(self._begin[at])
        return self._names[begin : begin + int(self._length[at])].decode("utf-8", "replace")

    def holding(self, addresses: Array, exact: bool) -> list[str | None]:
        """Return the name of the function that holds (or starts at) each of uint64[n]."""
        known = self._load()
        at = np.searchsorted(known, addresses, side="right") - 1
        names: list[str | None] = []
        for address, slot in zip(addresses.tolist(), at.tolist(), strict=True):
            behind = address - int(known[slot]) if slot >= 0 else FARTHEST
            names.append(self._name(slot) if behind < (1 if exact else FARTHEST) else None)
        return names
