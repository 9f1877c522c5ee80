"""Are the exits that ticks forced those of a plain walk over the events, and is HZ told apart?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.prices.ticks import INTERRUPTED, count_ticks, estimate_hz
from analyzer.replay import Part
from analyzer.store import Store
from tests.conftest import ROOT

EMULATED: dict[str, Any] = {"emulated": True}
REAL: dict[str, Any] = {"emulated": False}
NAMED = ["k73m-fn-hostperf.trace.dat", "k73m-guestpmu-v6.trace.dat"]


def load(tmp_path: Path, name: str) -> Store:
    recording = str(ROOT / "fixtures" / f"{name}.zst")
    return ingest(recording, tmp_path / "x.vpmu", IngestOptions(True), lambda done, total: None)


def plain_count(store: Store) -> int:
    """Walk each CPU's events in order: an exit, the timer's interrupt, and the tick in it."""
    events: list[tuple[int, int, int, str]] = []
    for row in store.read("guest_slice").to_pylist():
        if row["ended_by"] == "exit" and row["reason"] in (None, *INTERRUPTED):
            events.append((row["cpu"], row["end"], 0, "exit"))
    for row in store.read("vm_entry").to_pylist():
        events.append((row["cpu"], row["ts"], 1, "entry"))
    for row in store.read("interrupt").to_pylist():
        if row["kind"] in ("vector", "irq") and row["phase"] in ("entry", "exit"):
            events.append((row["cpu"], row["ts"], 1, f"{row['name']} {row['phase']}"))
    for row in store.read("timer").to_pylist():
        if row["phase"] == "expire_entry" and row["function_name"] == "tick_nohz_handler":
            events.append((row["cpu"], row["ts"], 1, "tick"))
    forced, state, at = 0, "", -1
    for cpu, _, _, what in sorted(events):
        if what == "exit":
            state, at = "left", cpu
        elif cpu != at or what == "entry":
            state = ""
        elif state == "left" and what.endswith(" entry"):
            state = "timer" if what == "local_timer entry" else ""
        elif state == "timer" and what == "tick":
            forced, state = forced + 1, ""
        elif what == "local_timer exit":
            state = ""
    return forced


@pytest.mark.parametrize("name", NAMED)
def test_forced_exits_are_those_of_a_plain_walk(tmp_path: Path, name: str) -> None:
    store = load(tmp_path, name)
    ticks = count_ticks(store, Part(), EMULATED)
    assert ticks is not None
    assert ticks.forced_exits == plain_count(store) > 10
    # Times of an emulated machine tell no HZ, so only the price without ticks is known.
    assert ticks.hz is None
    [loop] = whatif(store, choose_designs(["loop"]), sensitivity=True)["placements"]
    hz = loop["sensitivity"]["hz"]
    assert hz["forced_exits"] == ticks.forced_exits
    assert hz["overhead_ns"]["250"] is None
    assert hz["overhead_ns"]["nohz_full"]["typical"] < loop["overhead"]["typical_ns"]


def test_parts_add_up(tmp_path: Path) -> None:
    store = load(tmp_path, NAMED[0])
    begin = store.manifest["recording"]["begin_ns"]
    middle = begin + store.manifest["recording"]["duration_ns"] // 2
    parts = [
        count_ticks(store, part, REAL) for part in (Part(), Part(end=middle), Part(begin=middle))
    ]
    whole, *halves = (ticks.forced_exits for ticks in parts if ticks is not None)
    assert whole == sum(halves)


# Perfetto keeps pointers, and this recording no symbols: no timer is known to be the tick's.
def test_nameless_timers_tell_no_tick(tmp_path: Path) -> None:
    store = load(tmp_path, "k73m-hostperf.pftrace")
    assert count_ticks(store, Part(), EMULATED) is None
    [loop] = whatif(store, choose_designs(["loop"]), sensitivity=True)["placements"]
    assert loop["sensitivity"]["hz"]["forced_exits"] is None
    assert loop["sensitivity"]["hz"]["overhead_ns"] is None


def ticking(hz: float, wobble: float, idle: int) -> pl.DataFrame:
    """Two CPUs' ticks; after every `idle` ticks the second one sleeps for a while."""
    random, rows = np.random.default_rng(5), []
    for cpu in (0, 1):
        now = 1e9
        for n in range(400):
            now += 1e9 / hz * (1 + random.normal(0, wobble))
            now += 3e8 if cpu and n % idle == 0 else 0
            rows.append({"ts": int(now), "cpu": cpu})
    return pl.DataFrame(rows)


@pytest.mark.parametrize("hz", [100, 250, 300, 1000])
def test_hz_is_told_by_the_gaps_of_busy_cpus(hz: int) -> None:
    assert estimate_hz(ticking(hz, 0.02, 10)) == hz
    assert estimate_hz(ticking(hz, 2.0, 10)) is None
    assert estimate_hz(ticking(hz * 1.7, 0.02, 10)) is None
