"""Which rows of a long table does a question about costs need? Read batch by batch, few kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analyzer.pipeline.prices.operations import BATCH_ROWS
from analyzer.replay import Part
from analyzer.store import Store
from analyzer.store.frames import frame_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["held_points", "points_of", "with_vcpu"]


def points_of(store: Store, kinds: Sequence[int]) -> pl.DataFrame:
    """Return the points of some kinds that name a vCPU: ts, cpu, vcpu, kind, detail, in order."""

    found = []
    columns = ["ts", "cpu", "vcpu", "kind", "detail"]
    wanted = pa.array(kinds, pa.uint8())
    for batch in store.batches("point", columns, BATCH_ROWS):
        table = pa.Table.from_batches([batch])
        mine = pc.and_(pc.is_in(table["kind"], wanted), pc.is_valid(table["vcpu"]))
        found.append(table.filter(mine))
    return frame_of(pa.concat_tables(found) if found else store.read("point", columns))


def held_points(store: Store, part: Part, kinds: Sequence[int]) -> pl.DataFrame:
    """Return those of `points_of` that are in the part."""
    import polars as pl

    rows = points_of(store, kinds)
    held = part.holds(*(rows[name].to_numpy() for name in ("ts", "cpu", "vcpu")))
    return rows.filter(pl.Series(np.asarray(held)))


def with_vcpu(store: Store, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the `vcpu` of their `tid`, -1 for a thread that is none."""
    import polars as pl

    vcpus = store.read("vcpu", ["vcpu", "tid"]).to_pylist()
    known = {row["tid"]: row["vcpu"] for row in vcpus}
    found = pl.col("tid").replace_strict(known, default=-1, return_dtype=pl.Int32)
    return rows.with_columns(found.alias("vcpu"))
