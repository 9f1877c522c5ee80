"""How do rows of a table become a polars frame? Imported late: a command may need none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import polars as pl

__all__ = ["frame_of"]


def frame_of(rows: pa.Table | pa.RecordBatch, words: bool = False) -> pl.DataFrame:
    """Return rows as a frame; words: with enumerations as strings."""
    import polars as pl

    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String)) if words else frame
