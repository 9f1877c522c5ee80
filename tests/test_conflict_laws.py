"""The laws of stays, owner slices and conflicts on generated histories, and against the reference.

Everything that a design can be told is drawn: bound, hook, told or untold, guards, vendor, part,
and where the points are cut into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.pipeline.meetings.conflicts import Episodes, conflict_rows, summary_of
from analyzer.pipeline.replays import Design, Outcome
from analyzer.replay import GUARDS, HOOKS, Part, Replay
from analyzer.replay import kernel as q
from analyzer.timeline.attribution.words import Context
from analyzer.timeline.points import Kind
from tests import reference_conflicts as slow
from tests import reference_replay as reference
from tests import replayed
from tests.reference_conflicts import Episode, Row
from tests.reference_replay import Point
from tests.replay_histories import CPUS, REASONS, VCPUS, episodes_of, histories
from tests.test_part_laws import parts
from tests.test_replay_laws import NAMES, SHIPPED, slow_part, slow_rules

pytestmark = pytest.mark.laws

VENDORS = ("AuthenticAMD", "GenuineIntel", None)
GUARD_SETS = [
    tuple(guard for n, guard in enumerate(GUARDS) if chosen >> n & 1) for chosen in range(8)
]
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
    guard: tuple[str, ...] = GUARDS

    @property
    def hook_at(self) -> dict[str, str | None]:
        # exit and loop do not swap at switches, and have no hook.
        return {name: self.hook if p.hook else None for name, p in SHIPPED.items()}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    points = draw(histories())
    return Case(
        points, draw(episodes_of(points)), draw(st.booleans()), draw(st.sampled_from(HOOKS)),
        draw(st.booleans()), draw(st.sampled_from(VENDORS)),
        draw(st.one_of(st.just(Part()), parts(top=points[-1][0] + 100 if points else 100))),
        draw(st.sampled_from((10**6, 1, 2, 7, 33))),
        tuple(guard for guard in GUARDS if draw(st.booleans())),
    )  # fmt: skip


def outcome_of(case: Case, name: str) -> Outcome:
    return raw_outcome(case, name, case.hook_at[name])


def raw_outcome(case: Case, name: str, hook: str | None) -> Outcome:
    replay = Replay(SHIPPED[name], case.most, VCPUS, CPUS, REASONS, case.part, hook or HOOKS[0])
    rows = np.array(case.points, np.int64).reshape(-1, 5)
    for begin in range(0, len(rows), case.chunk):
        part = rows[begin : begin + case.chunk]
        replay.feed(*(np.ascontiguousarray(part[:, n]) for n in range(5)))
    return replayed.outcome_of(replayed.run_of(replay))


def stays_of(outcome: Outcome) -> Any:
    return replayed.slices(outcome.runs[1])


def slow_result(case: Case, name: str) -> reference.Result:
    placement = SHIPPED[name]
    hook = case.hook_at[name] or HOOKS[0]
    return reference.run(
        case.points, placement.load, placement.put, case.most, slow_part(case.part), hook,
        slow_rules(placement),
    )  # fmt: skip


def episodes(case: Case) -> Episodes:
    some = case.episodes
    return Episodes(
        np.array([slow.WORDS[one.context] for one in some], object),
        np.array([one.evidence for one in some], object),
        np.array([one.operations for one in some], np.int64),
        np.zeros(len(some), np.int64),
        np.array([one.met for one in some], bool),
        True,
        {},
        np.array([one.in_swap for one in some], bool),
    )


def found_rows(case: Case, name: str, outcome: Outcome) -> Any:
    design = Design(SHIPPED[name], case.told, case.hook_at[name], case.guard, "dirty")
    return conflict_rows(design, outcome, episodes(case), case.vendor, case.part)


# A shared one leaves out what touches no counter of the guest's: see test of collisions.
@pytest.mark.parametrize("name", [n for n, p in SHIPPED.items() if p.kind != "shared"])
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
    assert [tuple(row) for row in stays_of(outcome)[:, columns].tolist()] == stays
    rows = found_rows(case, name, outcome)
    got: list[Row] = sorted(rows.select(COLUMNS).rows(), key=repr)
    assert got == slow.conflict_rows(
        want.meetings, case.episodes, case.told, case.vendor, case.guard
    )
    assert rows["ts"].is_sorted()


# What each set of accesses comes to, in every context and circumstance: one access class or two.
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("guard", GUARD_SETS, ids=lambda guard: "+".join(guard) or "none")
def test_the_declared_table_says_what_the_plain_statement_says(
    told: bool, vendor: str | None, guard: tuple[str, ...]
) -> None:
    accesses = [0] + [1 << a | 1 << b for a in range(20) for b in range(a, 20)]
    contexts = [c for c in slow.WORDS if c != Context.GUEST_PMI]
    every = [
        (Episode(context, "observed", done, met, in_swap), entry)
        for context in contexts
        for in_swap in (False, True)
        for done in accesses
        for met in (False, True)
        for entry in (False, True)
    ]
    slices = np.zeros((2, q.SLICE_ROW), np.int64)
    slices[:, q.S_STAY], slices[:, q.S_ENTRIES], slices[:, q.S_WHOLE] = (0, 1), (1, 0), 1
    meetings = np.zeros((len(every), q.MEETING_ROW), np.int64)
    meetings[:, q.E_TS] = meetings[:, q.E_EPISODE] = np.arange(len(every))
    meetings[:, q.E_STAY] = [0 if entry else 1 for _, entry in every]
    meetings[:, q.E_CONTEXT] = [one.context for one, _ in every]
    meetings[:, q.E_COUNTED] = 1
    some = [one for one, _ in every]
    case = Case([], some, False, "perf", told, vendor, Part(), 1, guard)
    counts = Replay(SHIPPED["vcpu"], False, VCPUS, CPUS, REASONS).counts()
    rows = found_rows(case, "vcpu", replayed.outcome_of(replayed.written(counts, slices, meetings)))
    got: dict[int, list[str]] = {}
    for number, cause, consequence in rows.select("episode", "cause", "consequence").rows():
        got.setdefault(number, []).append(f"{cause} {consequence}")
    for number, (one, entry) in enumerate(every):
        want = slow.effects(
            told, one.context, one.operations, vendor, entry, one.met, guard, one.in_swap
        )
        assert sorted(got.get(number, [])) == sorted(want), (one, entry)


# Owner slices of a placement list the vCPUs' stays. What of a CPU's known time is none is the
# host's; time before a window, between a LOST and the next STATE, is nobody's that we know.
@given(name=st.sampled_from(NAMES), case=cases())
def test_stays_and_the_hosts_time_tile_each_cpus_known_time(name: str, case: Case) -> None:
    outcome = outcome_of(replace(case, part=Part()), name)
    known: dict[int, list[list[int]]] = {c: [] for c in range(CPUS)}
    lost = dict.fromkeys(range(CPUS), True)
    for ts, c, _, kind, _ in case.points:
        if lost[c]:
            known[c].append([ts, ts])
        known[c][-1][1] = ts
        lost[c] = kind == Kind.LOST
    stays = stays_of(outcome)
    stays = stays[np.lexsort((stays[:, q.S_STAY], stays[:, q.S_CPU]))]
    residency = np.zeros(VCPUS, np.int64)
    for c, stretches in known.items():
        mine = stays[stays[:, q.S_CPU] == c][:, [q.S_TS, q.S_END, q.S_VCPU]].tolist()
        tiled = 0
        for begin, end in stretches:
            at = begin
            while mine and mine[0][1] <= end and mine[0][0] >= begin:
                since, until, v = mine.pop(0)
                assert at <= since <= until  # one owner a CPU
                residency[v] += until - since
                tiled += since - at + until - since
                at = until
            tiled += end - at
        assert not mine  # none reaches over a loss
        assert tiled == sum(end - begin for begin, end in stretches)
    np.testing.assert_array_equal(residency, outcome.counts[0].vcpus[:, q.N_RESIDENCY])


@given(name=st.sampled_from(NAMES), case=cases())
def test_no_vcpus_state_is_on_two_cpus(name: str, case: Case) -> None:
    slices = stays_of(outcome_of(case, name))
    for v in range(VCPUS):
        mine = slices[slices[:, q.S_VCPU] == v]
        mine = mine[np.argsort(mine[:, q.S_STAY])]
        assert (mine[1:, q.S_TS] >= mine[:-1, q.S_END]).all()


# What is told of an episode does not hang on the clock's zero nor on how CPUs and vCPUs are
# numbered.
@given(
    name=st.sampled_from(NAMES),
    case=cases(), shift=st.integers(-(2**61), 2**61),
    cpus=st.permutations(range(CPUS)), vcpus=st.permutations(range(VCPUS)),
)  # fmt: skip
def test_shift_and_renumbering_change_nothing_else(
    name: str, case: Case, shift: int, cpus: list[int], vcpus: list[int]
) -> None:
    case = replace(case, part=Part())
    moved = replace(
        case,
        points=[
            (ts + shift, cpus[c], vcpus[v] if v >= 0 else v, kind, detail)
            for ts, c, v, kind, detail in case.points
        ],
    )
    before, after = outcome_of(case, name), outcome_of(moved, name)
    want = stays_of(before)
    want[:, q.S_TS] += shift
    want[:, q.S_END] += shift
    want[want[:, q.S_ENTRIES] > 0, q.S_ENTERED] += shift
    want[:, q.S_CPU] = np.array(cpus)[want[:, q.S_CPU]]
    want[:, q.S_VCPU] = np.array(vcpus)[want[:, q.S_VCPU]]
    np.testing.assert_array_equal(stays_of(after), want)
    np.testing.assert_array_equal(after.counts[0].vcpus[list(vcpus)], before.counts[0].vcpus)
    np.testing.assert_array_equal(after.counts[0].reasons, before.counts[0].reasons)
    rows = found_rows(case, name, before).select(COLUMNS).rows()
    changed = [
        (ts + shift, cpus[c], vcpus[v], *rest, None if until is None else until + shift)
        for ts, c, v, *rest, until in rows
    ]
    got = found_rows(moved, name, after).select(COLUMNS).rows()
    assert sorted(got, key=repr) == sorted(changed, key=repr)


@given(name=st.sampled_from(NAMES), case=cases())
def test_without_host_episodes_there_is_no_conflict_and_no_evidence(name: str, case: Case) -> None:
    quiet = replace(
        case,
        points=[p for p in case.points if p[3] not in {Kind.EPISODE, Kind.GUEST_PMI}],
        episodes=[],
    )
    outcome = outcome_of(quiet, name)
    rows = found_rows(quiet, name, outcome)
    assert rows.is_empty()
    np.testing.assert_array_equal(stays_of(outcome), stays_of(outcome_of(case, name)))
    summary = summary_of(rows, rows, episodes(quiet), None)
    assert summary["no_evidence"] == "no host event was active"
    assert {summary[key] for key in ("observed", "inferred", "consequences")} == {None}
    nothing = replace(episodes(quiet), recorded=False)
    assert summary_of(rows, rows, nothing, None)["no_evidence"] == "no register access is recorded"


# A rule that infers an episode adds to what is inferred and to nothing else.
@given(name=st.sampled_from(NAMES), case=cases())
def test_inferred_episodes_change_no_observed_number(name: str, case: Case) -> None:
    case = replace(case, part=Part())
    known = replace(case, points=[p for p in case.points if not is_inferred(p, case.episodes)])
    both, alone = (found_rows(one, name, outcome_of(one, name)) for one in (case, known))
    assert alone.equals(both.filter(evidence="observed"))
    some = episodes(case)
    if not case.episodes:
        return
    whole, part = summary_of(both, both, some, 9), summary_of(alone, alone, some, 9)
    assert sum(part["inferred"].values()) == 0
    inferred = both.filter(evidence="inferred").unique(["ts", "cpu", "cause"])
    assert sum(whole["inferred"].values()) == inferred.height
    assert without_inferred(whole) == without_inferred(part)


# A point that a rule made moves nothing, whatever it meets; only meetings come of it.
@given(name=st.sampled_from(list(SHIPPED)), case=cases())
def test_points_of_inferred_episodes_move_no_state(name: str, case: Case) -> None:
    case = replace(case, part=Part())
    points = [
        (*p[:3], int(Kind.INFERRED), p[4]) if is_inferred(p, case.episodes) else p
        for p in case.points
    ]
    known = [p for p in points if p[3] != Kind.INFERRED]
    hook = case.hook_at.get(name, SHIPPED[name].hook and case.hook)
    both, alone = (raw_outcome(replace(case, points=one), name, hook) for one in (points, known))
    for got, want in zip(both.counts, alone.counts, strict=True):
        np.testing.assert_array_equal(got.totals, want.totals)
        np.testing.assert_array_equal(got.reasons, want.reasons)
        np.testing.assert_array_equal(got.vcpus, want.vcpus)
    np.testing.assert_array_equal(stays_of(both), stays_of(alone))
    met = replayed.meetings(both.runs[1])
    own = np.array(
        [n < 0 or case.episodes[n].evidence == "observed" for n in met[:, q.E_EPISODE].tolist()],
        bool,
    )
    np.testing.assert_array_equal(met[own], replayed.meetings(alone.runs[1]))


def without_inferred(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if not key.startswith("inferred")}


def is_inferred(point: Point, some: list[Episode]) -> bool:
    return point[3] == Kind.EPISODE and some[point[4] >> 8].evidence == "inferred"
