"""The laws of a part of a recording: it equals the reference, and parts equal the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.replay import Part
from analyzer.replay import kernel as q
from tests.reference_replay import Point
from tests.replay_histories import CPUS, VCPUS, histories
from tests.test_replay_laws import SHIPPED, each_bound, each_placement, engine, expected

pytestmark = pytest.mark.laws


@st.composite
def parts(draw: st.DrawFn, top: int = 4000) -> Part:
    """Cuts that lie before, inside and behind a history, and some CPUs and vCPUs."""
    edges = sorted(draw(st.lists(st.integers(0, top), min_size=2, max_size=2, unique=True)))
    begin, end = (edge if draw(st.booleans()) else None for edge in edges)

    def some(size: int) -> tuple[int, ...] | None:
        chosen = draw(st.sets(st.integers(0, size - 1)))
        return tuple(sorted(chosen)) if draw(st.booleans()) else None

    return Part(begin, end, some(CPUS), some(VCPUS))


@each_bound
@each_placement
@given(points=histories(), part=parts(), chunk=st.integers(1, 40))
def test_part_equals_the_reference_in_chunks_too(
    name: str, most: bool, points: list[Point], part: Part, chunk: int
) -> None:
    want = expected(points, SHIPPED[name], most, part)
    for size in (10**6, chunk):
        got = engine(points, SHIPPED[name], most, size, part)
        np.testing.assert_array_equal(got.vcpus, want.vcpus)
        np.testing.assert_array_equal(got.reasons, want.reasons)


# Times side by side, CPU by CPU, vCPU by vCPU: nothing counts twice and nothing is missed. Only a
# cut through a stay shows, as loaded at its end and at its start.
@each_bound
@each_placement
@given(points=histories(), cut=st.integers(0, 4000))
def test_parts_add_up_to_the_whole(name: str, most: bool, points: list[Point], cut: int) -> None:
    def total(*some: Part) -> tuple[np.ndarray, np.ndarray]:
        found = [engine(points, SHIPPED[name], most, part=part) for part in some]
        return sum(one.vcpus for one in found), sum(one.reasons for one in found)

    vcpus, reasons = total(Part())
    for each in (
        [Part(cpus=(c,)) for c in range(CPUS)],
        [Part(vcpus=(v,)) for v in range(VCPUS)],
    ):
        some_vcpus, some_reasons = total(*each)
        np.testing.assert_array_equal(some_vcpus, vcpus)
        np.testing.assert_array_equal(some_reasons, reasons)
    some_vcpus, some_reasons = total(Part(end=cut), Part(begin=cut))
    crossing = (some_vcpus - vcpus)[:, q.N_START]
    np.testing.assert_array_equal(crossing, (some_vcpus - vcpus)[:, q.N_END])
    assert (crossing >= 0).all()
    edges = [q.N_START, q.N_END]
    np.testing.assert_array_equal(
        np.delete(some_vcpus, edges, axis=1), np.delete(vcpus, edges, axis=1)
    )
    np.testing.assert_array_equal(some_reasons, reasons)
