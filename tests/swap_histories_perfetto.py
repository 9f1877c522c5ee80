"""Writes a history of swaps as a Perfetto recording, whose events carry no common_flags."""

from __future__ import annotations

from tests import perfetto_writer as w
from tests.swap_histories import KINDS, History

# Events that the format has messages of its own for.
OWN = ("kvm_entry", "kvm_exit", "sched_switch", "kvm_fpu")
DENSE = tuple(
    w.Dense(65600 + kind.number, kind.system, name, tuple((one, w.UINT64) for one in kind.fields))
    for name, kind in KINDS.items()
    if name not in OWN
)


def perfetto_of(history: History) -> bytes:
    """The history's events, a bundle a CPU; kvm_entry and kvm_exit without their fields, which
    the format drops."""
    packets = [w.system_info(machine="x86_64")]
    for cpu in sorted({event.cpu for event in history.events}):
        rows = []
        for event in history.events:
            if event.cpu == cpu:
                values = dict(zip(KINDS[event.name].fields, event.values, strict=True))
                kept = {} if event.name in ("kvm_entry", "kvm_exit") else values
                rows.append((event.ts, event.tid, event.name, kept))
        packets.append(w.packet(ftrace=w.bundle(cpu, rows, dense=DENSE)))
    return w.trace(packets)
