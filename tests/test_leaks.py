"""Are leak windows what a slow count of the tables gives, and what written histories say?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.pipeline import Asked, IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.meetings import leaks
from analyzer.replay import Counts, Part
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline.points import Kind
from tests import replayed

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
VM, OTHER_VM, THREAD, IDLE = 10, 20, 99, 0  # tids


@dataclass
class Tables:
    """A store of tables written here; batches of few rows, so that stretches cross them."""

    tables: dict[str, list[dict[str, Any]]]
    size: ClassVar[int] = 2

    def rows(self, table: str) -> int:
        return len(self.tables.get(table, []))

    def read(self, table: str, columns: list[str]) -> pa.Table:
        rows = self.tables.get(table, [])
        kinds = {"kind": pa.string(), "mode": pa.string(), "actor": pa.string()}
        kinds |= {name: pa.string() for name in ("op", "role")}
        kinds |= {name: pa.int32() for name in ("cpu", "next_pid", "vcpu", "index", "tid", "tgid")}
        if table == "point":
            kinds["kind"] = pa.uint8()
        return pa.table(
            {c: pa.array([r[c] for r in rows], kinds.get(c, pa.int64())) for c in columns}
        )

    def batches(self, table: str, columns: list[str], rows: int) -> Any:
        if self.rows(table):
            yield from self.read(table, columns).to_batches(self.size)


def stay(begin: int, end: int, number: int, cpu: int = 0, vcpu: int = 0, put: int = 1) -> list[int]:
    row = [0] * q.SLICE_ROW
    row[q.S_STAY], row[q.S_CPU], row[q.S_VCPU], row[q.S_TS], row[q.S_END] = (
        number, cpu, vcpu, begin, end,
    )  # fmt: skip
    row[q.S_WHOLE], row[q.S_LOADED] = put, 1
    return row


def switch(ts: int, tid: int, cpu: int = 0) -> dict[str, Any]:
    return {"ts": ts, "cpu": cpu, "next_pid": tid}


def host_write(ts: int, index: int, actor: str = "host_perf") -> dict[str, Any]:
    return {"ts": ts, "cpu": 0, "op": "write", "role": "counter", "index": index, "actor": actor}


def found(
    stays: list[list[int]], tables: dict[str, Any], perf: str = "told", part: Part | None = None
) -> dict[str, tuple[int | None, int | None]]:
    (design,) = choose_designs(["vcpu"], [perf])
    counts = Counts(np.zeros((2, q.COUNTS), np.int64), np.zeros((1, 4)), np.zeros(q.TOTALS))
    slices = np.array(stays, np.int64).reshape(-1, q.SLICE_ROW)
    outcome = replayed.outcome_of(replayed.written(counts, slices))
    vcpus = [{"tid": VM, "tgid": 1}, {"tid": OTHER_VM, "tgid": 2}]
    end = {"point": [{"ts": 1000, "cpu": 0, "kind": int(Kind.LOST)}]}
    writes = tables.get("pmu_access", [])
    windows = [{"cpu": cpu} for cpu in (0, 1)]
    store = Tables({"vcpu": vcpus, "window": windows, **end, "pmu_attribution": writes, **tables})
    ((low, high),) = leaks.find_leaks(store, [(design, outcome)], part or Part())  # type: ignore[arg-type]
    assert low == high
    return {clearing: (leak.ns, leak.windows) for clearing, leak in low.items()}


AFTER = [switch(0, VM), switch(30, THREAD), switch(50, IDLE), switch(60, OTHER_VM), switch(70, VM)]


# Put at 20; another thread at 30..50 and another VM's vCPU at 60..70 could read; idle could not,
# nor the VM's own thread. The next load, at 80, ends it.
def test_values_left_by_a_put_are_there_for_others_until_the_next_load() -> None:
    tables = {"sched_switch": AFTER}
    assert found([stay(5, 20, 0), stay(80, 90, 1)], tables) == {
        "blind": (0, 0), "dirty": (0, 0), "none": (30, 1),
    }  # fmt: skip
    both = found([stay(5, 20, 0), stay(40, 90, 1, vcpu=1)], tables)
    assert both["dirty"] == (10 + 20, 1)
    assert both["none"] == (10 + 10 + 20 + 910, 3)


def test_part_cuts_and_a_put_that_was_not_seen_leaves_nothing_known() -> None:
    tables = {"sched_switch": AFTER}
    assert found([stay(5, 20, 0)], tables, part=Part(begin=35, end=65))["none"] == (20, 1)
    assert found([stay(5, 20, 0)], tables, part=Part(cpus=(1,)))["none"] == (0, 0)
    assert found([stay(5, 20, 0)], tables, part=Part(vcpus=(1,)))["none"] == (0, 0)
    assert found([stay(5, 20, 0, put=0)], tables)["none"] == (0, 0)
    lost = {"point": [{"ts": 40, "cpu": 0, "kind": int(Kind.LOST)}]}
    assert found([stay(5, 20, 0)], {**tables, **lost})["none"] == (10, 1)
    assert found([stay(5, 20, 0)], {})["none"] == (None, None)  # no switch is recorded


# Stays that a switch does not end leak under every rule, and the VMM's own code makes a window.
def test_within_a_stay_clearing_helps_nothing() -> None:
    mode = [{"ts": 6, "end": 8, "cpu": 0, "vcpu": 0, "mode": "user"}]
    leak = found([stay(5, 65, 0), stay(80, 90, 1)], {"sched_switch": AFTER, "mode_slice": mode})
    assert leak == {"blind": (25, 1), "dirty": (25, 1), "none": (30, 2)}
    away = [{**mode[0], "cpu": 1}]
    leak = found([stay(5, 25, 0), stay(80, 90, 1)], {"sched_switch": AFTER, "mode_slice": away})
    assert leak["dirty"] == (0, 0)


# The guest uses counters 0 and 1: both have to be written, by the host and not by KVM.
def test_the_host_ends_a_window_when_it_has_written_every_counter_in_use() -> None:
    swaps = [{"ts": 1, "end": 5, "cpu": 0, "vcpu": 0, "kind": "load", "guest_counters": 3}]
    once = [host_write(10, 1), host_write(32, 0), host_write(33, 5), host_write(35, 1, "kvm_put")]
    for more, ns in (([], 30), ([host_write(45, 1)], 15), ([host_write(31, 1)], 2)):
        writes = sorted(once + more, key=lambda row: row["ts"])
        tables = {"sched_switch": AFTER, "recorded_swap": swaps, "pmu_access": writes}
        assert found([stay(5, 20, 0), stay(80, 90, 1)], tables)["none"] == (ns, 1)
    swaps[0]["guest_counters"] = 0
    tables = {"sched_switch": AFTER, "recorded_swap": swaps, "pmu_access": once}
    assert found([stay(5, 20, 0), stay(80, 90, 1)], tables)["none"] == (0, 0)


# Counter 0 is a host event's before and after, so perf's half of a told put at 20 writes it.
def test_perfs_half_of_a_told_put_writes_what_its_events_are_on() -> None:
    load = {"ts": 1, "end": 5, "cpu": 0, "vcpu": 0, "kind": "load", "guest_counters": 1}
    puts = [
        {"ts": t, "end": t + 2, "cpu": 0, "vcpu": 0, "kind": "put", "guest_counters": None}
        for t in (10, 90)
    ]
    writes = [host_write(11, 0, "perf_put"), host_write(91, 0, "perf_put")]
    tables = {"sched_switch": AFTER, "recorded_swap": [load, *puts], "pmu_access": writes}
    stays = [stay(5, 20, 0), stay(80, 90, 1)]
    assert found(stays, tables)["none"] == (0, 0)
    assert found(stays, tables, "untold")["none"] == (30, 1)
    assert found(stays, {**tables, "pmu_access": writes[:1]})["none"] == (30, 1)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 1)), max_size=12),
    st.lists(
        st.tuples(st.integers(0, 90), st.sampled_from((VM, OTHER_VM, THREAD, IDLE))), max_size=15
    ),
    st.integers(1, 5),
)
def test_a_count_nanosecond_by_nanosecond_gives_the_same(
    lengths: list[tuple[int, int, int]], switches: list[tuple[int, int]], size: int
) -> None:
    at, stays = 0, []
    for n, (gap, long, vcpu) in enumerate(lengths):
        stays.append(stay(at + gap, at + gap + long, n, vcpu=vcpu))
        at += gap + long
    rows = [switch(ts, tid) for ts, tid in sorted(switches)] or [switch(0, IDLE)]
    lost = {"point": [{"ts": at + 20, "cpu": 0, "kind": int(Kind.LOST)}]}
    running = {}
    for row in rows:
        running.update(dict.fromkeys(range(row["ts"], at + 20), row["next_pid"]))
    tails = dict.fromkeys(range(len(stays)), 0)
    inside = dict(tails)
    for n, one in enumerate(stays):
        until = stays[n + 1][q.S_TS] if n + 1 < len(stays) else at + 20
        own = (VM, OTHER_VM)[one[q.S_VCPU]]
        for ts in range(one[q.S_TS], until):
            foreign = running.get(ts, IDLE) not in {IDLE, own}
            (inside if ts < one[q.S_END] else tails)[n] += foreign
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tables, "size", size)
        got = found(stays, {"sched_switch": rows, **lost})
    every = [*inside.values(), *tails.values()]
    assert got["none"] == (sum(every), sum(map(bool, every)))
    assert got["dirty"] == (sum(inside.values()), sum(map(bool, inside.values())))


# On a recording: rows of the tables, one at a time.
@pytest.mark.parametrize("name", ["k73m-hostperf", "k73m-overcommit"])
def test_a_recordings_leaks_equal_a_slow_count(name: str, tmp_path: Path) -> None:
    path = FIXTURES / f"{name}.pftrace.zst"
    options = IngestOptions(emulated=True)
    store: Store = ingest(str(path), tmp_path / "x.vpmu", options, lambda d, t: None)
    names = ["loop", "vcpu", "sched"]
    answer = whatif(store, choose_designs(names, ["untold"]), asked=Asked())
    (result,) = (store.path / "whatif").glob("*/owner_slice.parquet")
    owned = pq.read_table(result).to_pylist()
    accesses, actors = (store.read(t).to_pylist() for t in ("pmu_access", "pmu_attribution"))
    vcpus = store.read("vcpu").to_pylist()
    vm_of = {row["tid"]: row["tgid"] for row in vcpus}
    used: dict[int, int] = {}
    for row in store.read("recorded_swap").to_pylist():
        if row["guest_counters"] is not None:
            used[row["vcpu"]] = used.get(row["vcpu"], 0) | row["guest_counters"]
    writes: dict[tuple[int, int], list[int]] = {}
    for access, actor in zip(accesses, actors, strict=True):
        whose = actor["actor"] in {"host_perf", "perf_put", "perf_load"}
        if whose and access["op"] == "write" and access["role"] in {"counter", "fixed_counter"}:
            bit = access["index"] + 32 * (access["role"] == "fixed_counter")
            writes.setdefault((access["cpu"], bit), []).append(access["ts"])
    lost: dict[int, list[int]] = {}
    for row in store.read("point").to_pylist():
        if row["kind"] == Kind.LOST:
            lost.setdefault(row["cpu"], []).append(row["ts"])
    ran: dict[int, list[tuple[int, int, int]]] = {}
    last: dict[int, tuple[int, int]] = {}
    for row in store.read("sched_switch").to_pylist():
        if row["cpu"] in last:
            since, tid = last[row["cpu"]]
            ran.setdefault(row["cpu"], []).append((since, row["ts"], tid))
        last[row["cpu"]] = row["ts"], row["next_pid"]
    for cpu, (since, tid) in last.items():
        ran.setdefault(cpu, []).append((since, 1 << 62, tid))
    for p in answer["placements"]:
        mine = sorted(
            (r for r in owned if r["placement"] == p["name"]), key=lambda r: (r["cpu"], r["ts"])
        )
        ns = windows = 0
        for n, row in enumerate(mine):
            after = mine[n + 1] if n + 1 < len(mine) else None
            until = min(x for x in lost[row["cpu"]] if x >= row["end"])
            if after is not None and after["cpu"] == row["cpu"]:
                until = min(until, after["ts"])
            if row["vcpu"] in used:
                cleared = row["end"]
                for bit in range(64):
                    if used[row["vcpu"]] >> bit & 1:
                        later = [t for t in writes.get((row["cpu"], bit), []) if t >= row["end"]]
                        cleared = max(cleared, min(later, default=1 << 62))
                until = min(until, cleared)
            spent = 0
            for since, to, tid in ran.get(row["cpu"], []):
                if tid and vm_of.get(tid, "no VM") != vcpus[row["vcpu"]]["tgid"]:
                    spent += max(0, min(to, until) - max(since, row["end"]))
            ns, windows = ns + spent, windows + (spent > 0)
        leak, none = p["leak_ns"], p["leak_ns"]["by_clearing"]["none"]
        # Slices are of the bound with the longest stays; these designs' stays end at switches.
        within = leak["by_clearing"]["dirty"]["to_user_high"]
        assert within == p["blind_ns"]["user_high"]
        assert ns + within in {none["to_user_low"], none["to_user_high"]}, p["name"]
        assert ns > 0
        assert windows <= none["windows_high"]
        assert (leak["to_user"], leak["to_guest"]) == (leak["by_clearing"]["dirty"]["to_user"], 0)
        assert leak["bound"] == "if RDPMC were allowed"
