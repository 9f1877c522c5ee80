"""How does trace.dat hold an event's fields? At fixed places that each event's format tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.readers import assemble
from analyzer.readers.assemble import Part, Payload, Plan
from analyzer.readers.columns import enum_column, text_column
from analyzer.readers.event_map import PROBE_ENTER
from analyzer.readers.tracedat.batches import Rows
from analyzer.readers.tracedat.formats import FieldKind
from analyzer.readers.tracedat.kinds import TRACED, EventKind
from analyzer.readers.tracedat.layout import gather_fields
from analyzer.readers.tracedat.literals import Literals
from analyzer.readers.tracedat.symbols import Symbols

__all__ = ["Assembler"]

Array = np.ndarray[Any, Any]


class Assembler(assemble.Assembler[EventKind, Rows]):
    """Makes record batches and the timeline's stream out of decoded rows."""

    def __init__(
        self, kinds: list[EventKind], symbols: Symbols, literals: Literals, big: bool
    ) -> None:
        super().__init__(kinds)
        self.symbols, self.literals, self.big = symbols, literals, big
        # Names of the functions that hold, and of those that start at, an address as it stands in
        # the stream; None: asked for and not known.
        self.name_of: dict[int, str | None] = {}
        self.start_of: dict[int, str | None] = {}
        self.comm_of: dict[int, str] = {}
        # Functions that the probes of a kind sit on, where their names are known.
        self.probed: dict[int, str] = {}
        self._places: dict[tuple[str, int], Array] = {}

    def _fields(self, plan: Plan, number: int) -> Array:
        # int32[slots, 3] of one kind, as gather_fields wants them.
        key = (plan.table.name, number)
        if key not in self._places:
            places = np.full((len(plan.slots), 3), -1, np.int32)
            kind = self.kinds[number]
            for name, column in kind.target.fields.items():
                field = kind.fields.get(name)
                if field is not None and field.kind != FieldKind.OTHER:
                    places[plan.slot_of[column]] = (field.offset, field.size, field.kind)
            self._places[key] = places
        return self._places[key]

    def read_payload(self, plan: Plan, data: Rows, part: Part, kinds: Array) -> tuple[Array, Array]:
        """Return values and sizes as Payload has them."""
        values = np.empty((len(plan.slots), part.rows.size), np.int64)
        sizes = np.empty((len(plan.slots), part.rows.size), np.int32)
        if plan.slots:
            fields = np.stack([self._fields(plan, k) for k in kinds.tolist()])
            gather_fields(
                data.buf, part.off, part.size, part.group, fields, self.big, values, sizes
            )
        return values, sizes

    def text_codes(self, plan: Plan, data: Rows, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the pool of one column's strings; -1: null."""
        column = plan.slots[slot]
        codes = super().text_codes(plan, data, payload, slot)
        pointers = np.flatnonzero(payload.sizes[slot] == 0)
        if pointers.size:
            # A field `const char *`: the string itself stands in the kernel, and in its list.
            found, where = np.unique(payload.values[slot, pointers], return_inverse=True)
            texts = [self.literals.at(address) for address in found.tolist()]
            numbers = [-1 if text is None else self.text.code(text) for text in texts]
            codes[pointers] = np.array(numbers, np.int32)[where]
        if column == "next_comm":
            pid = plan.slot_of["next_pid"]
            known = (codes >= 0) & (payload.sizes[pid] >= 0)
            pairs = (payload.values[pid, known] << 32) | codes[known]
            for pair in np.unique(pairs).tolist():
                self.comm_of[pair >> 32] = self.text.names[pair & 0xFFFFFFFF]
        return codes

    def own_columns(self, plan: Plan, data: Rows, payload: Payload) -> dict[str, pa.Array]:
        """Return who left at a switch, and the names of traced functions."""
        columns: dict[str, pa.Array] = {}
        table = plan.table.name
        if table == "sched_switch":
            codes = np.where(payload.sizes[plan.slot_of["prev_pid"]] >= 0, 0, -1)
            columns["prev_pid_from"] = enum_column(codes, ("recorded",))
        if table == "function_span":
            traced = np.array([self.kinds[k].name in TRACED for k in payload.kinds])
            if traced.any():
                of_kind = [self.text.code(self.kinds[k].name) for k in payload.kinds.tolist()]
                codes = np.array(of_kind, np.int32)[payload.part.group]
                at = traced[payload.part.group]
                codes[at] = self._codes(payload, plan.slot_of["function"], False, True)[at]
                columns["name"] = text_column(codes, self.text.names)
        return columns

    def function_codes(self, plan: Plan, data: Rows, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the pool of one column's functions; -1: null."""
        if plan.table.name != "function_span":
            # A pointer to a function holds the address of its first instruction.
            return self._codes(payload, slot, True, False)
        # Traced functions are named by their address if need be; a probe's is null then.
        codes = self._codes(payload, slot, False, False)
        self._keep_probed(payload, codes)
        traced = np.array([self.kinds[k].name in TRACED for k in payload.kinds])
        if traced.any():
            at = traced[payload.part.group]
            codes[at] = self._codes(payload, slot, False, True)[at]
        return codes

    def _keep_probed(self, payload: Payload, codes: Array) -> None:
        kinds = payload.kinds.tolist()
        if all(k in self.probed or self.kinds[k].target is not PROBE_ENTER for k in kinds):
            return
        named = np.flatnonzero(codes >= 0)
        groups, first = np.unique(payload.part.group[named], return_index=True)
        for group, row in zip(groups.tolist(), named[first].tolist(), strict=True):
            if self.kinds[kinds[group]].target is PROBE_ENTER:
                self.probed.setdefault(kinds[group], self.text.names[codes[row]])

    def _codes(self, payload: Payload, slot: int, exact: bool, hexadecimal: bool) -> Array:
        """Return int32[n], names' numbers in the pool of functions at or around the addresses."""
        codes = np.full(payload.part.rows.size, -1, np.int32)
        at = np.flatnonzero((payload.sizes[slot] == 0) & (payload.values[slot] != 0))
        if at.size == 0:
            return codes
        found, where = np.unique(payload.values[slot, at], return_inverse=True)
        names_of = self.start_of if exact else self.name_of
        new = [n for n, value in enumerate(found.tolist()) if value not in names_of]
        if new:
            asked = found[new]
            names = self.symbols.holding(asked.view(np.uint64), exact)
            names_of.update(zip(asked.tolist(), names, strict=True))
        numbers = []
        for value in found.tolist():
            name = names_of[value]
            if name is None and hexadecimal:
                name = f"{value & (2**64 - 1):#x}"
            numbers.append(-1 if name is None else self.text.code(name))
        codes[at] = np.array(numbers, np.int32)[where]
        return codes
