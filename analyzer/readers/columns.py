"""How do numpy arrays become Arrow columns of a declared table, without an object per row?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.tables import BY_NAME, Column, arrow_schema

__all__ = ["TextPool", "enum_column", "number_column", "record_batch", "text_column"]

_NUMPY = {
    "float64": np.float64,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
Array = np.ndarray[Any, Any]


def _validity(present: Array | None) -> tuple[pa.Buffer | None, int]:
    if present is None:
        return None, 0
    nulls = int(present.size - np.count_nonzero(present))
    if nulls == 0:
        return None, 0
    return pa.py_buffer(np.packbits(present, bitorder="little")), nulls


def number_column(column: Column, values: Array, present: Array | None = None) -> pa.Array:
    """Return a column of numbers or booleans; `present` bool[n], None where all are.

    Wider integers are cut to the column's width, as the kernel's C types do.
    """
    if column.type == "bool":
        bits = pa.py_buffer(np.packbits(values != 0, bitorder="little"))
        validity, nulls = _validity(present)
        return pa.Array.from_buffers(pa.bool_(), len(values), [validity, bits], nulls)
    wanted = np.dtype(_NUMPY[column.type])
    same_bits = values.dtype.kind in "iu" and wanted.kind in "iu"
    if same_bits and values.dtype.itemsize == wanted.itemsize:
        values = values.view(wanted)
    plain = np.ascontiguousarray(values.astype(wanted, copy=False))
    validity, nulls = _validity(present)
    kind = pa.from_numpy_dtype(plain.dtype)
    return pa.Array.from_buffers(kind, len(plain), [validity, pa.py_buffer(plain)], nulls)


def enum_column(
    codes: Array, names: tuple[str, ...] | list[str], width: Any = np.int16
) -> pa.Array:
    """Return a dictionary column; a negative code is null."""
    codes = np.ascontiguousarray(codes.astype(width, copy=False))
    validity, nulls = _validity(codes >= 0)
    indices = pa.Array.from_buffers(
        pa.from_numpy_dtype(codes.dtype), len(codes), [validity, pa.py_buffer(codes)], nulls
    )
    words = _words(names) if isinstance(names, tuple) else pa.array(names, pa.string())
    return pa.DictionaryArray.from_arrays(indices, words)


@lru_cache
def _words(names: tuple[str, ...]) -> pa.Array:
    return pa.array(names, pa.string())


def text_column(codes: Array, names: list[str]) -> pa.Array:
    """Return a dictionary column of an open set of names; a negative code is null."""
    return enum_column(codes, names, np.int32)


class TextPool:
    """Names of one open set, numbered in order of first appearance."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        """Return the number of a name, giving it one if it is new."""
        found = self._codes.get(name)
        if found is None:
            found = self._codes[name] = len(self.names)
            self.names.append(name)
        return found

    def codes_of_bytes(self, buf: Array, offsets: Array, sizes: Array) -> Array:
        """Return int32[n] numbers of strings that stand in `buf`; size -1 gives -1 (null).

        Bytes that are no UTF-8 are kept readable, as `\\xNN`.
        """
        lengths = np.maximum(sizes, 0).astype(np.int64)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        at = np.repeat(offsets - starts, lengths) + np.arange(int(ends[-1]) if len(ends) else 0)
        flat = buf[at]
        bounds = np.concatenate((np.zeros(1, np.int64), ends)).astype(np.int32)
        strings = pa.Array.from_buffers(
            pa.binary(), len(lengths), [None, pa.py_buffer(bounds), pa.py_buffer(flat)]
        )
        encoded = strings.dictionary_encode()
        mapping = np.array(
            [
                self.code(raw.as_py().decode("utf-8", "backslashreplace"))
                for raw in encoded.dictionary
            ],
            np.int32,
        )
        codes = mapping[encoded.indices.to_numpy()] if len(mapping) else np.zeros(0, np.int32)
        codes[sizes < 0] = -1
        return codes


@lru_cache
def _schema(table: str) -> pa.Schema:
    return arrow_schema(BY_NAME[table])


def record_batch(table: str, columns: dict[str, pa.Array], rows: int) -> pa.RecordBatch:
    """Return a record batch of a declared table; columns that are not given are null."""
    schema = _schema(table)
    arrays = [
        columns[item.name] if item.name in columns else pa.nulls(rows, item.type) for item in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
