"""Do buckets of time sum up to what the replay counted, and does a slow count give the same?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.pipeline import Asked, IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.by_time import time_rows
from analyzer.pipeline.replays import Design
from analyzer.replay import HOOKS, Part, Replay
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline.points import Kind
from tests import replayed
from tests.reference_replay import Point
from tests.replay_histories import CPUS, REASONS, VCPUS, E, G, I, L, O, S
from tests.test_conflict_laws import Case, cases, outcome_of
from tests.test_replay_laws import BLIND, SHIPPED

ROOT = Path(__file__).resolve().parents[1]


# Buckets are even and cut through everything; every count has its bucket, and every nanosecond.
@pytest.mark.laws
@given(
    name=st.sampled_from(("exit", "loop", "vcpu", "sched")), case=cases(),
    buckets=st.integers(1, 9), cut=st.integers(1, 12),
)  # fmt: skip
def test_buckets_sum_up_to_the_replays_counts(
    name: str, case: Case, buckets: int, cut: int
) -> None:
    if not case.points:
        return
    first = case.points[0][0] if case.part.begin is None else case.part.begin
    last = case.points[-1][0] if case.part.end is None else case.part.end
    edges = first + np.arange(buckets + 1) * max(last - first, 0) // buckets
    hook = case.hook_at[name]
    replay = Replay(
        SHIPPED[name], case.most, VCPUS, CPUS, REASONS, case.part, hook or HOOKS[0],
        stops=edges[1:-1].tolist(),
    )  # fmt: skip
    for chunk in np.array_split(np.array(case.points, np.int64), cut):
        replay.feed(*chunk.T)
    outcome = replayed.outcome_of(replayed.run_of(replay))
    # Stops are no points: the replay is the same with them and without.
    np.testing.assert_array_equal(
        replayed.slices(outcome.runs[1]), replayed.slices(outcome_of(case, name).runs[1])
    )
    design = Design(SHIPPED[name], case.told, hook, (), "dirty")
    (rows,) = time_rows([(design, outcome)], edges, np.zeros(0, np.int64)).values()
    counts = outcome.counts[1].vcpus
    watched = range(VCPUS) if case.part.vcpus is None else case.part.vcpus
    total = counts[list(watched)].sum(axis=0)
    sums = {key: sum(row[key] for row in rows) for key in rows[0] if key != "bound"}
    assert [row["bound"] for row in rows] == ["exact"] * buckets
    assert sums["loads"] == total[q.N_LOADS]
    assert sums["puts"] == total[q.N_PUTS]
    assert sums["residency_ns"] == total[q.N_RESIDENCY]
    assert sums["blind_ns"] == total[list(BLIND.values())].sum()
    # One bucket, one stay at a time; and what of it is guest mode, point by point.
    at = buckets // 2
    mine = [r for r in replayed.slices(outcome.runs[1]).tolist() if r[q.S_VCPU] in watched]
    mine = [r for r in mine if case.part.cpus is None or r[q.S_CPU] in case.part.cpus]

    def within(begin: int, end: int) -> int:
        return max(0, min(end, edges[at + 1]) - max(begin, edges[at]))

    slow = sum(within(r[q.S_TS], r[q.S_END]) for r in mine)
    assert rows[at]["residency_ns"] == slow
    guest = sum(
        within(max(r[q.S_TS], begin), min(r[q.S_END], end))
        for r in mine
        for cpu, begin, end in guest_stretches(case.points)
        if r[q.S_CPU] == cpu
    )
    assert rows[at]["blind_ns"] == slow - guest
    is_last = at == buckets - 1

    def is_in(ts: int, cpu: int) -> bool:
        inside = edges[at] <= ts and (is_last or ts < edges[at + 1])
        return bool(inside and case.part.holds(*np.array([[ts], [cpu], [-1]]))[0])

    case = replace(case, part=replace(case.part, vcpus=None))
    assert rows[at]["loads"] == sum(is_in(r[q.S_TS], r[q.S_CPU]) for r in mine if r[q.S_LOADED])
    assert rows[at]["puts"] == sum(is_in(r[q.S_END], r[q.S_CPU]) for r in mine if r[q.S_WHOLE])


def guest_stretches(points: list[Point]) -> list[tuple[int, int, int]]:
    """Return cpu, begin and end of guest mode, which an interrupt interrupts."""
    found, since, guest, irq = [], {}, {}, {}
    for ts, cpu, vcpu, kind, detail in points:
        if guest.get(cpu) and not irq.get(cpu):
            found.append((cpu, since[cpu], ts))
        since[cpu] = ts
        if kind in (Kind.SWITCH_OUT, Kind.LOST):
            guest[cpu] = irq[cpu] = False
        elif kind in (Kind.IRQ_IN, Kind.IRQ_OUT):
            irq[cpu] = kind == Kind.IRQ_IN
        elif kind <= Kind.ENTRY and vcpu >= 0 and detail & G:
            guest[cpu] = True
        elif Kind.ENTRY < kind < Kind.LOST and detail & G:
            guest[cpu] = False
    return found


# A stay that a window begins with is no load, whatever else happens at that time.
def test_a_stay_that_was_there_before_is_no_load() -> None:
    points = [
        (10, 0, 0, int(Kind.STATE), S | O | I | L | E | G), (20, 0, 0, int(Kind.EXIT), G | L | E),
        (30, 0, 0, int(Kind.ENTRY), G | L | E), (40, 0, 0, int(Kind.EXIT), G | L | E),
        (50, 0, 0, int(Kind.LOST), S | O | I),
    ]  # fmt: skip
    case = Case(points, [], False, "perf", True, None, Part(), 99)
    slices = replayed.slices(outcome_of(case, "exit").runs[0])
    assert slices[:, q.S_LOADED].tolist() == [0, 1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = ROOT / "fixtures" / "k73m-overcommit.pftrace.zst"
    target = tmp_path_factory.mktemp("time") / "x.vpmu"
    return ingest(str(path), target, IngestOptions(emulated=True), lambda d, t: None)


@pytest.mark.parametrize(
    "asked", [Asked(), Asked(0.2, 0.9, (0,)), Asked(0.3)], ids=["all", "part", "from"]
)
def test_each_bound_of_a_recording_sums_up_to_its_totals(store: Store, asked: Asked) -> None:
    answer = whatif(store, choose_designs(["all"]), asked=asked, by_time=True, buckets=37)
    for p in answer["placements"]:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in p["by_time"]:
            rows.setdefault(row["bound"], []).append(row)
        assert set(rows) in ({"exact"}, {"fewest", "most"})
        for mine in rows.values():
            assert [row["bucket"] for row in mine] == list(range(37))
            assert all(a["end"] == b["ts"] for a, b in pairwise(mine))
        for name in ("loads", "puts", "residency_ns", "blind_ns"):
            sums = sorted(sum(row[name] for row in mine) for mine in rows.values())
            low, high = p[f"{name}_low"], p[f"{name}_high"]
            assert (sums[0], sums[-1]) == (low, high), (p["name"], name)
    (path,) = store.path.glob("whatif/*/placement_time.parquet") if asked == Asked() else (None,)
    if path is not None:
        table = pq.read_table(path).to_pylist()
        assert len(table) == sum(len(p["by_time"]) for p in answer["placements"])
        assert {row["placement"] for row in table} == set(SHIPPED)


def test_buckets_stand_in_the_answer_only_where_asked_for(store: Store) -> None:
    (one,) = whatif(store, choose_designs(["loop"]))["placements"]
    assert "by_time" not in one
