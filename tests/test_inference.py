"""Is a host episode inferred exactly where a stated rule says so, and judged by what was observed?

Written histories show each rule and each of its preconditions; recordings with msr events show how
good the rules are. Law 11: with or without a rule, no observed number changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analyzer.cli.conflicts import print_conflicts
from analyzer.cli.render import print_info
from analyzer.pipeline import (
    IngestOptions,
    choose_designs,
    conflicts_of,
    host_events_of,
    info_of,
    ingest,
    whatif,
)
from analyzer.store import Store
from analyzer.timeline.inference.rules import RULES, TICK, is_frequency, unapplied
from tests import perfetto_writer as w
from tests.conftest import ROOT

RECORD = "cycles:H,freq=997"
NAMES = {
    1: "tick_nohz_handler", 2: "perf_mux_hrtimer_handler", 3: "hrtimer_wakeup",
    4: "__perf_event_read", 5: "remote_function", 6: "flush_tlb_func",
}  # fmt: skip
TICK_NUMBER, MUX, WAKE, READ, REMOTE, FLUSH = NAMES
CSD_IN = w.Dense(65610, "csd", "csd_function_entry", (("func", w.UINT64), ("csd", w.UINT64)))
CSD_OUT = w.Dense(65611, "csd", "csd_function_exit", (("func", w.UINT64), ("csd", w.UINT64)))
IPI_IN, IPI_OUT = (
    w.Dense(n, "irq_vectors", f"call_function_single_{edge}", (("vector", w.INT64),))
    for n, edge in ((65612, "entry"), (65613, "exit"))
)
READ_MSR = w.Dense(65614, "msr", "read_msr", (("msr", w.UINT64), ("val", w.UINT64)))
KINDS = (CSD_IN, CSD_OUT, IPI_IN, IPI_OUT, READ_MSR)
VCPU, OTHER = 7, 9
Event = tuple[int, int, str, dict[str, Any]]


def timer(ts: int, function: int, tid: int = OTHER, now: int = 5) -> list[Event]:
    return [
        (ts, tid, "hrtimer_expire_entry", {"hrtimer": 99, "function": function, "now": now}),
        (ts + 4, tid, "hrtimer_expire_exit", {"hrtimer": 99}),
    ]


def call(ts: int, function: int, tid: int = OTHER) -> list[Event]:
    fields = {"func": function, "csd": 1}
    return [(ts, tid, "csd_function_entry", fields), (ts + 4, tid, "csd_function_exit", fields)]


def vector(ts: int, name: str, inside: list[Event], tid: int = OTHER) -> list[Event]:
    return [
        (ts, tid, f"{name}_entry", {"vector": 236}), *inside,
        (ts + 9, tid, f"{name}_exit", {"vector": 236}),
    ]  # fmt: skip


def guest(ts: int) -> list[Event]:
    return [(ts, VCPU, "kvm_entry", {}), (ts + 5, VCPU, "kvm_exit", {})]


def load(
    tmp_path: Path, cpus: dict[int, list[Event]], *said: str, named: bool = True,
    name: str = "x.vpmu",
) -> Store:  # fmt: skip
    interned = pb.InternedData()
    for number, symbol in NAMES.items():
        interned.kernel_symbols.add(iid=number, str=symbol.encode())
    given: dict[str, Any] = {"interned_data": interned} if named else {}
    packets = [w.system_info()]
    for cpu, events in cpus.items():
        bundle = w.bundle(cpu, sorted(events, key=lambda e: e[0]), dense=KINDS)
        packets.append(w.packet(ftrace=bundle, sequence=2, sequence_flags=1, **given))
    path = tmp_path / "x.pftrace"
    path.write_bytes(w.trace(packets))
    options = IngestOptions(emulated=True, host_events=host_events_of(said, None))
    return ingest(str(path), tmp_path / name, options, lambda done, total: None)


def found(store: Store) -> list[tuple[str, int, int, int]]:
    rows = store.read("host_episode").to_pylist()
    assert {row["evidence"] for row in rows} <= {"inferred"}
    assert [row["episode"] for row in sorted(rows, key=lambda r: r["episode"])] == list(
        range(len(rows))
    )
    assert [row["end"] for row in rows] == sorted(row["end"] for row in rows)
    assert all(row["accesses"] is None and row["guest_state_on"] is None for row in rows)
    return sorted((row["rule"], row["cpu"], row["ts"], row["end"]) for row in rows)


HISTORY = {
    0: [
        *guest(10), *timer(20, TICK_NUMBER), *timer(30, MUX), *timer(40, WAKE), *call(50, READ),
        *call(60, REMOTE), *call(70, FLUSH), *guest(90),
    ],
    1: [*guest(100), *timer(110, TICK_NUMBER, tid=VCPU), *guest(130)],
}  # fmt: skip
CALLS = [
    ("ipi-event-read", 0, 50, 54), ("ipi-remote-function", 0, 60, 64), ("mux-timer", 0, 30, 34),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "ticks"),
    [
        ((), []),
        ((RECORD,), [("tick-freq", 0, 20, 24), ("tick-freq", 1, 110, 114)]),
        ((f"{RECORD},cpu=all",), [("tick-freq", 0, 20, 24), ("tick-freq", 1, 110, 114)]),
        ((f"{RECORD},cpu=1-3",), [("tick-freq", 1, 110, 114)]),
        ((f"{RECORD},cpu=0,2",), [("tick-freq", 0, 20, 24)]),
        ((f"{RECORD},tid={VCPU}",), [("tick-freq", 1, 110, 114)]),
        ((f"{RECORD},tid={VCPU},cpu=0",), []),
        ((f"{RECORD},cpu=0", f"{RECORD},tid={VCPU}"),
         [("tick-freq", 0, 20, 24), ("tick-freq", 1, 110, 114)]),
        # Counting, of a fixed period, and in software: the tick passes them over.
        (("cycles", "cycles,period=100000", "cpu-clock,freq=99"), []),
    ],
)  # fmt: skip
def test_ticks_are_inferred_where_an_event_in_frequency_mode_is_said_to_be_on(
    tmp_path: Path, said: tuple[str, ...], ticks: list[Any]
) -> None:
    store = load(tmp_path, HISTORY, *said)
    assert found(store) == [*CALLS, *ticks]
    rule = info_of(store)["inference"]["tick-freq"]
    assert rule["applied"] == bool(said)
    assert rule["inferred"] == (len(ticks) if said else None)
    assert (rule["because"] is None) == bool(said)
    assert rule["observed"] is rule["precision"] is rule["recall"] is None


def test_calls_that_a_vcpus_thread_makes_itself_are_kvms_and_ipis_that_hit_it_are_perfs(
    tmp_path: Path,
) -> None:
    inside = call(33, REMOTE, tid=VCPU)
    events = [
        *guest(10), *call(20, READ, tid=VCPU), *call(25, REMOTE, tid=VCPU),
        *vector(30, "call_function_single", inside, tid=VCPU), *guest(50),
    ]  # fmt: skip
    assert found(load(tmp_path, {0: events})) == [("ipi-remote-function", 0, 33, 37)]


def test_without_timers_the_timer_interrupt_is_the_tick(tmp_path: Path) -> None:
    events = [*guest(10), *vector(20, "local_timer", []), *guest(40)]
    assert found(load(tmp_path, {0: events}, RECORD)) == [("tick-freq", 0, 20, 29)]


def test_nameless_functions_leave_the_rules_that_need_names_unapplied(tmp_path: Path) -> None:
    start = (15, OTHER, "hrtimer_start", {"hrtimer": 99, "function": 1, "expires": 2_000_000})
    whole = timer(20, TICK_NUMBER, now=2_000_001)
    other = timer(30, MUX)
    store = load(
        tmp_path, {0: [*guest(10), start, *whole, *other, *guest(50)]}, RECORD, named=False
    )
    rules = info_of(store)["inference"]
    assert [name for name, said in rules.items() if said["applied"]] == ["tick-freq"]
    assert "names" in rules["mux-timer"]["because"]


def test_handler_without_its_end_ends_where_something_else_begins(tmp_path: Path) -> None:
    begins = [timer(20, TICK_NUMBER)[0], timer(30, MUX)[0], *guest(40)]
    assert found(load(tmp_path, {0: [*guest(10), *begins]}, RECORD)) == [
        ("mux-timer", 0, 30, 40), ("tick-freq", 0, 20, 30),
    ]  # fmt: skip


def plain(events: list[Event], ticks_on: bool) -> list[tuple[str, int]]:
    # One CPU, functions named: what each begin says by itself.
    wanted = {TICK_NUMBER: "tick-freq", MUX: "mux-timer"} if ticks_on else {MUX: "mux-timer"}
    said = []
    for ts, tid, name, fields in events:
        if name == "hrtimer_expire_entry" and fields["function"] in wanted:
            said.append((wanted[fields["function"]], ts))
        if name == "csd_function_entry" and fields["func"] in (READ, REMOTE) and tid != VCPU:
            rule = "ipi-event-read" if fields["func"] == READ else "ipi-remote-function"
            said.append((rule, ts))
    return sorted(said)


@settings(max_examples=25, deadline=None)
@given(
    made=st.lists(st.tuples(st.integers(1, 8), st.sampled_from([VCPU, OTHER])), max_size=30),
    ticks_on=st.booleans(),
)
def test_rules_find_what_a_plain_walk_finds(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, int]], ticks_on: bool
) -> None:
    events: list[Event] = [*guest(1)]
    for n, (what, tid) in enumerate(made):
        ts = 20 + 20 * n
        if what <= WAKE:
            events += timer(ts, what, tid)
        elif what <= FLUSH:
            events += call(ts, what, tid)
        else:
            events += guest(ts) if what == 8 else vector(ts, "local_timer", timer(ts + 2, WAKE))
    said = (RECORD,) if ticks_on else ()
    store = load(tmp_path_factory.mktemp("walk"), {0: [*events, *guest(10_000)]}, *said)
    timers = any(name.startswith("hrtimer") for _, _, name, _ in events)
    want = plain(events, ticks_on)
    if not timers:  # then the interrupt itself is the tick
        want = sorted(
            want + [("tick-freq", e[0]) for e in events if e[2] == "local_timer_entry" and ticks_on]
        )
    assert sorted((rule, ts) for rule, _, ts, _ in found(store)) == want


def test_inferred_episodes_are_conflicts_of_their_own_and_change_nothing_observed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A thread that stays on its CPU from one KVM_RUN to the next, and a tick while it is there.
    events = [*guest(10), *timer(20, TICK_NUMBER, tid=VCPU), *guest(40)]
    designs = choose_designs(["all"], ["told", "untold"])
    with_rule = load(tmp_path, {0: events}, RECORD)
    without = load(tmp_path, {0: events}, name="y.vpmu")
    answers = [whatif(store, designs) for store in (with_rule, without)]
    for mine, other in zip(*(answer["placements"] for answer in answers), strict=True):
        said = [{k: v for k, v in p.items() if k != "conflicts"} for p in (mine, other)]
        assert said[0] == said[1]
        assert mine["conflicts"]["observed"] is other["conflicts"]["observed"] is None
    by_name = {(p["name"], p["options"]["perf_told"]): p for p in answers[0]["placements"]}
    vcpu = by_name["vcpu", True]["conflicts"]
    assert vcpu["inferred"]["suppressed"] == 1
    assert vcpu["inferred_by_rule"]["tick-freq"] == 1
    assert by_name["vcpu", False]["conflicts"]["inferred"]["touches"] == 1
    assert by_name["loop", True]["conflicts"]["inferred"]["suppressed"] == 0
    listed = conflicts_of(with_rule, choose_designs(["vcpu"]), None, None)
    (row,) = listed["designs"][0]["rows"]
    assert (row["evidence"], row["context"], row["ts"]) == ("inferred", "tick", 20)
    print_conflicts("x.vpmu", listed)
    printed = capsys.readouterr().out
    assert "inferred episodes: 1 suppressed" in printed
    assert "by rule: 1 tick-freq" in printed


def test_each_rule_is_stated_and_its_precondition_too() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.looks_at and rule.concludes and rule.source for rule in RULES)
    events = {"hrtimer_expire_entry", "csd_function_entry"}
    stated = [{"type": 0, "freq": 997, "period": None}]
    assert unapplied(events, True, stated) == [None] * len(RULES)
    assert unapplied(events, True, [])[TICK] is not None
    assert all(unapplied(set(), True, stated))


@pytest.mark.parametrize(
    ("event", "is_one"),
    [
        ({"type": 0, "freq": 99}, True),
        ({"type": 4, "freq": 99}, True),
        ({"type": None, "name": "cpu_core", "freq": 99}, True),
        ({"type": None, "name": "uncore_imc", "freq": 99}, False),
        ({"type": 1, "freq": 99}, False),
        ({"type": 0, "freq": None, "period": 99}, False),
        ({"type": 0, "freq": None}, False),
    ],
)
def test_only_core_events_in_frequency_mode_count(event: dict[str, Any], is_one: bool) -> None:
    assert is_frequency(event) == is_one


FIXTURES = {
    # applied to: inferred, observed, right
    "moved/k73v-hostperf-untold.trace.dat": {
        "tick-freq": (462, 462, 462), "ipi-event-read": (44, 44, 44),
        "ipi-remote-function": (6, 4, 4), "mux-timer": (0, 0, 0),
    },
    "moved/k73v-hostperf.trace.dat": {
        "tick-freq": (667, 370, 370), "ipi-event-read": (56, 56, 56),
        "ipi-remote-function": (6, 4, 4), "mux-timer": (0, 0, 0),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Store, Store]]:
    made = {}
    for name in FIXTURES:
        path = str(ROOT / "fixtures" / f"{name}.zst")
        folder = tmp_path_factory.mktemp("judged")
        stated, nothing = (
            ingest(path, folder / part, IngestOptions(True, host_events=said), lambda a, b: None)
            for part, said in (("a.vpmu", host_events_of([RECORD], None)), ("b.vpmu", ()))
        )
        made[name] = (stated, nothing)
    return made


@pytest.mark.parametrize("name", FIXTURES)
def test_rules_are_held_against_what_was_observed(
    judged: dict[str, tuple[Store, Store]], name: str
) -> None:
    stated, nothing = (info_of(store)["inference"] for store in judged[name])
    for rule, want in FIXTURES[name].items():
        said = stated[rule]
        assert (said["inferred"], said["observed"], said["right"]) == want
        assert said["recall"] == (1.0 if want[1] else None)
    # Every tick that touched nothing fell into a stay of a guest whose kernel had told perf.
    tick = stated["tick-freq"]
    assert tick["while_guest_state_on"] == tick["inferred"] - tick["right"]
    assert nothing["tick-freq"]["inferred"] is None
    assert nothing["tick-freq"]["observed"] == FIXTURES[name]["tick-freq"][1]
    assert {k: v for k, v in stated.items() if k != "tick-freq"} == {
        k: v for k, v in nothing.items() if k != "tick-freq"
    }


@pytest.mark.parametrize("name", FIXTURES)
def test_rules_change_no_observed_number_of_a_recording(
    judged: dict[str, tuple[Store, Store]], name: str
) -> None:
    stated, nothing = judged[name]
    answers = [whatif(store, choose_designs(["all"])) for store in (stated, nothing)]
    assert answers[0] == answers[1]
    told = [info_of(store) for store in (stated, nothing)]
    ours = {"inference", "host_events", "tables"}
    assert {k: v for k, v in told[0].items() if k not in ours} == {
        k: v for k, v in told[1].items() if k not in ours
    }
    rows = stated.read("host_episode").to_pylist()
    known = [row for row in rows if row["evidence"] == "observed"]
    assert known == [
        row for row in nothing.read("host_episode").to_pylist() if row["evidence"] == "observed"
    ]
    ends = np.array([row["end"] for row in rows])
    assert (np.diff(ends) >= 0).all()
    assert len({row["episode"] for row in rows}) == len(rows)


def test_info_prints_each_rule_with_its_shares(
    judged: dict[str, tuple[Store, Store]], capsys: pytest.CaptureFixture[str]
) -> None:
    stated, nothing = judged["moved/k73v-hostperf.trace.dat"]
    print_info("x.vpmu", info_of(stated))
    printed = capsys.readouterr().out
    assert "tick-freq           │      667 │      370 │   370 │    0.5547 │ 1.0000" in printed
    assert "tick-freq: 297 of the wrong ones while a guest's state was on" in printed
    assert "host event cycles:H, freq 997, exclude_guest True (says --host-event)" in printed
    print_info("x.vpmu", info_of(nothing))
    assert "tick-freq is not applied: nothing says" in capsys.readouterr().out


# A handler that the recording's end cuts, with and without accesses on record.
@pytest.mark.parametrize("accesses", [False, True])
def test_a_handler_that_still_runs_at_the_end_counts(accesses: bool, tmp_path: Path) -> None:
    cut = timer(130, MUX)[:1]
    access = [(15, OTHER, "read_msr", {"msr": 0x1A0, "val": 0})] if accesses else []
    store = load(tmp_path, {0: [*access, *guest(10), *timer(30, MUX), *cut]}, RECORD)
    rows = store.read("host_episode").to_pylist()
    assert [row["ts"] for row in rows if row["rule"] == "mux-timer"] == [30, 130]
