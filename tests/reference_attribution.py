"""Whose access is it? A plain, slow answer out of facts/x86.md, sharing no code with the analyzer.

Each CPU's accesses become text, a letter and a counter's number for each, and the orders of
sections 1.3 and 3.2 become regular expressions over that text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Letters, upper case where the value is zero: g/G global control, s/S its status, k status set, c/C
# counter, e/E selector, f/F fixed counter, x/X fixed control; read: r control, t status, p RDPMC of
# a counter or its RDMSR, q of a fixed one, y selector. l LVTPC with vector f5, n any other LVTPC.
AMD = {0xC0000300: "s", 0xC0000301: "g", 0xC0000302: "v", 0xC0000303: "k"}
INTEL = {0x38D: "x", 0x38E: "s", 0x38F: "g", 0x390: "v", 0x391: "k", 0x834: "n"}
BESIDE = {0x3F1, 0x14CE, 0x1A6, 0x1A7, 0x600}
READ_AS = {"c": "p", "e": "y", "f": "q", "g": "r", "s": "t"}
ENDS = {
    "kvm_entry", "kvm_exit", "sched_switch", "sys_enter_ioctl", "sys_exit_ioctl", "kvm_fpu",
    "kvm_userspace_exit", "csd_function_entry", "csd_function_exit",
}  # fmt: skip
INTERRUPTS = tuple(
    f"{name}_"
    for name in (
        "local_timer", "call_function", "call_function_single", "reschedule", "irq_work",
        "x86_platform_ipi", "irq_handler", "softirq",
    )
)  # fmt: skip
PERF_CALLS = {"remote_function", "__perf_event_read", "cr4_update_pce", "__perf_event_exit_context"}


@dataclass
class Row:
    """One event as the recording has it; flags: common_flags, None where not recorded."""

    ts: int
    cpu: int
    tid: int
    name: str
    first: int
    second: int
    flags: int | None
    function: str | None = None


@dataclass
class Cpu:
    """What a CPU does, and the accesses that wait for their burst to end."""

    depth: int = 0
    timer: str | None = None
    call: str | None = None
    source: str | None = None
    previous: int | None = None
    following: int | None = None
    in_guest: bool = False
    fresh: bool = True
    loaded: bool = False
    counters: int = 0
    burst: list[tuple[int, str]] = field(default_factory=list)
    begin: tuple[int, str, bool, bool, bool] = (0, "", False, False, False)


def letter(row: Row, amd: bool) -> str | None:
    """Two characters of an access, None for a register of no core PMU's."""
    a, zero = row.first, row.second == 0
    if row.name == "rdpmc":
        return f"q{a & 7}" if a >> 30 & 1 else f"p{a}"
    kind, n = None, "-"
    if a in (table := AMD if amd else INTEL):
        kind = table[a]
    elif a == 0x834:
        kind = "n"
    elif amd and 0xC0010200 <= a <= 0xC001020B:
        kind, n = "ec"[a & 1], str((a - 0xC0010200) // 2)
    elif not amd and 0x4C1 <= a <= 0x4C8:
        kind, n = "c", str(a - 0x4C1)
    elif not amd and 0x186 <= a <= 0x18D:
        kind, n = "e", str(a - 0x186)
    elif not amd and 0x309 <= a <= 0x30B:
        kind, n = "f", str(a - 0x309)
    elif a in BESIDE:
        return "o-"
    if kind is None:
        return None
    if row.name == "read_msr":
        return READ_AS[kind] + n
    if kind == "n":
        return ("l" if row.second & 0xFF == 0xF5 else "n") + n
    return (kind.upper() if zero and kind in "gcefx" else kind) + n


def orders(amd: bool, load: bool, counters: int) -> list[str]:
    """Regular expressions of KVM's half for a guest with so many general counters."""
    if load:
        walk = "".join(f"p{i}(?:[cC]{i})?[eE]{i}" for i in range(counters))
        if amd:
            return [f"G-(?:l-)?{walk}t-(?:v-)?k-[gG]-"]
        fixed = ["".join(f"q{i}(?:[fF]{i})?" for i in range(n)) for n in (3, 2, 1, 0)]
        return [f"G-(?:l-)?{walk}{part}t-(?:v-)?(?:k-)?[xX]-" for part in fixed]
    walk = "".join(f"p{i}(?:C{i})?(?:E{i})?" for i in range(counters))
    if amd:
        return [f"G-t-(?:v-)?{walk}(?:n-)?"]
    fixed = ["".join(f"q{i}(?:F{i})?" for i in range(n)) for n in (3, 2, 1, 0)]
    return [f"t-(?:v-)?(?:X-)?{walk}{part}(?:n-)?" for part in fixed]


class Reference:
    """Takes rows in order; `said` is then actor and context of each access, by its number."""

    def __init__(self, amd: bool, vcpus: set[int]) -> None:
        self.amd, self.vcpus = amd, vcpus
        self.cpus: dict[int, Cpu] = {}
        self.said: dict[int, tuple[str | None, str | None]] = {}
        self.number = 0
        # (cpu, begin, end) of NMI handlers, where flags do not tell.
        self.nmis: list[tuple[int, int, int]] = []
        widest = 6 if amd else 8
        self.loads = [
            (n, re.compile(text)) for n in range(widest, 0, -1) for text in orders(amd, True, n)
        ]
        self.puts = [
            (n, re.compile(text)) for n in range(widest, 0, -1) for text in orders(amd, False, n)
        ]

    def run(self, rows: list[Row]) -> list[tuple[str | None, str | None]]:
        """Return (actor, context) of every access; rows named `window` or `loss` bound the data."""
        self.nmis = [(r.cpu, r.ts - r.first, r.ts) for r in rows if r.name == "nmi_handler"]
        for row in rows:
            cpu = self.cpus.setdefault(row.cpu, Cpu())
            if row.name in ("read_msr", "write_msr", "rdpmc"):
                self.said[self.number] = (None, None)
                text = letter(row, self.amd)
                if text:
                    self.access(cpu, row, text)
                self.number += 1
            else:
                self.follow(cpu, row)
        for cpu in self.cpus.values():
            self.decide(cpu)
        return [self.said[n] for n in range(self.number)]

    def in_nmi(self, row: Row) -> bool:
        if row.flags is not None:
            return bool(row.flags & 0x40)
        return any(c == row.cpu and a <= row.ts <= b for c, a, b in self.nmis)

    def access(self, cpu: Cpu, row: Row, text: str) -> None:
        if self.in_nmi(row):
            self.said[self.number] = ("host_perf", "nmi")
            return
        hard = cpu.depth > 0 if row.flags is None else bool(row.flags & 0x18)
        if cpu.call in PERF_CALLS:
            context = "ipi"
        elif hard and cpu.timer in ("tick_nohz_handler", "tick_sched_timer"):
            context = "tick"
        elif hard and cpu.timer == "perf_mux_hrtimer_handler":
            context = "mux_timer"
        elif row.tid in (cpu.previous, cpu.following) and not hard:
            context = "out" if row.tid == cpu.previous else "in"
        else:
            context = "other"
        if hard:
            self.said[self.number] = ("host_perf", context)
            return
        key = (row.tid, context, cpu.in_guest, cpu.fresh, cpu.loaded)
        if cpu.burst and cpu.begin[:2] != key[:2]:
            self.decide(cpu)
            key = (*key[:4], cpu.loaded)
        if not cpu.burst:
            cpu.begin = key
        cpu.burst.append((self.number, text))

    def follow(self, cpu: Cpu, row: Row) -> None:
        name = row.name
        interrupt = name.startswith(INTERRUPTS) and name.endswith("_entry")
        edge = name in ("window", "loss")
        nested = row.flags is not None and row.flags & 0x58
        if edge or (interrupt and not (row.flags or 0) & 0x40) or (name in ENDS and not nested):
            if name in ("loss", "end"):
                cpu.burst and self.decide(cpu, torn=True)
            self.decide(cpu)
            cpu.fresh = edge
        if interrupt:
            cpu.depth += 1
        elif name == "hrtimer_expire_entry":
            cpu.timer = row.function
        elif name == "hrtimer_expire_exit":
            cpu.timer = None
        elif name == "csd_function_entry":
            cpu.call = row.function
        elif name == "csd_function_exit":
            cpu.call = None
        elif name.startswith(INTERRUPTS) and name.endswith("_exit"):
            cpu.depth, cpu.timer = max(0, cpu.depth - 1), None
        if name == "sched_switch":
            cpu.previous, cpu.following, cpu.in_guest, cpu.depth = row.tid, row.first, False, 0
        elif interrupt or name in ENDS or edge:
            cpu.previous = cpu.following = None
        if name in ("kvm_entry", "kvm_exit"):
            cpu.in_guest, cpu.depth = name == "kvm_entry", 0
        if edge:
            cpu.in_guest, cpu.loaded, cpu.counters, cpu.depth = False, False, 0, 0

    def swap_at(self, text: str, at: int, cpu: Cpu) -> tuple[str, int, int] | None:
        # The longest of the orders that stands here: kind, its end, counters.
        best: tuple[str, int, int] | None = None
        for kind, known in (("load", self.loads), ("put", self.puts)):
            for counters, order in known:
                found = order.match(text, at)
                if not found or (kind == "put" and cpu.counters not in (0, counters)):
                    continue
                if best is None or found.end() > best[1]:
                    best = (kind, found.end(), counters)
        return best

    def decide(self, cpu: Cpu, torn: bool = False) -> None:
        burst, cpu.burst = cpu.burst, []
        if not burst:
            return
        text = "".join(part for _, part in burst)
        actors: list[str | None] = [None] * len(burst)
        at = 0
        while at < len(text):
            swap = self.swap_at(text, at, cpu)
            if swap is None:
                at += 2
                continue
            kind, end, cpu.counters = swap
            for n in range(at // 2, end // 2):
                actors[n] = f"kvm_{kind}"
            if kind == "load":
                half = re.search(r"G-(?:(?![gG]-)..)*g-$", text[:at])
                free = half and all(a is None for a in actors[half.start() // 2 : at // 2])
                begin, over = (half.start(), at) if half and free else (at, at)
            else:
                after = re.compile(r"G-(?:(?![gG]-)..)*g-").match(text, end)
                follows = self.swap_at(text, end, cpu)
                begin = end
                over = after.end() if after and not (follows and follows[0] == "load") else end
            for n in range(begin // 2, over // 2):
                actors[n] = f"perf_{kind}"
            at = max(end, over)
        self.others(cpu, burst, text, actors, torn)

    def others(
        self, cpu: Cpu, burst: list[tuple[int, str]], text: str, actors: list[str | None],
        torn: bool,
    ) -> None:  # fmt: skip
        tid, context, in_guest, fresh, loaded = cpu.begin
        behind_swap = False
        for n, (number, _) in enumerate(burst):
            actor = actors[n]
            if actor:
                loaded = actor.endswith("load") if actor.startswith("kvm") else loaded
                behind_swap = behind_swap or actor.startswith("kvm")
                self.said[number] = (actor, None)
                continue
            first = n
            while first and actors[first - 1] is None:
                first -= 1
            last = n
            while last + 1 < len(burst) and actors[last + 1] is None:
                last += 1
            run = text[2 * first : 2 * last + 2]
            here = "other" if behind_swap and context == "in" else context
            is_vcpu = tid in self.vcpus
            cut = fresh and first == 0 and (is_vcpu or not run.startswith("G-"))
            if cut or (torn and last + 1 == len(burst)):
                self.said[number] = ("unknown", None)
            elif in_guest and re.fullmatch("(r-)+", run):
                self.said[number] = ("kvm_exit_read", None)
            elif is_vcpu and here not in ("out", "in") and loaded:
                self.said[number] = ("vpmu_emulation", None)
            else:
                only_counters = re.fullmatch("([pq].)+", run) is not None
                named = {"out": "context_switch", "in": "context_switch"}.get(here, here)
                if named == "other" and only_counters:
                    named = "rdpmc"
                self.said[number] = ("host_perf", named)
        cpu.loaded = loaded
