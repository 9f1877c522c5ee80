"""One placement over a list of points, one point at a time: slow, plain, and without the kernel.

Written from what the points mean (analyzer.timeline.points), to be held against analyzer.replay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from analyzer.timeline.points import REASON_SHIFT, Kind, Level

__all__ = ["Part", "Point", "Reason", "Result", "Vcpu", "run"]

Point = tuple[int, int, int, int, int]  # ts, cpu, vcpu (-1: none), kind, detail

# The level whose edge a word names: where the fewest swaps are, where the most are.
EDGE = {
    "entry": (Level.GUEST, Level.GUEST),
    "guest_end": (Level.GUEST, Level.GUEST),
    "loop_begin": (Level.LOOP, Level.GUEST),
    "loop_end": (Level.LOOP, Level.GUEST),
    "vcpu_load": (Level.INNER, Level.OUTER),
    "vcpu_put": (Level.INNER, Level.OUTER),
    "sched_in": (Level.SCHED, Level.SCHED),
    "sched_out": (Level.SCHED, Level.SCHED),
}
ON = {Kind.SWITCH_IN, Kind.RUN_ENTER, Kind.VCPU_LOAD, Kind.ENTRY}
OFF = {Kind.GUEST_END, Kind.EXIT, Kind.VCPU_PUT, Kind.RUN_EXIT, Kind.SWITCH_OUT}


@dataclass
class Reason:
    """What an exit reason (0: not known) brought about, up to the next entry."""

    exits: int = 0
    loads: int = 0
    puts: int = 0
    blind: int = 0

    def add(self, other: Reason) -> None:
        self.exits += other.exits
        self.loads += other.loads
        self.puts += other.puts
        self.blind += other.blind


@dataclass
class Vcpu:
    """What one vCPU saw of the placement; `blind` by kvm, user, interrupt, other."""

    loads: int = 0
    puts: int = 0
    loaded_at_start: int = 0
    loaded_at_end: int = 0
    residency: int = 0
    guest: int = 0
    guest_loaded: int = 0
    blind: dict[str, int] = field(
        default_factory=lambda: {"kvm": 0, "user": 0, "interrupt": 0, "other": 0}
    )


@dataclass
class Result:
    """Counts by vCPU and by exit reason; reasons with nothing to say are absent."""

    vcpus: dict[int, Vcpu] = field(default_factory=dict)
    reasons: dict[int, Reason] = field(default_factory=dict)


@dataclass
class Cpu:
    """What is known of one CPU."""

    last: int = 0
    running: int | None = None
    owner: int | None = None
    levels: Level = field(default_factory=lambda: Level(0))
    interrupted: bool = False

    def mode(self) -> str:
        if self.interrupted:
            return "interrupt"
        if self.running is None:
            return "other"
        if Level.GUEST in self.levels:
            return "guest"
        return "kvm" if Level.OUTER in self.levels else "user"


@dataclass
class Stretch:
    """From a guest's end to its next entry; `reason` is None until the exit has told it."""

    reason: int | None = None
    sums: Reason = field(default_factory=Reason)


@dataclass
class Part:
    """What of the recording counts: begin <= ts < end, on these CPUs, for these vCPUs."""

    begin: int = -(2**63)
    end: int = 2**63
    cpus: tuple[int, ...] | None = None
    vcpus: tuple[int, ...] | None = None

    def has(self, ts: int, cpu: int) -> bool:
        return self.begin <= ts < self.end and (self.cpus is None or cpu in self.cpus)


