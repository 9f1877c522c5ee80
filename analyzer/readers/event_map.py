"""Which table does a kernel event go to, and which of its fields fills which column?

Event and field names are the kernel's own, so every format that carries them shares this list.
An event that is not in it goes to `other_event`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["EVENTS", "OTHER", "PROBE_ENTER", "PROBE_RETURN", "SPAN", "EventTarget", "target_of"]


@dataclass(frozen=True, slots=True)
class EventTarget:
    """Where an event's rows go. `fields`: kernel field -> column; `constants`: column -> value;
    `first`, `second`: kernel fields that the timeline needs beside (ts, cpu, tid, name)."""

    table: str
    fields: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    first: str | None = None
    second: str | None = None


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


OTHER = EventTarget("other_event", _same("vcpu_id"), first="vcpu_id")
SPAN = EventTarget("function_span")
# Probes under whatever name, where the format tells them by these fields of theirs.
PROBE_ENTER = EventTarget("function_span", {"__probe_ip": "function"}, {"phase": "enter"})
PROBE_RETURN = EventTarget("function_span", {"__probe_func": "function"}, {"phase": "return"})

EVENTS: dict[str, EventTarget] = {
    "kvm_entry": EventTarget(
        "vm_entry",
        _same("vcpu_id", "rip", "vcpu_pc", "immediate_exit", "intr_info", "error_code"),
    ),
    "kvm_exit": EventTarget(
        "vm_exit",
        _same(
            "vcpu_id",
            "isa",
            "exit_reason",
            "guest_rip",
            "info1",
            "info2",
            "intr_info",
            "error_code",
            "requests",
            "ret",
            "esr_ec",
            "vcpu_pc",
        ),
    ),
    "kvm_userspace_exit": EventTarget("userspace_exit", _same("reason", "errno")),
    "sys_enter_ioctl": EventTarget("kvm_run", _same("fd", "cmd"), {"phase": "enter"}, first="cmd"),
    "sys_exit_ioctl": EventTarget("kvm_run", _same("ret"), {"phase": "exit"}),
    "kvm_fpu": EventTarget("kvm_fpu", _same("load"), first="load"),
    "sched_switch": EventTarget(
        "sched_switch",
        _same(
            "prev_comm", "prev_pid", "prev_prio", "prev_state", "next_comm", "next_pid", "next_prio"
        ),
        first="next_pid",
        second="prev_state",
    ),
    "nmi_handler": EventTarget(
        "interrupt",
        {"handler": "handler", "delta_ns": "delta_ns", "handled": "ret"},
        {"kind": "nmi", "phase": "handler", "name": "nmi_handler"},
        first="delta_ns",
        second="handler",
    ),
    "irq_handler_entry": EventTarget(
        "interrupt",
        {"irq": "vector", "name": "text"},
        {"kind": "irq", "phase": "entry", "name": "irq_handler"},
    ),
    "irq_handler_exit": EventTarget(
        "interrupt",
        {"irq": "vector", "ret": "ret"},
        {"kind": "irq", "phase": "exit", "name": "irq_handler"},
    ),
    "ipi_raise": EventTarget(
        "interrupt", {"reason": "text"}, {"kind": "ipi", "phase": "raise", "name": "ipi"}
    ),
    "csd_queue_cpu": EventTarget(
        "function_call",
        {"cpu": "target_cpu", "func": "func", "csd": "csd", "callsite": "callsite"},
        {"phase": "queue"},
    ),
    "csd_function_entry": EventTarget(
        "function_call", _same("func", "csd"), {"phase": "entry"}, first="func"
    ),
    "csd_function_exit": EventTarget("function_call", _same("func", "csd"), {"phase": "exit"}),
    "ipi_send_cpu": EventTarget(
        "function_call",
        {"cpu": "target_cpu", "callback": "func", "callsite": "callsite"},
        {"phase": "ipi"},
    ),
    "hrtimer_start": EventTarget(
        "timer",
        _same("hrtimer", "function", "expires", "softexpires", "mode"),
        {"phase": "start"},
        first="hrtimer",
        second="expires",
    ),
    "hrtimer_cancel": EventTarget("timer", _same("hrtimer"), {"phase": "cancel"}),
    "hrtimer_expire_entry": EventTarget(
        "timer",
        _same("hrtimer", "function", "now"),
        {"phase": "expire_entry"},
        first="function",
        second="hrtimer",
    ),
    "hrtimer_expire_exit": EventTarget("timer", _same("hrtimer"), {"phase": "expire_exit"}),
    "function": EventTarget("function_span", {"ip": "function"}, {"phase": "enter"}, first="ip"),
    "funcgraph_entry": EventTarget(
        "function_span", {"func": "function"}, {"phase": "enter"}, first="func"
    ),
    # With CONFIG_FUNCTION_GRAPH_RETADDR; linux:kernel/trace/trace_entries.h.
    "funcgraph_retaddr_entry": EventTarget(
        "function_span", {"func": "function"}, {"phase": "enter"}, first="func"
    ),
    "funcgraph_exit": EventTarget(
        "function_span", {"func": "function"}, {"phase": "return"}, first="func"
    ),
    "tick_stop": EventTarget("timer", _same("success", "dependency"), {"phase": "tick_stop"}),
}
for _op, _name in (("read", "read_msr"), ("write", "write_msr"), ("rdpmc", "rdpmc")):
    EVENTS[_name] = EventTarget(
        "pmu_access",
        {"msr": "address", "val": "value", "failed": "failed"},
        {"op": _op},
        first="msr",
        second="val",
    )
for _name in ("waking", "wakeup", "wakeup_new"):
    EVENTS[f"sched_{_name}"] = EventTarget(
        "wakeup", _same("comm", "pid", "prio", "target_cpu"), {"phase": _name}, first="pid"
    )
for _phase in ("entry", "exit", "raise"):
    EVENTS[f"softirq_{_phase}"] = EventTarget(
        "interrupt",
        {"vec": "vector"},
        {"kind": "softirq", "phase": _phase, "name": "softirq"},
    )
for _phase in ("entry", "exit"):
    EVENTS[f"ipi_{_phase}"] = EventTarget(
        "interrupt", {"reason": "text"}, {"kind": "ipi", "phase": _phase, "name": "ipi"}
    )
    # x86's irq_vectors group; linux:arch/x86/include/asm/trace/irq_vectors.h.
    for _name in (
        "call_function",
        "call_function_single",
        "deferred_error_apic",
        "error_apic",
        "irq_work",
        "local_timer",
        "reschedule",
        "spurious_apic",
        "thermal_apic",
        "threshold_apic",
        "x86_platform_ipi",
    ):
        EVENTS[f"{_name}_{_phase}"] = EventTarget(
            "interrupt",
            {"vector": "vector"},
            {"kind": "vector", "phase": _phase, "name": _name},
        )


def target_of(name: str) -> EventTarget:
    """Return where events of that name go; OTHER for one that has no table of its own."""
    return EVENTS.get(name, OTHER)
