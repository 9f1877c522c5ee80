"""What is a store on disk? Names of its files, its version, and how each column is encoded."""

from __future__ import annotations

from typing import Any

from analyzer.tables import Table

SUFFIX = ".vpmu"
MANIFEST = "manifest.json"
WHATIF_FOLDER = "whatif"
SCHEMA = "vpmu-analyzer/store/1"
# Goes up whenever the same recording would give other tables; part of every what-if's name.
DATA_VERSION = 5
# design.md section 4 allows 1 Mi rows a group. A table is written out as soon as that many of its
# rows wait, and the largest is when what waits in all tables together gets too big: memory then
# does not grow with the number of tables that fill slowly.
GROUP_LIMIT = 1024 * 1024
GROUP_ROWS = 128 * 1024
WAITING_BYTES = 12 * 1024 * 1024


def parquet_options(table: Table) -> dict[str, Any]:
    """Return ParquetWriter's options for a table.

    Names are dictionary columns already. 64-bit signed values are mostly times and go as
    differences. All else is left plain: zstd finds what repeats in it about as well, and for less,
    than a dictionary or differences would. Pages end by their bytes alone: pyarrow's limit of
    20,000 rows made pages too small to compress.
    """
    names = [c.name for c in table.columns if c.type in ("enum", "text")]
    deltas = {c.name: "DELTA_BINARY_PACKED" for c in table.columns if c.type == "int64"}
    statistics = [c.name for c in table.columns if c.name in ("ts", "end", "cpu")]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": names or False,
        "column_encoding": deltas or None,
        "write_statistics": statistics or False,
        "max_rows_per_page": GROUP_LIMIT,
    }


def table_file(name: str) -> str:
    """Return the file name of a table inside a store."""
    return f"{name}.parquet"
