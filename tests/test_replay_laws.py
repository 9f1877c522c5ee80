"""The laws of the replay on generated histories, and against a plain reference."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import UsageError
from analyzer.replay import Counts, Part, Placement, Replay, load_placement, shipped_placements
from analyzer.replay import kernel as q
from analyzer.timeline.points import REASON_SHIFT, Kind, Level
from tests import reference_replay as reference
from tests.reference_replay import Point

pytestmark = pytest.mark.laws

CPUS, VCPUS, REASONS = 3, 3, 4
SHIPPED = shipped_placements()
NAMES = ("exit", "loop", "vcpu", "sched")
BLIND = {"kvm": q.N_KVM, "user": q.N_USER, "interrupt": q.N_INTERRUPT, "other": q.N_OTHER}
G, L, I, O, S, E = (  # noqa: E741
    int(level)
    for level in (
        Level.GUEST, Level.LOOP, Level.INNER, Level.OUTER, Level.SCHED, Level.EVENTS,
    )
)  # fmt: skip
PREFIXES = (0, S, S | O, S | O | I, S | O | I | L | E, S | O | I | L | E | G)


@dataclass
class History:
    """A machine that only does what a machine can do, and the points it leaves behind."""

    ts: int = 0
    points: list[Point] = field(default_factory=list)
    running: list[int] = field(default_factory=lambda: [-1] * CPUS)
    known: list[bool] = field(default_factory=lambda: [False] * CPUS)
    interrupted: list[bool] = field(default_factory=lambda: [False] * CPUS)
    on: list[int] = field(default_factory=lambda: [-1] * VCPUS)
    levels: list[int] = field(default_factory=lambda: [0] * VCPUS)
    in_run: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    started: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    late: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    exited: list[bool] = field(default_factory=lambda: [False] * VCPUS)

    def add(self, c: int, v: int, kind: Kind, detail: int = 0) -> None:
        self.points.append((self.ts, c, v, int(kind), detail))

    def turn_on(self, c: int, v: int, kind: Kind, levels: int) -> None:
        fresh = levels & ~self.levels[v]
        self.levels[v] |= fresh
        self.add(c, v, kind, fresh)

    def turn_off(self, c: int, v: int, kind: Kind, levels: int, reason: int = 0) -> None:
        gone = levels & self.levels[v]
        self.levels[v] &= ~gone
        self.add(c, v, kind, gone | reason << REASON_SHIFT)

    def off_cpu(self, c: int, v: int) -> None:
        self.running[c], self.interrupted[c] = -1, False
        if v >= 0:
            self.on[v], self.late[v] = -1, False

    def step(self, dt: int, c: int, choice: int, extra: int) -> None:
        """Do one of the things that CPU c can do now."""
        self.ts += dt
        v = self.running[c]
        if not self.known[c]:
            self.begin(c, choice, extra)
        elif choice == 0 and extra == 0:
            self.add(c, v, Kind.LOST, self.levels[v] if v >= 0 else 0)
            if v >= 0:
                self.levels[v] = 0
            self.known[c] = False
            self.off_cpu(c, v)
        elif self.interrupted[c]:
            self.interrupted[c] = False
            self.add(c, -1, Kind.IRQ_OUT)
        elif v < 0:
            self.idle(c, choice, extra)
        else:
            self.thread(c, v, choice, extra)

    def begin(self, c: int, choice: int, extra: int) -> None:
        self.known[c] = True
        off = [v for v in range(VCPUS) if self.on[v] < 0]
        if choice < 3 or not off:
            self.add(c, -1, Kind.STATE)
            return
        v = off[extra % len(off)]
        # After an exit whose entry was lost the guest is not on: see the test of lost entries.
        prefix = PREFIXES[min(choice - 3, 4 if self.exited[v] else 5)]
        self.running[c], self.on[v], self.levels[v] = v, c, prefix
        self.in_run[v], self.started[v] = bool(prefix & O), bool(prefix & S)
        self.add(c, v, Kind.STATE, prefix)

    def idle(self, c: int, choice: int, extra: int) -> None:
        off = [v for v in range(VCPUS) if self.on[v] < 0]
        if choice < 3 or not off:
            self.interrupted[c] = True
            self.add(c, -1, Kind.IRQ_IN)
            return
        v = off[extra % len(off)]
        self.running[c], self.on[v] = v, c
        levels = S if self.started[v] else 0
        if self.in_run[v]:
            levels = S | O | (I if choice % 2 else 0)
        self.turn_on(c, v, Kind.SWITCH_IN, levels)

    def thread(self, c: int, v: int, choice: int, extra: int) -> None:
        levels = self.levels[v]
        if levels & G:
            joined = (G, G | E, G | L | E)[extra % 3]
            if choice < 3:
                self.turn_off(c, v, Kind.GUEST_END, joined)
                self.late[v] = True
            else:
                self.exit(c, v, joined, choice)
        elif choice == 1:
            self.interrupted[c] = True
            self.add(c, -1, Kind.IRQ_IN)
        elif self.late[v] and choice != 2:
            self.late[v] = False
            self.exit(c, v, G | ((L | E) if extra % 2 else 0), choice)
        elif levels & L and choice == 3:
            self.turn_off(c, v, Kind.VCPU_PUT, I | L | E)
        elif choice == 2:
            self.turn_off(c, v, Kind.SWITCH_OUT, G | L | I | O | S | E)
            self.off_cpu(c, v)
        elif levels & I:
            if choice == 3:
                self.turn_off(c, v, Kind.VCPU_PUT, I)
            else:
                self.turn_on(c, v, Kind.ENTRY, G | L | E)
                self.exited[v] = False
        elif levels & O:
            if choice < 5:
                last = choice == 3
                self.turn_off(c, v, Kind.RUN_EXIT, O | (S if last else 0))
                self.in_run[v], self.started[v] = False, not last
            else:
                self.turn_on(c, v, Kind.VCPU_LOAD, S | O | I)
        else:
            self.in_run[v] = self.started[v] = True
            self.turn_on(c, v, Kind.RUN_ENTER, S | O)

    def exit(self, c: int, v: int, levels: int, choice: int) -> None:
        self.exited[v] = True
        self.turn_off(c, v, Kind.EXIT, levels, choice % (REASONS + 1))


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """Points of several CPUs and vCPUs; every CPU's stream ends with LOST."""
    # Four bytes a step: lists of numbers would be short and mostly zero.
    size = 4 * draw(st.sampled_from((300, 120, 60, 20, 6)))
    data = draw(st.binary(min_size=size, max_size=size))
    history = History(draw(st.integers(0, 1000)))
    for n in range(0, size, 4):
        dt, c, choice, extra = data[n : n + 4]
        history.step(1 + dt % 50, c % CPUS, choice % 10, extra % 12)
    for c in range(CPUS):
        if history.known[c]:
            history.step(1, c, 0, 0)
    return history.points


