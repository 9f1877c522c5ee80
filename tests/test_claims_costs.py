"""Claims on swaps, time and cost: on which evidence do they hold, fail, or say nothing?"""

from __future__ import annotations

from typing import Any

import pytest

from analyzer.claims import Evidence
from tests.claims_evidence import Rows, S, design, episodes, make, met, verdict, word

MS = 1_000_000


def c1(
    loop: Any = 1000, vcpu: Any = 10, dear: float = 20e6, cheap: float = 1e6, **more: Any
) -> str:
    return word("c1", make(
        design("exit", 1000), design("loop", loop, cost_ns=(dear, 10 * dear)),
        design("vcpu", vcpu, cost_ns=(cheap / 10, cheap)), **more,
    ))  # fmt: skip


# 10 s of guest time: 0.1 % is 10 ms. Loop at least 20 ms, vcpu at most 1 ms.
def test_c1_holds_only_where_the_price_ranges_lie_apart() -> None:
    assert c1() == "holds"
    assert c1(cheap=9.9e6) == "holds"
    assert c1(cheap=10e6) == "no evidence"  # exactly half of loop's lowest
    assert c1(dear=10.9e6) == "no evidence"  # 9.9 ms saved at least, 108.9 ms at most
    assert c1(dear=0.5e6) == "true but immaterial"  # 4.9 ms saved at most


def test_c1_fails_by_counts_alone() -> None:
    assert c1(1000, 800) == "fails"
    assert c1(1000, 799) == "holds"
    assert c1(1000, 800, emulated=True) == "fails"
    assert c1(1000, 799, emulated=True) == "no evidence"
    # A range of the marks speaks for neither side.
    assert c1((900, 1001), 800) == "holds"


def test_c1_has_no_evidence_without_what_bounds_a_stay() -> None:
    assert c1(without=("sched_switch",)) == "no evidence"
    assert c1(marks={"kvm_run_ioctl": False}) == "no evidence"
    found = verdict("c1", make(design("loop")))
    assert (found.verdict, found.because) == ("no evidence",
                                              "placement not available: loop, vcpu")  # fmt: skip


def test_c1_margin_is_how_far_the_deciding_number_is_off() -> None:
    found = verdict("c1", make(design("loop", 1000), design("vcpu", 900)))
    assert found.deciding is not None
    assert found.deciding.margin == pytest.approx(0.9 / 0.8)
    assert found.numbers["swaps_loop"] == [2000, 2000]


# Ticks every 4 ms on CPU 0, each inside its timer interrupt; each n-th (`every`) forces an exit,
# the others land while the host runs.
def ticking(seconds: float, every: int = 1, **more: Any) -> Evidence:
    tables: dict[str, Rows] = {"timer": [], "interrupt": [], "guest_slice": [], "mode_slice": []}
    ticks = int(seconds * 250)
    for n in range(ticks):
        at = (n + 1) * 4 * MS - 2000
        forced = n % every == 0
        begin = n * 4 * MS
        end = at - 1000 if forced else at - 900_000
        tables["guest_slice"].append({
            "ts": begin, "end": end, "cpu": 0, "vcpu": 0, "ended_by": "exit", "exit_ts": end,
            "reason": "interrupt" if forced else "hlt",
        })  # fmt: skip
        tables["interrupt"].append(
            {"ts": at - 100, "cpu": 0, "kind": "vector", "phase": "entry", "name": "local_timer"}
        )
        tables["timer"].append({"ts": at, "cpu": 0, "phase": "expire_entry",
                                "function_name": "tick_nohz_handler"})  # fmt: skip
    tables["mode_slice"].append(
        {"ts": 0, "end": ticks * 4 * MS, "cpu": 0, "vcpu": 0, "mode": "guest"}
    )
    return make(tables=tables, **more)


def test_c2_holds_where_each_second_shows_its_forced_exits() -> None:
    found = verdict("c2", ticking(3))
    assert (found.verdict, found.numbers["hz"]) == ("holds", 250)
    assert found.numbers["tick_forced_exits"] == 750
    assert found.numbers["seconds_share"] == 1


def test_c2_fails_where_ticks_land_in_the_host() -> None:
    assert word("c2", ticking(3, every=2)) == "fails"
    # 125 of 250 a second are enough where half of HZ is asked for.
    assert word("c2", ticking(3, every=2), rate=0.5) == "holds"


def test_c2_has_no_evidence_of_times_that_mean_nothing_or_events_that_are_missing() -> None:
    found = verdict("c2", ticking(1, emulated=True))
    assert (found.verdict, found.numbers["tick_forced_exits"]) == ("no evidence", 250)
    assert word("c2", ticking(1, without=("hrtimer_expire_entry",))) == "no evidence"
    assert word("c2", ticking(1, without=("local_timer_entry",))) == "no evidence"
    assert word("c2", ticking(0.05)) == "no evidence"  # shorter than least_s


