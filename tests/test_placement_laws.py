"""Laws of the placements that decide at run time: hindsight, eviction, demand, shared counters."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import given

from analyzer.replay import kernel as q
from analyzer.timeline.attribution.words import Context
from analyzer.timeline.points import Kind, Level
from tests.reference_replay import Point
from tests.replay_histories import CPUS, E, G, I, L, O, S, histories
from tests.test_replay_laws import SHIPPED, engine

pytestmark = pytest.mark.laws

Owners = tuple[int, ...]
NOBODY = -1


def _is_met(point: Point) -> bool:
    return point[3] == Kind.EPISODE and point[4] & 255 not in (
        Context.SWITCH_OUT,
        Context.SWITCH_IN,
    )


def fewest_loads(points: Iterable[Point]) -> int:
    """Return the fewest loads without a conflict: every owner of every CPU is tried.

    Before each point any owner may be put; an entry loads where its vCPU is not the owner yet; a
    point at which host perf acts may find no owner on its CPU.
    """
    best: dict[Owners, int] = {(NOBODY,) * CPUS: 0}
    for point in points:
        _, c, v, kind, detail = point
        after: dict[Owners, int] = {}
        for owners, cost in best.items():
            for kept in product(*({owner, NOBODY} for owner in owners)):
                state, paid = list(kept), cost
                if _is_met(point) and state[c] != NOBODY:
                    continue
                if kind == Kind.ENTRY and state[c] != v:
                    if state[c] != NOBODY or v in state:
                        continue
                    state[c], paid = v, paid + 1
                elif kind == Kind.STATE and v >= 0 and detail & Level.GUEST and state[c] != v:
                    if v in state:
                        continue
                    state[c] = v
                elif kind == Kind.LOST:
                    state[c] = NOBODY
                key = tuple(state)
                after[key] = min(paid, after.get(key, paid))
        best = after
    return min(best.values())


@given(points=histories())
def test_the_oracle_finds_the_fewest_loads_that_meet_nobody(points: list[Point]) -> None:
    some = [
        p for p in points if p[3] != Kind.EPISODE or p[4] & 255 not in
        (Context.SWITCH_OUT, Context.SWITCH_IN)
    ]  # fmt: skip
    got = engine(some, SHIPPED["oracle"], False)
    assert got.vcpus[:, q.N_LOADS].sum() == fewest_loads(some)


def _loads(points: list[Point], name: str) -> int:
    return int(engine(points, SHIPPED[name], False).vcpus[:, q.N_LOADS].sum())


def _rounds(*uses: int | None, episodes: bool = False) -> list[Point]:
    """One vCPU on CPU 0: a KVM_RUN with one round of entry and exit for each of `uses` (what is
    said of the guest's PMU before it; None: nothing), a tick in between where `episodes`."""
    points: list[Point] = [(0, 0, -1, Kind.STATE, 0), (1, 0, 0, Kind.SWITCH_IN, S | O | I)]
    for n, use in enumerate(uses):
        ts = 10 + 10 * n
        if use is not None:
            points.append((ts, 0, 0, Kind.GUEST_PMU, use))
        points.append((ts + 1, 0, 0, Kind.ENTRY, G | L | E))
        points.append((ts + 2, 0, 0, Kind.EXIT, G | L | E))
        if episodes:
            points.append((ts + 3, 0, 0, Kind.EPISODE, n << 8 | Context.TICK))
    end = 20 + 10 * len(uses)
    points.append((end, 0, 0, Kind.SWITCH_OUT, S | O | I))
    points.append((end + 1, 0, -1, Kind.LOST, 0))
    return points


# Law 7, second half: whoever never uses its PMU pays nothing for a placement on demand.
@pytest.mark.parametrize("name", ["exit-demand", "loop-demand"])
def test_a_guest_that_never_uses_its_pmu_costs_a_demand_placement_nothing(name: str) -> None:
    counts = engine(_rounds(0, 0, 0), SHIPPED[name], False)
    assert not counts.vcpus[:, [q.N_LOADS, q.N_PUTS, q.N_RESIDENCY]].any()
    assert counts.totals[q.T_WITHOUT] == 3


def test_while_used_loads_while_used_and_once_used_from_then_on() -> None:
    points = _rounds(0, 1, 0, 0)
    assert (_loads(points, "exit-demand"), _loads(points, "loop-demand")) == (1, 3)
    # Nothing is known of the guest: a placement on demand is taken to swap, or to wait for a trap.
    assert _loads(_rounds(None, None), "exit-demand") == 2


def test_lazy_stays_loaded_until_host_perf_acts() -> None:
    quiet, busy = _rounds(1, 1, 1), _rounds(1, 1, 1, episodes=True)
    assert [_loads(quiet, name) for name in ("lazy-core", "lazy-driver", "loop")] == [1, 1, 3]
    assert [_loads(busy, name) for name in ("lazy-core", "lazy-driver", "loop")] == [3, 3, 3]


def test_perf_core_evicts_where_no_register_is_touched_and_that_is_spurious() -> None:
    points = _rounds(1, 1, 1)
    for ts in (15, 25):
        points.insert(next(n for n, p in enumerate(points) if p[0] > ts), (
            ts, 0, 0, int(Kind.PERF_CORE), 0,
        ))  # fmt: skip
    counts = engine(points, SHIPPED["lazy-core"], False)
    assert (counts.totals[q.T_CORE], counts.totals[q.T_SPURIOUS]) == (2, 1)
    assert _loads(points, "lazy-core") == 3
    assert _loads(points, "lazy-driver") == 1


def test_dynamic_is_loop_while_a_host_event_is_on_and_wide_while_none_is() -> None:
    points = _rounds(1, 1, 1, 1)
    on = (5, 0, -1, int(Kind.HOST_EVENTS), 1)
    off = (25, 0, -1, int(Kind.HOST_EVENTS), 0)
    points = sorted([*points, on, off], key=lambda p: p[0])
    # Two rounds each with a swap of their own, then one stay for the two that follow.
    assert _loads(points, "dynamic") == 3
    # That event does not count the kernel: profiled does not mind.
    assert _loads(points, "profiled") == 1


def test_profiled_puts_at_once_when_an_event_that_counts_the_kernel_comes() -> None:
    on = (14, 0, -1, int(Kind.HOST_EVENTS), 3)
    points = sorted([*_rounds(1, 1, 1), on], key=lambda p: p[0])
    counts = engine(points, SHIPPED["profiled"], False)
    assert counts.totals[q.T_MODES] == 1
    assert _loads(points, "profiled") == 3
    assert counts.vcpus[0, q.N_RESIDENCY] == (14 - 1) + 1 + 1


def test_trapped_accesses_need_no_swap() -> None:
    counts = engine(_rounds(1, 1), SHIPPED["emulated"], False)
    assert not counts.vcpus[:, [q.N_LOADS, q.N_PUTS, q.N_RESIDENCY]].any()


# Law 9, on histories in which host perf never acts inside an inner loop, as interrupts are off.
@given(points=histories())
def test_lazy_swaps_no_more_than_loop_and_the_oracle_no_more_than_those_without_conflict(
    points: list[Point],
) -> None:
    inside: dict[int, int] = {}
    kept: list[Point] = []
    for point in points:
        _, c, _, kind, detail = point
        if Kind.STATE <= kind <= Kind.ENTRY:
            inside[c] = inside.get(c, 0) | detail & 63
        elif Kind.GUEST_END <= kind <= Kind.SWITCH_OUT:
            inside[c] = inside.get(c, 0) & ~(detail & 63)
        elif kind == Kind.LOST:
            inside[c] = 0
        acts = kind in (Kind.EPISODE, Kind.PERF_CORE)
        if not acts or inside.get(c, 0) & L == 0:
            kept.append(point)
    # A window that begins inside a loop is loaded under `loop` without a load.
    counts = engine(kept, SHIPPED["loop"], False).vcpus
    loop = int(counts[:, [q.N_LOADS, q.N_START]].sum())
    assert _loads(kept, "lazy-driver") <= loop
    assert _loads(kept, "lazy-core") <= loop
    # loop meets nobody here: hindsight can only need fewer.
    assert _loads(kept, "oracle") <= loop


def test_every_shipped_placement_says_who_proposed_it_and_who_must_change() -> None:
    for name, placement in SHIPPED.items():
        said: list[Any] = [placement.proposed_by, placement.hardware, placement.deterministic]
        assert all(said), name
    assert len(SHIPPED) == 14
