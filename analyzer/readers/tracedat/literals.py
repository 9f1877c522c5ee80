"""Which text does a pointer to a constant string mean? Out of the recording's printk formats."""

from __future__ import annotations

import re
from collections.abc import Callable

from analyzer.errors import InputError

__all__ = ["Literals"]

_LINE = re.compile(r'^\s*(?:0x)?([0-9a-fA-F]+) : "(.*)"\s*$', re.MULTILINE)
_ESCAPE = re.compile(r'\\([n"\\])')


class Literals:
    """Strings by address; the text `0xADDR : "string"` is read at the first question.

    A text that cannot be read is told to `note` in one line, and no address has a string then.
    """

    def __init__(self, read: Callable[[], bytes], note: Callable[[str], None]) -> None:
        self._read, self._note = read, note
        self._strings: dict[int, str] | None = None

    def at(self, address: int) -> str | None:
        """Return the string that begins at the address."""
        if self._strings is None:
            try:
                text = self._read().decode("utf-8", "backslashreplace")
            except InputError as error:
                self._note(str(error))
                text = ""
            self._strings = {int(m[1], 16): _unescape(m[2]) for m in _LINE.finditer(text)}
        return self._strings.get(address & (2**64 - 1))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], text)
