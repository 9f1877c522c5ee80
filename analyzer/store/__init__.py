"""Where do tables live? In a folder that is whole or absent: Parquet files and a manifest."""

from analyzer.store.reading import Store, find_store, open_store, remember_store
from analyzer.store.writing import StoreWriter, TableWriter, write_table

__all__ = [
    "Store",
    "StoreWriter",
    "TableWriter",
    "find_store",
    "open_store",
    "remember_store",
    "write_table",
]
