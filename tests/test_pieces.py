"""Does the size of a piece, of a chunk or of a batch of points change anything? It must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.readers.perfetto import batches, index
from analyzer.tables import BY_NAME
from analyzer.timeline import spool

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.mark.parametrize("name", ["k73m-hostperf", "A-arm64-k72-guestpmu"])
def test_pieces_of_any_size_give_the_same_tables(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(FIXTURES / f"{name}.pftrace.zst")

    def made(folder: str) -> Any:
        return ingest(source, tmp_path / folder, IngestOptions(), lambda done, total: None)

    whole = made("whole.vpmu")
    monkeypatch.setattr(batches, "PIECE", 50_000)
    monkeypatch.setattr(index, "CHUNK", 70_000)
    monkeypatch.setattr(spool, "CHUNK", 1000)
    cut = made("cut.vpmu")
    for table, declared in BY_NAME.items():
        if declared.group != "whatif":
            assert cut.read(table).to_pylist() == whole.read(table).to_pylist(), table
    same = ("loads", "puts", "residency_ns", "blind_ns", "guest_ns")
    for a, b in zip(
        whatif(whole, choose_designs(["all"]))["placements"],
        whatif(cut, choose_designs(["all"]))["placements"],
        strict=True,
    ):
        assert [a[key] for key in same] == [b[key] for key in same]