class Reference:
    """The state of one replay."""

    def __init__(
        self, load: Iterable[str], put: Iterable[str], most: bool, part: Part | None
    ) -> None:
        self.part = part or Part()
        self.load = {EDGE[word][most] for word in load}
        self.put = {EDGE[word][most] for word in put}
        self.cpus: dict[int, Cpu] = {}
        self.stretches: dict[int, Stretch] = {}
        self.result = Result()

    def vcpu(self, number: int) -> Vcpu:
        return self.result.vcpus.setdefault(number, Vcpu())

    def stretch(self, number: int) -> Stretch:
        return self.stretches.setdefault(number, Stretch())

    def close(self, number: int) -> None:
        """The next entry is here: what happened since the guest's end has its reason."""
        done = self.stretches.pop(number, None)
        watched = self.part.vcpus is None or number in self.part.vcpus
        if done is not None and done.sums != Reason() and watched:
            self.result.reasons.setdefault(done.reason or 0, Reason()).add(done.sums)

    def pass_time(self, where: int, cpu: Cpu, ts: int) -> None:
        before, cpu.last = cpu.last, ts
        if self.part.cpus is not None and where not in self.part.cpus:
            return
        spent = max(0, min(ts, self.part.end) - max(before, self.part.begin))
        if cpu.owner is not None:
            self.vcpu(cpu.owner).loaded_at_start += before < self.part.begin <= ts
            self.vcpu(cpu.owner).loaded_at_end += before < self.part.end <= ts
        mode = cpu.mode()
        if mode == "guest" and cpu.running is not None:
            self.vcpu(cpu.running).guest += spent
        if cpu.owner is None:
            return
        owner = self.vcpu(cpu.owner)
        owner.residency += spent
        if mode == "guest":
            owner.guest_loaded += spent
            return
        if mode != "interrupt" and cpu.running != cpu.owner:
            mode = "other"
        owner.blind[mode] += spent
        self.stretch(cpu.owner).sums.blind += spent

    def step(self, point: Point) -> None:
        ts, where, number, kind_number, detail = point
        kind, named = Kind(kind_number), Level(detail & ((1 << REASON_SHIFT) - 1))
        cpu = self.cpus.setdefault(where, Cpu(last=ts))
        self.pass_time(where, cpu, ts)
        one = int(self.part.has(ts, where))
        if kind is Kind.STATE and number >= 0:
            cpu.running = number
            cpu.levels |= named
            if Level.GUEST in named and self.stretch(number).reason is not None:
                self.close(number)  # the entry was lost, but there was one
            if any(level in named for level in self.load):
                cpu.owner = number
                self.vcpu(number).loaded_at_start += one
        elif kind in ON:
            cpu.running = number
            cpu.levels |= named
            if cpu.owner != number and any(level in named for level in self.load):
                cpu.owner = number
                self.vcpu(number).loads += one
                self.stretch(number).sums.loads += one
            if kind is Kind.ENTRY:
                self.close(number)
        elif kind in OFF:
            cpu.levels &= ~named
            # A second end with no entry between: the entry was lost, this is another stretch.
            again = kind is Kind.EXIT or Level.GUEST in named
            if again and self.stretch(number).reason is not None:
                self.close(number)
            if kind is Kind.EXIT:
                self.stretch(number).reason = detail >> REASON_SHIFT
                self.stretch(number).sums.exits += one
            if cpu.owner == number and any(level in named for level in self.put):
                cpu.owner = None
                self.vcpu(number).puts += one
                self.stretch(number).sums.puts += one
            if kind is Kind.SWITCH_OUT:
                cpu.running, cpu.levels, cpu.interrupted = None, Level(0), False
        elif kind is Kind.LOST:
            if cpu.owner is not None:
                self.vcpu(cpu.owner).loaded_at_end += one
            self.cpus[where] = Cpu(last=ts)
        elif kind in {Kind.IRQ_IN, Kind.IRQ_OUT}:
            cpu.interrupted = kind is Kind.IRQ_IN


def run(
    points: Iterable[Point], load: Iterable[str], put: Iterable[str], most: bool,
    part: Part | None = None,
) -> Result:  # fmt: skip
    """Return what the placement with these load and put words would have done, in that part."""
    reference = Reference(load, put, most, part)
    for point in points:
        reference.step(point)
    for number in list(reference.stretches):
        reference.close(number)
    watched = reference.part.vcpus
    for number in list(reference.result.vcpus) if watched is not None else ():
        if number not in watched:
            del reference.result.vcpus[number]
    return reference.result
