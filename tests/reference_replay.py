"""One placement over a list of points, one point at a time: slow, plain, and without the kernel.

Written from what the points mean (analyzer.timeline.points) and from the order of one context
switch, to be held against analyzer.replay:

    sched_switch, perf acts on the thread that leaves, KVM's notifier puts its state, the mm
    changes, perf acts on the thread that comes, KVM's notifier loads its state

A hook of perf's own puts and loads before perf acts on the one side and the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from analyzer.timeline.attribution.words import Context
from analyzer.timeline.points import REASON_SHIFT, Kind, Level
from tests.reference_records import Meeting, Reason, Result, Rules, Stay, Switch, Vcpu

__all__ = ["Meeting", "Part", "Point", "Reason", "Result", "Rules", "Stay", "Vcpu", "run"]

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
PLAIN = Rules()
OFF = {Kind.GUEST_END, Kind.EXIT, Kind.VCPU_PUT, Kind.RUN_EXIT, Kind.SWITCH_OUT}


@dataclass
class Cpu:
    """What is known of one CPU."""

    last: int = 0
    running: int | None = None
    stay: Stay | None = None
    switch: Switch | None = None
    levels: Level = field(default_factory=lambda: Level(0))
    interrupted: bool = False
    host_on: bool = False
    kernel_on: bool = False
    core_pending: bool = False

    @property
    def owner(self) -> int | None:
        return None if self.stay is None else self.stay.vcpu

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


def edge(word: str, most: bool, rules: Rules) -> Level:
    """Return the level whose edge a word names."""
    fewest, many = EDGE[word]
    if rules.loop_known and word.startswith("loop"):
        return fewest
    return many if most else fewest


class Reference:
    """The state of one replay."""

    def __init__(
        self, load: Iterable[str], put: Iterable[str], most: bool, part: Part | None, hook: str,
        rules: Rules,
    ) -> None:  # fmt: skip
        self.part = part or Part()
        self.rules = rules
        self.loop = edge("loop_end", most, rules)
        self.uses: dict[int, bool] = {}
        self.used: set[int] = set()
        self.hook = hook
        self.begun = 0
        self.load = {edge(word, most, rules) for word in load}
        self.put = {edge(word, most, rules) for word in put}
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

    def own(self, where: int, cpu: Cpu, number: int, ts: int) -> None:
        """A stay begins: one owner a CPU, one CPU a vCPU's state."""
        assert cpu.stay is None
        assert all(other.owner != number for other in self.cpus.values())
        cpu.stay = Stay(self.begun, where, number, ts)
        self.begun += 1

    def disown(self, cpu: Cpu, ts: int, is_put: bool) -> None:
        assert cpu.stay is not None
        cpu.stay.end, cpu.stay.is_put = ts, is_put
        self.result.stays.append(cpu.stay)
        cpu.stay = None

    def put_now(self, where: int, cpu: Cpu, ts: int) -> None:
        """The state on this CPU is put, whatever asks for it."""
        assert cpu.stay is not None
        one, number = int(self.part.has(ts, where)), cpu.stay.vcpu
        self.disown(cpu, ts, True)
        self.vcpu(number).puts += one
        self.stretch(number).sums.puts += one

    def load_now(self, where: int, cpu: Cpu, number: int, ts: int) -> None:
        """Load a vCPU's state: first another's goes, and its own from wherever it still is."""
        if cpu.stay is not None:
            self.result.displaced += self.part.has(ts, where)
            self.put_now(where, cpu, ts)
        for away, other in self.cpus.items():
            if other.owner == number:
                self.pass_time(away, other, ts)
                self.result.remote += self.part.has(ts, away)
                self.put_now(away, other, ts)
        self.own(where, cpu, number, ts)
        one = int(self.part.has(ts, where))
        self.vcpu(number).loads += one
        self.stretch(number).sums.loads += one

    def wants(self, cpu: Cpu, number: int, kind: Kind, named: Level) -> bool:
        """Whether this edge loads. A guest that runs has its state on, unless it does without."""
        demand = self.rules.demand
        if demand == "trap" or (demand == "while_used" and self.uses.get(number) is False):
            return False
        if demand == "once_used" and number not in self.used:
            return False
        if kind is Kind.ENTRY:
            return True
        if self.rules.host == "kernel" and cpu.kernel_on:
            return self.loop in named
        return any(level in named for level in self.load)

    def leaves(self, cpu: Cpu, named: Level) -> bool:
        """Whether this edge puts."""
        at_loop_end = self.loop in named
        if self.rules.host == "any" and cpu.host_on and at_loop_end:
            return True
        if self.rules.host == "kernel" and cpu.kernel_on and at_loop_end:
            return True
        return any(level in named for level in self.put)

    def learn(self, where: int, cpu: Cpu, point: Point) -> None:
        """Points that tell of the host's events, the guest's use, and what perf core is about."""
        ts, _, number, kind, detail = point
        one = self.part.has(ts, where)
        if kind == Kind.GUEST_PMU:
            self.uses[number] = bool(detail)
            if detail:
                self.used.add(number)
        elif kind == Kind.PERF_CORE:
            self.result.spurious += one and cpu.core_pending
            cpu.core_pending = self.rules.core and cpu.stay is not None
            if cpu.core_pending:
                self.result.core += one
                self.put_now(where, cpu, ts)
        else:
            kernel_before = cpu.kernel_on
            cpu.host_on, cpu.kernel_on = bool(detail & 1), bool(detail & 2)
            if self.rules.host == "kernel" and kernel_before != cpu.kernel_on:
                self.result.modes += one
                if cpu.kernel_on and cpu.stay is not None and self.loop not in cpu.levels:
                    self.put_now(where, cpu, ts)

    def met_by(self, cpu: Cpu, number: int, context: int) -> Stay | None:
        """Whose state does perf meet; number: the vCPU whose thread it acts on, -1: another's."""
        switch = cpu.switch
        if context == Context.SWITCH_OUT and number >= 0:
            if switch is None or switch.leaves != number:
                return None  # that it came was not seen, nor whose the PMU was then
            return switch.before if self.hook == "notifier" else switch.between
        if context == Context.SWITCH_OUT and cpu.running is not None and switch is not None:
            return switch.between  # perf is done with the other thread before this one comes
        if context == Context.SWITCH_IN and number >= 0 and self.hook == "notifier":
            return switch.between if switch is not None else None
        return cpu.stay

    def meet(self, where: int, cpu: Cpu, point: Point) -> None:
        ts, _, number, kind, detail = point
        episode, context = None, int(Context.GUEST_PMI)
        if kind in {Kind.EPISODE, Kind.INFERRED}:
            episode, context = detail >> 8, detail & 255
        stay = self.met_by(cpu, number, context)
        cpu.core_pending = False
        if stay is not None and context in self.rules.evict:
            if stay is cpu.stay:  # else the switch has put it, in this put's place
                evicted = self.result.evicted
                evicted[context] = evicted.get(context, 0) + self.part.has(ts, where)
                self.put_now(where, cpu, ts)
            return
        watched = stay is not None and (self.part.vcpus is None or stay.vcpu in self.part.vcpus)
        if stay is not None and watched and self.part.has(ts, where):
            over = stay is not cpu.stay
            self.result.meetings.append(
                Meeting(ts, where, episode, context, stay, stay.entries, over)
            )

    def step(self, point: Point) -> None:
        ts, where, number, kind_number, detail = point
        kind, named = Kind(kind_number), Level(detail & ((1 << REASON_SHIFT) - 1))
        cpu = self.cpus.setdefault(where, Cpu(last=ts))
        self.pass_time(where, cpu, ts)
        one = int(self.part.has(ts, where))
        if kind in {Kind.EPISODE, Kind.GUEST_PMI, Kind.INFERRED}:
            self.meet(where, cpu, point)
            return
        if kind in {Kind.GUEST_PMU, Kind.PERF_CORE, Kind.HOST_EVENTS}:
            self.learn(where, cpu, point)
            return
        if kind is Kind.SWITCH_OUT:
            cpu.switch = Switch(ts, number, cpu.stay, cpu.stay)
        elif kind is Kind.SWITCH_IN and (cpu.switch is None or cpu.switch.ts != ts):
            cpu.switch = Switch(ts, None, cpu.stay, cpu.stay)
        if kind is Kind.STATE and number >= 0:
            cpu.running = number
            cpu.levels |= named
            if Level.GUEST in named and self.stretch(number).reason is not None:
                self.close(number)  # the entry was lost, but there was one
            loaded = any(level in named for level in self.load) and self.rules.demand == "never"
            if cpu.owner != number and loaded:
                self.own(where, cpu, number, ts)
                self.vcpu(number).loaded_at_start += one
        elif kind in ON:
            cpu.running = number
            cpu.levels |= named
            if cpu.owner != number and self.wants(cpu, number, kind, named):
                self.load_now(where, cpu, number, ts)
            elif cpu.owner != number and kind is Kind.ENTRY:
                self.result.without += one
            if kind is Kind.ENTRY and cpu.stay is not None:
                cpu.stay.entries, cpu.stay.last_entry = cpu.stay.entries + 1, ts
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
            if cpu.owner == number and self.leaves(cpu, named):
                self.put_now(where, cpu, ts)
            if kind is Kind.SWITCH_OUT:
                assert cpu.switch is not None
                cpu.switch.between = cpu.stay
                cpu.running, cpu.levels, cpu.interrupted = None, Level(0), False
        elif kind is Kind.LOST:
            if cpu.owner is not None:
                self.vcpu(cpu.owner).loaded_at_end += one
                self.disown(cpu, ts, False)
            self.cpus[where] = Cpu(
                last=ts, host_on=cpu.host_on, kernel_on=cpu.kernel_on, core_pending=cpu.core_pending
            )
        elif kind in {Kind.IRQ_IN, Kind.IRQ_OUT}:
            cpu.interrupted = kind is Kind.IRQ_IN


def run(
    points: Iterable[Point], load: Iterable[str], put: Iterable[str], most: bool,
    part: Part | None = None, hook: str = "perf", rules: Rules = PLAIN,
) -> Result:  # fmt: skip
    """Return what the placement with these load and put words would have done, in that part."""
    reference = Reference(load, put, most, part, hook, rules)
    for point in points:
        reference.step(point)
    for number in list(reference.stretches):
        reference.close(number)
    watched = reference.part.vcpus
    for number in list(reference.result.vcpus) if watched is not None else ():
        if number not in watched:
            del reference.result.vcpus[number]
    return reference.result
