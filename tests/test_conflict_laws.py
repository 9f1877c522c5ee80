"""The laws of stays, owner slices and conflicts on generated histories, and against the reference.

Everything that a design can be told is drawn: bound, hook, told or untold, vendor, part, and where
the points are cut into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.pipeline.conflicts import Episodes, conflict_rows
from analyzer.pipeline.replays import Design, Outcome
from analyzer.replay import HOOKS, Part, Replay
from analyzer.replay import kernel as q
from tests import reference_conflicts as slow
from tests import reference_replay as reference
from tests.reference_conflicts import Episode, Row
from tests.reference_replay import Point
from tests.replay_histories import CPUS, REASONS, VCPUS, episodes_of, histories
from tests.test_part_laws import parts
from tests.test_replay_laws import SHIPPED, each_placement, slow_part

pytestmark = pytest.mark.laws

VENDORS = ("AuthenticAMD", "GenuineIntel", None)
COLUMNS = (
    "ts", "cpu", "vcpu", "episode", "context", "evidence", "cause", "consequence", "entry_follows",
    "until",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One recording and one way to ask for it."""

    points: list[Point]
    episodes: list[Episode]
    most: bool
    hook: str
    told: bool
    vendor: str | None
    part: Part
    chunk: int

    @property
    def hook_at(self) -> dict[str, str | None]:
        # exit and loop do not swap at switches, and have no hook.
        return {"exit": None, "loop": None, "vcpu": self.hook, "sched": self.hook}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    points = draw(histories())
    return Case(
        points, draw(episodes_of(points)), draw(st.booleans()), draw(st.sampled_from(HOOKS)),
        draw(st.booleans()), draw(st.sampled_from(VENDORS)),
        draw(st.one_of(st.just(Part()), parts(top=points[-1][0] + 100 if points else 100))),
        draw(st.sampled_from((10**6, 1, 2, 7, 33))),
    )  # fmt: skip


def outcome_of(case: Case, name: str) -> Outcome:
    replay = Replay(
        SHIPPED[name], case.most, VCPUS, CPUS, REASONS, case.part, case.hook_at[name] or HOOKS[0]
    )
    rows = np.array(case.points, np.int64).reshape(-1, 5)
    found = []
    for begin in range(0, len(rows), case.chunk):
        part = rows[begin : begin + case.chunk]
        replay.feed(*(np.ascontiguousarray(part[:, n]) for n in range(5)))
        found.append(replay.found())
    found.append(replay.found())
    slices, meetings = (np.concatenate([pair[n] for pair in found]) for n in (0, 1))
    return Outcome((replay.counts(), replay.counts()), slices, meetings)


def slow_result(case: Case, name: str) -> reference.Result:
    placement = SHIPPED[name]
    hook = case.hook_at[name] or HOOKS[0]
    return reference.run(
        case.points, placement.load, placement.put, case.most, slow_part(case.part), hook
    )


def episodes(case: Case) -> Episodes:
    some = case.episodes
    return Episodes(
        np.array([slow.WORDS[one.context] for one in some], object),
        np.array([one.evidence for one in some], object),
        np.array([one.operations for one in some], np.int64),
        np.array([one.met for one in some], bool),
        True,
    )


def found_rows(case: Case, name: str, outcome: Outcome) -> Any:
    design = Design(SHIPPED[name], case.told, case.hook_at[name])
    return conflict_rows(design, outcome, episodes(case), case.vendor, case.part)


@each_placement
@given(case=cases())
def test_stays_and_conflicts_equal_the_reference_row_for_row(name: str, case: Case) -> None:
    outcome, want = outcome_of(case, name), slow_result(case, name)
    stays: list[Any] = []
    for s in want.stays:
        entered = -1 if s.last_entry is None else s.last_entry
        stays.append((s.number, s.cpu, s.vcpu, s.begin, s.end, entered, int(s.is_put)))
    columns = [
        q.S_STAY, q.S_CPU, q.S_VCPU, q.S_TS, q.S_END, q.S_ENTERED, q.S_WHOLE,
    ]  # fmt: skip
    assert [tuple(row) for row in outcome.slices[:, columns].tolist()] == stays
    rows = found_rows(case, name, outcome)
    got: list[Row] = sorted(rows.select(COLUMNS).rows(), key=repr)
    assert got == slow.conflict_rows(want.meetings, case.episodes, case.told, case.vendor)
    assert rows["ts"].is_sorted()
