"""Do claims come out as a history was written, from the bytes of its recording to the verdict?

Histories are in the order of the kernel's source (tests/swap_histories.py). Their times are made
up, so they stand for an emulated machine, and only counts decide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analyzer.claims import decide, load_thresholds
from analyzer.pipeline import IngestOptions, ingest
from tests.swap_histories import History

AMD = "AuthenticAMD"
FEW = ("c6.accesses=1", "c7.episodes=1", "c11.episodes=1", "c17.nmis=1", "c3.samples=1")


def verdicts(tmp_path: Path, history: History, *words: str) -> dict[str, dict[str, Any]]:
    history.tick(False)
    path = tmp_path / "x.dat"
    path.write_bytes(history.raw())
    options = IngestOptions(True, history.vendor)
    store = ingest(str(path), tmp_path / "x.vpmu", options, lambda done, total: None)
    answer = decide(store, thresholds=load_thresholds(None, words))
    return {claim["id"]: claim for claim in answer["claims"]}


# Mainline: swaps around each loop, inside one KVM_RUN, with something of the host's in between.
def loops(between: Callable[[History], object], count: int = 5, **more: Any) -> History:
    history = History(AMD, counters=6)
    history.emit("kvm_fpu", 1)
    for _ in range(count):
        history.loop(**more)
        between(history)
    history.loop(**more)
    history.emit("kvm_fpu", 0)
    return history


def test_ticks_between_loops_lie_in_a_stay_at_vcpu(tmp_path: Path) -> None:
    found = verdicts(tmp_path, loops(lambda h: h.tick()), *FEW)
    assert found["C5"]["verdict"] == "holds"
    assert found["C5"]["numbers"]["handlers_untold"] == [5, 5]
    assert [part["verdict"] for part in found["C5"]["parts"]] == ["holds", "no evidence"]
    assert found["C6"]["verdict"] == "fails"
    assert found["C7"]["verdict"] == "holds"  # none in a loop
    assert found["C4"]["verdict"] == "fails"
    # Evicted before it touches anything, each time.
    assert (found["C11"]["verdict"], found["C11"]["parts"][2]["verdict"]) == ("holds", "fails")
    assert found["C11"]["numbers"]["lazy-core_evicted_by"] == {"tick": 5}


def test_ticks_that_do_nothing_are_no_conflict(tmp_path: Path) -> None:
    found = verdicts(tmp_path, loops(lambda h: h.tick(False)), *FEW)
    assert found["C5"]["verdict"] == "no evidence"
    assert found["C6"]["verdict"] == "no evidence"


def test_nmis_between_loops_are_samples_of_kvms_code(tmp_path: Path) -> None:
    # The tick proves that interrupts were on, so that two loops can't be one.
    found = verdicts(tmp_path, loops(lambda h: (h.tick(False), h.nmi())), *FEW)
    assert found["C6"]["verdict"] == "holds"
    assert found["C3"]["verdict"] == "holds"
    assert (found["C3"]["numbers"]["samples_lost_vcpu"],
            found["C3"]["numbers"]["samples_lost_loop"]) == (5, 0)  # fmt: skip


def test_reentry_inside_one_load_is_a_blind_spot(tmp_path: Path) -> None:
    history = History(AMD, counters=6)
    history.emit("kvm_fpu", 1)
    for _ in range(3):
        history.load()
        history.guest()
        history.guest()
        history.put()
        history.tick(False)
    history.emit("kvm_fpu", 0)
    found = verdicts(tmp_path, history)["C4"]
    assert (found["verdict"], found["numbers"]["reentries"]) == ("holds", [3, 3])


# The guard: perf's handler runs between load and put and returns at once.
@pytest.mark.parametrize("touches", [False, True])
def test_guarded_nmi_inside_a_stay_touches_nothing(tmp_path: Path, touches: bool) -> None:
    history = History(AMD, counters=6)
    history.emit("kvm_fpu", 1)
    for _ in range(3):
        history.load()
        history.guest()
        history.nmi() if touches else history.emit("nmi_handler", 10)
        history.put()
    history.emit("kvm_fpu", 0)
    found = verdicts(tmp_path, history, *FEW)["C17"]
    assert found["verdict"] == ("fails" if touches else "holds")
    assert found["numbers"]["nmis_between_load_and_put"] == 3


def test_perfs_work_at_a_switch_comes_before_kvms_put(tmp_path: Path) -> None:
    history = loops(lambda h: None)
    history.emit("kvm_fpu", 1)
    history.loop()
    history.switch(9, out=1)
    history.switch(7, into=1)
    history.loop()
    history.emit("kvm_fpu", 0)
    found = verdicts(tmp_path, history)["C8"]
    assert (found["verdict"], found["numbers"]["vcpu_switches"]) == ("holds", 2)


def test_switches_without_perfs_work_make_the_hook_moot(tmp_path: Path) -> None:
    history = loops(lambda h: None)
    history.emit("kvm_fpu", 1)
    history.loop()
    history.switch(9)
    history.switch(7)
    history.loop()
    history.emit("kvm_fpu", 0)
    found = verdicts(tmp_path, history)["C8"]
    assert (found["verdict"], found["qualifier"]) == ("fails", "no task events")


# Idle guest: a load writes zeros into its selectors that are there already, and no counter.
def test_idle_guests_swaps_write_what_is_there(tmp_path: Path) -> None:
    idle = verdicts(tmp_path, loops(lambda h: None, host=None), "c10.cost_share=0")["C10"]
    assert idle["verdict"] == "holds (inferred)"
    # 12 swaps of 6 counters and 6 selectors; only the first load's selectors are not known before.
    assert idle["numbers"]["blind_writes"] == 144
    assert idle["numbers"]["redundant"] == {"counter": 72, "selector": 66}


def test_host_events_make_swaps_write_anew(tmp_path: Path) -> None:
    history = loops(lambda h: None, values=(3, 4, 5, 6, 7, 8))
    assert verdicts(tmp_path, history)["C10"]["verdict"] == "fails"
