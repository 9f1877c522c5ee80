"""Is a price what plain loops make of counts and latencies, and does law 10 hold for it?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analyzer.replay import algebra as a

Array = np.ndarray[Any, Any]
COUNT = st.one_of(st.just(0.0), st.floats(1e-3, 1e6))
# Latencies and counts so small that their quotients overflow are nobody's.
NS = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))


@st.composite
def levelled(draw: st.DrawFn, *shape: int, of: Any = COUNT) -> Array:
    """float64[*shape], non-decreasing along the axis of length 3 that is the last but one."""
    return np.sort(draw(arrays(np.float64, shape, elements=of)), axis=-2)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Array, Array]:
    """Counts float64[p, 3, k] and latencies float64[3, k]."""
    p, k = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    return draw(levelled(p, 3, k)), draw(levelled(3, k, of=NS))


# Law 10, first part.
@pytest.mark.laws
@given(worlds())
def test_low_typical_and_high_stand_in_order(world: tuple[Array, Array]) -> None:
    counts, latencies = world
    found = a.intervals(counts, latencies)
    assert (np.diff(found, axis=1) >= 0).all()
    for p in range(len(counts)):
        for level in range(3):
            plain = sum(
                counts[p, level, k] * latencies[level, k] for k in range(latencies.shape[1])
            )
            assert found[p, level] == pytest.approx(plain)


# Law 10, second part: for every level and for the sweep alike.
@pytest.mark.laws
@given(worlds(), st.data())
def test_a_dearer_operation_never_makes_a_placement_cheaper(
    world: tuple[Array, Array], data: st.DataObject
) -> None:
    counts, latencies = world
    k = data.draw(st.integers(0, latencies.shape[1] - 1))
    dearer = latencies.copy()
    dearer[:, k] += data.draw(NS)
    assert (a.intervals(counts, dearer) >= a.intervals(counts, latencies)).all()
    at = np.array([data.draw(st.floats(0, 1))] * 3)
    before = a.sweep(counts[:, 0], counts[:, 2], latencies, at)
    # Another order of the same sums may round otherwise.
    after = a.sweep(counts[:, 0], counts[:, 2], dearer, at)
    assert (after >= before * (1 - 1e-12)).all()


# Law 10, third part.
@pytest.mark.laws
@given(worlds())
def test_free_operations_cost_nothing(world: tuple[Array, Array]) -> None:
    counts, latencies = world
    assert (a.intervals(counts, np.zeros_like(latencies)) == 0).all()
    assert (a.price(counts[:, 1], np.zeros((2, latencies.shape[1]))) == 0).all()
    assert np.isnan(a.assumed_share(counts[:, 1], latencies[1] * 0, latencies[1] >= 0)).all()


@pytest.mark.laws
@given(st.data())
def test_counts_are_amounts_times_vectors(data: st.DataObject) -> None:
    units, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    amounts = data.draw(levelled(3, units))
    vectors = data.draw(levelled(units, 3, k))
    found = a.count_operations(amounts, vectors)
    for level in range(3):
        for n in range(k):
            plain = sum(amounts[level, u] * vectors[u, level, n] for u in range(units))
            assert found[level, n] == pytest.approx(plain)
    assert (np.diff(found, axis=0) >= 0).all()


# What is not known makes nothing known, but none of what is never done is 0 all the same.
def test_unknown_amounts_stay_unknown() -> None:
    amounts = np.array([[1.0, 0.0], [2.0, 0.0], [np.nan, 0.0]])
    vectors = np.array([np.ones((3, 2)), np.full((3, 2), np.nan)])
    found = a.count_operations(amounts, vectors)
    assert found[:2].tolist() == [[1, 1], [2, 2]]
    assert np.isnan(found[2]).all()


@pytest.mark.laws
@given(worlds())
def test_break_even_factor_makes_the_prices_equal(world: tuple[Array, Array]) -> None:
    counts, latencies = world[0][:, 1], world[1][1]
    k = len(latencies)
    groups = np.vstack([np.eye(k, dtype=bool), np.ones((1, k), bool)])
    factors = a.break_even(counts, latencies, groups)
    for one in range(len(counts)):
        for other in range(len(counts)):
            for m, group in enumerate(groups):
                factor = factors[one, other, m]
                if np.isnan(factor):
                    continue
                moved = np.where(group, latencies * factor, latencies)
                size = (counts[[one, other]] * np.maximum(moved, latencies)).sum()
                difference = ((counts[one] - counts[other]) * moved).sum()
                assert abs(difference) <= 1e-6 * size


def test_break_even_of_two_placements_by_hand() -> None:
    # 10 writes of 50 ns and no read against 4 writes and 20 reads of 30 ns: 500 against 800 ns.
    counts, latencies = np.array([[10.0, 0.0], [4.0, 20.0]]), np.array([50.0, 30.0])
    factors = a.break_even(counts, latencies, np.eye(2, dtype=bool))
    # A write of 100 ns: 1000 and 400 + 600. A read of 15 ns: 500 and 200 + 300.
    assert factors[0, 1].tolist() == pytest.approx([2.0, 0.5])
    assert factors[1, 0].tolist() == pytest.approx([2.0, 0.5])
    # The same number of everything, or only cheaper ones: nothing turns the order.
    counts = np.array([[10.0, 2.0], [10.0, 1.0]])
    factors = a.break_even(counts, latencies, np.eye(2, dtype=bool))
    assert np.isnan(factors[0, 1, 0])
    assert factors[0, 1, 1] == 0


@pytest.mark.laws
@given(worlds())
def test_elasticities_add_up_to_one_and_shares_lie_between_0_and_1(
    world: tuple[Array, Array],
) -> None:
    counts, latencies = world[0][:, 1], world[1][1]
    moves, relative = a.slopes(counts, latencies)
    paid = (counts * latencies).sum(axis=1) > 0
    assert relative[paid].sum(axis=1) == pytest.approx(np.ones(int(paid.sum())))
    assert (moves == counts).all()
    assumed = np.arange(len(latencies)) % 2 == 0
    share = a.assumed_share(counts, latencies, assumed)
    assert ((share[paid] >= 0) & (share[paid] <= 1 + 1e-12)).all()


@given(levelled(2, 6, of=NS), st.integers(1, 50))
def test_sampled_points_lie_in_the_box_once_in_each_slice(box: Array, points: int) -> None:
    low, high = box
    found = a.sample_between(low, high, points)
    assert ((found >= low) & (found <= high)).all()
    again = a.sample_between(low, high, points)
    assert (found == again).all()


def test_each_slice_of_a_range_is_taken_once() -> None:
    found = a.sample_between(np.array([1.0, 0.0]), np.array([1e4, 8.0]), 8)
    assert sorted((np.log10(found[:, 0]) * 2).astype(int)) == list(range(8))
    assert sorted(found[:, 1].astype(int)) == list(range(8))


@pytest.mark.laws
@given(worlds(), st.data())
def test_shares_of_the_cheapest_equal_a_plain_count(
    world: tuple[Array, Array], data: st.DataObject
) -> None:
    overheads = world[0][:, :, 0].T.round()
    p = overheads.shape[1]
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=p, max_size=p)))
    plain = [0.0] * p
    for row in overheads:
        allowed = [row[n] for n in range(p) if eligible[n]]
        best = [n for n in range(p) if eligible[n] and row[n] == min(allowed)]
        for n in best:
            plain[n] += 1 / len(best) / len(overheads)
    assert a.cheapest_share(overheads, eligible) == pytest.approx(plain)


@pytest.mark.laws
@given(worlds(), st.data())
def test_who_dominates_is_cheaper_at_every_cost_point(
    world: tuple[Array, Array], data: st.DataObject
) -> None:
    counts, latencies = world
    p, k = len(counts), latencies.shape[1]
    other = np.sort(data.draw(arrays(np.float64, (2, p, 2), elements=st.floats(0, 3))), axis=0)
    found = a.dominates(counts[:, 0], counts[:, 2], latencies, other[0], other[1])
    at = data.draw(arrays(np.float64, k, elements=st.floats(0, 1)))
    point = latencies[0] + at * (latencies[2] - latencies[0])
    for one in range(p):
        assert not found[one, one]
        for two in range(p):
            if found[one, two]:
                most, least = counts[one, 2] @ point, counts[two, 0] @ point
                assert most <= least * (1 + 1e-9)
                assert (other[1, one] <= other[0, two]).all()
                assert not found[two, one]


# No conflict of a is known here: then a dominates nobody and nobody dominates it.
def test_what_is_not_known_dominates_nothing() -> None:
    counts = np.array([[[1.0]] * 3, [[2.0]] * 3])
    latencies = np.array([[1.0], [2.0], [3.0]])
    blind = np.array([[5.0, 0.0], [5.0, 0.0]])
    assert a.dominates(counts[:, 0], counts[:, 2], latencies, blind, blind).tolist() == [
        [False, True],
        [False, False],
    ]
    blind[0, 1] = np.nan
    assert not a.dominates(counts[:, 0], counts[:, 2], latencies, blind, blind).any()


# design.md section 6: thousands of cost points without a second replay; bench/costs.py times them.
def test_ten_thousand_cost_points_of_twenty_placements_at_once() -> None:
    random = np.random.default_rng(3)
    counts = np.sort(random.random((20, 3, 30)) * 1e6, axis=1)
    latencies = np.sort(random.random((3, 30)) * 1e3, axis=0)
    points = a.sample_between(latencies[0], latencies[2], 10_000)
    overheads = a.sweep(counts[:, 0], counts[:, 2], points, points[:, 0] / latencies[2, 0])
    shares = a.cheapest_share(overheads, np.ones(20, bool))
    assert overheads.shape == (10_000, 20)
    assert shares.sum() == pytest.approx(1)
