"""Law 12: a store is whole or absent, whatever stops the program and wherever it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyzer.errors import OutputError
from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline import results as whatif_results
from analyzer.store import Store, open_store
from analyzer.timeline.build import Timeline
from tests.conftest import ROOT

FIXTURE = str(ROOT / "fixtures" / "k73m-guestpmu.pftrace.zst")


def make(folder: Path) -> Store:
    options = IngestOptions(emulated=True)
    return ingest(FIXTURE, folder / "x.vpmu", options, lambda done, total: None)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "no space left")])
@pytest.mark.parametrize("after", [0, 6])
@pytest.mark.parametrize("before", [False, True], ids=["fresh", "over another"])
def test_what_stops_an_ingest_leaves_what_was_there(
    before: bool, after: int, stop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path).manifest if before else None
    tables = Timeline.tables

    def stopped(self: Timeline, *arguments: Any) -> Iterator[Any]:
        for n, rows in enumerate(tables(self, *arguments)):
            if n == after:
                raise stop
            yield rows

    monkeypatch.setattr(Timeline, "tables", stopped)
    with pytest.raises(stop if isinstance(stop, type) else OSError):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == (["x.vpmu"] if before else [])
    if before:
        assert open_store(tmp_path / "x.vpmu").manifest == whole


def test_what_stops_a_whatif_leaves_no_result_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path)

    def full(*arguments: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(whatif_results, "write_table", full)
    with pytest.raises(OutputError, match="cannot write results"):
        whatif(store, choose_designs(["loop"]))
    assert list((store.path / "whatif").iterdir()) == []
