"""Which number has which event in this file, and how does its record begin?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analyzer.errors import FormatError
from analyzer.readers.event_map import PROBE_ENTER, PROBE_RETURN, EventTarget, target_of
from analyzer.readers.tracedat import layout
from analyzer.readers.tracedat.formats import (
    EventFormat,
    Field,
    FieldKind,
    parse_fields,
    parse_format,
)
from analyzer.readers.tracedat.parts import Parts

__all__ = ["EventKind", "EventKinds", "page_layout"]

Array = np.ndarray[Any, Any]
TRACED = frozenset({"function", "funcgraph_entry", "funcgraph_retaddr_entry", "funcgraph_exit"})
NUMBERS = (FieldKind.UNSIGNED, FieldKind.SIGNED)


@dataclass(frozen=True)
class EventKind:
    """One kind of event: its name, where its rows go, and its format (None: unknown number)."""

    name: str
    target: EventTarget
    form: EventFormat | None

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Its fields by name."""
        return self.form.fields() if self.form is not None else {}


def _target(form: EventFormat, claims_name: bool) -> EventTarget:
    probe = _probe(form)
    if probe is not None:
        return probe
    if form.name in TRACED and form.system != "ftrace":
        return target_of("")
    return target_of(form.name if claims_name else "")


def _probe(form: EventFormat) -> EventTarget | None:
    # linux:kernel/trace/trace_probe.h: FIELD_STRING_IP of probes at an instruction,
    # FIELD_STRING_FUNC of those at a function's return.
    if "__probe_func;" in form.text:
        return PROBE_RETURN
    return PROBE_ENTER if "__probe_ip;" in form.text else None


class EventKinds:
    """All kinds of event of one file; `lut` maps common_type to a kind, -1 where none is known."""

    def __init__(self, formats: list[tuple[str, str]]) -> None:
        self.kinds: list[EventKind] = []
        self.lut = np.full(65536, -1, np.int32)
        self._unknown: dict[int, int] = {}
        forms = [f for f in (parse_format(system, text) for system, text in formats) if f]
        # Where two share a name, a tracepoint keeps it and a probe does not.
        taken: set[str] = set()
        for form in sorted(forms, key=lambda f: _probe(f) is not None):
            if not 0 <= form.id < self.lut.size or self.lut[form.id] >= 0:
                continue
            first = form.name not in taken
            taken.add(form.name)
            name = form.name if first else f"{form.system}:{form.name}"
            self.lut[form.id] = len(self.kinds)
            self.kinds.append(EventKind(name, _target(form, first), form))

    def of_unknown(self, number: int) -> int:
        """Return the kind of events whose number no format has."""
        if number not in self._unknown:
            self._unknown[number] = len(self.kinds)
            self.kinds.append(EventKind(f"(event {number})", target_of(""), None))
        return self._unknown[number]


def page_layout(path: str, parts: Parts, kinds: EventKinds) -> Array:
    """Return the `layout` of layout.walk_pages but for the page size, which each buffer has.

    FormatError where header_page or the common fields contradict themselves.
    """
    numbers = np.zeros(layout.LAYOUT_NUMBERS, np.int64)
    head = parse_fields(parts.header_page)
    default = Field(8, parts.long_size, FieldKind.SIGNED)
    commit = head.get("commit", default)
    start = head["data"].offset if "data" in head else 8 + commit.size
    if commit.size not in (4, 8) or commit.offset < 8 or start < commit.offset + commit.size:
        problem = f"commit at {commit.offset} of {commit.size} bytes, data at {start}"
        raise FormatError(path, "header_page", parts.header_at, problem)
    least = min((b.page_size for b in parts.buffers), default=parts.page_size)
    if start >= least:
        raise FormatError(
            path, "header_page", parts.header_at, f"data at {start}, a page has {least} bytes"
        )
    numbers[layout.L_DATA], numbers[layout.L_COMMIT] = start, commit.offset
    numbers[layout.L_COMMIT_SIZE] = commit.size
    fields = next((kind.fields for kind in kinds.kinds if "common_type" in kind.fields), {})
    found = {}
    for name, offset, size in (("type", 0, 2), ("flags", 2, 1), ("pid", 4, 4)):
        field = fields.get(f"common_{name}", Field(offset, size, FieldKind.SIGNED))
        if field.kind not in NUMBERS or field.offset > 64:
            problem = f"common_{name} at {field.offset} of {field.size} bytes"
            raise FormatError(path, "event format", None, problem)
        found[name] = field
    numbers[layout.L_TYPE], numbers[layout.L_TYPE_SIZE] = found["type"].offset, found["type"].size
    numbers[layout.L_PID], numbers[layout.L_PID_SIZE] = found["pid"].offset, found["pid"].size
    flags = found["flags"] if not fields or "common_flags" in fields else None
    numbers[layout.L_FLAGS] = flags.offset if flags is not None else -1
    numbers[layout.L_BIG] = int(parts.big)
    numbers[layout.L_LEAST] = max(
        field.offset + field.size for name, field in found.items() if name != "flags" or flags
    )
    return numbers
