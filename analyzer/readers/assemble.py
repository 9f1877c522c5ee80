"""How do decoded events become rows of the recorded tables? Table by table, column by column.

What is common to all formats stands here; a format says in its own subclass how it reads fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from analyzer.readers.columns import (
    TextPool,
    enum_column,
    number_column,
    record_batch,
    text_column,
)
from analyzer.readers.event_map import EVENTS, EventTarget
from analyzer.readers.exits import exit_columns
from analyzer.readers.merge import group_rows, put_field
from analyzer.readers.recording import ABSENT, STREAM_DTYPE, Batch
from analyzer.readers.registers import OPS, register_columns
from analyzer.tables import BY_NAME, Table

__all__ = ["Assembler", "Kind", "Part", "Payload", "Plan", "Rows"]

Array = np.ndarray[Any, Any]
# The one column of a table whose field holds a function as a number, and the column of its name.
FUNCTIONS = {
    "function_call": ("func", "func_name"),
    "function_span": ("function", "function"),
    "interrupt": ("handler", "handler_name"),
    "timer": ("function", "function_name"),
}


@dataclass(slots=True)
class Rows:
    """Decoded events, one row each: header fields, and where the payload stands in `buf`."""

    buf: Array
    ts: Array
    cpu: Array
    tid: Array
    kind: Array
    off: Array
    size: Array


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


class Kind(Protocol):
    """What the tables need to know of one kind of event."""

    @property
    def name(self) -> str:
        """The event's name."""
        ...

    @property
    def target(self) -> EventTarget:
        """Where its rows go."""
        ...


@dataclass(slots=True)
class Plan:
    """What one table's payload columns are: a slot each, in declared order."""

    table: Table
    slots: list[str]
    slot_of: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Payload:
    """The fields of one table's rows in one batch.

    kinds: int64[k], the kinds that occur, which part.group counts. values: int64[slots, n], the
    integer (two's complement) or the offset of a string's bytes; sizes: int32[slots, n], -1
    absent, 0 for an integer, else the size of a string plus 1.
    """

    part: Part
    kinds: Array
    values: Array
    sizes: Array


K = TypeVar("K", bound=Kind)
R = TypeVar("R", bound=Rows)


