"""The laws of the replay on generated histories, and against a plain reference."""

# Which test holds which law of design.md section 9? Files are tests/test_*.py.
#
# 1  modes tile a vCPU's time   perfetto_goldens: modes_tile_every_vcpus_time
#    owners tile a CPU's        conflict_laws: stays_and_the_hosts_time_tile_..; fixture_laws:
#                               recorded_owners_tile_.., stays_of_every_design_..
# 2  residencies nest, blind    here: residencies_nest; perfetto_goldens: blind_time_does_not_..
#    time does not fall
# 3  loads balance puts         here: loads_balance_puts_..; fixture_laws: loads_balance_puts_..
#    one owner a CPU, one CPU   conflict_laws: stays_and_the_hosts_time_.., no_vcpus_state_is_..;
#    a vCPU's state             fixture_laws: the_kernels_own_swaps_.., stays_of_every_design_..;
#                               reference_replay.own asserts both
# 4  engine = reference         here: engine_equals_the_reference; part_laws: part_equals_..;
#                               conflict_laws: stays_and_conflicts_equal_.., the_declared_table_..
# 5  shift, rename, renumber,   here: chunks_.., shifted_time_..; conflict_laws: shift_and_..;
#    permute, cut               renaming; pieces
# 6  formats agree              formats_agree, on histories written in both formats: no shared run
#                               is held in two
# 7  no episode, no conflict    conflict_laws, fixture_laws: .. no_conflict_and_no_evidence
#    a demand placement is free placement_laws: a_guest_that_never_uses_its_pmu_..
# 8  predicted = recorded       fixture_laws: predicted_swaps_are_the_recorded_ones
# 9  oracle, lazy               placement_laws: lazy_swaps_no_more_than_loop_..
# 10 costs are ordered          cost_algebra, pricing, design_prices: law_10_for_every_design
# 11 observed, inferred         conflict_laws: inferred_episodes_change_no_observed_number
# 12 a store is whole or absent store_laws; cli: refusals_are_one_line_..

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import UsageError
from analyzer.replay import (
    Counts,
    Part,
    Placement,
    Replay,
    leaves_range,
    load_placement,
    shipped_placements,
)
from analyzer.replay import kernel as q
from analyzer.timeline.points import REASON_SHIFT, Kind
from tests import reference_replay as reference
from tests.reference_replay import Point
from tests.replay_histories import CPUS, REASONS, VCPUS, E, G, I, L, O, S, histories

pytestmark = pytest.mark.laws

SHIPPED = shipped_placements()
# The nested ones, whose words are edges only; then all, with their rules.
NAMES = ("exit", "loop", "vcpu", "sched")
BLIND = {"kvm": q.N_KVM, "user": q.N_USER, "interrupt": q.N_INTERRUPT, "other": q.N_OTHER}


def engine(
    points: list[Point], placement: Placement, most: bool, chunk: int = 10**6,
    part: Part | None = None, loop_known: bool = False,
) -> Counts:  # fmt: skip
    replay = Replay(placement, most, VCPUS, CPUS, REASONS, part, loop_known=loop_known)
    rows = np.array(points, np.int64).reshape(-1, 5)
    for begin in range(0, len(points), chunk):
        replay.feed(*(np.ascontiguousarray(rows[begin : begin + chunk, n]) for n in range(5)))
    return replay.counts()


def same(one: Counts, other: Counts) -> bool:
    return np.array_equal(one.vcpus, other.vcpus) and np.array_equal(one.reasons, other.reasons)


def slow_part(part: Part) -> reference.Part:
    slow = reference.Part(cpus=part.cpus, vcpus=part.vcpus)
    if part.begin is not None:
        slow.begin = part.begin
    if part.end is not None:
        slow.end = part.end
    return slow


def expected(
    points: list[Point], placement: Placement, most: bool, part: Part | None = None,
    loop_known: bool = False,
) -> Counts:  # fmt: skip
    """Return the reference's result in the engine's arrays."""
    slow = slow_part(part or Part())
    rules = replace(slow_rules(placement), loop_known=loop_known)
    result = reference.run(points, placement.load, placement.put, most, slow, rules=rules)
    vcpus = np.zeros((VCPUS, q.COUNTS), np.int64)
    reasons = np.zeros((REASONS + 1, 4), np.int64)
    for v, one in result.vcpus.items():
        vcpus[v, q.N_LOADS], vcpus[v, q.N_PUTS] = one.loads, one.puts
        vcpus[v, q.N_START], vcpus[v, q.N_END] = one.loaded_at_start, one.loaded_at_end
        vcpus[v, q.N_RESIDENCY], vcpus[v, q.N_GUEST] = one.residency, one.guest
        for name, column in BLIND.items():
            vcpus[v, column] = one.blind[name]
    for r, why in result.reasons.items():
        reasons[r] = why.exits, why.loads, why.puts, why.blind
    return Counts(vcpus, reasons, np.array(slow_totals(result), np.int64))


