"""What a declared table is made of: columns with type, unit, nullability, source and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# The only types a column may have. `enum` is a small closed set, `text` an open one; both are
# dictionary columns, so that a name costs its bytes once a row group.
TYPES = ("bool", "enum", "float64", "int32", "int64", "string", "text", "uint8", "uint32", "uint64")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `type` is one of TYPES, `unit` None where a number counts nothing."""

    name: str
    type: str
    meaning: str
    source: str = ""
    unit: str | None = None
    nullable: bool = False

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ValueError(f"column {self.name}: type {self.type} is not one of {TYPES}")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `group` is recorded, timeline or whatif; `sort` the column it is sorted by."""

    name: str
    group: str
    meaning: str
    columns: tuple[Column, ...]
    sort: str | None = "ts"

    def column(self, name: str) -> Column:
        """Return the column of that name; KeyError where the table has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name}")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in declared order."""
        return tuple(column.name for column in self.columns)


def arrow_type(column: Column) -> pa.DataType:
    """Return the Arrow type of a column (dictionary<int16|int32, string> for enum and text)."""
    import pyarrow as pa

    if column.type == "enum":
        return pa.dictionary(pa.int16(), pa.string())
    if column.type == "text":
        return pa.dictionary(pa.int32(), pa.string())
    return {
        "bool": pa.bool_(),
        "float64": pa.float64(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "string": pa.string(),
        "uint8": pa.uint8(),
        "uint32": pa.uint32(),
        "uint64": pa.uint64(),
    }[column.type]


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table, with meaning, unit and source as field metadata."""
    import pyarrow as pa

    fields = []
    for column in table.columns:
        metadata = {"meaning": column.meaning, "source": column.source, "unit": column.unit or ""}
        fields.append(pa.field(column.name, arrow_type(column), column.nullable, metadata))
    return pa.schema(
        fields, {"table": table.name, "meaning": table.meaning, "sort": table.sort or ""}
    )
