"""How do the forward pass's rows become tables? Columns of numbers to Arrow, table by table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.readers.columns import enum_column, number_column, record_batch, text_column
from analyzer.readers.recording import RecordingFacts
from analyzer.tables import BY_NAME
from analyzer.timeline import forward as f
from analyzer.timeline import truth

__all__ = ["OWNERS", "timeline_rows"]

Array = np.ndarray[Any, Any]
OUTPUTS = ("point", "guest_slice", "mode_slice", "residency", "owner_slice", "truth_difference")
BOUNDARY_OF_BIT = (0, 1, 2, 2, 3)  # GUEST exit, LOOP loop, INNER vcpu, OUTER vcpu, SCHED sched
BOUNDARIES = ("exit", "loop", "vcpu", "sched")
BOUNDS = ("exact", "fewest", "most")
OWNERS = ("host", "vcpu", "shared", "unknown")


def timeline_rows(
    out: Array, filled: Array, rules: Array, facts: RecordingFacts
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (table, rows) of what one call of `advance` wrote: out int64[6, n, 7], filled[6]."""
    for which, name in enumerate(OUTPUTS):
        rows = int(filled[which])
        if rows:
            # Copies: `out` is used again, and a single row would else be a view of it.
            raw = [out[which, :rows, n].copy() for n in range(7)]
            yield name, record_batch(name, _columns(name, raw, rules, facts), rows)


def _columns(
    name: str, raw: list[Array], rules: Array, facts: RecordingFacts
) -> dict[str, pa.Array]:
    table = BY_NAME[name]

    def number(column: str, values: Array, present: Array | None = None) -> pa.Array:
        return number_column(table.column(column), values, present)

    if name == "point":
        return {
            "ts": number("ts", raw[0]), "cpu": number("cpu", raw[1]),
            "vcpu": number("vcpu", raw[2], raw[2] >= 0), "kind": number("kind", raw[3]),
            "detail": number("detail", raw[4]),
        }  # fmt: skip
    if name == "truth_difference":
        return {
            "ts": number("ts", raw[0]), "cpu": number("cpu", raw[1]),
            "vcpu": number("vcpu", raw[2], raw[2] >= 0),
            "level": enum_column(raw[3], truth.LEVEL_NAMES),
            "cause": enum_column(raw[4], truth.CAUSES), "count": number("count", raw[5]),
        }  # fmt: skip
    spans = {"ts": number("ts", raw[0]), "end": number("end", raw[1])}
    if name == "owner_slice":
        owner = raw[3]
        codes = np.where(owner >= 0, 1, np.where(owner == f.OWNER_HOST, 0, 3))
        return {
            **spans, "cpu": number("cpu", raw[2]), "owner": enum_column(codes, OWNERS),
            "vcpu": number("vcpu", owner, owner >= 0),
        }  # fmt: skip
    vcpu = {"vcpu": number("vcpu", raw[3])}
    if name == "guest_slice":
        return {
            **spans, **vcpu, "cpu": number("cpu", raw[2]),
            "ended_by": enum_column(raw[4], f.ENDED_BY),
            "exit_ts": number("exit_ts", raw[5], raw[5] != f.NOT_KNOWN),
            "reason": text_column(raw[6], facts.reasons),
        }  # fmt: skip
    if name == "mode_slice":
        return {
            **spans, **vcpu, "cpu": number("cpu", raw[2], raw[2] >= 0),
            "mode": enum_column(raw[4], f.MODES),
        }  # fmt: skip
    # Two marks of vcpu_load leave a range; a loop without its mark has its fewest swaps here.
    both = rules[f.R_IOCTL] == 1 or rules[f.R_TIMER] == 1
    known = rules[f.R_MARKS] or rules[f.R_EXACT]
    bounds = np.array([0, 0 if known else 1, 1 if both else 0, 2, 0])
    return {
        **spans, **vcpu, "cpu": number("cpu", raw[2]),
        "boundary": enum_column(np.array(BOUNDARY_OF_BIT)[raw[4]], BOUNDARIES),
        "bound": enum_column(bounds[raw[4]], BOUNDS),
    }  # fmt: skip
