"""Does attribution say of every access what a plain reading of the facts says?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.pipeline import IngestOptions, ingest
from analyzer.readers.recording import ReadOptions
from analyzer.readers.registry import find_reader
from analyzer.readers.unwrap import seekable_path
from analyzer.store import Store
from analyzer.trouble import Trouble
from tests.reference_attribution import Reference, Row
from tests.swap_histories import History

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NO_FLAGS = 255
NAMED = ("hrtimer_expire_entry", "csd_function_entry", "csd_function_exit")


def rows_of(path: Path, store: Store) -> list[Row]:
    """The recording's events in its own order, and the edges of what is whole among them."""
    made: list[tuple[int, int, Row]] = []
    with seekable_path(str(path), lambda line: None) as plain:
        recording = find_reader(plain, str(path)).open(plain, ReadOptions(), Trouble())
        streams: list[dict[str, Any]] = [
            b.stream for b in recording.batches(lambda done, all: None)
        ]
        facts = recording.facts
        recording.close()
    columns = ("ts", "cpu", "tid", "kind", "first", "second", "flags")
    for stream in streams:
        parts = [stream[c].tolist() for c in columns]
        for ts, cpu, tid, kind, first, second, flags in zip(*parts, strict=True):
            name = facts.event_names[kind]
            known = None if flags == NO_FLAGS else flags
            function = facts.symbols.get(first) if name in NAMED else None
            row = Row(ts, cpu, tid, name, first, second, known, function)
            made.append((ts, 1, row))
    for window in store.read("window").to_pylist():
        for key, name, rank in (("ts", "window", 0), ("end", "loss", 2)):
            at = window[key]
            made.append((at, rank, Row(at, window["cpu"], 0, name, 0, 0, None)))
    made.sort(key=lambda item: item[:2])
    return [row for _, _, row in made]


def compare(path: Path, store: Store, amd: bool) -> int:
    vcpus = set(store.read("vcpu")["tid"].to_pylist())
    said = Reference(amd, vcpus).run(rows_of(path, store))
    read = pl.from_arrow(store.read("pmu_attribution"))
    assert isinstance(read, pl.DataFrame)
    found = list(read.select("actor", "context").iter_rows())
    assert len(found) == len(said)
    differ = [
        (n, read["ts"][n], read["cpu"][n], a, b)
        for n, (a, b) in enumerate(zip(found, said, strict=True))
        if a != b
    ]
    assert not differ, (len(differ), differ[:5])
    return len(found)


@pytest.mark.parametrize(
    ("name", "amd", "least"),
    [
        ("k73m-fn-hostperf.trace.dat.zst", True, 24_000),
        ("moved/k73v-hostperf.trace.dat.zst", True, 44_000),
        ("k73mi-guestpmu.pftrace.zst", False, 10_000),
    ],
)
def test_recording_is_attributed_as_the_facts_say(
    tmp_path: Path, name: str, amd: bool, least: int
) -> None:
    store = ingest(
        str(FIXTURES / name), tmp_path / "x.vpmu", IngestOptions(True), lambda d, a: None
    )
    assert compare(FIXTURES / name, store, amd) >= least


HOST = st.sampled_from([None, 0, 1, 3])
VALUES = st.sampled_from([(), (0x1234,), (0x1234, 0x777)])
LOOP = st.tuples(st.just("loop"), HOST, VALUES, st.none() | st.integers(0, 60))
OTHERS = st.tuples(st.sampled_from(["tick", "idle_tick", "mux", "ipi", "nmi"]))
SWITCH = st.tuples(st.just("switch"), st.integers(0, 2), st.integers(0, 2))


# Two vCPUs' threads and one that is none share one CPU; what they do beside their loops is the
# host's. NMIs are put between any two accesses of a swap. Whether perf has its half at all changes
# when an event is made or closed, which takes an interrupt: it never changes between two loops
# that nothing parts, where a pair of writes could be the end of the one or the begin of the other,
# nor between a switch to a thread that has events and that thread's next loop.
@given(
    st.sampled_from(["AuthenticAMD", "GenuineIntel"]),
    st.booleans(),
    st.lists(LOOP | OTHERS | SWITCH, min_size=1, max_size=25),
)
def test_histories_are_attributed_as_written_and_as_the_facts_say(
    vendor: str, lvtpc: bool, acts: list[tuple[Any, ...]]
) -> None:
    amd = vendor == "AuthenticAMD"
    history = History(vendor, 6 if amd else 4, 0 if amd else 3, lvtpc)
    history.guest()
    threads, has_half = 7, True
    history.loop(1, (0x1234,))
    for act in acts:
        if act[0] == "loop" and history.tid != 9:
            if has_half is not (act[1] is not None):
                history.tick(False)
            has_half = act[1] is not None
            history.done = 0
            history.before = {} if act[3] is None else {act[3]: history.nmi}
            history.loop(act[1], act[2], history.tid - 7)
            history.before = {}
        elif act[0] == "switch":
            threads = {7: 8, 8: 9, 9: 7}[threads]
            history.switch(threads, act[1], act[2])
            has_half = True
        elif act[0] in ("tick", "idle_tick"):
            history.tick(act[0] == "tick")
        elif act[0] == "mux":
            history.tick(function="perf_mux_hrtimer_handler")
        elif act[0] != "loop":
            getattr(history, act[0])()
    history.tick(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dat"
        path.write_bytes(history.raw())
        options = IngestOptions(True, vendor)
        store = ingest(str(path), Path(folder) / "x.vpmu", options, lambda done, all: None)
        read = pl.from_arrow(store.read("pmu_attribution"))
        assert isinstance(read, pl.DataFrame)
        assert list(read.select("ts", "actor", "context").iter_rows()) == history.truth()
        compare(path, store, amd)
