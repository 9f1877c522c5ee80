"""Does one walk over a run's stays give what whole columns, sorted and searched, give?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.pipeline.meetings.conflicts import timer_interrupts_met
from analyzer.pipeline.replays import Run
from analyzer.pipeline.swaps import Course, Ground, walk_of
from analyzer.replay import PIECE, Part, rows
from analyzer.replay import kernel as q
from analyzer.timeline.points import Kind
from tests import replayed
from tests.reference_swaps import before_entries, exits_in_stays, longest_of, swaps_of
from tests.replay_histories import CPUS, VCPUS
from tests.test_conflict_laws import Case, cases, outcome_of
from tests.test_replay_laws import SHIPPED

pytestmark = pytest.mark.laws


def assert_walk_agrees(course: Course, run: Run, part: Part, vcpus: int, cpus: int) -> None:
    ground = Ground(course, part, vcpus, cpus)
    walk, stays = walk_of(ground, run), replayed.slices(run)
    found = swaps_of(course, stays, part)
    for is_load in (0, 1):
        for is_absorbed in (0, 1):
            mine = (found.is_load == is_load) & (found.is_absorbed == is_absorbed)
            assert walk.sums[is_load, is_absorbed] == np.count_nonzero(mine)
    loads, puts = before_entries(course, found)
    for pairs, asked in ((walk.before, ground.held), (walk.after, None)):
        if asked is None:
            asked = np.flatnonzero(ground.held)[ground.woken]
        want = Counter(zip(loads[asked].tolist(), puts[asked].tolist(), strict=True))
        assert {(one, other): n for one, other, n in pairs.tolist()} == want
    assert walk.longest_ns == longest_of(stays, part)
    assert walk.exits.tolist() == [exits_in_stays(course, stays, v) for v in range(vcpus)]
    loaded, whole = stays[stays[:, q.S_LOADED] == 1], stays[stays[:, q.S_WHOLE] == 1]
    for at, some, column in ((1, loaded, q.S_TS), (0, whole, q.S_END)):
        held = part.holds(*(some[:, c] for c in (column, q.S_CPU, q.S_VCPU)))
        counted = np.bincount(some[held, q.S_CPU], minlength=cpus)
        assert walk.by_cpu[:, at].tolist() == counted.tolist()


def course_of(case: Case, blocks: list[tuple[int, int, int]]) -> Course:
    def rows_of(kind: Kind) -> Any:
        some = [(ts, c, v) for ts, c, v, k, _ in case.points if k == kind]
        return np.array(some, np.int64).reshape(-1, 3)

    entries, exits = rows_of(Kind.ENTRY), rows_of(Kind.EXIT)
    entries = entries[np.lexsort((entries[:, 0], entries[:, 2]))]
    exits = exits[case.part.holds(*exits.T)]
    # A vCPU's blocks follow each other.
    kept: list[tuple[int, int, int]] = []
    for v, begin, end in sorted(blocks):
        if not kept or kept[-1][2] != v or kept[-1][1] <= begin:
            kept.append((begin, end, v))
    return Course(
        entries, np.array(kept, np.int64).reshape(-1, 3), exits[:, [0, 2]], 0, 10**7
    )  # fmt: skip


some_blocks = st.lists(
    st.tuples(st.integers(0, VCPUS - 1), st.integers(0, 4000), st.integers(1, 400)).map(
        lambda block: (block[0], block[1], block[1] + block[2])
    )
)


@pytest.mark.parametrize("piece", [PIECE, 1, 3])
@given(
    name=st.sampled_from(list(SHIPPED)), case=cases(), blocks=some_blocks,
    times=st.lists(st.tuples(st.integers(0, CPUS - 1), st.integers(0, 4000))),
)  # fmt: skip
def test_a_walk_in_pieces_gives_what_whole_columns_give(
    name: str, piece: int, case: Case, blocks: list[tuple[int, int, int]],
    times: list[tuple[int, int]],
) -> None:  # fmt: skip
    run = outcome_of(case, name).runs[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows.Rows.pieces, "__defaults__", (piece,))
        assert_walk_agrees(course_of(case, blocks), run, case.part, VCPUS, CPUS)
        at = sorted(times)
        of = np.searchsorted([cpu for cpu, _ in at], np.arange(CPUS + 1))
        got = timer_interrupts_met((np.array([ts for _, ts in at], np.int64), of), run, case.part)
    stays = [
        r for r in replayed.slices(run).tolist()
        if case.part.vcpus is None or r[q.S_VCPU] in case.part.vcpus
    ]  # fmt: skip
    want = sum(r[q.S_CPU] == c and r[q.S_TS] <= ts < r[q.S_END] for r in stays for c, ts in at)
    assert got == (want if at else None)
