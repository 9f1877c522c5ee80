"""Known verdicts on real recordings, with the reason for each, and counts made in another way.

The machines were emulated, so what rests on times has no evidence; each fixture's README tells how
it was recorded.
"""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from analyzer.claims import decide
from analyzer.pipeline import IngestOptions, ingest
from analyzer.store import Store
from tests.conftest import ROOT

NOTHING = "no evidence"
HANDLERS = ["tick", "mux_timer", "ipi"]
# Costs and shares of time: nothing on an emulated machine, but what counts alone decide.
TIMES = dict.fromkeys(("C1", "C2", "C13", "C16", "C18"), NOTHING)
# Never decided on x86, or not from what is kept: C9's permission, C14's one global control,
# C15's trapped accesses.
NEVER = dict.fromkeys(("C9", "C14", "C15"), NOTHING)

# vcpu as a kernel had it that swaps there and tells perf; perf record in freq mode ran.
MOVED = {
    **TIMES, **NEVER,
    "C3": "holds",  # 117 of 133 NMIs in KVM's code fall into the shortest stays at vcpu
    "C4": "fails",  # as many loops as entries: 1601
    "C5": "holds",  # 59 ticks and an IPI in stays at vcpu; told, the IPI still writes
    "C6": "fails",  # 370 ticks touch registers
    "C7": "holds (but for 49 NMIs)",  # 2178 episodes, inside swaps NMIs only
    "C8": "holds",  # perf's own work at 280 of 521 switches of vCPU threads
    "C10": "fails",  # host events were on, so KVM rewrote what they had left: 30 % redundant
    "C11": "fails",  # 37 guest overflows would come as NMIs, before any callback
    "C12": NOTHING,  # 10 evictions against 9: perf was told, and left the guest's state alone
    "C17": NOTHING,  # perf was told: no NMI of its own can come between load and put
}  # fmt: skip
# Mainline's loop, perf record in freq mode, functions traced.
LOOP = {
    **TIMES, **NEVER,
    "C3": "holds",  # all but a few of 164 NMIs in KVM's code would be lost
    "C4": "fails",  # 255 entries, 255 loops: tracing made every exit slow
    "C5": "holds (untold; told: no evidence)",  # 102 ticks in stays; told, none touches
    "C6": "fails",  # 126 ticks touch registers
    "C7": NOTHING,  # none met, but 564 episodes are below 1000
    "C8": "holds",  # perf's own work at half of 94 switches
    "C10": "fails",  # as above: 29 % redundant
    "C11": "fails",  # 12 guest overflows would come as NMIs
    "C12": "holds (tie)",  # neither evicts more: ticks evict, and both act there
    "C17": NOTHING,  # no NMI between load and put
}  # fmt: skip
# Mainline's loop without host events; Perfetto, so exit reasons are missing.
FASTPATH = {
    **TIMES, **NEVER,
    "C3": NOTHING,  # no host event sampled, and times mean nothing
    "C4": "holds",  # 959 entries more than loops
    "C5": NOTHING,  # no host event was active
    "C6": NOTHING,  # likewise
    "C7": NOTHING,  # likewise
    "C8": "fails (no task events)",  # msr events were on, no switch had perf's
    "C10": "holds (inferred)",  # the guest's PMU is idle: 97 % of a blind swap would be redundant
    "C11": NOTHING,  # no host event, and no guest overflow
    "C12": NOTHING,  # perf core never acts
    "C17": NOTHING,  # NMIs are not recorded
}  # fmt: skip
# arm64 with VHE, probes on the PMU driver, perf record -F.
ARM = {
    **TIMES, **NEVER,
    "C3": "fails (by construction)",  # filters flip, EL2 events go on counting
    "C4": NOTHING,  # x86's loop
    "C5": "holds (untold; told: no evidence)",  # ticks call the driver in KVM_RUN
    "C6": "fails",  # 1158 ticks call it
    "C7": "holds (inferred)",  # 2912 episodes; slices end by rule where the host first acts
    "C8": "fails (no task events)",  # events of CPUs, not of tasks
    "C10": NOTHING,  # probes show no values
    "C11": "holds",  # the driver's calls come after the eviction; no NMI reaches a guest's counts
    "C12": NOTHING,  # perf core's own entry points were not probed
    "C17": NOTHING,  # no register changes hands
}  # fmt: skip
FILES = {
    "moved/k73v-hostperf.trace.dat.zst": MOVED,
    "k73m-fn-hostperf.trace.dat.zst": LOOP,
    "k73m-fastpath.pftrace.zst": FASTPATH,
    "B-arm64-k72-hostperf-kp.pftrace.zst": ARM,
}


