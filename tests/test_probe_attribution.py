"""Whose are the probed calls of arm64? A written history, and real ones counted in another way."""

from __future__ import annotations

import re
import struct
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from analyzer.arch.arm64.probes import PROBES
from analyzer.pipeline import IngestOptions, ingest
from analyzer.store import Store
from analyzer.timeline import Kind
from analyzer.timeline.attribution.probe_run import function_of_event
from tests import perfetto_writer as w
from tests import tracedat_writer as d

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
HARD = 8  # common_flags of an interrupt
VCPU, HOST = 7, 9
SCHED, GUEST = ("vpmu_sched", None), ("vpmu_emulation", None)
LOAD, PUT, NOBODY = ("kvm_load", None), ("kvm_put", None), (None, None)
TICK, PMI, IPI = ("host_perf", "tick"), ("host_perf", "nmi"), ("host_perf", "ipi")
SWITCHED, OTHER = ("host_perf", "context_switch"), ("host_perf", "other")

# (thread, event, whose call it is; "irq": this and what follows up to "end" is in an interrupt).
# Names of probes as their users write them: plain, or p_NAME_0.
HISTORY: tuple[tuple[int, str, Any], ...] = (
    (HOST, "switch", VCPU),
    (HOST, "__perf_event_task_sched_out", NOBODY),
    # Perf makes room for the guest's event: all of it is the guest's.
    (VCPU, "p___perf_event_task_sched_in_0", NOBODY),
    (VCPU, "armv8pmu_stop", SCHED),
    (VCPU, "armpmu_add", NOBODY),
    (VCPU, "armv8pmu_write_counter", SCHED),
    (VCPU, "p_armv8pmu_enable_event", SCHED),
    (VCPU, "armv8pmu_start", SCHED),
    (VCPU, "kvm_arch_vcpu_load", NOBODY),
    (VCPU, "kvm_vcpu_pmu_restore_guest", NOBODY),
    (VCPU, "kvm_vcpu_pmu_enable_el0", LOAD),
    # The tick between the two calls.
    (VCPU, "irq", None),
    (VCPU, "perf_event_task_tick", NOBODY),
    (VCPU, "armv8pmu_stop", TICK),
    (VCPU, "armv8pmu_start", TICK),
    (VCPU, "end", None),
    (VCPU, "kvm_vcpu_pmu_disable_el0", LOAD),
    (VCPU, "kvm_pmu_flush_hwstate", NOBODY),
    (VCPU, "kvm_entry", None),
    # Only the guest's counter overflowed: without the guest there would be no interrupt.
    (VCPU, "irq", None),
    (VCPU, "armv8pmu_handle_irq", GUEST),
    (VCPU, "armv8pmu_read_counter", GUEST),
    (VCPU, "armv8pmu_write_counter", GUEST),
    (VCPU, "perf_event_overflow", NOBODY),
    (VCPU, "kvm_pmu_perf_overflow", NOBODY),
    (VCPU, "armv8pmu_disable_event", GUEST),
    (VCPU, "armv8pmu_read_counter", GUEST),
    (VCPU, "armv8pmu_write_counter", GUEST),
    (VCPU, "p_armv8pmu_enable_event", GUEST),
    (VCPU, "armv8pmu_start", GUEST),
    (VCPU, "end", None),
    # Two of the host's and the guest's, in one interrupt.
    (VCPU, "irq", None),
    (VCPU, "armv8pmu_handle_irq", PMI),
    (VCPU, "armv8pmu_read_counter", PMI),
    (VCPU, "armv8pmu_write_counter", PMI),
    (VCPU, "perf_event_overflow", NOBODY),
    (VCPU, "armv8pmu_read_counter", GUEST),
    (VCPU, "armv8pmu_write_counter", GUEST),
    (VCPU, "perf_event_overflow", NOBODY),
    (VCPU, "kvm_pmu_perf_overflow", NOBODY),
    (VCPU, "armv8pmu_disable_event", GUEST),
    (VCPU, "armv8pmu_read_counter", GUEST),
    (VCPU, "armv8pmu_write_counter", GUEST),
    (VCPU, "p_armv8pmu_enable_event", GUEST),
    (VCPU, "armv8pmu_read_counter", PMI),
    (VCPU, "armv8pmu_write_counter", PMI),
    (VCPU, "armv8pmu_start", PMI),
    (VCPU, "end", None),
    (VCPU, "kvm_exit", None),
    (VCPU, "handle_exit", NOBODY),
    (VCPU, "armv8pmu_disable_event", GUEST),
    (VCPU, "armv8pmu_read_counter", GUEST),
    (VCPU, "switch", HOST),
    (VCPU, "__perf_event_task_sched_out", NOBODY),
    (VCPU, "armv8pmu_disable_event", SCHED),
    (VCPU, "kvm_arch_vcpu_put", NOBODY),
    (VCPU, "kvm_vcpu_pmu_restore_host", NOBODY),
    (VCPU, "kvm_vcpu_pmu_enable_el0", PUT),
    (VCPU, "kvm_vcpu_pmu_disable_el0", PUT),
    # A thread of the host with an event of its own.
    (HOST, "p___perf_event_task_sched_in_0", NOBODY),
    (HOST, "armv8pmu_write_counter", SWITCHED),
    (HOST, "__perf_event_read", NOBODY),
    (HOST, "armv8pmu_read_counter", OTHER),
    (HOST, "irq", None),
    (HOST, "__perf_event_read", NOBODY),
    (HOST, "armv8pmu_read_counter", IPI),
    (HOST, "end", None),
    (HOST, "my_own_name", NOBODY),
)
EPISODES = [
    ("tick", None, 2, 0), ("nmi", None, 6, 0), ("context_switch", "in", 1, None),
    ("other", None, 1, None), ("ipi", None, 1, None),
]  # fmt: skip
OURS = {"irq": "irq_handler_entry", "end": "irq_handler_exit", "switch": "sched_switch"}
RECORDED = {*OURS, "kvm_entry", "kvm_exit"}