# An interrupt that is not the first after the exit was not what the exit was for.
def test_c2_counts_no_exit_that_another_interrupt_forced() -> None:
    early = ticking(1)
    rows: Rows = early.read("interrupt", ["ts", "cpu", "kind", "phase", "name"]).to_dicts()
    rows += [{**row, "ts": row["ts"] - 800, "name": "reschedule"} for row in rows]
    tables = {
        name: early.read(name, columns).to_dicts()
        for name, columns in (
            ("timer", ["ts", "cpu", "phase", "function_name"]),
            ("guest_slice", ["ts", "end", "cpu", "vcpu", "reason"]),
            ("mode_slice", ["ts", "end", "cpu", "vcpu", "mode"]),
        )
    }
    found = verdict("c2", make(tables={**tables, "interrupt": rows}))
    assert (found.verdict, found.numbers["tick_forced_exits"]) == ("fails", 0)


def c3(kvm_blind: int, samples: int = 0, lost: int = 0, **more: Any) -> Evidence:
    rows = episodes(samples, "nmi", first=500)
    gone = met(*({"ts": row["ts"], "context": "nmi", "cause": "suppressed"} for row in rows[:lost]))
    mode = {"ts": 0, "end": 10 * S, "cpu": 0, "vcpu": 0, "mode": "kvm"}
    return make(
        design("vcpu", blind={"kvm": kvm_blind}), design("sched", blind={"kvm": 1000}),
        tables={"host_episode": rows, "mode_slice": [mode]},
        meetings={("vcpu", True): gone}, **more,
    )  # fmt: skip


def test_c3_decides_on_time_and_on_samples_where_time_means_nothing() -> None:
    assert word("c3", c3(500)) == "holds"
    assert word("c3", c3(499)) == "fails"
    assert word("c3", c3(1000, emulated=True)) == "no evidence"
    assert word("c3", c3(0, 30, 15, emulated=True)) == "holds"
    assert word("c3", c3(1000, 30, 14, emulated=True)) == "fails"
    assert word("c3", c3(1000, 29, 29, emulated=True)) == "no evidence"
    assert word("c3", c3(1000, arch="arm64")) == "fails (by construction)"


def c4(entries: int, loops: Any, blind: int = 0, **more: Any) -> str:
    inner, loop = design("exit", entries), design("loop", loops, blind={"kvm": blind})
    return word("c4", make(inner, loop, **more))


# Loops cost 1 to 2 ms together; twice that is what blind time has to beat.
def test_c4_holds_by_reentries_or_by_more_blind_time_than_swaps_take() -> None:
    assert c4(101, 100, emulated=True) == "holds"
    assert c4(100, 100, 4_000_001) == "holds"
    assert c4(100, 100, 4_000_000) == "no evidence"
    assert c4(100, 100, 2_000_000) == "fails"
    assert c4(100, 100, emulated=True) == "fails"
    assert c4(100, 100, 1, emulated=True) == "no evidence"


def test_c4_has_no_evidence_where_reentries_cannot_be_seen() -> None:
    assert c4(100, (90, 100)) == "no evidence"
    assert c4(100, (90, 99)) == "holds"
    assert c4(100, 100, marks={"hidden_reentries": True}) == "no evidence"
    assert c4(101, 100, arch="arm64") == "no evidence"


def c10(changed: int, **more: Any) -> Evidence:
    swaps: Rows = [
        {"ts": n, "end": n, "cpu": 0, "kind": ("load", "put")[n % 2], "counters": 6,
         "kvm_reads": 8, "kvm_writes": 14, "redundant_writes": 1}
        for n in range(100)
    ]  # fmt: skip
    writes = {f"{role}_{way}_{what}": changed // 4 for role in ("counter", "selector")
              for way in ("load", "put") for what in ("made", "changed")}  # fmt: skip
    return make(design("loop"), tables={"recorded_swap": swaps}, writes=writes, **more)


# 100 swaps of 6 counters: 1200 writes if none is elided.
def test_c10_is_inferred_from_the_writes_that_changed_something() -> None:
    assert word("c10", c10(600)) == "holds (inferred)"
    assert verdict("c10", c10(600)).numbers["redundant_share"] == 0.5
    assert word("c10", c10(604)) == "fails"
    assert word("c10", c10(600), cost_share=0.9) == "fails"
    assert word("c10", c10(600), cost_share=0.3) == "no evidence"  # ranges overlap


def test_c10_has_no_evidence_without_values_or_where_swaps_restore_the_hosts() -> None:
    assert word("c10", make(design("loop"))) == "no evidence"
    untold = {"placement": "vcpu", "evidence": {"perf": "untold"}}
    assert word("c10", c10(600, recorded=untold)) == "no evidence"