def slow_rules(placement: Placement) -> reference.Rules:
    words = {
        "tick": [1], "mux_timer": [2], "ipi": [3], "nmi": [4], "context_switch": [5, 6],
        "rdpmc": [7], "other": [8],
    }  # fmt: skip
    contexts = frozenset(number for word in placement.evict for number in words[word])
    demand = "trap" if placement.kind == "trap" else placement.demand
    return reference.Rules(contexts, placement.evict_core, placement.host_events, demand)


def slow_totals(result: reference.Result) -> list[int]:
    totals = [0] * q.TOTALS
    for context, times in result.evicted.items():
        totals[q.T_EVICTED + context] = times
    totals[q.T_CORE], totals[q.T_SPURIOUS] = result.core, result.spurious
    totals[q.T_DISPLACED], totals[q.T_REMOTE] = result.displaced, result.remote
    totals[q.T_MODES], totals[q.T_WITHOUT] = result.modes, result.without
    return totals


def blind(counts: Counts) -> np.ndarray:
    return counts.vcpus[:, list(BLIND.values())].sum(axis=1)


each_bound = pytest.mark.parametrize("most", [False, True], ids=["fewest", "most"])
each_placement = pytest.mark.parametrize("name", NAMES)


@each_bound
@pytest.mark.parametrize("name", SHIPPED)
@given(points=histories(), known=st.booleans())
def test_engine_equals_the_reference(
    name: str, most: bool, points: list[Point], known: bool
) -> None:
    got = engine(points, SHIPPED[name], most, loop_known=known)
    want = expected(points, SHIPPED[name], most, loop_known=known)
    np.testing.assert_array_equal(got.vcpus, want.vcpus)
    np.testing.assert_array_equal(got.reasons, want.reasons)
    np.testing.assert_array_equal(got.totals, want.totals)


# Where inner loops are known, what only they and the guest's own edges decide has one answer.
@pytest.mark.parametrize("name", SHIPPED)
@given(points=histories())
def test_known_loops_leave_no_range(name: str, points: list[Point]) -> None:
    placement = SHIPPED[name]
    words = {*placement.load, *placement.put}
    assert leaves_range(placement, True) == bool(words & {"vcpu_load", "vcpu_put"})
    if not leaves_range(placement, True):
        fewest, most = (engine(points, placement, m, loop_known=True) for m in (False, True))
        assert same(fewest, most)


@each_bound
@pytest.mark.parametrize("name", SHIPPED)
@given(points=histories(), chunk=st.integers(1, 40))
def test_chunks_change_nothing(name: str, most: bool, points: list[Point], chunk: int) -> None:
    whole = engine(points, SHIPPED[name], most)
    assert same(whole, engine(points, SHIPPED[name], most, chunk))


@each_bound
@each_placement
@given(points=histories(), shift=st.integers(0, 2**61), order=st.permutations(range(CPUS)))
def test_shifted_time_and_renumbered_cpus_change_nothing(
    name: str, most: bool, points: list[Point], shift: int, order: list[int]
) -> None:
    whole = engine(points, SHIPPED[name], most)
    shifted = [(ts + shift, *rest) for ts, *rest in points]
    assert same(whole, engine(shifted, SHIPPED[name], most))
    renumbered = [(ts, order[c], *rest) for ts, c, *rest in points]
    assert same(whole, engine(renumbered, SHIPPED[name], most))


@each_bound
@each_placement
@given(points=histories())
def test_loads_balance_puts_and_residency_is_guest_and_blind(
    name: str, most: bool, points: list[Point]
) -> None:
    counts = engine(points, SHIPPED[name], most)
    n = counts.vcpus.T
    np.testing.assert_array_equal(n[q.N_LOADS] + n[q.N_START], n[q.N_PUTS] + n[q.N_END])
    # A guest runs loaded under every shipped placement.
    loaded = reference.run(points, SHIPPED[name].load, SHIPPED[name].put, most).vcpus
    on = np.array([loaded[v].guest_loaded if v in loaded else 0 for v in range(VCPUS)])
    np.testing.assert_array_equal(n[q.N_RESIDENCY], on + blind(counts))
    np.testing.assert_array_equal(n[q.N_GUEST], on)
    # Each load, put and blind nanosecond has one reason, and only one.
    whole = [n[q.N_LOADS].sum(), n[q.N_PUTS].sum(), blind(counts).sum()]
    assert counts.reasons[:, 1:].sum(axis=0).tolist() == whole


@given(points=histories())
def test_residencies_nest(points: list[Point]) -> None:
    counts = [engine(points, SHIPPED[name], False) for name in NAMES]
    for inner, outer in itertools.pairwise(counts):
        np.testing.assert_array_equal(inner.vcpus[:, q.N_GUEST], outer.vcpus[:, q.N_GUEST])
        assert (blind(inner) <= blind(outer)).all()
        assert (inner.vcpus[:, q.N_RESIDENCY] <= outer.vcpus[:, q.N_RESIDENCY]).all()
        np.testing.assert_array_equal(inner.reasons[:, q.Q_EXITS], outer.reasons[:, q.Q_EXITS])


