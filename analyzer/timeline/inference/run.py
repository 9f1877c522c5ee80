"""How are the rules run over a spool? State between chunks, numbers, rows for host_episode.

Inferred episodes are numbered behind all that could be observed. Only where nothing could do they
become points; beside observed ones they are there to be held against them, and change no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analyzer.errors import UsageError
from analyzer.readers.columns import enum_column, number_column, record_batch
from analyzer.readers.recording import RecordingFacts
from analyzer.tables import BY_NAME
from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.attribution.handlers import Handlers, plain_name
from analyzer.timeline.attribution.rows import CONTEXTS_ONCE, found_rows
from analyzer.timeline.attribution.run import Attribution
from analyzer.timeline.attribution.words import CONTEXTS
from analyzer.timeline.inference import kernel as q
from analyzer.timeline.inference.rules import (
    IPI_READ,
    IPI_REMOTE,
    RULES,
    is_frequency,
    unapplied,
)
from analyzer.timeline.marks import Code
from analyzer.timeline.spool import Chunk, Spool

__all__ = ["Inference", "beside", "in_order"]

Array = np.ndarray[Any, Any]
# Bits of an int64 that is never negative.
MOST_EVENTS = 63


class Inference:
    """Runs the rules over chunks in order; `first` is the number of the first inferred episode."""

    def __init__(
        self, spool: Spool, facts: RecordingFacts, handlers: Handlers, slot: Array, first: int
    ) -> None:
        recorded = {name for name, (count, _) in facts.event_counts.items() if count}
        self.why_not = unapplied(recorded, handlers.named, facts.host_events)
        self._applied = np.array([why is None for why in self.why_not])
        self._handlers, self._slot = handlers, slot
        self._cpus = np.zeros((spool.top_cpu + 1, q.CPU_COLUMNS), np.int64)
        self._cpus[:, (x.X_PREVIOUS, x.X_NEXT)] = x.NOBODY
        self._cpus[:, x.X_WHOLE : x.X_PLACE] = x.NOBODY
        self._cpus[:, q.I_RULE] = q.NOBODY
        self._count = np.zeros(len(RULES) + 1, np.int64)
        self._count[-1] = first
        self._context = np.array([int(rule.context) for rule in RULES], np.int64)
        self._calls = {
            rule: np.array(
                [
                    n
                    for n, name in facts.symbols.items()
                    if plain_name(name) in RULES[rule].functions
                ],
                np.int64,
            )
            for rule in (IPI_READ, IPI_REMOTE)
        }
        self._cpu_events, self._tid_events = _where_on(facts, spool)
        self._last = 0

    @property
    def is_applied(self) -> bool:
        """Whether any rule is."""
        return bool(self._applied.any())

    def results(self) -> dict[str, dict[str, Any]]:
        """Return of each rule why it was not applied (None: it was) and how many it found."""
        return {
            rule.id: {
                "applied": why is None,
                "because": why,
                "inferred": int(count) if why is None else None,
            }
            for rule, why, count in zip(RULES, self.why_not, self._count[:-1], strict=True)
        }

    def feed(self, chunk: Chunk) -> tuple[Array, Array, Array]:
        """Return the rows (kernel.E_*) of handlers that ended in a chunk, in order of their end,
        and marks uint16[n] and numbers int64[n] (-1: none) of those that begin in it."""
        size = chunk.ts.size
        call = np.full(size, q.NOBODY, np.int8)
        calls = np.flatnonzero(chunk.code == Code.FUNCTION_IN)
        for rule, functions in self._calls.items():
            call[calls[np.isin(chunk.first[calls], functions)]] = rule
        classes = self._handlers.classes(chunk.code, chunk.kind, chunk.first, chunk.second)
        marks, numbers = np.zeros(size, np.uint16), np.full(size, -1, np.int64)
        rows = np.empty((size + len(self._cpus), q.ROW), np.int64)
        filled = np.zeros(1, np.int64)
        q.infer(
            chunk.ts, chunk.cpu, chunk.tid, chunk.code, chunk.flags, chunk.first, chunk.second,
            classes, call, self._slot, self._applied, self._context,
            self._handlers.timers_recorded, self._cpu_events, self._tid_events, self._cpus,
            self._count, marks, numbers, rows, filled,
        )  # fmt: skip
        if size:
            self._last = int(chunk.ts[-1])
        return rows[: filled[0]].copy(), marks, numbers

    def finish(self) -> Array:
        """Return the rows of what still ran at the end."""
        rows, filled = np.empty((len(self._cpus), q.ROW), np.int64), np.zeros(1, np.int64)
        q.finish(self._last, self._cpus, rows, filled)
        return rows[: filled[0]]

    def batch(self, rows: Array) -> pa.RecordBatch:
        """Return rows as host_episode has them."""
        table, raw = BY_NAME["host_episode"], rows.T
        rule = raw[q.E_RULE]
        context = [CONTEXTS_ONCE.index(CONTEXTS[r.context]) for r in RULES]
        vcpu = self._slot[np.clip(raw[q.E_TID] + 1, 0, self._slot.size - 1)]
        columns = {
            "context": enum_column(np.array(context)[rule], CONTEXTS_ONCE),
            "evidence": enum_column(np.zeros(len(rows), np.int8), ("inferred",)),
            "rule": enum_column(rule, [r.id for r in RULES]),
            "operations": number_column(
                table.column("operations"), np.array([int(r.operations) for r in RULES])[rule]
            ),
            "vcpu": number_column(table.column("vcpu"), vcpu, vcpu >= 0),
        }
        plain = {
            "episode": q.E_NUMBER, "ts": q.E_TS, "end": q.E_END, "cpu": q.E_CPU, "tid": q.E_TID,
        }  # fmt: skip
        columns.update({n: number_column(table.column(n), raw[at]) for n, at in plain.items()})
        return record_batch("host_episode", columns, len(rows))


def _where_on(facts: RecordingFacts, spool: Spool) -> tuple[Array, Array]:
    # Frequency-mode events as bits, by CPU and by tid + 1.
    events = [event for event in facts.host_events if is_frequency(event)]
    if len(events) > MOST_EVENTS:
        problem = f"{len(events)} host events in frequency mode; allowed: {MOST_EVENTS}"
        raise UsageError(problem)
    on_cpu = np.zeros(spool.top_cpu + 1, np.int64)
    of_tid = np.zeros(spool.top_tid + 2, np.int64)
    for number, event in enumerate(events):
        bit = 1 << number
        for first, last in _ranges(event.get("cpus"), on_cpu.size):
            on_cpu[first : last + 1] |= bit
        tid, pid = event.get("tid"), event.get("pid")
        if tid is None and pid is None:
            of_tid |= bit
        for thread in _threads(tid, pid, facts):
            if 0 <= thread + 1 < of_tid.size:
                of_tid[thread + 1] |= bit
    return on_cpu, of_tid


def _threads(tid: int | None, pid: int | None, facts: RecordingFacts) -> set[int]:
    own = {number for number in (tid, pid) if number is not None}
    if pid is None:
        return own
    return own | {thread.tid for thread in facts.threads if thread.tgid == pid}


def _ranges(cpus: str | None, size: int) -> list[tuple[int, int]]:
    # "0,2-3" as table host_event has it; null: all of them.
    if cpus is None:
        return [(0, size)]
    ends = [item.split("-") for item in cpus.split(",")]
    return [(int(pair[0]), int(pair[-1])) for pair in ends]


def beside(
    inference: Inference, attribution: Attribution, handlers: Handlers
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield rows of recorded_swap and of host_episode, what is inferred among what is observed."""
    waiting = np.zeros((0, q.ROW), np.int64)
    for swaps, episodes in attribution.run(handlers):
        tables = dict(found_rows(swaps, episodes, attribution.grammars))
        if inference.is_applied and attribution.chunk is not None:
            rows, _, _ = inference.feed(attribution.chunk)
            waiting = np.concatenate((waiting, rows))
            ready = waiting[:, q.E_END] < attribution.settled
            rows, waiting = waiting[ready], waiting[~ready]
            if len(rows):
                mine = [inference.batch(rows)]
                mine += [tables.pop("host_episode")] if "host_episode" in tables else []
                yield from (("host_episode", batch) for batch in in_order(mine))
        yield from tables.items()
    if inference.is_applied:
        # What still runs where the recording ends.
        rest = np.concatenate((waiting, inference.finish()))
        if len(rest):
            yield "host_episode", inference.batch(rest)


def in_order(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some batches of host_episode in order of their end."""
    whole = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    yield from whole.take(pc.sort_indices(whole["end"])).combine_chunks().to_batches()
