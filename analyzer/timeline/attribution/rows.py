"""How do swaps, episodes and marks become tables? Numbers to Arrow, table by table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.jit import kernel
from analyzer.readers.columns import enum_column, number_column, record_batch
from analyzer.tables import BY_NAME
from analyzer.timeline import kernels as k
from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution.match import DIRECTIONS, Grammars
from analyzer.timeline.attribution.words import ACTORS, CONTEXTS, Context
from analyzer.timeline.spool import Chunk

__all__ = ["attributed_rows", "called_rows", "found_rows"]

Array = np.ndarray[Any, Any]
SWAP_KINDS = (*DIRECTIONS[:2], "again")
TOLD = (None, "told", "untold")
EDGES = {Context.SWITCH_OUT: 0, Context.SWITCH_IN: 1}
CONTEXTS_ONCE = tuple(dict.fromkeys(CONTEXTS[1:]))
_CONTEXT_CODE = np.array([-1, *(CONTEXTS_ONCE.index(name) for name in CONTEXTS[1:])], np.int16)


def _number(table: str, column: str, values: Array, present: Array | None = None) -> pa.Array:
    return number_column(BY_NAME[table].column(column), values, present)


def found_rows(
    swaps: Array, episodes: Array, grammars: Grammars
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield rows of recorded_swap and host_episode (bursts.SWAP_ROW and EPISODE_ROW columns)."""
    if len(swaps):
        name, raw = "recorded_swap", swaps.T
        load = raw[b.S_KIND] == 0
        known = None if grammars.registers else np.zeros(len(swaps), bool)
        columns = {
            "kind": enum_column(raw[b.S_KIND], SWAP_KINDS),
            "vcpu": _number(name, "vcpu", raw[b.S_VCPU], raw[b.S_VCPU] >= 0),
            "perf": enum_column(raw[b.S_TOLD] - 1, TOLD[1:]),
            "grammar": enum_column(raw[b.S_GRAMMAR], grammars.names),
            "guest_pmu_on": _number(
                name, "guest_pmu_on", raw[b.S_ON] > 0, load if known is None else known
            ),
            "guest_counters": _number(
                name, "guest_counters", raw[b.S_ON], load if known is None else known
            ),
        }
        plain = {
            "ts": b.S_TS, "end": b.S_END, "switched_ts": b.S_DONE, "cpu": b.S_CPU,
        }  # fmt: skip
        counted = {
            "kvm_reads": b.S_KVM_READS, "kvm_writes": b.S_KVM_WRITES,
            "perf_reads": b.S_PERF_READS, "perf_writes": b.S_PERF_WRITES,
            "redundant_writes": b.S_REDUNDANT, "counters": b.S_COUNTERS,
        }  # fmt: skip
        columns.update({key: _number(name, key, raw[at]) for key, at in plain.items()})
        columns.update({key: _number(name, key, raw[at], known) for key, at in counted.items()})
        yield name, record_batch(name, columns, len(swaps))
    if len(episodes):
        name, raw = "host_episode", episodes.T
        context = raw[b.E_CONTEXT]
        edge = np.full(len(episodes), -1)
        for which, code in EDGES.items():
            edge[context == which] = code
        columns = {
            "context": enum_column(_CONTEXT_CODE[context], CONTEXTS_ONCE),
            "edge": enum_column(edge, ("out", "in")),
            "evidence": enum_column(np.zeros(len(episodes), np.int8), ("observed",)),
            "vcpu": _number(name, "vcpu", raw[b.E_VCPU], raw[b.E_VCPU] >= 0),
            "guest_state_on": _number(name, "guest_state_on", raw[b.E_LOADED]),
            "counters": _number(
                name, "counters", raw[b.E_COUNTERS], raw[b.E_COUNTERS] != b.NO_COUNTERS
            ),
        }
        plain = {
            "episode": b.E_NUMBER, "ts": b.E_TS, "end": b.E_END, "cpu": b.E_CPU, "tid": b.E_TID,
            "accesses": b.E_ACCESSES, "operations": b.E_TOKENS,
        }  # fmt: skip
        columns.update({key: _number(name, key, raw[at]) for key, at in plain.items()})
        yield name, record_batch(name, columns, len(episodes))


@kernel
def _accesses(ts, cpu, code, marks, episodes, context_code, out_ts, out_cpu, actor, context, of):  # type: ignore[no-untyped-def]
    # Packs what is known of the accesses of a chunk; returns how many there are.
    rows = 0
    for n in range(ts.size):
        what = code[n]
        if what == k.MSR_READ or what == k.MSR_WRITE or what == k.RDPMC:
            out_ts[rows], out_cpu[rows], of[rows] = ts[n], cpu[n], episodes[n]
            actor[rows] = np.int16(marks[n] & 15) - 1
            context[rows] = context_code[(marks[n] >> 4) & 15]
            rows += 1
    return rows


def attributed_rows(
    chunk: Chunk, marks: Array, episodes: Array
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield rows of pmu_attribution: one for each register access of the chunk, in its order."""
    size = chunk.ts.size
    ts, cpu, episode = np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size, np.int64)
    actor, context = np.empty(size, np.int16), np.empty(size, np.int16)
    rows = _accesses(
        chunk.ts, chunk.cpu, chunk.code, marks, episodes, _CONTEXT_CODE, ts, cpu, actor, context,
        episode,
    )  # fmt: skip
    if not rows:
        return
    name = "pmu_attribution"
    columns = {
        "ts": _number(name, "ts", ts[:rows]),
        "cpu": _number(name, "cpu", cpu[:rows]),
        "actor": enum_column(actor[:rows], ACTORS[1:]),
        "context": enum_column(context[:rows], CONTEXTS_ONCE),
        "episode": _number(name, "episode", episode[:rows], episode[:rows] >= 0),
    }
    yield name, record_batch(name, columns, rows)


def called_rows(
    chunk: Chunk, marks: Array, episodes: Array, is_span: Array, function: Array, names: list[str]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield rows of function_attribution: one for each row of function_span, in its order.

    is_span bool[kinds], function int64[kinds] (number in names; -1: none of them).
    """
    rows = np.flatnonzero(chunk.kind >= 0)
    rows = rows[is_span[chunk.kind[rows]]]
    if not rows.size:
        return
    name = "function_attribution"
    actor = (marks[rows] & 15).astype(np.int8)
    columns = {
        "ts": _number(name, "ts", chunk.ts[rows]),
        "cpu": _number(name, "cpu", chunk.cpu[rows]),
        "function": enum_column(function[chunk.kind[rows]], names),
        "actor": enum_column(actor - 1, ACTORS[1:]),
        "context": enum_column(_CONTEXT_CODE[(marks[rows] >> 4) & 15], CONTEXTS_ONCE),
        "episode": _number(name, "episode", episodes[rows], episodes[rows] >= 0),
    }
    yield name, record_batch(name, columns, rows.size)
