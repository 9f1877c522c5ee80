"""Is every access given to who made it, in what no recording of ours shows?

Each history is written in the source's order (tests/swap_histories.py), which also says whose each
access is; what attribution makes of the file is held against that, access by access.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from analyzer.pipeline import IngestOptions, ingest
from analyzer.pipeline.contents.judged import judge_attribution
from analyzer.pipeline.contents.recorded import recognise
from analyzer.store import Store
from tests.swap_histories import History
from tests.swap_histories_perfetto import perfetto_of

AMD, INTEL = "AuthenticAMD", "GenuineIntel"
Rows = list[tuple[int, str | None, str | None]]
BUSY = (0x1234, 0x777)


def attribute(
    tmp_path: Path,
    history: History,
    lost_before: int | None = None,
    ends: bool = True,
    perfetto: bool = False,
) -> tuple[Rows, Store]:
    if ends:
        # What the window's end cuts off may be anybody's; these histories go on a little.
        history.tick(False)
    path = tmp_path / "x.dat"
    path.write_bytes(perfetto_of(history) if perfetto else history.raw(lost_before))
    options = IngestOptions(True, history.vendor)
    store = ingest(str(path), tmp_path / "x.vpmu", options, lambda done, total: None)
    read = pl.from_arrow(store.read("pmu_attribution"))
    assert isinstance(read, pl.DataFrame)
    return list(read.select("ts", "actor", "context").iter_rows()), store


def swaps(store: Store) -> pl.DataFrame:
    read = pl.from_arrow(store.read("recorded_swap"))
    assert isinstance(read, pl.DataFrame)
    return read.with_columns(pl.col("kind", "perf", "grammar").cast(pl.String))


def machine(vendor: str, **more: int | bool) -> History:
    shape = {"counters": 6} if vendor == AMD else {"counters": 4, "fixed": 3}
    return History(vendor, **{**shape, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("vendor", [AMD, INTEL])
@pytest.mark.parametrize("lvtpc", [True, False], ids=["x2apic", "xapic"])
@pytest.mark.parametrize("host", [None, 0, 1, 3])
def test_swap_is_parted_between_kvm_and_perf(
    tmp_path: Path, vendor: str, lvtpc: bool, host: int | None
) -> None:
    history = machine(vendor, lvtpc=lvtpc)
    for values in ((), BUSY, ()):
        history.loop(host, values)
    found, store = attribute(tmp_path, history)
    assert found == history.truth()
    assert swaps(store)["kind"].to_list() == ["load", "put"] * 3
    # No function is recorded here that could say whether this is right.
    assert judge_attribution(store) is None
    told = "told" if lvtpc or host is not None else None
    assert swaps(store)["perf"].to_list() == [told] * 6


@pytest.mark.parametrize(("vendor", "most"), [(AMD, 5), (INTEL, 7)])
def test_guest_with_fewer_counters_is_walked_as_far_as_it_goes(
    tmp_path: Path, vendor: str, most: int
) -> None:
    for counters in range(1, most + 1):
        history = machine(vendor, counters=counters)
        for values in (BUSY[:counters], (), BUSY[:counters]):
            history.loop(1, values)
        found, store = attribute(tmp_path, history)
        assert found == history.truth()
        assert set(swaps(store)["counters"]) == {counters}


@pytest.mark.parametrize("lvtpc", [True, False], ids=["x2apic", "xapic"])
def test_guest_without_fixed_counters_has_a_grammar_of_its_own(tmp_path: Path, lvtpc: bool) -> None:
    history = machine(INTEL, fixed=0, lvtpc=lvtpc)
    history.loop(1, BUSY)
    history.loop(None)
    found, store = attribute(tmp_path, history)
    assert found == history.truth()
    assert set(swaps(store)["grammar"]) == {"intel_load_without_fixed", "intel_put_without_fixed"}
    assert store.manifest["marks"]["unshown_grammars"] == 4


def test_status_that_differs_is_cleared_inside_either_half(tmp_path: Path) -> None:
    for vendor in (AMD, INTEL):
        history = machine(vendor)
        history.load(1, BUSY, status=0 if vendor == AMD else 2)
        history.guest()
        history.put(1, BUSY, status=2)
        assert attribute(tmp_path, history)[0] == history.truth()


# PEBS_ENABLE, ARCH_LBR_CTL and OFFCORE_RSP stand between off and on: 1.3, L1 and P4.
def test_pebs_and_lbr_in_perfs_half_are_perfs(tmp_path: Path) -> None:
    history = machine(INTEL)
    for _ in range(2):
        history.loop(2, BUSY, extra=(0x3F1, 0x14CE, 0x1A6))  # type: ignore[arg-type]
    assert attribute(tmp_path, history)[0] == history.truth()


def test_perfmon_v6_of_host_perf_beside_kvms_own_addresses(tmp_path: Path) -> None:
    history = machine(INTEL, v6=True)
    for _ in range(2):
        history.loop(2, BUSY)
        history.tick()
    assert attribute(tmp_path, history)[0] == history.truth()


# Perfetto keeps no common_flags: there the length that an NMI's handler tells has to do.
@pytest.mark.parametrize("perfetto", [False, True], ids=["trace.dat", "perfetto"])
@pytest.mark.parametrize("vendor", [AMD, INTEL])
def test_nmi_before_any_access_of_a_swap_is_the_nmis(
    tmp_path: Path, vendor: str, perfetto: bool
) -> None:
    history = machine(vendor)
    history.loop(2, BUSY)
    size = history.done
    for place in range(size):
        history.done, history.before = 0, {place: history.nmi}
        history.loop(2, BUSY)
    found, store = attribute(tmp_path, history, perfetto=perfetto)
    assert found == history.truth()
    assert len(swaps(store)) == 2 * (size + 1)


# A self-IPI through the ICR was recorded between two counters of a load: section 10.
def test_write_of_another_register_may_stand_anywhere_in_a_swap(tmp_path: Path) -> None:
    history = machine(INTEL)
    history.loop(1, BUSY)
    size = history.done
    for place in range(size):
        history.done, history.before = 0, {place: lambda: history.beside("write_msr", 0x83F, 0xF6)}
        history.loop(1, BUSY)
    assert attribute(tmp_path, history)[0] == history.truth()


def only_right_or_unknown(found: Rows, truth: Rows) -> int:
    assert [row[0] for row in found] == [row[0] for row in truth]
    wrong = [(f, t) for f, t in zip(found, truth, strict=True) if f != t and f[1] != "unknown"]
    assert not wrong
    return sum(row[1] == "unknown" for row in found)


@pytest.mark.parametrize("vendor", [AMD, INTEL])
def test_swap_cut_by_the_window_is_right_or_unknown(tmp_path: Path, vendor: str) -> None:
    history = machine(vendor)
    for _ in range(3):
        history.loop(1, BUSY)
    whole, third = history.events, len(history.events) // 3
    for cut in range(third):
        history.events = whole[cut : len(whole) - (third - cut)]
        found, _ = attribute(tmp_path, history, ends=False)
        unknown = only_right_or_unknown(found, history.truth())
        assert unknown < 2 * third


@pytest.mark.parametrize("vendor", [AMD, INTEL])
def test_swap_torn_by_a_loss_is_right_or_unknown(tmp_path: Path, vendor: str) -> None:
    history = machine(vendor)
    for _ in range(3):
        history.loop(1, BUSY)
    whole, third = history.events, len(history.events) // 3
    for place in range(third, 2 * third):
        history.events = whole[:place] + whole[place + 3 :]
        found, _ = attribute(tmp_path, history, place, False)
        only_right_or_unknown(found, history.truth())


@pytest.mark.parametrize("vendor", [AMD, INTEL])
def test_two_vcpus_back_to_back_and_one_that_migrates(tmp_path: Path, vendor: str) -> None:
    history = machine(vendor)
    history.loop(1, BUSY)
    history.switch(8, out=1, into=2)
    history.loop(2, (), 1)
    history.switch(7)
    history.loop(0, BUSY)
    history.switch(0, into=1)
    history.tick(False)
    history.cpu, history.tid = 1, 0
    history.switch(7, out=1)
    history.loop(1, BUSY)
    found, store = attribute(tmp_path, history)
    assert found == history.truth()
    assert swaps(store)["cpu"].to_list() == [0] * 6 + [1] * 2
    assert swaps(store)["vcpu"].n_unique() == 2


@pytest.mark.parametrize("vendor", [AMD, INTEL])
def test_every_context_of_host_perf_between_swaps(tmp_path: Path, vendor: str) -> None:
    history = machine(vendor)
    for act in (
        history.tick, history.ipi, history.nmi, lambda: history.tick(False),
        lambda: history.tick(function="perf_mux_hrtimer_handler"),
        lambda: history.switch(9, out=1, into=2), lambda: history.switch(7, out=2),
    ):  # fmt: skip
        history.loop(1, BUSY)
        act()
        if history.tid == 9:
            history.switch(7)
    assert attribute(tmp_path, history)[0] == history.truth()


# Section 2: a perf-backed guest's events are the thread's own, and move with its other ones.
def test_perf_backed_guests_events_are_told_from_the_hosts_by_their_only_bit(
    tmp_path: Path,
) -> None:
    history = machine(AMD)
    history.guest()
    with history.acting("vpmu_emulation"):
        history.events_moved((0, 1), (), True)
        history.events_moved((0, 1), (2,), True)
    for guests, hosts in (((0, 1), ()), ((), (2,)), ((0, 1), (2, 3)), ((3,), (0,))):
        history.guest()
        history.emit("sched_switch", 7, 1, 9)
        with history.acting("host_perf", "context_switch"):
            history.events_moved(guests, hosts, False)
        history.tid = 9
        history.emit("sched_switch", 9, 1, 7)
        history.tid = 7
        with history.acting("host_perf", "context_switch"):
            history.events_moved(guests, hosts, True)
    history.tick()
    found, store = attribute(tmp_path, history)
    assert found == history.truth()
    episodes = pl.from_arrow(store.read("host_episode"))
    assert isinstance(episodes, pl.DataFrame)
    # Two switches of three sort of threads that have events of the host's, and the tick.
    assert episodes["accesses"].to_list() == [4, 4, 6, 6, 4, 4, 7]
    assert episodes["counters"].to_list() == [0b100, 0b100, 0b1100, 0b1100, 1, 1, 1]


# Intel's selectors have no such bit: what moves at a switch counts as the host's.
def test_perf_backed_emulation_on_intel_is_the_vcpu_threads_own_work(tmp_path: Path) -> None:
    history = machine(INTEL)
    for _ in range(3):
        history.guest()
        with history.acting("vpmu_emulation"):
            history.events_moved((0,), (), True)
        history.tick()
    assert attribute(tmp_path, history)[0] == history.truth()


@pytest.mark.parametrize("vendor", [AMD, INTEL])
def test_swap_around_every_entry_is_recognised_as_exit(tmp_path: Path, vendor: str) -> None:
    history = machine(vendor)
    for _ in range(20):
        history.loop(1, BUSY)
        history.loop(1, BUSY)
        history.tick(False)
    _, store = attribute(tmp_path, history)
    found, evidence = recognise(store)
    assert evidence is not None
    assert found == "exit" or "exit" in evidence["cannot_be_told_from"]