def perfetto_history(path: Path) -> Path:
    events: list[w.EventRow] = []
    for n, (tid, name, what) in enumerate(HISTORY):
        values: dict[str, w.Value] = {}
        if name in ("irq", "end"):
            values = {"irq": 20}
        elif name == "switch":
            values = {"prev_pid": tid, "next_pid": what, "prev_state": 1, "next_comm": "x"}
        events.append((1000 + 10 * n, tid, OURS.get(name, name), values))
    probes = dict.fromkeys((name for _, name, _ in HISTORY if name not in RECORDED), 1)
    packets = [w.system_info("aarch64"), w.packet(ftrace=w.bundle(0, events, kprobes=probes))]
    path = path / "history.pftrace"
    path.write_bytes(w.trace(packets))
    return path


def tracedat_history(path: Path) -> Path:
    shape = d.Shape(page_size=8192)
    names = list(dict.fromkeys(name for _, name, _ in HISTORY if name not in RECORDED))
    field = ("unsigned long __probe_ip", 8, 8, 0)
    formats = [
        *(form for form in d.FORMATS if form[0] != "kprobes"),
        ("irq", d.format_text("irq_handler_exit", 120, ("int irq", 8, 4, 1))),
        *(("kprobes", d.format_text(name, 200 + n, field)) for n, name in enumerate(names)),
    ]
    numbers = {"kvm_exit": 100, "kvm_entry": 101, "switch": 103, "irq": 104, "end": 120}
    out, flags = [], 1
    for tid, name, what in HISTORY:
        flags = 1 | HARD if name == "irq" else flags
        payload = bytes(32)
        if name == "switch":
            payload = struct.pack("<16siiq16sii", b"a", tid, 0, 1, b"b", what, 0)
        number = numbers.get(name) or 200 + names.index(name)
        out.append(shape.event(10, shape.record(number, tid, payload, flags)))
        flags = 1 if name == "end" else flags
    path = path / "history.dat"
    options = [(5, b"Linux lab 7.2.13 aarch64\0")]
    pages = {0: [shape.page(1000, *out)]}
    path.write_bytes(d.write(shape, [d.Instance(pages)], options=options, formats=formats).raw)
    return path