# A window that begins in user code; one joined exit (reason 1), a late guest end with an interrupt
# before the exit (reason 2), a put, user code, the window's end.
WRITTEN: list[Point] = [
    (100, 0, 0, Kind.STATE, S),
    (110, 0, 0, Kind.RUN_ENTER, O),
    (115, 0, 0, Kind.VCPU_LOAD, I),
    (120, 0, 0, Kind.ENTRY, G | L | E),
    (150, 0, 0, Kind.EXIT, G | 1 << REASON_SHIFT),
    (153, 0, 0, Kind.ENTRY, G),
    (173, 0, 0, Kind.GUEST_END, G | L | E),
    (174, 0, -1, Kind.IRQ_IN, 0),
    (178, 0, -1, Kind.IRQ_OUT, 0),
    (180, 0, 0, Kind.EXIT, 2 << REASON_SHIFT),
    (190, 0, 0, Kind.VCPU_PUT, I),
    (192, 0, 0, Kind.RUN_EXIT, O),
    (200, 0, 0, Kind.LOST, S),
]


@pytest.mark.parametrize(
    ("name", "most", "swaps", "time", "reasons"),
    [
        # loads, puts, start, end; residency, kvm, user, interrupt; per reason exits, loads, puts,
        # blind.
        ("exit", False, (2, 2, 0, 0), (50, 0, 0, 0), ((0, 1, 0, 0), (1, 1, 1, 0), (1, 0, 1, 0))),
        ("loop", False, (1, 1, 0, 0), (53, 3, 0, 0), ((0, 1, 0, 0), (1, 0, 0, 3), (1, 0, 1, 0))),
        ("loop", True, (2, 2, 0, 0), (50, 0, 0, 0), ((0, 1, 0, 0), (1, 1, 1, 0), (1, 0, 1, 0))),
        ("vcpu", False, (1, 1, 0, 0), (75, 21, 0, 4), ((0, 1, 0, 5), (1, 0, 0, 3), (1, 0, 1, 17))),
        ("vcpu", True, (1, 1, 0, 0), (82, 28, 0, 4), ((0, 1, 0, 10), (1, 0, 0, 3), (1, 0, 1, 19))),
        (
            "sched", False, (0, 0, 1, 1), (100, 28, 18, 4),
            ((0, 0, 0, 20), (1, 0, 0, 3), (1, 0, 0, 27)),
        ),
    ],
)  # fmt: skip
def test_written_history(
    name: str,
    most: bool,
    swaps: tuple[int, ...],
    time: tuple[int, ...],
    reasons: tuple[tuple[int, ...], ...],
) -> None:
    for counts in (engine(WRITTEN, SHIPPED[name], most), expected(WRITTEN, SHIPPED[name], most)):
        row = counts.vcpus[0]
        assert tuple(row[[q.N_LOADS, q.N_PUTS, q.N_START, q.N_END]]) == swaps
        assert tuple(row[[q.N_RESIDENCY, q.N_KVM, q.N_USER, q.N_INTERRUPT]]) == time
        assert (row[q.N_GUEST], row[q.N_OTHER]) == (50, 0)
        assert tuple(map(tuple, counts.reasons[:3].tolist())) == reasons
        assert not counts.reasons[3:].any()


# Exit (reason 1), a loss that swallows the next entry, exit (reason 2).
LOST_ENTRY: list[Point] = [
    (10, 0, 0, Kind.STATE, S | O | I | L | E | G),
    (20, 0, 0, Kind.EXIT, G | L | E | 1 << REASON_SHIFT),
    (30, 0, 0, Kind.LOST, S | O | I),
    (40, 0, 0, Kind.STATE, S | O | I | L | E | G),
    (50, 0, 0, Kind.EXIT, G | L | E | 2 << REASON_SHIFT),
    (60, 0, 0, Kind.LOST, S | O | I),
]


@each_placement
def test_an_exit_keeps_its_reason_when_the_next_entry_is_lost(name: str) -> None:
    got, want = engine(LOST_ENTRY, SHIPPED[name], False), expected(LOST_ENTRY, SHIPPED[name], False)
    assert want.reasons[:3, q.Q_EXITS].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(got.reasons, want.reasons)


GOOD = """schema = "vpmu-analyzer/placement/1"
name = "x"
boundary = "x"
title = "x"
proposed_by = "x"
hardware = "none"
changes = []
load = ["entry"]
put = ["guest_end"]
perf_told = true
deterministic = "yes"
"""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (GOOD + "colour = 1\n", "'colour' is unknown"),
        (GOOD.replace('"entry"', '"guest_end"'), "'load' is 'guest_end'"),
        (GOOD.replace('"guest_end"', '"lunch"'), "'put' is 'lunch'"),
        (GOOD.replace("perf_told = true\n", ""), "'perf_told' must be there"),
        (GOOD.replace("placement/1", "placement/9"), "'schema' is"),
    ],
)
def test_a_bad_placement_names_its_key(text: str, key: str) -> None:
    assert load_placement(GOOD, "x.toml").load == ("entry",)
    with pytest.raises(UsageError, match=f"x.toml: key {key}"):
        load_placement(text, "x.toml")
