"""How is a store written so that no reader ever sees half of one? Aside, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analyzer.errors import OutputError
from analyzer.store.layout import (
    GROUP_LIMIT,
    GROUP_ROWS,
    MANIFEST,
    WAITING_BYTES,
    parquet_options,
    table_file,
)
from analyzer.tables import BY_NAME, Table, arrow_schema

__all__ = ["StoreWriter", "TableWriter", "write_table"]

# Batches that wait as they came.
FRESH = 4


class TableWriter:
    """Writes one declared table as Parquet, a row group whenever GROUP_ROWS rows wait."""

    def __init__(self, path: Path, table: Table) -> None:
        self.rows = 0
        self._schema = arrow_schema(table)
        self._waiting: list[pa.RecordBatch] = []
        self._fresh: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._row_bits = sum(_bits(column.type) for column in self._schema)
        self._writer = pq.ParquetWriter(str(path), self._schema, **parquet_options(table))

    def append(self, batch: pa.RecordBatch) -> None:
        """Take rows that follow all before them."""
        self._fresh.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self.flush()
        elif len(self._fresh) >= FRESH:
            # What waits long is moved together: batches hold views of larger arrays, and small
            # blocks that stay between large ones that go leave holes all over the heap.
            table = pa.Table.from_batches(self._fresh, self._schema)
            self._waiting += table.unify_dictionaries().combine_chunks().to_batches()
            self._fresh = []

    @property
    def waiting_bytes(self) -> int:
        """About how much memory the rows take that are not written yet."""
        return self._waiting_rows * self._row_bits // 8

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting_rows:
            return
        batches = self._waiting + self._fresh
        table = pa.Table.from_batches(batches, self._schema).unify_dictionaries()
        self._waiting, self._fresh, self._waiting_rows = [], [], 0
        self._writer.write_table(table, row_group_size=GROUP_LIMIT)

    def close(self) -> None:
        """Write what waits, and the footer."""
        self.flush()
        self._writer.close()


def _bits(kind: pa.DataType) -> int:
    if pa.types.is_dictionary(kind):
        return _bits(kind.index_type)
    # Strings stand in small tables only.
    return 512 if pa.types.is_string(kind) else int(kind.bit_width)


def write_table(path: Path, table: pa.Table, declared: Table) -> None:
    """Write one small table whole; its columns must be those declared."""
    writer = TableWriter(path, declared)
    for batch in table.cast(arrow_schema(declared)).to_batches():
        writer.append(batch)
    writer.close()


class StoreWriter:
    """Writes a store beside its place and renames it whole; nothing is left behind on failure."""

    def __init__(self, target: Path) -> None:
        self.target = target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
        except OSError as error:
            raise OutputError(f"{target}: cannot write here: {error.strerror}") from error
        self.folder = Path(aside)
        self._writers: dict[str, TableWriter] = {}

    def append(self, table: str, batch: pa.RecordBatch) -> None:
        """Append rows to a declared table."""
        writer = self._writers.get(table)
        if writer is None:
            writer = self._writers[table] = TableWriter(
                self.folder / table_file(table), BY_NAME[table]
            )
        try:
            writer.append(batch)
            if sum(one.waiting_bytes for one in self._writers.values()) > WAITING_BYTES:
                max(self._writers.values(), key=lambda one: one.waiting_bytes).flush()
        except OSError as error:
            raise OutputError(f"{self.target}: cannot write table {table}: {error}") from error

    def write(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Write a small table from its rows."""
        schema = arrow_schema(BY_NAME[table])
        for batch in pa.Table.from_pylist(rows, schema).to_batches():
            self.append(table, batch)

    def rewrite(self, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace a table's rows so far by what `change` makes of them, a row group at a time."""
        path = self.folder / table_file(table)
        old = path.with_suffix(".old")
        try:
            self._writers.pop(table).close()
            os.rename(path, old)
            with pq.ParquetFile(old) as file:
                for group in range(file.num_row_groups):
                    rows = change(file.read_row_group(group)).cast(arrow_schema(BY_NAME[table]))
                    for batch in rows.to_batches():
                        self.append(table, batch)
            os.remove(old)
        except OSError as error:
            raise OutputError(f"{self.target}: cannot write table {table}: {error}") from error

    def rows(self) -> dict[str, int]:
        """Return the rows of every table so far."""
        return {name: writer.rows for name, writer in sorted(self._writers.items())}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Close all tables, write the manifest, and put the store in its place."""
        try:
            for name, table in BY_NAME.items():
                if name not in self._writers and table.group != "whatif":
                    # A table without rows is there all the same: absent would mean "not made".
                    self._writers[name] = TableWriter(self.folder / table_file(name), table)
            manifest = {**manifest, "tables": self.rows()}
            for writer in self._writers.values():
                writer.close()
            text = json.dumps(manifest, indent=1, ensure_ascii=False)
            (self.folder / MANIFEST).write_text(text + "\n")
            os.chmod(self.folder, 0o755)
            replace_folder(self.folder, self.target)
        except OSError as error:
            raise OutputError(f"{self.target}: cannot write: {error}") from error

    def abandon(self) -> None:
        """Remove what was written aside; for use after a failure."""
        for writer in self._writers.values():
            writer._writer.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def replace_folder(made: Path, target: Path) -> None:
    """Rename `made` to `target`, taking away what was there before."""
    old = None
    if target.exists():
        if not (target / MANIFEST).exists():
            raise OutputError(f"{target}: exists and is no store of ours, so it is left alone")
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        os.rename(target, old)
    os.rename(made, target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
