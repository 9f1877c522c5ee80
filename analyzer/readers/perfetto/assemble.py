"""How do decoded events become rows of the recorded tables? Table by table, column by column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.readers.columns import (
    TextPool,
    enum_column,
    number_column,
    record_batch,
    text_column,
)
from analyzer.readers.event_map import EVENTS
from analyzer.readers.exits import exit_columns
from analyzer.readers.perfetto.names import POINTER_COLUMNS, EventKind
from analyzer.readers.perfetto.payload import legacy_fields, payload_fields
from analyzer.readers.perfetto.walk import ABSENT
from analyzer.readers.registers import register_columns
from analyzer.tables import BY_NAME, Table

Array = np.ndarray[Any, Any]
# Highest field number of an event's own message that is looked at; the largest in perfetto 0.59.1
# is 34 (ext4 and f2fs events), and none of the events that have a table goes above 12.
FIELD_LIMIT = 64
PREV_PID_FROM = ("previous_switch", "current_thread", "none", "recorded")
ORIGIN_RECORDED = 3


@dataclass(slots=True)
class Rows:
    """Decoded events, one row each (see batches.py), and what compact rows hold.

    compact: int64[6, c], columns of walk.walk_compact; for a row of a compact kind `off` is its
    column there and `comm` the number of the name in the pool.
    """

    buf: Array
    ts: Array
    cpu: Array
    tid: Array
    kind: Array
    off: Array
    size: Array
    origin: Array
    compact: Array
    comm: Array


@dataclass(slots=True)
class Part:
    """The rows of one table in order of time, as merge.group_rows groups them.

    rows: number in Rows; place: number in the stream; group: which of the table's kinds.
    """

    rows: Array
    place: Array
    group: Array
    ts: Array
    cpu: Array
    tid: Array
    off: Array
    size: Array

    def columns(self) -> tuple[Array, ...]:
        """Return all columns in declared order."""
        return (
            self.rows, self.place, self.group, self.ts, self.cpu, self.tid, self.off, self.size
        )  # fmt: skip


PART_TYPES = (np.int64, np.int64, np.int32, np.int64, np.int32, np.int32, np.int64, np.int32)


@dataclass(slots=True)
class _Plan:
    # What one table's payload columns are: a slot each, in declared order.
    table: Table
    slots: list[str]
    slot_of: dict[str, int] = field(default_factory=dict)


class Assembler:
    """Makes record batches and the timeline's stream out of decoded rows."""

    def __init__(self, kinds: list[EventKind], legacy_numbers: Array) -> None:
        self.kinds = kinds
        self.legacy_numbers = legacy_numbers
        self.text = TextPool()
        self.reasons = TextPool()
        self.names = TextPool()
        self.fields_missing = 0
        self.pointers = 0
        self.vcpu_ids: dict[tuple[int, int], int] = {}
        self.comm_of: dict[int, tuple[int, int]] = {}
        targets = {target.table for target in EVENTS.values()} | {"other_event", "function_span"}
        self.tables = sorted(targets)
        self.number_of_table = {name: n for n, name in enumerate(self.tables)}
        self.plans: list[_Plan] = []
        for name in self.tables:
            wanted = {c for t in EVENTS.values() if t.table == name for c in t.fields.values()}
            if name == "other_event":
                wanted = {"vcpu_id"}
            slots = [column for column in BY_NAME[name].names if column in wanted]
            self.plans.append(_Plan(BY_NAME[name], slots, {s: n for n, s in enumerate(slots)}))

    def table_of_kind(self) -> Array:
        """Return int32[kinds], the table that rows of each kind go to."""
        return np.array([self.number_of_table[k.target.table] for k in self.kinds], np.int32)

    def build(
        self, number: int, data: Rows, part: Part, kinds: Array, first: Array, second: Array
    ) -> pa.RecordBatch:
        """Return one table's record batch; fill `first` and `second` (int64, of the stream)."""
        plan = self.plans[number]
        rows, group = part.rows, part.group
        values, sizes = self._payload(plan, data, part, kinds)
        self._stream_fields(plan, part.place, kinds, group, values, sizes, first, second)
        columns: dict[str, pa.Array] = {}
        # Copies: a view would keep the columns of all tables while a small table's rows wait.
        head = {"ts": part.ts.copy(), "cpu": part.cpu.copy(), "tid": part.tid.copy()}
        tid_known = None
        if plan.table.name in ("sched_switch", "wakeup"):
            tid_known = head["tid"] >= 0
        for name, head_values in head.items():
            present = tid_known if name == "tid" else None
            columns[name] = number_column(plan.table.column(name), head_values, present)
        constants = {c for k in kinds for c in self.kinds[k].target.constants}
        for name in constants:
            pool = TextPool()
            codes = [pool.code(self.kinds[k].target.constants[name]) for k in kinds]
            make = text_column if plan.table.column(name).type == "text" else enum_column
            columns[name] = make(np.array(codes, np.int32)[group], pool.names)
        for slot, name in enumerate(plan.slots):
            column = plan.table.column(name)
            if column.type == "text":
                self._text(plan, data, rows, kinds, group, slot, values, sizes, columns)
            elif column.type != "enum":  # enums are made from constants or by _special
                columns[name] = number_column(column, values[slot], sizes[slot] >= 0)
        self._special(plan.table.name, data, part, kinds, values, sizes, columns, first)
        return record_batch(plan.table.name, columns, rows.size)

    def _payload(self, plan: _Plan, data: Rows, part: Part, kinds: Array) -> tuple[Array, Array]:
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
        self, plan: _Plan, data: Rows, kinds: Array, group: Array, off: Array, size: Array,
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
        self, plan: _Plan, data: Rows, rows: Array, at: Array, values: Array, sizes: Array
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

    def _text(
        self, plan: _Plan, data: Rows, rows: Array, kinds: Array, group: Array, slot: int,
        values: Array, sizes: Array, columns: dict[str, pa.Array],
    ) -> None:  # fmt: skip
        codes = np.full(rows.size, -1, np.int32)
        at = np.flatnonzero(sizes[slot] > 0)
        if at.size:
            codes[at] = self.text.codes_of_bytes(
                data.buf, values[slot, at], sizes[slot, at].astype(np.int64) - 1
            )
        if plan.slots[slot] in ("next_comm", "comm"):
            compact = np.array([self.kinds[k].form == "compact" for k in kinds])[group]
            codes[compact] = data.comm[data.off[rows[compact]]]
            pid = plan.slot_of["next_pid" if plan.table.name == "sched_switch" else "pid"]
            known = (codes >= 0) & (sizes[pid] >= 0)
            # The last name of each thread, by time: switches and wake-ups are read apart.
            tids, last = np.unique(values[pid, known][::-1], return_index=True)
            times, named = data.ts[rows[known]][::-1][last], codes[known][::-1][last]
            for tid, ts, code in zip(tids.tolist(), times.tolist(), named.tolist(), strict=True):
                if ts >= self.comm_of.get(tid, (ts, code))[0]:
                    self.comm_of[tid] = (ts, code)
        columns[plan.slots[slot]] = text_column(codes, self.text.names)

    def _stream_fields(
        self, plan: _Plan, place: Array, kinds: Array, group: Array, values: Array, sizes: Array,
        first: Array, second: Array,
    ) -> None:  # fmt: skip
        for out, which in ((first, "first"), (second, "second")):
            slots = []
            for k in kinds:
                target = self.kinds[k].target
                source = getattr(target, which)
                slots.append(plan.slot_of[target.fields[source]] if source else -1)
            for slot in set(slots) - {-1}:
                chosen = np.array(slots) == slot
                if chosen.all():
                    out[place] = np.where(sizes[slot] >= 0, values[slot], ABSENT)
                else:
                    at = np.flatnonzero(chosen[group])
                    out[place[at]] = np.where(sizes[slot, at] >= 0, values[slot, at], ABSENT)

    def _special(
        self, name: str, data: Rows, part: Part, kinds: Array, values: Array, sizes: Array,
        columns: dict[str, pa.Array], first: Array,
    ) -> None:  # fmt: skip
        plan, group = self.plans[self.number_of_table[name]], part.group
        if name == "pmu_access":
            op = np.array(
                [
                    ("read", "write", "rdpmc").index(self.kinds[k].target.constants["op"])
                    for k in kinds
                ],
                np.int8,
            )[group]
            columns.update(register_columns(op, values[plan.slot_of["address"]]))
        elif name == "vm_exit":
            made, codes = exit_columns(plan.slot_of, values, sizes, self.reasons)
            columns.update(made)
            first[part.place] = np.where(codes >= 0, codes, ABSENT)
            self.fields_missing += int(np.count_nonzero((sizes < 0).all(axis=0)))
        elif name == "vm_entry":
            self.fields_missing += int(np.count_nonzero((sizes < 0).all(axis=0)))
        elif name == "sched_switch":
            columns["prev_pid_from"] = enum_column(data.origin[part.rows], PREV_PID_FROM)
        elif name in ("other_event", "function_span"):
            codes = np.array([self.names.code(self.kinds[k].name) for k in kinds], np.int32)
            columns["name"] = text_column(codes[group], self.names.names)
            if name == "function_span":
                columns["phase"] = enum_column(
                    data.origin[part.rows], ("enter", "return", "instant")
                )
        if POINTER_COLUMNS & set(plan.slots):
            self.pointers += int(
                sum(
                    np.count_nonzero(sizes[plan.slot_of[c]] >= 0)
                    for c in POINTER_COLUMNS & set(plan.slots)
                )
            )
        if "vcpu_id" in plan.slot_of:
            self._vcpu_evidence(plan, part, kinds, values, sizes)

    def _vcpu_evidence(
        self, plan: _Plan, part: Part, kinds: Array, values: Array, sizes: Array
    ) -> None:
        slot = plan.slot_of["vcpu_id"]
        # vgic_update_irq_pending names the vCPU that is interrupted, from any thread
        # (linux:arch/arm64/kvm/vgic/trace.h): no evidence of whose thread it is.
        own = np.array([self.kinds[k].name.startswith("kvm_") for k in kinds])[part.group]
        at = np.flatnonzero((sizes[slot] >= 0) & own)
        if at.size == 0:
            return
        pairs = (part.tid[at].astype(np.int64) << 32) | (values[slot, at] & 0xFFFFFFFF)
        found, counts = np.unique(pairs, return_counts=True)
        for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
            key = (pair >> 32, pair & 0xFFFFFFFF)
            self.vcpu_ids[key] = self.vcpu_ids.get(key, 0) + count