@pytest.fixture(scope="module", params=list(FILES))
def decided(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = ROOT / "fixtures" / request.param
    target = tmp_path_factory.mktemp("claims") / "x.vpmu"
    store = ingest(str(path), target, IngestOptions(emulated=True), lambda done, total: None)
    answer = decide(store)
    return store, {claim["id"]: claim for claim in answer["claims"]}, request.param


def frame(store: Store, table: str) -> pl.DataFrame:
    found = pl.from_arrow(store.read(table))
    assert isinstance(found, pl.DataFrame)
    return found.with_columns(pl.col(pl.Categorical).cast(pl.String))


def episodes_of(store: Store) -> pl.DataFrame:
    return frame(store, "host_episode").filter(evidence="observed")


# How many of `points` (ts, cpu) lie inside `spans` (ts, end, cpu), one by one.
def inside(points: pl.DataFrame, spans: pl.DataFrame) -> int:
    by_cpu = {cpu: spans.filter(cpu=cpu).select("ts", "end").rows() for cpu in range(8)}
    return sum(
        any(begin <= ts < end for begin, end in by_cpu[cpu])
        for ts, cpu in points.select("ts", "cpu").rows()
    )


def test_verdicts_are_the_known_ones(decided: Any) -> None:
    _, claims, name = decided
    found = {
        key: claim["verdict"] + (f" ({claim['qualifier']})" if claim["qualifier"] else "")
        for key, claim in claims.items()
    }
    assert found == FILES[name]


def test_handlers_that_c5_counts_lie_in_stays(decided: Any) -> None:
    store, claims, _ = decided
    numbers = claims["C5"]["numbers"]
    if not numbers.get("host_episodes"):
        return
    hard = episodes_of(store).filter(pl.col("context").is_in(HANDLERS))
    stays = frame(store, "residency").filter(boundary="vcpu")
    for bound, counted in zip(("fewest", "most"), numbers["handlers_untold"], strict=True):
        mine = stays.filter(pl.col("bound").is_in([bound, "exact"]))
        assert inside(hard, mine) == counted


def test_accesses_that_c6_counts_are_the_tables(decided: Any) -> None:
    store, claims, _ = decided
    episodes = episodes_of(store)
    numbers = claims["C6"]["numbers"]
    assert numbers["accesses_in_nmi"] == episodes.filter(context="nmi")["accesses"].sum()
    ticks = episodes.filter(context="tick")
    expected = [len(ticks), ticks["accesses"].sum()]
    assert numbers["episodes_and_accesses_by_handler"].get("tick", [0, 0]) == expected


def test_reentries_that_c4_counts_are_entries_less_recorded_loads(decided: Any) -> None:
    store, claims, name = decided
    if name.startswith(("k73m", "moved")):
        loops = frame(store, "recorded_swap").filter(kind="load").height
        entries = store.rows("vm_entry")
        if name.startswith("moved"):  # swaps at vcpu: loops are those that read DEBUGCTL once each
            loops = store.manifest["marks"]["loop_marks"]
        assert claims["C4"]["numbers"]["reentries"] == [entries - loops] * 2


def test_samples_that_c3_counts_fall_into_kvms_code(decided: Any) -> None:
    store, claims, _ = decided
    numbers = claims["C3"]["numbers"]
    if "samples_in_kvm" in numbers:
        nmis = frame(store, "host_episode").filter(context="nmi")
        assert numbers["samples_in_kvm"] == inside(nmis, frame(store, "mode_slice").filter(
            mode="kvm"))  # fmt: skip


def test_switches_that_c8_counts_are_of_vcpu_threads(decided: Any) -> None:
    store, claims, _ = decided
    tids = set(frame(store, "vcpu")["tid"].to_list())
    rows = frame(store, "sched_switch").select("prev_pid", "next_pid").rows()
    assert claims["C8"]["numbers"]["vcpu_switches"] == sum(bool(tids & set(row)) for row in rows)


# Writes by KVM of a value that the register was not last seen with, walked row by row.
def test_writes_that_c10_counts_change_the_register(decided: Any) -> None:
    store, claims, _ = decided
    numbers = claims["C10"]["numbers"]
    if not numbers:
        return
    rows = frame(store, "pmu_access").select("cpu", "op", "role", "index", "value").rows()
    actors = frame(store, "pmu_attribution")["actor"].to_list()
    last: dict[Any, int] = {}
    changed = {"counter": 0, "selector": 0}
    for (cpu, op, role, index, value), actor in zip(rows, actors, strict=True):
        if role not in changed:
            continue
        if op == "write" and actor in ("kvm_load", "kvm_put"):
            changed[role] += last.get((cpu, role, index)) != value
        last[cpu, role, index] = value
    walked = frame(store, "recorded_swap")["counters"].sum()
    expected = {role: walked - count for role, count in changed.items()}
    assert numbers["redundant"] == expected


def test_every_row_behind_a_verdict_names_a_table(decided: Any) -> None:
    store, claims, _ = decided
    for claim in claims.values():
        assert claim["verdict"] != NOTHING or claim["because"]
        for rows in claim["evidence"]:
            assert rows["rows"] >= 0
            known = store.manifest["tables"].get(rows["table"])
            assert known is None or rows["rows"] <= known, (claim["id"], rows)
