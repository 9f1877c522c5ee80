"""Writes a history of swaps as a Perfetto recording, whose events carry no common_flags."""

from __future__ import annotations

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tests import perfetto_writer as w
from tests.swap_histories import KINDS, SYMBOLS, History

# Events that the format has messages of its own for.
OWN = ("kvm_entry", "kvm_exit", "sched_switch", "kvm_fpu")
DENSE = tuple(
    w.Dense(65600 + kind.number, kind.system, name, tuple((one, w.UINT64) for one in kind.fields))
    for name, kind in KINDS.items()
    if name not in OWN
)
# What the format has messages of its own for, too, written so where symbols are asked for.
TYPED = ("hrtimer_expire_entry", "hrtimer_expire_exit")


def _interned() -> pb.InternedData:
    interned = pb.InternedData()
    for number, name in enumerate(SYMBOLS, 1):
        interned.kernel_symbols.add(iid=number, str=name.encode())
    return interned


def perfetto_of(history: History, symbols: bool = False) -> bytes:
    """The history's events, a bundle a CPU; kvm_entry and kvm_exit without their fields, which
    the format drops. symbols: with the names of functions."""
    numbers = {address: n for n, address in enumerate(SYMBOLS.values(), 1)}
    given = {"interned_data": _interned(), "sequence_flags": 1} if symbols else {}
    dense = [one for one in DENSE if not (symbols and one.name in TYPED)]
    packets = [w.system_info(machine="x86_64")]
    for cpu in sorted({event.cpu for event in history.events}):
        rows = []
        for event in history.events:
            if event.cpu == cpu:
                values = dict(zip(KINDS[event.name].fields, event.values, strict=True))
                kept = {} if event.name in ("kvm_entry", "kvm_exit") else values
                for field in ("function", "func"):
                    if symbols and field in kept:
                        kept[field] = numbers[kept[field]]
                rows.append((event.ts, event.tid, event.name, kept))
        packets.append(w.packet(ftrace=w.bundle(cpu, rows, dense=dense), sequence=2, **given))
        given.pop("sequence_flags", None)
    return w.trace(packets)
