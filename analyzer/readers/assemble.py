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
from analyzer.readers.merge import spread_fields, take_heads
from analyzer.readers.recording import ABSENT
from analyzer.readers.registers import OPS, register_columns
from analyzer.tables import BY_NAME, Table

__all__ = ["Assembler", "Kind", "Payload", "Plan", "Rows"]

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

    kinds: int64[k], the kinds that occur; group: int32[n], which of them a row is. values:
    int64[slots, n], the integer (two's complement) or the offset of a string's bytes; sizes:
    int32[slots, n], -1 absent, 0 for an integer, else the size of a string plus 1.
    """

    rows: Array
    kinds: Array
    group: Array
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
        self.vcpu_ids: dict[tuple[int, int], int] = {}
        targets = {target.table for target in EVENTS.values()} | {"other_event", "function_span"}
        self.tables = sorted(targets)
        self.number_of_table = {name: n for n, name in enumerate(self.tables)}
        self.plans: list[Plan] = []
        for name in self.tables:
            wanted = {c for t in EVENTS.values() if t.table == name for c in t.fields.values()}
            if name == "other_event":
                wanted = {"vcpu_id"}
            slots = [column for column in BY_NAME[name].names if column in wanted]
            self.plans.append(Plan(BY_NAME[name], slots, {s: n for n, s in enumerate(slots)}))

    # What a format says itself.

    def read_payload(
        self, plan: Plan, data: R, rows: Array, kinds: Array, group: Array
    ) -> tuple[Array, Array]:
        """Return values and sizes as Payload has them."""
        raise NotImplementedError

    def text_codes(self, plan: Plan, data: R, payload: Payload, slot: int) -> Array:
        """Return int32[n] numbers in the pool `text` of one column's strings; -1: null."""
        codes = np.full(payload.rows.size, -1, np.int32)
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

    def table_of_kind(self) -> Array:
        """Return int32[kinds], the table that rows of each kind go to."""
        return np.array([self.number_of_table[k.target.table] for k in self.kinds], np.int32)

    def build(
        self, number: int, data: R, rows: Array, first: Array, second: Array
    ) -> pa.RecordBatch:
        """Return one table's record batch; fill `first` and `second` (int64, by row of data,
        ABSENT before)."""
        plan = self.plans[number]
        number_of_kind = np.empty(len(self.kinds), np.int32)
        ts = np.empty(rows.size, np.int64)
        cpu, tid, group = (np.empty(rows.size, np.int32) for _ in range(3))
        take_heads(
            rows, data.ts, data.cpu, data.tid, data.kind, number_of_kind, ts, cpu, tid, group
        )
        kinds = np.flatnonzero(number_of_kind >= 0)
        values, sizes = self.read_payload(plan, data, rows, kinds, group)
        payload = Payload(rows, kinds, group, values, sizes)
        columns: dict[str, pa.Array] = {}
        numbers: dict[int, Array] = {}
        if plan.table.name in FUNCTIONS:
            pointer, name = FUNCTIONS[plan.table.name]
            slot = plan.slot_of[pointer]
            codes = self.function_codes(plan, data, payload, slot)
            columns[name] = text_column(codes, self.functions.names)
            numbers[slot] = self.function_numbers(codes, values[slot])
        self._stream_fields(plan, payload, numbers, first, second)
        head: dict[str, Array] = {"ts": ts, "cpu": cpu, "tid": tid}
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
        columns.update(self._derived(plan, data, payload, first))
        columns.update(self.own_columns(plan, data, payload))
        return record_batch(plan.table.name, columns, rows.size)

    @staticmethod
    def _of_kinds(payload: Payload, codes: Sequence[int]) -> Array:
        return np.array(codes, np.int32)[payload.group]

    def _stream_fields(
        self, plan: Plan, payload: Payload, numbers: dict[int, Array], first: Array, second: Array
    ) -> None:
        # numbers: by slot, what stands in the stream instead of the payload's values.
        values = payload.values.copy() if numbers else payload.values
        for slot, replaced in numbers.items():
            values[slot] = replaced
        for out, which in ((first, "first"), (second, "second")):
            slots = np.full(payload.kinds.size, -1, np.int32)
            for g, k in enumerate(payload.kinds.tolist()):
                target = self.kinds[k].target
                source = getattr(target, which)
                if source:
                    slots[g] = plan.slot_of[target.fields[source]]
            if (slots >= 0).any():
                spread_fields(payload.rows, payload.group, slots, values, payload.sizes, out)

    def _derived(self, plan: Plan, data: R, payload: Payload, first: Array) -> dict[str, pa.Array]:
        name, kinds = plan.table.name, payload.kinds
        columns: dict[str, pa.Array] = {}
        if name == "pmu_access":
            op = self._of_kinds(
                payload, [OPS.index(self.kinds[k].target.constants["op"]) for k in kinds]
            )
            address = payload.values[plan.slot_of["address"]]
            columns.update(register_columns(op.astype(np.int8), address))
        elif name == "vm_exit":
            made, codes = exit_columns(plan.slot_of, payload.values, payload.sizes, self.reasons)
            columns.update(made)
            first[payload.rows] = np.where(codes >= 0, codes, ABSENT)
        elif name in ("other_event", "function_span"):
            codes = self._of_kinds(payload, [self.names.code(self.kinds[k].name) for k in kinds])
            columns["name"] = text_column(codes, self.names.names)
        if name in ("vm_entry", "vm_exit"):
            self.fields_missing += int(np.count_nonzero((payload.sizes < 0).all(axis=0)))
        if "vcpu_id" in plan.slot_of:
            self._vcpu_evidence(plan, data, payload)
        return columns

    def _vcpu_evidence(self, plan: Plan, data: R, payload: Payload) -> None:
        slot = plan.slot_of["vcpu_id"]
        # vgic_update_irq_pending names the vCPU that is interrupted, from any thread
        # (linux:arch/arm64/kvm/vgic/trace.h): no evidence of whose thread it is.
        own = np.array([self.kinds[k].name.startswith("kvm_") for k in payload.kinds])
        at = np.flatnonzero((payload.sizes[slot] >= 0) & own[payload.group])
        if at.size == 0:
            return
        tids = data.tid[payload.rows[at]].astype(np.int64)
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
