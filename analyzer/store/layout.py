"""What is a store on disk? Names of its files, its version, and how each column is encoded."""

from __future__ import annotations

from typing import Any

from analyzer.tables import Table

SUFFIX = ".vpmu"
MANIFEST = "manifest.json"
WHATIF_FOLDER = "whatif"
SCHEMA = "vpmu-analyzer/store/1"
# Goes up whenever the same recording would give other tables; part of every what-if's name.
DATA_VERSION = 1
# design.md section 4 allows 1 Mi rows a group; an eighth of it keeps the writers' buffers small,
# of which every table has one.
GROUP_ROWS = 128 * 1024


def parquet_options(table: Table) -> dict[str, Any]:
    """Return ParquetWriter's options for a table.

    Names are dictionary columns already. Times and small integers go as differences: cheaper to
    write than a dictionary that must be built, and smaller. 64-bit values are left plain: there is
    nothing to gain from them.
    """
    names = [c.name for c in table.columns if c.type in ("enum", "text")]
    deltas = {
        c.name: "DELTA_BINARY_PACKED"
        for c in table.columns
        if c.type in ("int32", "int64", "uint32")
    }
    statistics = [c.name for c in table.columns if c.name in ("ts", "end", "cpu")]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": names or False,
        "column_encoding": deltas or None,
        "write_statistics": statistics or False,
    }


def table_file(name: str) -> str:
    """Return the file name of a table inside a store."""
    return f"{name}.parquet"
