"""Which tables the program makes: every column declared once, here and nowhere else."""

from analyzer.tables.columns import Column, Table, arrow_schema, arrow_type
from analyzer.tables.recorded import RECORDED
from analyzer.tables.timeline import TIMELINE
from analyzer.tables.whatif import WHATIF

__all__ = [
    "ALL_TABLES",
    "BY_NAME",
    "RECORDED",
    "TIMELINE",
    "WHATIF",
    "Column",
    "Table",
    "arrow_schema",
    "arrow_type",
]

ALL_TABLES: tuple[Table, ...] = (*RECORDED, *TIMELINE, *WHATIF)
BY_NAME: dict[str, Table] = {table.name: table for table in ALL_TABLES}