def stored(recording: Path, tmp_path: Path) -> Store:
    return ingest(str(recording), tmp_path / "x.vpmu", IngestOptions(), lambda done, total: None)


# Perfetto has no common_flags: there the recorded handlers tell what an interrupt does.
@pytest.mark.parametrize("written", [perfetto_history, tracedat_history])
def test_every_probed_call_gets_its_actor_and_context(written: Any, tmp_path: Path) -> None:
    store = stored(written(tmp_path), tmp_path)
    assert store.manifest["recording"]["arch"] == "arm64"
    calls = store.read("function_attribution").to_pylist()
    names = store.read("function_span", ["name"])["name"].to_pylist()
    found = [(n, c["actor"], c["context"]) for n, c in zip(names, calls, strict=True)]
    assert found == [(name, *what) for _, name, what in HISTORY if name not in RECORDED]
    assert calls[-1]["function"] is None
    episodes = store.read("host_episode").to_pylist()
    seen = [(e["context"], e["edge"], e["accesses"], e["vcpu"]) for e in episodes]
    assert seen == EPISODES
    assert {e["counters"] for e in episodes} == {None}
    points = store.read("point").to_pylist()
    numbers = [p["detail"] >> 8 for p in points if p["kind"] == Kind.EPISODE]
    assert numbers == [e["episode"] for e in episodes]


@pytest.mark.parametrize("written", [perfetto_history, tracedat_history])
def test_filters_set_by_kvm_are_rows_of_their_own(written: Any, tmp_path: Path) -> None:
    store = stored(written(tmp_path), tmp_path)
    swaps = store.read("recorded_swap").to_pylist()
    assert [(s["kind"], s["cpu"], s["vcpu"], s["kvm_reads"]) for s in swaps] == [
        ("load", 0, 0, None), ("put", 0, 0, None),
    ]  # fmt: skip
    # A load is done with its second call, a put begins with its first.
    times = dict(zip((s["kind"] for s in swaps), swaps, strict=True))
    assert times["load"]["switched_ts"] == times["load"]["end"]
    assert times["put"]["ts"] < times["put"]["switched_ts"] < times["put"]["end"]


def test_probes_at_a_return_are_no_second_call(tmp_path: Path) -> None:
    names = ("armv8pmu_read_counter", "armv8pmu_write_counter")
    path = tmp_path / "x.pftrace"
    packets = [w.system_info("aarch64")]
    for n, phase in enumerate((1, 2)):
        events: list[w.EventRow] = [(100 * n + 10 * m, HOST, x, {}) for m, x in enumerate(names)]
        packets.append(w.packet(ftrace=w.bundle(0, events, kprobes=dict.fromkeys(names, phase))))
    path.write_bytes(w.trace(packets))
    store = stored(path, tmp_path)
    functions = store.read("function_attribution", ["function"])["function"].to_pylist()
    assert functions == [*names, None, None]
    phases = store.read("function_span", ["phase"])["phase"].to_pylist()
    assert phases == ["enter", "enter", "return", "return"]


@pytest.mark.parametrize(
    ("event", "symbol", "function"),
    [
        ("armpmu_add", None, "armpmu_add"),
        ("p_armpmu_add_0", None, "armpmu_add"),
        ("kprobes:armpmu_add", None, "armpmu_add"),
        ("mine", "armpmu_add", "armpmu_add"),
        ("mine", "armpmu_add.isra.0+0x4", "armpmu_add"),
        ("mine", None, None),
        # It sits elsewhere, whatever it is called.
        ("armpmu_add", "schedule", None),
        ("armpmu_add_1", None, None),
    ],
)
def test_a_probe_is_known_by_its_symbol_or_else_by_its_name(
    event: str, symbol: str | None, function: str | None
) -> None:
    assert function_of_event(event, symbol, PROBES) == function


