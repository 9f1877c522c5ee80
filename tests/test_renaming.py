"""Law 5 through the whole program: a machine by other names gives the same tables and answers.

The clock has another zero, threads and processes other ids, CPUs other numbers, and the two VMs
have changed places. Nothing else may differ.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.store import Store
from analyzer.tables import BY_NAME
from tests import perfetto_writer as w

WRITE = w.Dense(
    65600, "msr", "write_msr", (("msr", w.UINT64), ("val", w.UINT64), ("failed", w.UINT64))
)
IOCTL = w.Dense(65601, "syscalls", "sys_enter_ioctl", (("cmd", w.UINT64),))
KINDS = (WRITE, IOCTL)
GLOBAL_CONTROL, KVM_RUN = 0xC0000301, 0xAE80
VMS = {70: (71, 72), 80: (81, 82)}
VCPUS = [tid for tids in VMS.values() for tid in tids]
CPUS = (0, 1, 2)
TIMES = {"ts", "end", "exit_ts", "until", "switched_ts"}


@dataclass
class Names:
    """What a machine calls its parts, and the zero of its clock."""

    shift: int = 0
    cpus: dict[int, int] = field(default_factory=lambda: {c: c for c in CPUS})
    ids: dict[int, int] = field(default_factory=dict)

    def of(self, number: int) -> int:
        return self.ids.get(number, number)


class Machine:
    """Threads that run, block and migrate, and host perf at every switch and every tick."""

    def __init__(self, seed: int, names: Names) -> None:
        self.chance, self.names, self.ts = random.Random(seed), names, 1000
        self.events: dict[int, list[w.EventRow]] = {c: [] for c in CPUS}
        self.running = {c: 20 + c for c in CPUS}
        self.inside = dict.fromkeys(VCPUS, False)
        for _ in range(600):
            self.step(self.chance.choice(CPUS))

    def add(self, c: int, tid: int, name: str, **fields: int) -> None:
        self.ts += self.chance.randrange(1, 30)
        for key in ("prev_pid", "next_pid"):
            if key in fields:
                fields[key] = self.names.of(fields[key])
        row = (self.ts + self.names.shift, self.names.of(tid), name, fields)
        self.events[c].append(row)

    def toggle(self, c: int, tid: int) -> None:
        for value in (0, 0x3F):
            self.add(c, tid, "write_msr", msr=GLOBAL_CONTROL, val=value, failed=0)

    def step(self, c: int) -> None:
        tid, dice = self.running[c], self.chance.randrange(8)
        if dice == 0:
            self.add(c, tid, "local_timer_entry", vector=236)
            self.toggle(c, tid)
            self.add(c, tid, "local_timer_exit", vector=236)
        elif tid not in self.inside or dice == 1:
            free = [20 + c, *(t for t in VCPUS if t not in self.running.values())]
            comes = self.chance.choice([t for t in free if t != tid] or [tid])
            if comes == tid:
                return
            state = self.chance.randrange(2)
            self.add(c, tid, "sched_switch", prev_pid=tid, prev_state=state, next_pid=comes)
            self.toggle(c, tid)
            self.toggle(c, comes)
            self.running[c] = comes
        elif not self.inside[tid]:
            self.inside[tid] = True
            self.add(c, tid, "sys_enter_ioctl", cmd=KVM_RUN)
            self.add(c, tid, "kvm_fpu", load=1)
        elif dice == 2:
            self.inside[tid] = False
            self.add(c, tid, "kvm_fpu", load=0)
            self.add(c, tid, "kvm_userspace_exit", reason=2)
        else:
            self.add(c, tid, "kvm_entry")
            self.add(c, tid, "kvm_exit")

    def trace(self) -> bytes:
        tree = pb.ProcessTree()
        for tgid, tids in VMS.items():
            for tid in tids:
                tree.threads.add(tid=self.names.of(tid), tgid=self.names.of(tgid))
        bundles = [
            w.packet(ftrace=w.bundle(self.names.cpus[c], rows, dense=KINDS))
            for c, rows in self.events.items()
        ]
        return w.trace([w.system_info(), w.packet(process_tree=tree), *bundles])


def renamed(row: dict[str, Any], names: Names) -> dict[str, Any]:
    out = {}
    for key, value in row.items():
        if value is not None and key in TIMES:
            value += names.shift
        elif value is not None and key in {"cpu", "target_cpu"}:
            value = names.cpus[value]
        elif value is not None and key in {"tid", "tgid", "pid", "prev_pid", "next_pid"}:
            value = names.of(value)
        out[key] = value
    return out


def by_other_cpus(placement: dict[str, Any], names: Names) -> dict[str, Any]:
    # The answer names CPUs in two lists, each in the order of their numbers.
    def listed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted((renamed(row, names) for row in rows), key=lambda row: row["cpu"])

    rates = placement["rates"]
    by_cpu = listed(rates["swaps_per_second_by_cpu"])
    rates = {**rates, "swaps_per_second_by_cpu": by_cpu}
    return {**placement, "by_cpu": listed(placement["by_cpu"]), "rates": rates}


def loaded(folder: Path, seed: int, names: Names) -> Store:
    folder.mkdir()
    (folder / "x.pftrace").write_bytes(Machine(seed, names).trace())
    options = IngestOptions(emulated=False)
    return ingest(str(folder / "x.pftrace"), folder / "x.vpmu", options, lambda done, total: None)


NAMES = {
    "shift": Names(shift=3_000_000_000_000),
    "threads": Names(ids={**{t: 5000 - t for t in VCPUS}, 20: 31, 21: 30, 22: 4}),
    "cpus": Names(cpus={0: 2, 1: 0, 2: 1}),
    # The second VM's threads stand where the first one's stood.
    "vms": Names(ids={70: 80, 80: 70, 71: 81, 72: 82, 81: 71, 82: 72}),
}


@pytest.mark.parametrize("which", sorted(NAMES))
def test_a_machine_by_other_names_gives_the_same_tables(which: str, tmp_path: Path) -> None:
    names = NAMES[which]
    plain = loaded(tmp_path / "plain", 1, Names())
    other = loaded(tmp_path / "other", 1, names)
    assert plain.manifest["tables"]["host_episode"] > 50
    assert plain.manifest["recording"]["vcpus"] == 4
    for table, declared in BY_NAME.items():
        if declared.group != "whatif":
            want = [renamed(row, names) for row in plain.read(table).to_pylist()]
            got = other.read(table).to_pylist()
            assert sorted(got, key=repr) == sorted(want, key=repr), table
    designs = choose_designs(["all"], ["told", "untold"], ["perf", "notifier"])
    asked = [whatif(store, designs) for store in (plain, other)]
    want = [by_other_cpus(placement, names) for placement in asked[0]["placements"]]
    assert asked[1]["placements"] == want
    listed = []
    for store in (plain, other):
        (path,) = (store.path / "whatif").glob("*/conflict.parquet")
        listed.append(pq.read_table(path).to_pylist())
    assert len(listed[0]) > 100
    assert listed[1] == [renamed(row, names) for row in listed[0]]
