"""Does calibrate find latencies that a recording was written with, and refuse what it cannot know?

Histories are Intel swaps of facts/x86.md 3.2 on one CPU; each access comes `tracer` + its own
latency + a little noise after the one before.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from analyzer.errors import MissingEvents, OutputError, UsageError
from analyzer.pipeline import (
    IngestOptions,
    calibrate,
    choose_designs,
    ingest,
    whatif,
    write_cost_file,
)
from analyzer.replay import load_cost
from analyzer.store import Store
from tests import perfetto_writer as w
from tests.conftest import ROOT, run_command

FIELDS = (("msr", w.UINT64), ("val", w.UINT64), ("failed", w.INT64))
KINDS = tuple(
    w.Dense(65600 + n, "msr", name, FIELDS)
    for n, name in enumerate(("write_msr", "read_msr", "rdpmc"))
)
WRITE, READ, RDPMC = (kind.name for kind in KINDS)
# ns; the read of a counter is what intel-sapphire-rapids.toml has for it.
TRUE = {
    "counter_read": 5, "counter_write": 61, "selector_write": 74, "status_read": 33,
    "fixed_ctrl_write": 90, "lvtpc_write_x2apic": 47, "global_ctrl_write": 55,
}  # fmt: skip
COST = "intel-sapphire-rapids"
# (event, msr, value, operation)
Access = tuple[str, int, int, str]


def load_accesses() -> list[Access]:
    found: list[Access] = [
        (WRITE, 0x38F, 0, "global_ctrl_write"),
        (WRITE, 0x834, 0x100F5, "lvtpc_write_x2apic"),
    ]
    for n in range(4):
        found.append((RDPMC, n, 0, "counter_read"))
        found.append((WRITE, 0x4C1 + n, 77, "counter_write"))
        found.append((WRITE, 0x186 + n, 0x4300C0, "selector_write"))
    found += [(RDPMC, 0x40000000 + n, 0, "counter_read") for n in range(3)]
    found.append((READ, 0x38E, 0, "status_read"))
    return [*found, (WRITE, 0x38D, 0x3, "fixed_ctrl_write")]


def put_accesses() -> list[Access]:
    found: list[Access] = [
        (READ, 0x38E, 0, "status_read"),
        (WRITE, 0x38D, 0, "fixed_ctrl_write"),
    ]
    for n in range(4):
        found.append((RDPMC, n, 77, "counter_read"))
        found.append((WRITE, 0x4C1 + n, 0, "counter_write"))
        found.append((WRITE, 0x186 + n, 0, "selector_write"))
    found += [(RDPMC, 0x40000000 + n, 0, "counter_read") for n in range(3)]
    return [*found, (WRITE, 0x834, 0x400, "lvtpc_write_x2apic")]


def recorded(
    tmp_path: Path, swaps: int = 300, tracer: int = 120, true: dict[str, int] | None = None,
    emulated: bool | None = False, step: int = 1, disturbed: float = 0.1,
) -> Store:  # fmt: skip
    """A store of `swaps` loads and puts; a share of the gaps is `disturbed` by an interrupt."""
    costs, noise = {**TRUE, **(true or {})}, random.Random(7)
    events: list[w.EventRow] = []
    now = 1_000_000

    def burst(accesses: list[Access]) -> None:
        nonlocal now
        for name, msr, value, operation in accesses:
            now += tracer + costs[operation] + noise.randint(-4, 4)
            now += noise.randint(2000, 9000) if noise.random() < disturbed else 0
            values = {"msr": msr, "val": value, "failed": 0}
            events.append((now // step * step, 7, name, values))

    for _ in range(swaps):
        now += 5000
        events.append((now // step * step, 7, READ, {"msr": 0x1D9, "val": 0, "failed": 0}))
        burst(load_accesses())
        now += 500
        events.append((now // step * step, 7, "kvm_entry", {}))
        now += 20_000
        events.append((now // step * step, 7, "kvm_exit", {}))
        now += 500
        burst(put_accesses())
    bundle = w.bundle(0, events, dense=KINDS)
    path = tmp_path / "bare metal.pftrace"
    path.write_bytes(w.trace([w.system_info(machine="x86_64"), w.packet(ftrace=bundle)]))
    options = IngestOptions(emulated=emulated)
    return ingest(str(path), tmp_path / "x.vpmu", options, lambda done, total: None)


def fitted(answer: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {row["operation"]: row["latency_ns"] for row in answer["operations"]}


def refused(answer: dict[str, Any]) -> dict[str, str]:
    return {row["operation"]: row["because"] for row in answer["refused"]}


# The tracer's own cost is found, and what is left are the latencies that were written.
@pytest.mark.parametrize("tracer", [45, 120, 290])
def test_latencies_that_were_written_are_found(tmp_path: Path, tracer: int) -> None:
    answer = calibrate(recorded(tmp_path, tracer=tracer), COST)
    assert answer["anchor"]["operation"] == "counter_read"
    assert answer["tracer_ns"]["low"] <= tracer <= answer["tracer_ns"]["high"]
    assert answer["tracer_ns"]["typical"] == pytest.approx(tracer, abs=2)
    # No record can have cost more than the smallest gap.
    assert tracer - 4 <= answer["cheapest_record_at_most_ns"] <= tracer + 5
    found = fitted(answer)
    assert sorted(found) == [
        "counter_write", "fixed_ctrl_write", "lvtpc_write_x2apic", "selector_write", "status_read",
    ]  # fmt: skip
    for name, latency in found.items():
        assert latency["low"] <= TRUE[name] <= latency["high"], name
        assert latency["typical"] == pytest.approx(TRUE[name], abs=2), name
        assert latency["high"] - latency["low"] < 12, name


# A clock that moves in steps is seen, and the intervals grow by them.
def test_steps_of_the_clock_widen_the_intervals(tmp_path: Path) -> None:
    answer = calibrate(recorded(tmp_path, step=10), COST)
    assert answer["clock_step_ns"] == 10
    for name, latency in fitted(answer).items():
        assert latency["low"] <= TRUE[name] <= latency["high"], name
        assert latency["high"] - latency["low"] >= 10


def test_what_cannot_be_told_apart_is_refused_by_name(tmp_path: Path) -> None:
    # A status read as short as the anchor cannot be told from it.
    answer = calibrate(recorded(tmp_path, true={"status_read": 5}), COST)
    assert "status_read" not in fitted(answer)
    because = refused(answer)
    assert "tracer" in because["counter_read"]
    assert "cannot be told from" in because["status_read"]
    assert "first access of a burst" in because["global_ctrl_write"]
    assert "loop of its own" in because["vm_roundtrip_slow"]
    assert "loop of its own" in because["perf_guest_context"]
    known = load_cost(COST).operations
    assert sorted([*because, *fitted(answer)]) == sorted(known)


def test_too_few_gaps_are_refused(tmp_path: Path) -> None:
    # 30 swaps: 30 gaps of each once-a-swap access, 240 before counter writes of one direction.
    answer = calibrate(recorded(tmp_path, swaps=30), COST)
    assert sorted(fitted(answer)) == ["counter_write", "selector_write"]
    assert (
        "30 gaps" in refused(answer)["lvtpc_write_x2apic"]
        or "60 gaps" in refused(answer)["lvtpc_write_x2apic"]
    )


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingEvents, match="0 kinds of register access"):
        calibrate(recorded(tmp_path, swaps=3), COST)


def test_emulated_machines_are_refused_and_silence_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(MissingEvents, match="emulated"):
        calibrate(recorded(tmp_path / "a", emulated=True), COST)
    store = recorded(tmp_path, emulated=None)
    with pytest.raises(UsageError, match="--emulated no"):
        calibrate(store, COST)
    with pytest.raises(MissingEvents, match="emulated"):
        calibrate(store, COST, emulated=True)
    assert fitted(calibrate(store, COST, emulated=False))


# What a recording says of itself is not overruled by a flag.
def test_flag_does_not_make_an_emulated_machine_real(tmp_path: Path) -> None:
    with pytest.raises(MissingEvents, match="emulated"):
        calibrate(recorded(tmp_path, emulated=True), COST, emulated=False)


@pytest.mark.parametrize("name", ["k73m-hostperf", "k73mi-guestpmu"])
def test_shared_recordings_are_refused_with_exit_code_4(tmp_path: Path, name: str) -> None:
    recording = str(ROOT / "fixtures" / f"{name}.pftrace.zst")
    done = run_command(tmp_path, "calibrate", recording, "--emulated", "yes", "-o", "my.toml")
    assert done.returncode == 4
    assert b"emulated" in done.stderr
    assert done.stdout == b""
    assert not (tmp_path / "my.toml").exists()


def test_written_file_is_a_cost_file_that_whatif_prices_with(tmp_path: Path) -> None:
    store = recorded(tmp_path)
    path = tmp_path / "mine.toml"
    answer = write_cost_file(calibrate(store, COST), path)
    assert answer["output"] == str(path)
    file = load_cost(str(path))
    assert file.name == "mine"
    for name, latency in fitted(answer).items():
        cost = file.operations[name]
        assert (cost["kind"], cost["source"]) == ("measured", ["recording"])
        assert cost["note"].startswith("n = ")
        for level, value in latency.items():
            assert cost[level] == pytest.approx(value, abs=0.01)
    parent = load_cost(COST)
    for name in refused(answer):
        assert file.operations[name] == parent.operations[name]
    # What was assumed weighs less in a price by a calibrated file.
    shares = [
        whatif(store, choose_designs(["loop"]), cost)["placements"][0]["overhead"]["assumed_share"]
        for cost in ("x86-intel", str(path))
    ]
    assert shares[1] < shares[0] == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".mine")] == []


# A recording's name may hold anything; the file stays one that can be read.
def test_odd_names_are_written_so_that_they_can_be_read(tmp_path: Path) -> None:
    answer = calibrate(recorded(tmp_path), COST)
    answer["recording"]["path"] = 'a"b\\c\nd\x7f\ud800.pftrace'
    write_cost_file(answer, tmp_path / "odd.toml")
    assert load_cost(str(tmp_path / "odd.toml")).name == "odd"


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    answer = calibrate(recorded(tmp_path), COST)
    with pytest.raises(UsageError, match=r"\.toml"):
        write_cost_file(answer, tmp_path / "mine.json")
    with pytest.raises(OutputError, match="cannot write"):
        write_cost_file(answer, tmp_path / "nowhere" / "mine.toml")


def test_command_prints_tables_of_100_columns_and_json(tmp_path: Path) -> None:
    recorded(tmp_path)
    done = run_command(tmp_path, "calibrate", "x.vpmu", "--cost", COST, "-o", "my.toml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("tracer: ") for line in lines)
    assert b"written: my.toml" in done.stderr
    done = run_command(tmp_path, "calibrate", "x.vpmu", "--json")
    answer = json.loads(done.stdout)
    assert answer["schema"] == "vpmu-analyzer/calibrate/1"
    assert answer["inherits"] == "x86-intel"
    assert answer["output"] is None
