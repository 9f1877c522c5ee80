"""Are the declared tables what schemas/ and the stores say they are?"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from analyzer.pipeline import IngestOptions, ingest
from analyzer.tables import ALL_TABLES, BY_NAME, arrow_schema
from analyzer.tables.schema import schema_of
from analyzer.trouble import COUNTERS

ROOT = Path(__file__).resolve().parents[1]


def test_schemas_have_not_drifted_from_the_declared_tables() -> None:
    stored = {path.stem: json.loads(path.read_text()) for path in (ROOT / "schemas").glob("*.json")}
    assert stored == {table.name: schema_of(table) for table in ALL_TABLES}


def test_every_column_has_a_sentence_and_names_are_unique() -> None:
    for table in ALL_TABLES:
        assert len(set(table.names)) == len(table.names)
        assert all(column.meaning for column in table.columns)
    assert len({counter.name for counter in COUNTERS}) == len(COUNTERS)


def test_parquet_files_carry_the_declared_schema_and_metadata(tmp_path: Path) -> None:
    source = ROOT / "fixtures" / "k73m-guestpmu.pftrace.zst"
    store = ingest(str(source), tmp_path / "x.vpmu", IngestOptions(), lambda done, total: None)
    for name, table in BY_NAME.items():
        if table.group == "whatif":
            continue
        schema = pq.read_schema(store.path / f"{name}.parquet")
        assert schema.remove_metadata().equals(arrow_schema(table).remove_metadata()), name
        for column in table.columns:
            metadata = schema.field(column.name).metadata
            assert metadata[b"meaning"].decode() == column.meaning
