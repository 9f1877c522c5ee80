"""Claims on what host perf meets: on which evidence do they hold, fail, or say nothing?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.claims_evidence import Rows, S, design, episodes, evicted, make, met, verdict, word

NO_REGISTERS = ("write_msr", "read_msr", "rdpmc")
TICK = {"ts": 0, "context": "tick", "cause": "touches"}
SWITCH = {"ts": 0, "context": "context_switch", "cause": "touches"}
GUEST_PMI = {"ts": 0, "context": "guest_pmi", "cause": "new"}


def c5(*untold: dict[str, Any], told: tuple[dict[str, Any], ...] = (), **more: Any) -> Any:
    tables = {"host_episode": more.pop("seen", episodes(5, "nmi"))}
    stays = design("vcpu", residency_ns=more.pop("stay_ns", 10 * S))
    meetings = {("vcpu", False): met(*untold), ("vcpu", True): met(*told)}
    return verdict("c5", make(stays, tables=tables, meetings=meetings, **more))


def words(found: Any) -> list[str]:
    return [found.verdict, *(part.verdict for part in found.parts)]


def test_c5_splits_into_untold_and_told() -> None:
    assert words(c5(TICK)) == ["holds", "holds", "fails"]
    ipi = {"ts": 5, "context": "ipi", "cause": "persists"}
    assert words(c5(TICK, told=(ipi,))) == ["holds", "holds", "holds"]
    # Told, a tick that is suppressed touches nothing; a switch is no handler.
    quiet = ({**TICK, "cause": "suppressed"}, {**SWITCH, "cause": "persists"})
    assert words(c5(SWITCH, told=quiet)) == ["fails", "fails", "fails"]


def test_c5_counts_an_episode_once_whatever_rules_it_fits() -> None:
    found = c5(TICK, {**TICK, "rule": "another"})
    assert found.deciding.value == 1
    assert found.numbers["vcpu_untold"] == {"tick": 1}


def test_c5_keeps_inferred_apart() -> None:
    assert words(c5({**TICK, "evidence": "inferred"}))[0] == "holds (inferred)"


def test_c5_fails_only_after_ten_seconds_with_host_events_on() -> None:
    assert words(c5())[0] == "fails"
    assert words(c5(stay_ns=10 * S - 1))[0] == "no evidence"
    assert words(c5(emulated=True))[0] == "no evidence"
    assert words(c5(seen=[]))[0] == "no evidence"
    assert words(c5(TICK, without=NO_REGISTERS))[0] == "no evidence"


def test_c6_fails_by_one_access_in_another_handler() -> None:
    rows = episodes(25, "nmi")
    assert word("c6", make(tables={"host_episode": rows})) == "holds"  # 100 accesses
    assert word("c6", make(tables={"host_episode": rows[:24]})) == "no evidence"
    assert word("c6", make(tables={"host_episode": [*rows, *episodes(1, "tick")]})) == "fails"
    assert word("c6", make(tables={"host_episode": rows}, without=NO_REGISTERS)) == "no evidence"
    assert word("c6", make(arch="riscv")) == "fails (by architecture)"


# A CPU that calls a function for itself does so in the caller's context: no interrupt.
def test_c6_counts_calls_only_inside_their_interrupt() -> None:
    rows = [*episodes(25, "nmi"), *episodes(1, "ipi", first=500)]
    vectors: Rows = [
        {"ts": at, "cpu": 0, "kind": "vector", "phase": phase, "name": "call_function_single"}
        for at, phase in ((100, "entry"), (200, "exit"))
    ]
    local = make(tables={"host_episode": rows, "interrupt": vectors})
    assert word("c6", local) == "holds"
    vectors[1]["ts"] = 700
    assert word("c6", make(tables={"host_episode": rows, "interrupt": vectors})) == "fails"


def c7(seen: int, loop: Any = (), inner: Any = (), **more: Any) -> str:
    tables = {"host_episode": episodes(seen, "tick"), **more.pop("tables", {})}
    meetings = {("loop", False): met(*loop), ("exit", False): met(*inner)}
    return word("c7", make(design("loop"), tables=tables, meetings=meetings, **more))


def test_c7_holds_over_a_thousand_episodes_and_fails_by_one() -> None:
    assert c7(1000) == "holds"
    assert c7(999) == "no evidence"
    assert c7(999, loop=[TICK]) == "fails"
    assert c7(1000, inner=[SWITCH]) == "fails"
    assert c7(1000, loop=[{**TICK, "evidence": "inferred"}]) == "holds"
    assert c7(1000, without=NO_REGISTERS) == "no evidence"
    assert c7(1000, marks={"kvm_exit_is_late": True}) == "holds (inferred)"


# What only the longest stays meet was not seen to be met, nor seen not to be.
def test_what_the_marks_leave_open_decides_nothing() -> None:
    either = (met(), met(TICK))
    tables = {"host_episode": episodes(1000, "tick")}
    assert word("c7", make(tables=tables, meetings={("loop", False): either})) == "no evidence"
    stays = design("vcpu", residency_ns=S)
    found = verdict("c5", make(stays, tables=tables, meetings={("vcpu", False): either}))
    assert (found.verdict, found.numbers["handlers_untold"]) == ("no evidence", [0, 1])
    pair = [design(name, 50, told=False) for name in ("lazy-core", "lazy-driver")]
    gone = {name: evicted(tick=100) for name in ("lazy-core", "lazy-driver")}
    lazy = make(*pair, tables=tables, evictions=gone, meetings={("lazy-core", False): either})
    assert word("c11", lazy) == "no evidence"


# A guest's own overflow comes as an NMI where perf isn't told, but it is none of the host's.
def test_c7_tells_nmis_apart() -> None:
    nmi = {"ts": 7, "context": "nmi", "cause": "touches"}
    assert c7(1000, loop=[nmi], inner=[nmi]) == "holds (but for 1 NMIs)"
    assert c7(1000, loop=[GUEST_PMI]) == "holds"


def test_c7_looks_into_recorded_swaps() -> None:
    swap: Rows = [{"ts": 2900, "end": 3050, "cpu": 0, "kind": "put"}]
    assert c7(1000, tables={"recorded_swap": swap}) == "fails"
    assert c7(1000, tables={"recorded_swap": swap}, marks={"swaps_recorded": False}) == "holds"
    swap[0]["end"] = 2999
    assert c7(1000, tables={"recorded_swap": swap}) == "holds"


def c8(*rows: dict[str, Any], switches: int = 4, **more: Any) -> str:
    tables: dict[str, Rows] = {
        "vcpu": [{"vcpu": 0, "tid": 7}],
        "sched_switch": [
            {"ts": n, "cpu": 0, "prev_pid": 7, "next_pid": 1} for n in range(switches)
        ],
    }
    meetings = {("vcpu", False): met(*rows)}
    return word("c8", make(tables=tables, meetings=meetings, **more))


def test_c8_holds_by_one_switch_with_perf_work() -> None:
    assert c8(SWITCH) == "holds"
    assert c8(TICK) == "fails (no task events)"
    assert c8(switches=0) == "no evidence"
    assert c8(SWITCH, without=NO_REGISTERS) == "no evidence"
    assert c8(SWITCH, without=("sched_switch",)) == "no evidence"


def c9(user: Rows, **more: Any) -> str:
    tables: dict[str, Rows] = {
        "vcpu": [{"vcpu": 0, "tid": 7}], "mode_slice": user,
        "guest_slice": [{"ts": 100, "end": 200, "cpu": 0, "vcpu": 0}],
    }  # fmt: skip
    return word("c9", make(design("vcpu"), design("sched"), tables=tables, **more))


def test_c9_needs_the_permission_and_fails_only_without_a_reader() -> None:
    slice_ = {"end": 300, "cpu": 0, "vcpu": 0, "mode": "user"}
    assert c9([{"ts": 200, **slice_}]) == "no evidence"
    assert c9([{"ts": 199, **slice_}]) == "fails"  # before any guest ran there
    assert c9([]) == "fails"
    assert c9([], without=("sched_switch",)) == "no evidence"
    assert c9([], arch="arm64") == "no evidence"


def c11(count: int, *rows: dict[str, Any], lazy: int = 50, **more: Any) -> Any:
    designs = [design("vcpu", 100)]
    designs += [design(name, lazy, told=False) for name in ("lazy-core", "lazy-driver")]
    gone = {name: evicted(tick=count) for name in ("lazy-core", "lazy-driver")}
    meetings = {("lazy-core", False): met(*rows)}
    return verdict("c11", make(*designs, evictions=gone, meetings=meetings, **more))


def test_c11_holds_over_a_hundred_episodes_and_fails_by_one_that_reaches_the_registers() -> None:
    assert c11(100).verdict == "holds"
    assert c11(99).verdict == "no evidence"
    assert c11(99, {**TICK, "cause": "suppressed"}).verdict == "holds"  # met, and suppressed
    assert c11(99, GUEST_PMI).verdict == "fails"
    assert c11(100, {**GUEST_PMI, "evidence": "inferred"}).verdict == "holds"
    assert c11(100, without=NO_REGISTERS).verdict == "no evidence"


@pytest.mark.parametrize(
    ("lazy", "expected"),
    [(50, "holds"), (51, "no evidence"), (89, "no evidence"), (90, "fails")],
)
def test_c11_second_part_counts_loads(lazy: int, expected: str) -> None:
    assert c11(100, lazy=lazy).parts[-1].verdict == expected


def c12(core: int, driver: int, *rows: dict[str, Any], acts: int = 1, **more: Any) -> str:
    points: Rows = [{"ts": n, "cpu": 0, "kind": 17, "detail": 0} for n in range(acts)]
    gone = {"lazy-core": evicted(core=core), "lazy-driver": evicted(tick=driver)}
    meetings = {("lazy-core", False): met(*rows)}
    return word("c12", make(tables={"point": points}, evictions=gone, meetings=meetings, **more))


def test_c12_compares_evictions_where_both_can_be_told() -> None:
    assert c12(30, 30) == "holds (tie)"
    assert c12(36, 30) == "holds"
    assert c12(37, 30) == "fails"
    assert c12(30, 0) == "fails"
    assert c12(29, 20) == "no evidence"  # too few to compare
    assert c12(30, 30, TICK) == "fails"  # reaches the registers under core only
    assert c12(0, 0) == "no evidence"
    assert c12(30, 30, acts=0) == "no evidence"
    assert c12(30, 30, without=NO_REGISTERS) == "no evidence"


# A perf-backed guest's counters are events of the host's perf: what perf does for them would be
# gone under every placement that the claims are about.
@pytest.mark.parametrize("backed", [0, 1])
def test_perfs_work_for_a_perf_backed_guest_is_no_evidence(backed: int) -> None:
    expected = ["no evidence"] * 4 if backed else ["holds", "holds", "holds", "holds (tie)"]
    more: dict[str, Any] = {"vpmu_accesses": backed, "marks": {"swaps_recorded": False}}
    found = [
        c5(TICK, **more).verdict,
        c8(SWITCH, **more),
        c11(100, **more).verdict,
        c12(30, 30, **more),
    ]
    assert found == expected


def c14(guest: int, rows: Rows, **more: Any) -> Any:
    swaps: Rows = [
        {"ts": 0, "end": 0, "cpu": 0, "kind": "load", "guest_counters": guest},
        {"ts": 2, "end": 2, "cpu": 0, "kind": "put"},
        {"ts": 100, "end": 100, "cpu": 0, "kind": "load", "guest_counters": 0b1000},
        {"ts": 298, "end": 298, "cpu": 0, "kind": "put"},
    ]
    tables = {"recorded_swap": swaps, "host_episode": rows}
    return verdict("c14", make(design("partition", told=False), tables=tables, **more))


def test_c14_gives_numbers_and_no_verdict_on_x86() -> None:
    found = c14(0b11 | 1 << 32, episodes(1, "tick"))
    assert found.verdict == "no evidence"
    assert found.numbers["guest_counters"] == ["0", "1", "3", "fixed 0"]
    assert found.numbers["needed_by_both"] == ["0"]
    refused = c14(1, [], feasible=("vm_refused", "KVM_CREATE_VCPU failed with EBUSY"))
    assert refused.parts[0].verdict == "holds"


# Loaded for 200 ns, 2 of them with a counter that the host uses, too: 1 %.
def test_c14_decides_by_time_where_counters_can_be_split() -> None:
    found = c14(1, episodes(1, "tick"), arch="arm64")
    assert found.deciding.value == pytest.approx(2 / 200)
    assert (found.verdict, c14(2, episodes(1, "tick"), arch="arm64").verdict) == ("fails", "fails")
    moved = make(
        tables={"recorded_swap": [
            {"ts": 0, "end": 0, "cpu": 0, "kind": "load", "guest_counters": 1},
            {"ts": 3, "end": 3, "cpu": 0, "kind": "put"},
        ], "host_episode": episodes(1, "tick")}, arch="arm64",
    )  # fmt: skip
    assert word("c14", moved) == "holds"
    assert c14(1, [], arch="arm64").verdict == "no evidence"


def c17(nmis: int, rows: Rows | None = None, **more: Any) -> str:
    interrupts: Rows = [
        {"ts": 1000 * n + 400, "cpu": 0, "kind": "nmi", "phase": "handler", "name": "nmi_handler",
         "handler_name": "perf_event_nmi_handler", "delta_ns": 200}
        for n in range(nmis)
    ]  # fmt: skip
    stays: Rows = [
        {"ts": 1000 * n + 100, "end": 1000 * n + 300, "cpu": 0, "owner": "vcpu", "vcpu": 0}
        for n in range(nmis)
    ]
    swaps: Rows = [{"ts": 90_000, "end": 90_500, "cpu": 0, "kind": "load"}]
    tables = {
        "interrupt": interrupts, "owner_slice": stays, "recorded_swap": swaps,
        "host_episode": rows or [],
    }  # fmt: skip
    return word("c17", make(tables=tables, **more))


# The NMI's event comes when its handler is done: these began inside the stay and ended behind it.
def test_c17_holds_over_ten_nmis_that_touched_nothing() -> None:
    assert c17(10) == "holds"
    assert c17(9) == "no evidence"
    assert c17(9, episodes(1, "nmi", on=True)) == "fails"
    assert c17(10, episodes(1, "nmi")) == "holds"  # the host's own time


def test_c17_tells_perfs_half_of_a_swap_from_the_rest() -> None:
    assert c17(10, episodes(1, "nmi", first=90_100)) == "holds"
    assert c17(10, episodes(1, "tick", first=90_100)) == "fails"


# In stays that are wider than the inner loop interrupts are on: a tick there says nothing of them.
def test_c17_judges_stays_only_where_interrupts_are_off() -> None:
    on = episodes(1, "tick", on=True)
    assert c17(10, on) == "fails"
    assert c17(10, on, recorded={"placement": "vcpu", "evidence": {"perf": "told"}}) == "holds"


def test_c17_has_no_evidence_without_guard_swaps_or_nmis() -> None:
    untold = {"placement": "vcpu", "evidence": {"perf": "untold"}}
    assert c17(10, recorded=untold) == "no evidence"
    assert c17(10, marks={"swaps_recorded": False}) == "no evidence"
    assert c17(10, without=("nmi_handler",)) == "no evidence"
    assert c17(10, without=NO_REGISTERS) == "no evidence"
