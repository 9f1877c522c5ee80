"""Where does each field of an event stand? Out of the file's own format texts.

The grammar is that of tracefs' events/*/*/format; sizes and offsets in it are trusted, types only
where they tell strings from numbers. Source: libtraceevent:src/event-parse.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["EventFormat", "Field", "FieldKind", "parse_fields", "parse_format"]

_HEAD = re.compile(r"^name:\s*(\S+)\s*^ID:\s*(\d+)", re.MULTILINE)
_FIELD = re.compile(
    r"field(?: special)?:([^;]*);\s*offset:\s*(\d+);\s*size:\s*(\d+);(?:\s*signed:\s*(\d+);)?"
)
_NAME = re.compile(r"(\w+)\s*(\[[^\]]*\])?\s*$")


class FieldKind(IntEnum):
    """How a field's bytes are to be read; the kernel in layout.py uses these numbers."""

    UNSIGNED = 0
    SIGNED = 1
    DATA_LOC = 2  # u32: offset from the record's start, length
    REL_LOC = 3  # u32: offset from the end of this field, length
    CHARS = 4  # text up to a NUL or the field's size; size 0: up to the record's end
    OTHER = 5  # arrays and structures: no column of ours takes them


@dataclass(frozen=True, slots=True)
class Field:
    """One field: where it stands in the record, and how it is read."""

    offset: int
    size: int
    kind: FieldKind


@dataclass(frozen=True, slots=True)
class EventFormat:
    """One event of the file: its number, names, and the text that describes its fields."""

    id: int
    system: str
    name: str
    text: str

    def fields(self) -> dict[str, Field]:
        """Return its fields by name, the common ones too."""
        return parse_fields(self.text)


def parse_format(system: str, text: str) -> EventFormat | None:
    """Return the event that a format text describes; None where it names none."""
    found = _HEAD.search(text)
    if found is None:
        return None
    return EventFormat(int(found[2]), system, found[1], text)


def parse_fields(text: str) -> dict[str, Field]:
    r"""Return the fields of a format text by name.

    >>> parse_fields("field:__data_loc char[] name; offset:12; size:4; signed:0;")["name"].kind.name
    'DATA_LOC'
    >>> parse_fields("field:char comm[16]; offset:8; size:16; signed:0;")["comm"].kind.name
    'CHARS'
    """
    fields: dict[str, Field] = {}
    before = text.find("print fmt:")
    for match in _FIELD.finditer(text, 0, before if before >= 0 else len(text)):
        named = _NAME.search(match[1])
        if named is None:
            continue
        type_words = match[1][: named.start()]
        offset, size, signed = int(match[2]), int(match[3]), int(match[4] or 0)
        kind = _kind(type_words, named[2] is not None, size, signed != 0)
        fields.setdefault(named[1], Field(offset, size, kind))
    return fields


def _kind(words: str, is_array: bool, size: int, signed: bool) -> FieldKind:
    if "__data_loc" in words:
        return FieldKind.DATA_LOC if size == 4 else FieldKind.OTHER
    if "__rel_loc" in words:
        return FieldKind.REL_LOC if size == 4 else FieldKind.OTHER
    if is_array:
        return FieldKind.CHARS if re.search(r"\bchar\b", words) else FieldKind.OTHER
    if size not in (1, 2, 4, 8):
        return FieldKind.OTHER
    return FieldKind.SIGNED if signed else FieldKind.UNSIGNED
