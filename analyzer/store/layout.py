"""What is a store on disk? Names of its files, its version, and how each column is encoded."""

from __future__ import annotations

from typing import Any

from analyzer.tables import Table

SUFFIX = ".vpmu"
MANIFEST = "manifest.json"
WHATIF_FOLDER = "whatif"
SCHEMA = "vpmu-analyzer/store/1"
# Goes up whenever the same recording would give other tables; part of every what-if's name.
DATA_VERSION = 6
# design.md section 4 allows 1 Mi rows a group. A table is written out as soon as that many of its
# rows wait, and the largest is when what waits in all tables together gets too big: memory then
# does not grow with the number of tables that fill slowly.
GROUP_LIMIT = 1024 * 1024
GROUP_ROWS = 128 * 1024
WAITING_BYTES = 12 * 1024 * 1024
# Rows that the writer encodes at once: pyarrow's 1024 cost 4 % more.
BATCH_ROWS = 8 * 1024


def parquet_options(table: Table) -> dict[str, Any]:
    """Return ParquetWriter's options for a table.

    Names are dictionary columns already. 64-bit signed values are mostly times and go as
    differences. All else is left plain: a codec finds what repeats in it about as well, and for
    less, than a dictionary or differences would. Nearly all bytes are those of 64-bit columns, so
    they alone get the better and slower codec. Pages end by their bytes alone: pyarrow's limit of
    20,000 rows made pages too small to compress.
    """
    wide = {c.name: c.type in ("int64", "uint64") for c in table.columns}
    names = [c.name for c in table.columns if c.type in ("enum", "text")]
    deltas = {c.name: "DELTA_BINARY_PACKED" for c in table.columns if c.type == "int64"}
    statistics = [c.name for c in table.columns if c.name in ("ts", "end", "cpu")]
    return {
        "compression": {name: "zstd" if is_wide else "lz4" for name, is_wide in wide.items()},
        "compression_level": {name: 1 for name, is_wide in wide.items() if is_wide},
        "use_dictionary": names or False,
        "column_encoding": deltas or None,
        "write_statistics": statistics or False,
        "max_rows_per_page": GROUP_LIMIT,
        "write_batch_size": BATCH_ROWS,
    }


def table_file(name: str) -> str:
    """Return the file name of a table inside a store."""
    return f"{name}.parquet"