def c13(on_ns: int, detail: int = 3, **more: Any) -> Evidence:
    points: Rows = [] if not on_ns else [
        {"ts": 0, "cpu": 0, "kind": 15, "detail": detail},
        {"ts": on_ns, "cpu": 0, "kind": 15, "detail": 0},
    ]  # fmt: skip
    cheap = more.pop("cheap", (1e6, 2e6))
    designs = [design(n, 10, cost_ns=cheap) for n in ("profiled", "dynamic")]
    return make(
        *designs, design("vcpu", 10, cost_ns=(1e6, 2e6)), design("loop", 1000, cost_ns=(1e8, 1e9)),
        tables={"point": points, "window": [{"cpu": 0, "ts": 0, "end": 1000, "events": 2}]},
        **more,
    )  # fmt: skip


# vcpu at least 1 ms, loop at least 100 ms: the line is at 25.75 ms.
def test_c13_holds_near_vcpu_and_fails_where_a_host_event_is_mostly_on() -> None:
    assert word("c13", c13(500)) == "holds"
    assert word("c13", c13(501)) == "fails"
    assert word("c13", c13(500, cheap=(2e6, 25.7e6))) == "holds"
    assert word("c13", c13(500, cheap=(2e6, 25.8e6))) == "no evidence"
    assert word("c13", c13(500, cheap=(3e8, 4e8))) == "fails"
    # Counting user code only profiles nothing of KVM: `profiled` stays vcpu.
    found = verdict("c13", c13(600, detail=1))
    assert [part.verdict for part in found.parts[:2]] == ["holds", "fails"]


def test_c13_has_no_evidence_without_activity() -> None:
    assert word("c13", c13(0)) == "no evidence"
    assert word("c13", c13(500, emulated=True)) == "no evidence"
    assert word("c13", c13(500, without=("write_msr", "read_msr", "rdpmc"))) == "no evidence"


@pytest.mark.parametrize(("wait", "expected"), [(10 * MS, "fails"), (10 * MS + 1, "holds")])
def test_c13_new_events_must_evict_where_they_start_late(wait: int, expected: str) -> None:
    late = met({"ts": 0, "context": "ipi", "cause": "late", "until": wait})
    found = verdict("c13", c13(500, meetings={("vcpu", True): late}))
    assert found.parts[2].verdict == expected


def test_c15_is_undecided_either_way_and_prices_the_break_even() -> None:
    exits: Rows = [{"number": 1, "reason": "msr", "count": 7, "ns": 1}]
    pair = (design("loop"), design("emulated", 0, told=False))
    for swaps in (True, False):
        found = verdict(
            "c15", make(*pair, tables={"exit_reason": exits}, marks={"swaps_recorded": swaps})
        )
        assert found.verdict == "no evidence"
        assert found.numbers["exits_for_registers_of_any_kind"] == {"msr": 7}
        low, high = found.numbers["break_even_trapped_accesses_per_loop_priced"]
        assert 0 < low < high
    assert "not available" in verdict("c15", make(design("loop"))).because


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (100e6, 900e6, "holds"),  # exactly 1 % of 10 s
        (99e6, 900e6, "no evidence"),
        (9e6, 100e6, "no evidence"),
        (9e6, 99e6, "fails"),
    ],
)
def test_c16_decides_where_both_ends_lie_on_one_side(
    low: float, high: float, expected: str
) -> None:
    loop = design("loop", 1000, cost_ns=(low, high))
    found = verdict("c16", make(loop))
    assert found.verdict == expected
    # 1000 pairs: at `high` a pair costs high / 1000 ns, and 1 % of a second is 10 ms.
    assert found.numbers["crossing_loops_per_guest_s"][0] == pytest.approx(1e10 / high)
    assert word("c16", make(loop, emulated=True)) == "no evidence"
    assert word("c16", make(loop, without=("kvm_exit",))) == "no evidence"


def c18(on_ns: int, vcpu: int = 10, **more: Any) -> str:
    points: Rows = [{"ts": 0, "cpu": 0, "kind": 15, "detail": 3},
                    {"ts": on_ns, "cpu": 0, "kind": 15, "detail": 0}]  # fmt: skip
    return word("c18", make(
        design("loop", 1000, cost_ns=(20e6, 200e6)), design("vcpu", vcpu, cost_ns=(1e5, 1e6)),
        tables={"point": points, "window": [{"cpu": 0, "ts": 0, "end": 1000, "events": 2}]},
        **more,
    ))  # fmt: skip


def test_c18_needs_c1_and_little_profiling_of_kvm() -> None:
    assert c18(250) == "holds"
    assert c18(251) == "fails"
    assert c18(0, vcpu=800) == "fails"
    assert c18(250, emulated=True) == "no evidence"
    assert c18(250, vcpu=800, emulated=True) == "fails"
    assert c18(250, without=("write_msr", "read_msr", "rdpmc")) == "no evidence"
