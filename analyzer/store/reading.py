"""Which store is meant, and what is in it? Found by name or age, opened lazily."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import FormatError, InputError, UsageError
from analyzer.store.layout import DATA_VERSION, MANIFEST, SCHEMA, SUFFIX, table_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Store", "find_store", "open_store", "remember_store"]


@dataclass(frozen=True, slots=True)
class Store:
    """An opened store: its folder and manifest; tables are read when asked for."""

    path: Path
    manifest: dict[str, Any]

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(self.manifest["tables"].get(table, 0))

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return a table, or some columns of it, whole."""
        import pyarrow.parquet as pq

        path = self.path / table_file(table)
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, ValueError) as error:
            raise InputError(str(path), "Parquet file", None, str(error)) from error

    def batches(self, table: str, columns: list[str], rows: int) -> Any:
        """Yield record batches of at most `rows` rows, in order."""
        import pyarrow.parquet as pq

        path = self.path / table_file(table)
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(rows, columns=columns)
        except (OSError, ValueError) as error:
            raise InputError(str(path), "Parquet file", None, str(error)) from error


def open_store(path: Path) -> Store:
    """Return the store in that folder; InputError where it is none, or of another version."""
    manifest_path = path / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_text())
    except OSError as error:
        raise InputError(str(manifest_path), "manifest", None, error.strerror or "") from error
    except ValueError as error:
        raise FormatError(str(manifest_path), "manifest", None, str(error)) from error
    found = manifest.get("schema")
    if found != SCHEMA:
        raise FormatError(str(path), "manifest", None, f"schema {found!r}, allowed {SCHEMA!r}")
    version = manifest.get("data_version")
    if version != DATA_VERSION:
        problem = f"data version {version}, allowed {DATA_VERSION}: ingest the recording again"
        raise FormatError(str(path), "manifest", None, problem)
    return Store(path, manifest)


def _state_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local/state")
    return Path(base) / "vpmu-analyzer" / "last-store"


def remember_store(path: Path) -> None:
    """Note the last store ingested; a home that cannot be written is no failure."""
    try:
        _state_file().parent.mkdir(parents=True, exist_ok=True)
        _state_file().write_text(f"{path.resolve()}\n")
    except OSError:
        return


def find_store(name: str | None) -> Store:
    """Return the store named, else the newest `*.vpmu` here, else the last one ingested.

    UsageError where there is none.
    """
    if name is not None:
        return open_store(Path(name))
    here = [p for p in Path().glob(f"*{SUFFIX}") if (p / MANIFEST).exists()]
    if here:
        return open_store(max(here, key=lambda p: (p / MANIFEST).stat().st_mtime_ns))
    try:
        last = Path(_state_file().read_text().strip())
    except OSError:
        last = None
    if last is not None and (last / MANIFEST).exists():
        return open_store(last)
    raise UsageError("no store here and none ingested before: name a STORE or a recording")
