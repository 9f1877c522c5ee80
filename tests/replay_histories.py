"""Histories of a machine that only does what a machine can do, and the points that they leave.

Several CPUs and vCPUs; migrations, losses, interrupts and NMIs (inside context switches too), exits
that come late, host perf at work in every context, and events of one and the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from analyzer.timeline.attribution.words import Context
from analyzer.timeline.points import REASON_SHIFT, Kind, Level
from tests.reference_conflicts import Episode
from tests.reference_replay import Point

__all__ = ["CPUS", "REASONS", "VCPUS", "E", "G", "I", "L", "O", "S", "episodes_of", "histories"]

CPUS, VCPUS, REASONS = 3, 3, 4
G, L, I, O, S, E = (  # noqa: E741
    int(level)
    for level in (
        Level.GUEST, Level.LOOP, Level.INNER, Level.OUTER, Level.SCHED, Level.EVENTS,
    )
)  # fmt: skip
PREFIXES = (0, S, S | O, S | O | I, S | O | I | L | E, S | O | I | L | E | G)
# Contexts that may come at any time; the sides of a switch only come behind one.
ANYWHERE = (
    Context.TICK, Context.MUX_TIMER, Context.IPI, Context.NMI, Context.RDPMC, Context.OTHER,
)  # fmt: skip
HOST = -1


@dataclass
class History:
    """The machine's state, and its points so far."""

    ts: int = 0
    points: list[Point] = field(default_factory=list)
    running: list[int] = field(default_factory=lambda: [HOST] * CPUS)
    known: list[bool] = field(default_factory=lambda: [False] * CPUS)
    # Since the window or a loss, nothing has told which thread is on this CPU.
    dark: list[bool] = field(default_factory=lambda: [False] * CPUS)
    interrupted: list[bool] = field(default_factory=lambda: [False] * CPUS)
    on: list[int] = field(default_factory=lambda: [-1] * VCPUS)
    levels: list[int] = field(default_factory=lambda: [0] * VCPUS)
    in_run: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    started: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    late: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    exited: list[bool] = field(default_factory=lambda: [False] * VCPUS)
    episodes: int = 0

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
        self.running[c], self.interrupted[c] = HOST, False
        if v >= 0:
            self.on[v], self.late[v] = -1, False

    def step(self, dt: int, c: int, choice: int, extra: int) -> None:
        """Do one of the things that CPU c can do now."""
        self.ts += dt
        v = self.running[c]
        if not self.known[c]:
            self.begin(c, choice % 10, extra)
        elif choice == 0 and extra < 2:
            self.add(c, v, Kind.LOST, self.levels[v] if v >= 0 else 0)
            if v >= 0:
                self.levels[v] = 0
            self.known[c] = False
            self.off_cpu(c, v)
        elif choice == 10:
            self.perf(c, v, ANYWHERE[extra % len(ANYWHERE)])
        elif choice == 11 and v >= 0:
            self.add(c, v, Kind.GUEST_PMI)
        elif choice == 14:
            self.add(c, -1, Kind.HOST_EVENTS, (0, 1, 3, 3)[extra % 4])
        elif choice == 15:
            self.add(c, v, Kind.PERF_CORE)
        elif choice == 16 and v >= 0:
            self.add(c, v, Kind.GUEST_PMU, extra % 2)
        elif self.interrupted[c]:
            self.interrupted[c] = False
            self.add(c, -1, Kind.IRQ_OUT)
        elif (
            choice >= 11
            or (self.dark[c] and choice > 5)
            or (choice == 2 and v >= 0 and not self.levels[v] & G)
        ):
            self.switch(c, v, extra, choice)
        elif v < 0:
            self.idle(c, choice, extra)
        else:
            self.thread(c, v, choice, extra)

    def perf(self, c: int, v: int, context: Context) -> None:
        self.add(c, v, Kind.EPISODE, self.episodes << REASON_SHIFT | context)
        self.episodes += 1

    def off(self) -> list[int]:
        return [v for v in range(VCPUS) if self.on[v] < 0]

    def begin(self, c: int, choice: int, extra: int) -> None:
        self.known[c], self.dark[c] = True, False
        off = self.off()
        if choice < 3 or not off:
            self.dark[c] = True
            self.add(c, -1, Kind.STATE)
            return
        v = off[extra % len(off)]
        # After an exit whose entry was lost the guest is not on: see the test of lost entries.
        prefix = PREFIXES[min(choice - 3, 4 if self.exited[v] else 5)]
        self.running[c], self.on[v], self.levels[v] = v, c, prefix
        self.in_run[v], self.started[v] = bool(prefix & O), bool(prefix & S)
        self.add(c, v, Kind.STATE, prefix)

    def switch(self, c: int, v: int, extra: int, choice: int) -> None:
        """One context switch: its points at one time, then what perf does on both sides of it."""
        off = self.off()
        leaves = v
        if v >= 0:
            self.turn_off(c, v, Kind.SWITCH_OUT, G | L | I | O | S | E)
            self.off_cpu(c, v)
        elif self.dark[c] and off and extra % 2:
            # A vCPU's thread that nobody knew to be here: no point tells that it leaves.
            leaves = off.pop()
        self.dark[c] = False
        comes = off[extra % len(off)] if off and choice % 3 else HOST
        if comes >= 0:
            self.come(c, comes, extra)
        for bit, thread, context in (
            (1, leaves, Context.SWITCH_OUT), (2, leaves, Context.NMI),
            (4, comes, Context.SWITCH_IN), (8, comes, Context.NMI),
        ):  # fmt: skip
            if extra & bit:
                self.ts += extra % 3
                if context == Context.NMI and extra % 5 == 0:
                    self.add(c, -1, Kind.IRQ_IN)
                self.perf(c, thread, context)
                if context == Context.NMI and extra % 5 == 0:
                    self.add(c, -1, Kind.IRQ_OUT)

    def come(self, c: int, v: int, extra: int) -> None:
        self.running[c], self.on[v] = v, c
        levels = S if self.started[v] else 0
        if self.in_run[v]:
            levels = S | O | (I if extra % 2 else 0)
        self.turn_on(c, v, Kind.SWITCH_IN, levels)

    def idle(self, c: int, choice: int, extra: int) -> None:
        off = self.off()
        if choice < 3 or not off:
            self.interrupted[c] = True
            self.add(c, -1, Kind.IRQ_IN)
            return
        self.dark[c] = False
        self.come(c, off[extra % len(off)], choice)

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
        elif self.late[v]:
            self.late[v] = False
            self.exit(c, v, G | ((L | E) if extra % 2 else 0), choice)
        elif levels & L and choice == 3:
            self.turn_off(c, v, Kind.VCPU_PUT, I | L | E)
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
        history.step(dt % 50, c % CPUS, choice % 17, extra % 16)
    for c in range(CPUS):
        if history.known[c]:
            history.step(1, c, 0, 0)
    return history.points


@st.composite
def episodes_of(draw: st.DrawFn, points: list[Point]) -> list[Episode]:
    """What each episode of a history did, by its number."""
    count = sum(kind == Kind.EPISODE for _, _, _, kind, _ in points)
    # Five bytes an episode: up to four accesses of the twenty classes, and four bits.
    data = draw(st.binary(min_size=5 * count, max_size=5 * count))
    made = []
    contexts = [d & 255 for _, _, _, kind, d in points if kind == Kind.EPISODE]
    for n, context in enumerate(contexts):
        *accesses, bits = data[5 * n : 5 * n + 5]
        operations = 0
        for access in accesses[: 1 + bits % 4]:
            operations |= 1 << access % 20
        evidence = "inferred" if bits & 16 else "observed"
        made.append(Episode(context, evidence, operations, bool(bits & 32), bool(bits & 64)))
    return made
