"""How do the JSON schemas under schemas/ come out of the declared tables?

`python -m analyzer.tables.schema --write DIR` writes them; a test refuses drift.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from analyzer.tables import ALL_TABLES, Table

__all__ = ["schema_of", "write_schemas"]


def schema_of(table: Table) -> dict[str, Any]:
    """Return one table as JSON-ready data: name, group, meaning, sort and its columns."""
    return {
        "schema": "vpmu-analyzer/table/1",
        "name": table.name,
        "group": table.group,
        "meaning": table.meaning,
        "sort": table.sort,
        "columns": [
            {
                "name": column.name,
                "type": column.type,
                "unit": column.unit,
                "nullable": column.nullable,
                "meaning": column.meaning,
                "source": column.source,
            }
            for column in table.columns
        ],
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write one NAME.json a table into `folder`, remove others there, return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in ALL_TABLES:
        path = folder / f"{table.name}.json"
        path.write_text(json.dumps(schema_of(table), indent=1, ensure_ascii=False) + "\n")
        written.append(path)
    for stale in set(folder.glob("*.json")) - set(written):
        stale.unlink()
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, required=True, metavar="DIR")
    for written_path in write_schemas(parser.parse_args().write):
        print(written_path.name)