LETTERS = {
    "armv8pmu_handle_irq": "h", "armv8pmu_read_counter": "r", "armv8pmu_write_counter": "w",
    "perf_event_overflow": "o", "kvm_pmu_perf_overflow": "g", "armv8pmu_disable_event": "d",
    "armv8pmu_enable_event": "e", "armv8pmu_start": "s", "armv8pmu_stop": "p",
    "perf_event_task_tick": "t",
}  # fmt: skip
CALLS = "hrwdesp"
GUESTS_OVERFLOW = re.compile("rwogdrwe")


def slow_counts(store: Store) -> Counter[str]:
    """Count calls by actor out of words: the calls of each interrupt, and of tasks between."""
    vcpus = set(store.read("vcpu")["tid"].to_pylist())
    events = [
        (row["cpu"], row["ts"], row["tid"], LETTERS[row["name"]])
        for row in store.read("function_span").to_pylist()
        if row["name"] in LETTERS
    ]
    brackets = {"entry": "(", "exit": ")"}
    events += [
        (row["cpu"], row["ts"], row["tid"], brackets[row["phase"]])
        for row in store.read("interrupt").to_pylist()
        if row["phase"] in brackets
    ]
    found: Counter[str] = Counter()
    for _, on_cpu in groupby(sorted(events, key=lambda e: e[:2]), key=lambda e: e[0]):
        depth, word = 0, ""
        for _, _, tid, letter in on_cpu:
            depth = max(depth + (letter == "(") - (letter == ")"), 0)
            if letter == ")" and depth == 0:
                found += handler_counts(word)
                word = ""
            elif depth:
                word += letter if letter not in "()" else ""
            elif letter in CALLS:
                mine = "vpmu" if tid in vcpus else "host_perf"
                found[mine] += 1
    return found


def handler_counts(word: str) -> Counter[str]:
    rest, guests = GUESTS_OVERFLOW.subn("", word)
    calls = sum(letter in CALLS for letter in rest)
    if guests and not set("rw") & set(rest):
        return Counter(vpmu=6 * guests + calls)
    return Counter(vpmu=6 * guests, host_perf=calls)


# A host that uses perf beside its guest, and one that does not and lost events.
@pytest.mark.parametrize(
    "name", ["B-arm64-k72-hostperf-kp.pftrace.zst", "E-arm64-k72-lostevents-kp.dat.zst"]
)
def test_actors_are_as_many_as_another_way_of_counting_finds(name: str, tmp_path: Path) -> None:
    store = stored(FIXTURES / name, tmp_path)
    rows = store.read("function_attribution").to_pylist()
    spans = store.read("function_span").to_pylist()
    assert [(r["ts"], r["cpu"]) for r in rows] == [(s["ts"], s["cpu"]) for s in spans]
    filters = ("kvm_load", "kvm_put")
    actors = Counter(r["actor"] for r in rows if r["actor"] not in (None, *filters))
    expected = slow_counts(store)
    assert actors["host_perf"] == expected["host_perf"]
    # At the begin of a window and behind a loss nobody knows on whose behalf a task acts.
    assert actors["vpmu_sched"] + actors["vpmu_emulation"] + actors["unknown"] == expected["vpmu"]
    assert actors["unknown"] < 20
    # Each restore makes two calls, but for those that a window's edge or a loss cuts off.
    restores = Counter(s["name"] for s in spans)
    found = Counter(r["actor"] for r in rows)
    for actor, restore in (("kvm_load", "guest"), ("kvm_put", "host")):
        assert abs(found[actor] - 2 * restores[f"kvm_vcpu_pmu_restore_{restore}"]) <= 4
    episodes = store.read("host_episode").to_pylist() if actors["host_perf"] else []
    seen = [episode for episode in episodes if episode["evidence"] == "observed"]
    assert sum(episode["accesses"] for episode in seen) == actors["host_perf"]
