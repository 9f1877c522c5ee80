"""Writes histories of swaps and of host perf in the order of the kernel's source, with the truth.

`History` is told what the kernel does (load, put, tick, NMI, switch ...) and writes down what the
msr events of each show, in the order of facts/x86.md 1.3, 2 and 5; beside each access stands whose
it is. `History.raw` is the trace.dat file of all that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.tracedat_writer import Instance, Shape, format_text, write

OFF, HARD, IN_NMI = 1, 9, 0x49  # common_flags: interrupts off; in a handler; in an NMI
SHAPE = Shape(page_size=4096)
STEP = 1000
AMD_MASK, INTEL_MASK, EN, INT = 0x3F, 0x70000000F, 1 << 22, 1 << 20
GUEST_ONLY, HOST_ONLY = 1 << 40, 1 << 41
PERIOD = 0xFFFF_FFF0_0000
SYMBOLS = {
    name: 0xFFFFFFFF81000000 + 0x100 * n
    for n, name in enumerate(
        ("_text", "tick_nohz_handler", "perf_mux_hrtimer_handler", "remote_function", "other")
    )
}
KALLSYMS = "".join(f"{address:x} T {name}\n" for name, address in SYMBOLS.items())


class Kind(NamedTuple):
    """An event: its number and fields, all of 64 bits but where the name is in NARROW."""

    number: int
    system: str
    fields: tuple[str, ...]


NARROW = ("msr", "vcpu_id", "prev_pid", "next_pid", "vector", "exit_reason", "isa", "load")
KINDS = {
    "write_msr": Kind(100, "msr", ("msr", "val")),
    "read_msr": Kind(101, "msr", ("msr", "val")),
    "rdpmc": Kind(102, "msr", ("msr", "val")),
    "kvm_entry": Kind(103, "kvm", ("vcpu_id",)),
    "kvm_exit": Kind(104, "kvm", ("exit_reason", "isa", "vcpu_id")),
    "sched_switch": Kind(105, "sched", ("prev_pid", "prev_state", "next_pid")),
    "nmi_handler": Kind(106, "nmi", ("delta_ns",)),
    "local_timer_entry": Kind(107, "irq_vectors", ("vector",)),
    "local_timer_exit": Kind(108, "irq_vectors", ("vector",)),
    "call_function_single_entry": Kind(109, "irq_vectors", ("vector",)),
    "call_function_single_exit": Kind(110, "irq_vectors", ("vector",)),
    "hrtimer_expire_entry": Kind(111, "timer", ("hrtimer", "function")),
    "hrtimer_expire_exit": Kind(112, "timer", ("hrtimer",)),
    "csd_function_entry": Kind(113, "csd", ("func",)),
    "csd_function_exit": Kind(114, "csd", ("func",)),
    "kvm_fpu": Kind(115, "kvm", ("load",)),
}


def _width(name: str) -> int:
    return 4 if name in NARROW else 8


def _formats() -> list[tuple[str, str]]:
    made = []
    for name, kind in KINDS.items():
        at, fields = 8, []
        for one in kind.fields:
            size = _width(one)
            at += -at % size
            fields.append((f"{'unsigned int' if size == 4 else 'u64'} {one}", at, size, 0))
            at += size
        made.append((kind.system, format_text(name, kind.number, *fields)))
    return made


@dataclass
class Event:
    """One event, and for an access of the core PMU whose it is."""

    ts: int
    cpu: int
    tid: int
    flags: int
    name: str
    values: tuple[int, ...]
    actor: str | None = None
    context: str | None = None
    is_access: bool = False


@dataclass
class History:
    """A machine: vendor, counters that the guest has and those that the host has."""

    vendor: str
    counters: int = 4
    fixed: int = 0
    lvtpc: bool = True
    v6: bool = False
    events: list[Event] = field(default_factory=list)
    ts: int = 1_000_000
    cpu: int = 0
    tid: int = 7
    who: tuple[str | None, str | None] = ("host_perf", None)
    flags: int = OFF
    # What happens before the access with this number, counted from the begin of `interrupted`.
    before: dict[int, Callable[[], None]] = field(default_factory=dict)
    done: int = 0

    @property
    def amd(self) -> bool:
        return self.vendor == "AuthenticAMD"

    def emit(self, name: str, *values: int) -> None:
        self.ts += STEP
        access = KINDS[name].system == "msr"
        actor, context = self.who if access else (None, None)
        self.events.append(
            Event(self.ts, self.cpu, self.tid, self.flags, name, values, actor, context, access)
        )

    def access(self, name: str, register: int, value: int = 0) -> None:
        hook = self.before.pop(self.done, None)
        self.done += 1
        if hook:
            hook()
        self.emit(name, register, value)

    def write(self, register: int, value: int = 0) -> None:
        self.access("write_msr", register, value)

    def read(self, register: int, value: int = 0) -> None:
        self.access("read_msr", register, value)

    def rdpmc(self, index: int, value: int = 0) -> None:
        self.access("rdpmc", index, value)

    @contextmanager
    def acting(
        self, actor: str | None, context: str | None = None, flags: int | None = None
    ) -> Iterator[None]:
        before = self.who, self.flags
        self.who, self.flags = (actor, context), self.flags if flags is None else flags
        yield
        self.who, self.flags = before

    def beside(self, name: str, register: int, value: int = 0) -> None:
        """An access of a register that is none of the core PMU's."""
        with self.acting(None):
            self.emit(name, register, value)

    # Registers, by who uses them.

    def selector(self, n: int, host: bool = False) -> int:
        if self.amd:
            return 0xC0010200 + 2 * n
        return 0x1901 + 4 * n if host and self.v6 else 0x186 + n

    def counter(self, n: int, host: bool = False) -> int:
        if self.amd:
            return 0xC0010201 + 2 * n
        return 0x1900 + 4 * n if host and self.v6 else 0x4C1 + n

    @property
    def control(self) -> int:
        return 0xC0000301 if self.amd else 0x38F

    @property
    def status(self) -> int:
        return 0xC0000300 if self.amd else 0x38E

    @property
    def mask(self) -> int:
        return AMD_MASK if self.amd else INTEL_MASK

    def config(self, on: bool = True) -> int:
        return 0x76 | INT | (EN if on else 0) | (HOST_ONLY if self.amd else 0)

    # Host perf.

    def perf_out(self, host: int = 1, extra: tuple[int, ...] = ()) -> None:
        self.write(self.control, 0)
        for register in extra:
            self.write(register, 0)
        for n in range(host):
            self.write(self.selector(n, True), self.config(False))
            if self.amd:
                self.read(self.status)
            self.rdpmc(n, PERIOD + self.ts)
        self.write(self.control, self.mask)

    def perf_in(self, host: int = 1, extra: tuple[int, ...] = ()) -> None:
        self.write(self.control, 0)
        for n in range(host):
            self.write(self.counter(n, True), PERIOD)
            self.write(self.selector(n, True), self.config())
        if not self.amd and host and self.lvtpc:
            self.write(0x834, 0x400)
        for register in extra:
            self.write(register, 1)
        self.write(self.control, self.mask)

    def perf_restart(self) -> None:
        """One event stopped and started, as a tick that adjusts its period does."""
        self.write(self.control, 0)
        self.write(self.selector(0, True), self.config(False))
        if self.amd:
            self.read(self.status)
        self.rdpmc(0, PERIOD + self.ts)
        self.write(self.counter(0, True), PERIOD)
        self.write(self.selector(0, True), self.config())
        self.write(self.control, self.mask)

    def nmi(self) -> None:
        """A sampling NMI's handler, from its first access to its event."""
        with self.acting("host_perf", "nmi", IN_NMI):
            begin = self.ts
            self.emit("write_msr", self.control, 0)
            self.emit("read_msr", self.status, 1)
            self.emit("rdpmc", 0, 5)
            self.emit("write_msr", self.counter(0, True), PERIOD)
            self.emit("write_msr", 0xC0000302 if self.amd else 0x390, 1)
            self.emit("write_msr", self.control, self.mask)
            if not self.amd and self.lvtpc:
                self.emit("write_msr", 0x834, 0x400)
            self.emit("nmi_handler", self.ts - begin)

    def tick(self, acts: bool = True, function: str = "tick_nohz_handler") -> None:
        context = "mux_timer" if function == "perf_mux_hrtimer_handler" else "tick"
        with self.acting("host_perf", context, HARD):
            self.emit("local_timer_entry", 236)
            self.emit("hrtimer_expire_entry", 1, SYMBOLS[function])
            if acts:
                self.perf_restart()
            self.emit("hrtimer_expire_exit", 1)
            self.emit("local_timer_exit", 236)

    def ipi(self) -> None:
        with self.acting("host_perf", "ipi", HARD):
            self.emit("call_function_single_entry", 251)
            self.emit("csd_function_entry", SYMBOLS["remote_function"])
            self.perf_restart()
            self.emit("csd_function_exit", SYMBOLS["remote_function"])
            self.emit("call_function_single_exit", 251)

    def switch(
        self, following: int, out: int = 0, into: int = 0, put: Callable[[], None] | None = None
    ) -> None:
        """A context switch; perf acts for either thread, and before KVM's notifier puts."""
        self.emit("sched_switch", self.tid, 1, following)
        with self.acting("host_perf", "context_switch"):
            if out:
                self.perf_out(out)
            if put:
                put()
            self.tid = following
            if into:
                self.perf_in(into)

    # A perf-backed vPMU: events of perf's that count a guest and carry GuestOnly on AMD.

    def event(self, n: int, guest: bool, start: bool) -> None:
        """Counter n is started or stopped for a guest's event or a host's."""
        only = (GUEST_ONLY if guest else HOST_ONLY) if self.amd else 0
        config = 0x76 | INT | only | (EN if start else 0)
        by_guest = ("vpmu_sched", None) if guest and self.who[0] == "host_perf" else self.who
        with self.acting(*by_guest):
            if start:
                self.write(self.counter(n), PERIOD)
                self.write(self.selector(n), config)
            else:
                self.write(self.selector(n), config)
                self.rdpmc(n, PERIOD)

    def events_moved(self, guests: tuple[int, ...], hosts: tuple[int, ...], start: bool) -> None:
        """One pass of perf over the events of a thread, of which some are the guest's."""
        alone = guests and not hosts and self.who[0] == "host_perf"
        with self.acting(*(("vpmu_sched", None) if alone else self.who)):
            self.write(self.control, 0)
            for n in sorted({*guests, *hosts}):
                self.event(n, n in guests, start)
            self.write(self.control, self.mask)

    # KVM.

    def load(
        self,
        host: int | None = 1,
        values: tuple[int, ...] = (),
        extra: tuple[int, ...] = (),
        status: int = 0,
    ) -> None:
        """One load. host: host events that perf takes off, None where it has nothing here;
        values: of the guest's counters, 0 where not given, which is what the hardware has too."""
        self.beside("read_msr", 0x1D9)
        if host is not None:
            with self.acting("perf_load"):
                self.perf_out(host, extra)
        with self.acting("kvm_load"):
            self.write(self.control, 0)
            if self.lvtpc:
                self.write(0x834, 0xF5)
            for n in range(self.counters):
                value = values[n] if n < len(values) else 0
                self.rdpmc(n, 0)
                if value:
                    self.write(self.counter(n), value)
                on = EN | (GUEST_ONLY if self.amd else 0)
                self.write(self.selector(n), 0x53C0 | on if value else 0)
            for n in range(self.fixed):
                self.rdpmc(1 << 30 | n, 0)
            self.read(self.status, status)
            if self.amd:
                self.write(0xC0000303, 0)
                self.write(self.control, 1 if values else 0)
            else:
                if status:
                    self.write(0x390, status)
                self.write(0x38D, 0x333 if values else 0)

    def put(
        self,
        host: int | None = 1,
        values: tuple[int, ...] = (),
        extra: tuple[int, ...] = (),
        status: int = 0,
    ) -> None:
        with self.acting("kvm_put"):
            if self.amd:
                self.write(self.control, 0)
            self.read(self.status, status)
            if status:
                self.write(0xC0000302 if self.amd else 0x390, status)
            if not self.amd and values:
                self.write(0x38D, 0)
            for n in range(self.counters):
                value = values[n] if n < len(values) else 0
                self.rdpmc(n, value)
                if value:
                    self.write(self.counter(n), 0)
                    self.write(self.selector(n), 0)
            for n in range(self.fixed):
                self.rdpmc(1 << 30 | n, 0)
            if self.lvtpc:
                self.write(0x834, 0x400)
        if host is not None:
            with self.acting("perf_put"):
                self.perf_in(host, extra)

    def guest(self, vcpu: int = 0) -> None:
        """Guest mode, from entry to exit."""
        self.emit("kvm_entry", vcpu)
        if self.amd:
            with self.acting("kvm_exit_read"):
                self.read(self.control, 0)
        self.emit("kvm_exit", 0x7C if self.amd else 12, 2 if self.amd else 1, vcpu)

    def loop(
        self, host: int | None = 1, values: tuple[int, ...] = (), vcpu: int = 0, **more: int
    ) -> None:
        """One inner loop of mainline: load, guest, put."""
        self.load(host, values, **more)  # type: ignore[arg-type]
        self.guest(vcpu)
        self.put(host, values, **more)  # type: ignore[arg-type]

    # The file.

    def raw(self, lost_before: int | None = None, machine: str | None = "x86_64") -> bytes:
        """The trace.dat; lost_before: number of the event before which its CPU lost some."""
        pages: dict[int, list[bytes]] = {}
        for cpu in sorted({event.cpu for event in self.events}):
            rows = [(n, event) for n, event in enumerate(self.events) if event.cpu == cpu]
            starts = [0]
            for place, (n, _) in enumerate(rows):
                if place and (n == lost_before or place - starts[-1] >= 60):
                    starts.append(place)
            pages[cpu] = [
                self._page(rows[begin:end], lost_before)
                for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True)
            ]
        instances, formats = [Instance(pages)], _formats()
        return write(SHAPE, instances, formats=formats, kallsyms=KALLSYMS, machine=machine).raw

    def _page(self, rows: list[tuple[int, Event]], lost_before: int | None) -> bytes:
        begin, last, out = rows[0][1].ts, rows[0][1].ts, []
        for _, event in rows:
            payload, kind = b"", KINDS[event.name]
            for name, value in zip(kind.fields, event.values, strict=True):
                payload += bytes(-len(payload) % _width(name))
                payload += SHAPE.pack("I" if _width(name) == 4 else "Q", value)
            record = SHAPE.record(kind.number, event.tid, payload, event.flags)
            out.append(SHAPE.event(event.ts - last, record))
            last = event.ts
        return SHAPE.page(begin, *out, lost=3 if rows[0][0] == lost_before else None)

    def truth(self) -> list[tuple[int, str | None, str | None]]:
        """(ts, actor, context) of every access, in order."""
        return [(e.ts, e.actor, e.context) for e in self.events if e.is_access]
