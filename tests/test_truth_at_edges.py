"""Is nothing called a difference, and every recorded swap inside what is predicted, where a window
begins or ends in the midst of anything?

A machine swaps at a boundary that we know; whatever stretch of its events is kept, the prediction
for that boundary has no difference and its range holds the recorded swaps.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from tests.swap_histories import History

AMD = "AuthenticAMD"
VCPU, OTHER = 7, 20
USED = (0x1234, 0x777)
BOUNDARIES = ["loop", "vcpu", "sched"]


class Machine(History):
    """One vCPU on one CPU; `boundary`: where its kernel swaps."""

    def __init__(self, boundary: str, seed: int) -> None:
        super().__init__(AMD, 6)
        self.boundary, self.chance, self.tid = boundary, Random(seed), VCPU

    def at(self, *boundaries: str) -> bool:
        return self.boundary in boundaries

    def enter_run(self) -> None:
        if self.at("vcpu"):
            self.load(1, USED)
        self.emit("kvm_fpu", 1)

    def leave_run(self) -> None:
        self.emit("kvm_fpu", 0)
        if self.at("vcpu"):
            self.put(1, USED)

    def inner_loop(self) -> None:
        if self.at("loop"):
            self.loop(1, USED)
        else:
            self.beside("read_msr", 0x1D9)
            self.guest()
        # Interrupts are on between two inner loops.
        with self.acting(None, None, 0):
            self.emit("read_msr", 0x1A0, 0)

    def away(self) -> None:
        """The thread is scheduled out inside KVM_RUN and comes back."""
        swaps = self.at("vcpu", "sched")
        self.switch(OTHER, put=(lambda: self.put(1, USED)) if swaps else None)
        self.tick(False)
        self.switch(VCPU)
        if swaps:
            self.load(1, USED)

    def live(self, runs: int) -> None:
        if self.at("sched"):
            self.load(1, USED)
        for _ in range(runs):
            self.enter_run()
            for _ in range(self.chance.randrange(4)):
                self.inner_loop()
                if self.chance.randrange(3) == 0:
                    self.away()
            self.leave_run()
            if self.chance.randrange(2):
                self.tick(False)


@cache
def lived(boundary: str) -> Machine:
    machine = Machine(boundary, 3)
    machine.live(12)
    return machine


def truth_of(folder: Path, machine: History, begin: int, end: int) -> Any:
    kept = History(AMD, 6, events=machine.events[begin:end])
    folder.mkdir()
    (folder / "x.dat").write_bytes(kept.raw())
    options = IngestOptions(True, AMD)
    store = ingest(str(folder / "x.dat"), folder / "x.vpmu", options, lambda done, total: None)
    if not store.manifest["recording"]["vcpus"]:
        return None
    return whatif(store, choose_designs(["loop"]))["truth"]


def cuts(boundary: str, times: int) -> list[tuple[int, int]]:
    chance, many = Random(boundary), len(lived(boundary).events)
    return [tuple(sorted(chance.sample(range(many + 1), 2))) for _ in range(times)]  # type: ignore[misc]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_whatever_is_kept_the_range_holds_what_is_recorded(boundary: str, tmp_path: Path) -> None:
    told = right = 0
    for n, (begin, end) in enumerate(cuts(boundary, 40)):
        truth = truth_of(tmp_path / str(n), lived(boundary), begin, end)
        if truth is None:
            continue
        told += 1
        assert truth["differences"] == 0, (begin, end, truth)
        for what in ("loads", "puts"):
            low, high = truth[f"predicted_{what}_low"], truth[f"predicted_{what}_high"]
            assert low <= truth[f"recorded_{what}"] <= high, (begin, end, truth)
        right += truth["boundary"] == boundary
    # A stretch of one stay or two fits several boundaries.
    assert told > 20
    assert right > 0.8 * told


def test_the_whole_is_predicted_without_a_range_but_for_its_ends(tmp_path: Path) -> None:
    for boundary in BOUNDARIES:
        machine = lived(boundary)
        truth = truth_of(tmp_path / boundary, machine, 0, len(machine.events))
        assert truth["boundary"] == boundary
        assert truth["differences"] == 0
        assert truth["predicted_loads_high"] - truth["predicted_loads_low"] <= 1


# The first swap tells that the state was off before, or on: what is predicted until then counts.
@pytest.mark.parametrize("kept_first", ["load", "put"])
def test_stays_before_the_first_swap_are_judged_in_hindsight(
    kept_first: str, tmp_path: Path
) -> None:
    machine = History(AMD, 6, tid=VCPU)
    machine.emit("kvm_fpu", 1)
    for _ in range(5):
        machine.beside("read_msr", 0x1D9)
        machine.guest()
        machine.tick(False)
    if kept_first == "put":
        machine.put(1, USED)
    for _ in range(400):
        machine.loop(1, USED)
        machine.tick(False)
    truth = truth_of(tmp_path / "x", machine, 0, len(machine.events))
    assert truth["boundary"] == "loop"
    # Five loops without a swap; where they end in a put they were one stay, four too many.
    assert truth["differences"] == (5 if kept_first == "load" else 4)
    assert {row["cause"] for row in truth["difference_rows"]} == {
        "no recorded stay in the predicted one"
        if kept_first == "load"
        else "several predicted stays in the recorded one"
    }