def engine(
    points: list[Point], placement: Placement, most: bool, chunk: int = 10**6,
    part: Part | None = None,
) -> Counts:  # fmt: skip
    replay = Replay(placement, most, VCPUS, CPUS, REASONS, part)
    rows = np.array(points, np.int64).reshape(-1, 5)
    for begin in range(0, len(points), chunk):
        replay.feed(*(np.ascontiguousarray(rows[begin : begin + chunk, n]) for n in range(5)))
    return replay.counts()


def same(one: Counts, other: Counts) -> bool:
    return np.array_equal(one.vcpus, other.vcpus) and np.array_equal(one.reasons, other.reasons)


def expected(
    points: list[Point], placement: Placement, most: bool, part: Part | None = None
) -> Counts:
    """Return the reference's result in the engine's arrays."""
    slow = reference.Part()
    if part is not None:
        slow = reference.Part(
            slow.begin if part.begin is None else part.begin,
            slow.end if part.end is None else part.end,
            part.cpus,
            part.vcpus,
        )
    result = reference.run(points, placement.load, placement.put, most, slow)
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
    return Counts(vcpus, reasons, np.zeros(q.TOTALS, np.int64))


def blind(counts: Counts) -> np.ndarray:
    return counts.vcpus[:, list(BLIND.values())].sum(axis=1)


each_bound = pytest.mark.parametrize("most", [False, True], ids=["fewest", "most"])
each_placement = pytest.mark.parametrize("name", NAMES)


@each_bound
@each_placement
@given(points=histories())
def test_engine_equals_the_reference(name: str, most: bool, points: list[Point]) -> None:
    got, want = engine(points, SHIPPED[name], most), expected(points, SHIPPED[name], most)
    np.testing.assert_array_equal(got.vcpus, want.vcpus)
    np.testing.assert_array_equal(got.reasons, want.reasons)


@each_bound
@each_placement
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
