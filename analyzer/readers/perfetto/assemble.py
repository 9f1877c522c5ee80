"""How does Perfetto hold an event's fields? Typed, generic, legacy and compact, into one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.readers import assemble
from analyzer.readers.assemble import Part, Payload, Plan
from analyzer.readers.columns import enum_column
from analyzer.readers.perfetto.names import POINTER_COLUMNS, EventKind
from analyzer.readers.perfetto.payload import legacy_fields, payload_fields
from analyzer.readers.perfetto.symbols import KernelSymbols
from analyzer.readers.perfetto.walk import ABSENT

Array = np.ndarray[Any, Any]
# Highest field number of an event's own message that is looked at; the largest in perfetto 0.59.1
# is 34 (ext4 and f2fs events), and none of the events that have a table goes above 12.
FIELD_LIMIT = 64
PREV_PID_FROM = ("previous_switch", "current_thread", "none", "recorded")
PHASES = ("enter", "return", "instant")


@dataclass(slots=True)
class Rows(assemble.Rows):
    """Decoded events, one row each (see batches.py), and what compact rows hold.

    maps: int32[n], the map of KernelSymbols that a row's pointers are in.
    compact: int64[6, c], columns of walk.walk_compact; for a row of a compact kind `off` is its
    column there and `comm` the number of the name in the pool.
    """

    origin: Array
    maps: Array
    compact: Array
    comm: Array


class Assembler(assemble.Assembler[EventKind, Rows]):
    """Makes record batches and the timeline's stream out of decoded rows."""

    def __init__(
        self, kinds: list[EventKind], legacy_numbers: Array, symbols: KernelSymbols
    ) -> None:
        super().__init__(kinds)
        self.symbols, self.functions = symbols, symbols.names
        self.legacy_numbers = legacy_numbers
        self.pointers = 0
        self.comm_of: dict[int, tuple[int, int]] = {}

    def read_payload(self, plan: Plan, data: Rows, part: Part, kinds: Array) -> tuple[Array, Array]:
        """Return values and sizes as Payload has them."""
        rows, group = part.rows, part.group
        slots = np.full((kinds.size, FIELD_LIMIT), -1, np.int16)
        forms = [self.kinds[k].form for k in kinds]
        for g, k in enumerate(kinds):
            kind = self.kinds[k]
            for name, number in kind.fields.items():
                column = kind.target.fields.get(name)
                if column is not None and number < FIELD_LIMIT:
                    slots[g, number] = plan.slot_of[column]
        values = np.zeros((len(plan.slots), rows.size), np.int64)
        sizes = np.full((len(plan.slots), rows.size), -1, np.int32)
        if not plan.slots:
            return values, sizes
        if "compact" in forms or "legacy" in forms:
            form = np.array(forms)[group]
            for name in ("compact", "legacy", "typed"):
                chosen = (
                    (form == name) if name != "typed" else ~np.isin(form, ("compact", "legacy"))
                )
                at = np.flatnonzero(chosen)
                if at.size == 0:
                    continue
                if name == "compact":
                    self._compact(plan, data, rows[at], at, values, sizes)
                    continue
                some = np.zeros((len(plan.slots), at.size), np.int64)
                some_sizes = np.empty((len(plan.slots), at.size), np.int32)
                off, size = part.off[at], part.size[at]
                if name == "legacy":
                    self._legacy(plan, data, kinds, group[at], off, size, some, some_sizes)
                else:
                    payload_fields(data.buf, off, size, group[at], slots, some, some_sizes)
                values[:, at], sizes[:, at] = some, some_sizes
        else:
            payload_fields(data.buf, part.off, part.size, group, slots, values, sizes)
        return values, sizes

    def _legacy(
        self, plan: Plan, data: Rows, kinds: Array, group: Array, off: Array, size: Array,
        values: Array, sizes: Array,
    ) -> None:  # fmt: skip
        # Legacy events name their fields in every event; kernel names differ by kind only where
        # event_map renames a field, so each kind is read with its own list.
        for g in np.unique(group):
            target = self.kinds[int(kinds[g])].target
            at = np.flatnonzero(group == g)
            names = [name.encode() for name in target.fields]
            if not names:
                sizes[:, at] = -1
                continue
            got = np.zeros((len(names), at.size), np.int64)
            got_sizes = np.empty((len(names), at.size), np.int32)
            flat = np.frombuffer(bytearray(b"".join(names)), np.uint8)
            ends = np.cumsum([len(name) for name in names]).astype(np.int64)
            legacy_fields(
                data.buf, off[at], size[at], flat, ends, self.legacy_numbers, got, got_sizes
            )
            sizes[:, at] = -1
            for n, column in enumerate(target.fields.values()):
                values[plan.slot_of[column], at] = got[n]
                sizes[plan.slot_of[column], at] = got_sizes[n]

    def _compact(
        self, plan: Plan, data: Rows, rows: Array, at: Array, values: Array, sizes: Array
    ) -> None:
        columns = (
            {"prev_state": 1, "next_pid": 2, "next_prio": 3}
            if plan.table.name == "sched_switch"
            else {"pid": 1, "target_cpu": 2, "prio": 3}
        )
        for name, row in columns.items():
            got = data.compact[row, data.off[rows]]
            values[plan.slot_of[name], at] = got
            sizes[plan.slot_of[name], at] = np.where(got == ABSENT, -1, 0)
        if plan.table.name == "sched_switch":
            values[plan.slot_of["prev_pid"], at] = data.tid[rows]
            sizes[plan.slot_of["prev_pid"], at] = np.where(data.tid[rows] < 0, -1, 0)

    def text_codes(self, plan: Plan, data: Rows, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the pool of one column's strings; -1: null."""
        codes = super().text_codes(plan, data, payload, slot)
        if plan.slots[slot] in ("next_comm", "comm"):
            part, sizes = payload.part, payload.sizes
            is_compact = np.array([self.kinds[k].form == "compact" for k in payload.kinds])
            compact = is_compact[part.group]
            codes[compact] = data.comm[part.off[compact]]
            pid = plan.slot_of["next_pid" if plan.table.name == "sched_switch" else "pid"]
            known = (codes >= 0) & (sizes[pid] >= 0)
            # The last name of each thread, by time: switches and wake-ups are read apart.
            tids, last = np.unique(payload.values[pid, known][::-1], return_index=True)
            times, named = part.ts[known][::-1][last], codes[known][::-1][last]
            for tid, ts, code in zip(tids.tolist(), times.tolist(), named.tolist(), strict=True):
                if ts >= self.comm_of.get(tid, (ts, code))[0]:
                    self.comm_of[tid] = (ts, code)
        return codes

    def function_codes(self, plan: Plan, data: Rows, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the symbols' names of one column's functions; -1: null."""
        if not self.functions.names:
            return np.full(payload.part.rows.size, -1, np.int32)
        codes = self.symbols.codes(data.maps[payload.part.rows], payload.values[slot])
        codes[payload.sizes[slot] != 0] = -1
        return codes

    def function_numbers(self, codes: Array, values: Array) -> Array:
        """Return numbers that mean the same in every tick, if the recording has symbols at all."""
        return np.where(codes >= 0, codes, ABSENT) if self.functions.names else values

    def own_columns(self, plan: Plan, data: Rows, payload: Payload) -> dict[str, pa.Array]:
        """Return what compact switches and probes tell in their own way; count pointers."""
        columns: dict[str, pa.Array] = {}
        if plan.table.name == "sched_switch":
            columns["prev_pid_from"] = enum_column(data.origin[payload.part.rows], PREV_PID_FROM)
        elif plan.table.name == "function_span":
            phases = [self.kinds[k].target.constants.get("phase") for k in payload.kinds]
            told = np.array([PHASES.index(p) if p else -1 for p in phases], np.int8)
            told = told[payload.part.group]
            codes = np.where(told >= 0, told, data.origin[payload.part.rows])
            columns["phase"] = enum_column(codes, PHASES)
        for name in POINTER_COLUMNS & set(plan.slots):
            self.pointers += int(np.count_nonzero(payload.sizes[plan.slot_of[name]] >= 0))
        return columns
