"""What does the reference replay keep and give? Plain records, written with it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Meeting", "Reason", "Result", "Rules", "Stay", "Switch", "Vcpu"]


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
class Stay:
    """One vCPU's state on one CPU. end: where a put took it off or, not `is_put`, we lost sight."""

    number: int
    cpu: int
    vcpu: int
    begin: int
    end: int | None = None
    is_put: bool = False
    entries: int = 0
    last_entry: int | None = None


@dataclass
class Meeting:
    """Host perf at work (episode; None: a guest's overflow) while a guest's state is on.

    entries_before: of the stay's VM entries, those before it. is_over: the context switch that perf
    acts in ends the stay.
    """

    ts: int
    cpu: int
    episode: int | None
    context: int
    stay: Stay
    entries_before: int
    is_over: bool


@dataclass(frozen=True)
class Rules:
    """What of a placement is no edge: contexts in which the state is put before perf acts; whether
    it is put whenever perf core is about to act; on which host events (never, any, kernel) it is
    put at the inner loop's end; when the guest's use asks for it (never: it always does); and
    whether inner loops are known, so that both bounds have the same."""

    evict: frozenset[int] = frozenset()
    core: bool = False
    host: str = "never"
    demand: str = "never"
    loop_known: bool = False


@dataclass
class Result:
    """Counts by vCPU and by exit reason; reasons with nothing to say are absent. Stays in order of
    their ends, whatever part counts; meetings of the part, in order of time."""

    vcpus: dict[int, Vcpu] = field(default_factory=dict)
    reasons: dict[int, Reason] = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    evicted: dict[int, int] = field(default_factory=dict)
    core: int = 0
    spurious: int = 0
    displaced: int = 0
    remote: int = 0
    modes: int = 0
    without: int = 0


@dataclass
class Switch:
    """The last context switch of a CPU that concerned a vCPU: the stay before any swap, and the one
    between the put of who leaves and the load of who comes."""

    ts: int
    leaves: int | None
    before: Stay | None
    between: Stay | None