class Assembler(Generic[K, R]):
    """Makes record batches and the timeline's two fields out of decoded rows."""

    def __init__(self, kinds: list[K]) -> None:
        self.kinds = kinds
        self.text = TextPool()
        # Names of functions; a format that has numbered them already puts its own pool here.
        self.functions = self.text
        self.reasons = TextPool()
        self.names = TextPool()
        self.fields_missing = 0
        # Rows of each kind so far; a format may meet new kinds as it goes.
        self.counts = np.zeros(0, np.int64)
        self.vcpu_ids: dict[tuple[int, int], int] = {}
        targets = {target.table for target in EVENTS.values()} | {"other_event", "function_span"}
        self.tables = sorted(targets)
        self.number_of_table = {name: n for n, name in enumerate(self.tables)}
        self._part: Part | None = None
        self.plans: list[Plan] = []
        for name in self.tables:
            wanted = {c for t in EVENTS.values() if t.table == name for c in t.fields.values()}
            if name == "other_event":
                wanted = {"vcpu_id"}
            slots = [column for column in BY_NAME[name].names if column in wanted]
            self.plans.append(Plan(BY_NAME[name], slots, {s: n for n, s in enumerate(slots)}))

    # What a format says itself.

    def read_payload(self, plan: Plan, data: R, part: Part, kinds: Array) -> tuple[Array, Array]:
        """Return values and sizes as Payload has them."""
        raise NotImplementedError

    def text_codes(self, plan: Plan, data: R, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the pool `text` of one column's strings; -1: null."""
        codes = np.full(payload.part.rows.size, -1, np.int32)
        at = np.flatnonzero(payload.sizes[slot] > 0)
        if at.size:
            codes[at] = self.text.codes_of_bytes(
                data.buf,
                payload.values[slot, at],
                payload.sizes[slot, at].astype(np.int64) - 1,
            )
        return codes

    def function_codes(self, plan: Plan, data: R, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the pool `functions` of one column's functions; -1: null."""
        raise NotImplementedError

    def function_numbers(self, codes: Array, values: Array) -> Array:
        """Return int64[n], what the stream holds of functions: keys of facts.symbols where named.

        codes: of function_codes; values: what was recorded, which stays if a format says nothing.
        """
        return values

    def own_columns(self, plan: Plan, data: R, payload: Payload) -> dict[str, pa.Array]:
        """Return the columns that this format makes in its own way."""
        raise NotImplementedError

    # What all share.

    def batch(self, data: R, order: Array, flags: Array | int) -> Batch:
        """Return the rows of `order` as tables and as the stream. flags: of the stream."""
        tables_of = [self.number_of_table[kind.target.table] for kind in self.kinds]
        table_of_kind = np.array(tables_of, np.int32)
        counts = np.empty(len(self.kinds), np.int64)
        starts = np.empty(len(self.tables) + 1, np.int64)
        whole = self._whole_part(order.size)
        stream = {
            name: np.empty(order.size, STREAM_DTYPE[name]) for name in STREAM_DTYPE.names or ()
        }
        group_rows(
            *[order, table_of_kind, data.ts, data.cpu, data.tid, data.kind, data.off, data.size],
            *[counts, np.empty(counts.size, np.int32), np.empty(len(self.tables), np.int64)],
            *[starts, *whole.columns()],
            *[stream[name] for name in ("ts", "cpu", "tid", "kind")],
        )
        stream["first"][:] = stream["second"][:] = ABSENT
        stream["flags"][:] = flags
        tables = {}
        for number, name in enumerate(self.tables):
            begin, end = int(starts[number]), int(starts[number + 1])
            if begin < end:
                part = Part(*(column[begin:end] for column in whole.columns()))
                kinds = np.flatnonzero((counts > 0) & (table_of_kind == number))
                tables[name] = self._build(number, data, part, kinds, stream)
        counts[: self.counts.size] += self.counts
        self.counts = counts
        return Batch(tables, stream)

    def _whole_part(self, rows: int) -> Part:
        # The same memory for every batch: new pages would cost more than what is written there.
        if self._part is None or self._part.rows.size < rows:
            self._part = Part(*(np.empty(rows + rows // 8, column) for column in PART_TYPES))
        return Part(*(column[:rows] for column in self._part.columns()))

    def _build(
        self, number: int, data: R, part: Part, kinds: Array, stream: dict[str, Array]
    ) -> pa.RecordBatch:
        # One table's rows; fills `first` and `second` of the stream.
        plan = self.plans[number]
        values, sizes = self.read_payload(plan, data, part, kinds)
        payload = Payload(part, kinds, values, sizes)
        columns: dict[str, pa.Array] = {}
        numbers: dict[int, Array] = {}
        if plan.table.name in FUNCTIONS:
            pointer, name = FUNCTIONS[plan.table.name]
            slot = plan.slot_of[pointer]
            codes = self.function_codes(plan, data, payload, slot)
            columns[name] = text_column(codes, self.functions.names)
            numbers[slot] = self.function_numbers(codes, values[slot])
        self._stream_fields(plan, payload, numbers, stream)
        # Copies: the part's memory is the next batch's too.
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
            codes = self._of_kinds(
                payload,
                [
                    pool.code(constant) if constant is not None else -1
                    for constant in (self.kinds[k].target.constants.get(name) for k in kinds)
                ],
            )
            make = text_column if plan.table.column(name).type == "text" else enum_column
            columns[name] = make(codes, pool.names)
        for slot, name in enumerate(plan.slots):
            column = plan.table.column(name)
            if name in columns:
                continue
            if column.type == "text":
                columns[name] = text_column(
                    self.text_codes(plan, data, payload, slot), self.text.names
                )
            elif column.type != "enum":  # enums are made from constants or below
                columns[name] = number_column(column, values[slot], sizes[slot] >= 0)
        columns.update(self._derived(plan, payload, stream["first"]))
        columns.update(self.own_columns(plan, data, payload))
        return record_batch(plan.table.name, columns, part.rows.size)

    @staticmethod
    def _of_kinds(payload: Payload, codes: Sequence[int]) -> Array:
        # int32[n]: a code of each kind for every row of it.
        if len(set(codes)) == 1:
            return np.full(payload.part.rows.size, codes[0], np.int32)
        return np.array(codes, np.int32)[payload.part.group]

    def _stream_fields(
        self, plan: Plan, payload: Payload, numbers: dict[int, Array], stream: dict[str, Array]
    ) -> None:
        # numbers: by slot, what stands in the stream instead of the payload's values.
        place, sizes = payload.part.place, payload.sizes
        for which in ("first", "second"):
            out = stream[which]
            slots = []
            for k in payload.kinds:
                target = self.kinds[k].target
                source = getattr(target, which)
                slots.append(plan.slot_of[target.fields[source]] if source else -1)
            for slot in set(slots) - {-1}:
                values = numbers.get(slot, payload.values[slot])
                chosen = np.array(slots) == slot
                if chosen.all():
                    put_field(place, sizes[slot], values, out)
                else:
                    at = np.flatnonzero(chosen[payload.part.group])
                    out[place[at]] = np.where(sizes[slot, at] >= 0, values[at], ABSENT)

    def _derived(self, plan: Plan, payload: Payload, first: Array) -> dict[str, pa.Array]:
        name, kinds = plan.table.name, payload.kinds
        columns: dict[str, pa.Array] = {}
        if name == "pmu_access":
            ops = [OPS.index(self.kinds[k].target.constants["op"]) for k in kinds]
            address = payload.values[plan.slot_of["address"]]
            columns.update(register_columns(np.array(ops, np.int8), payload.part.group, address))
        elif name == "vm_exit":
            made, codes = exit_columns(plan.slot_of, payload.values, payload.sizes, self.reasons)
            columns.update(made)
            first[payload.part.place] = np.where(codes >= 0, codes, ABSENT)
        elif name in ("other_event", "function_span"):
            codes = self._of_kinds(payload, [self.names.code(self.kinds[k].name) for k in kinds])
            columns["name"] = text_column(codes, self.names.names)
        if name in ("vm_entry", "vm_exit"):
            self.fields_missing += int(np.count_nonzero((payload.sizes < 0).all(axis=0)))
        if "vcpu_id" in plan.slot_of:
            self._vcpu_evidence(plan, payload)
        return columns

    def _vcpu_evidence(self, plan: Plan, payload: Payload) -> None:
        slot = plan.slot_of["vcpu_id"]
        # vgic_update_irq_pending names the vCPU that is interrupted, from any thread
        # (linux:arch/arm64/kvm/vgic/trace.h): no evidence of whose thread it is.
        own = np.array([self.kinds[k].name.startswith("kvm_") for k in payload.kinds])
        at = np.flatnonzero((payload.sizes[slot] >= 0) & own[payload.part.group])
        if at.size == 0:
            return
        tids = payload.part.tid[at].astype(np.int64)
        pairs = (tids << 32) | (payload.values[slot, at] & 0xFFFFFFFF)
        found, counts = np.unique(pairs, return_counts=True)
        for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
            key = (pair >> 32, pair & 0xFFFFFFFF)
            self.vcpu_ids[key] = self.vcpu_ids.get(key, 0) + count

    def vcpu_of_threads(self) -> dict[int, int]:
        """Return the vCPU number that most events of each thread carry, by thread."""
        best: dict[int, int] = {}
        for (tid, vcpu_id), count in sorted(self.vcpu_ids.items(), key=lambda item: item[1]):
            best[tid] = vcpu_id if count else best.get(tid, vcpu_id)
        return best
