"""Does `analyzer conflicts` name what was recorded behind each row, and show what stands around?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analyzer.errors import MissingEvents, UsageError
from analyzer.pipeline import Asked, IngestOptions, choose_designs, conflicts_of, ingest
from analyzer.pipeline.meetings.listing import SHOWN
from analyzer.store import Store
from analyzer.tables import RECORDED
from tests.conftest import ROOT, run_command

FIXTURES = ROOT / "fixtures"
DESIGNS = (["loop", "vcpu"], ["told", "untold"], ["perf", "notifier"])


def made(name: str, folder: Path) -> Store:
    target = folder / f"{name}.vpmu"
    source = FIXTURES / f"{name}.zst"
    return ingest(str(source), target, IngestOptions(emulated=True), lambda done, total: None)


@pytest.fixture(
    scope="module",
    params=["k73m-hostperf.pftrace", "k73m-fn-hostperf.trace.dat", "k73l-guestpmu.pftrace"],
)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made(request.param, tmp_path_factory.mktemp("conflicts"))


@pytest.fixture(scope="module")
def answer(store: Store) -> dict[str, Any]:
    return conflicts_of(store, choose_designs(*DESIGNS), None, None)


@pytest.fixture(scope="module")
def events(store: Store) -> dict[int, list[tuple[int, int, str, int, int | None]]]:
    """Every recorded event of a CPU in order: ts, order of its table, table, row, tid."""
    found: dict[int, list[tuple[int, int, str, int, int | None]]] = {}
    for order, table in enumerate(SHOWN):
        for row, event in enumerate(store.read(table).to_pylist()):
            found.setdefault(event["cpu"], []).append(
                (event["ts"], order, table, row, event["tid"])
            )
    return {cpu: sorted(rows, key=lambda row: row[:4]) for cpu, rows in found.items()}


# A new table of recorded events must be listed, or lines would be missing without a word.
def test_every_recorded_event_of_a_cpu_can_be_a_line() -> None:
    of_a_cpu = {table.name for table in RECORDED if {"ts", "cpu", "tid"} <= set(table.names)}
    # A sample is host perf's own record, not an event of the kernel's stream.
    assert of_a_cpu - {"perf_sample"} == set(SHOWN)
    for table in RECORDED:
        assert set(SHOWN.get(table.name, ())) <= set(table.names)


def test_each_row_names_the_recorded_event_behind_it(store: Store, answer: dict[str, Any]) -> None:
    accesses, whose = (
        store.read("pmu_access").to_pylist(),
        store.read("pmu_attribution").to_pylist(),
    )
    exits = store.read("vm_exit").to_pylist()
    known = {row["episode"]: row for row in store.read("host_episode").to_pylist()}
    rows = [row for item in answer["designs"] for row in item["rows"]]
    assert rows
    for row in rows:
        event = row["event"]
        assert (event["ts"], event["cpu"]) == (row["ts"], row["cpu"])
        if row["episode"] is None:
            assert (row["context"], event["table"]) == ("guest_pmi", "vm_exit")
            behind = exits[event["row"]]
        else:
            assert event["table"] == "pmu_access"
            behind = accesses[event["row"]]
            assert whose[event["row"]]["episode"] == row["episode"]
            assert whose[event["row"]]["actor"] == "host_perf"
            assert row["episode"] not in {w["episode"] for w in whose[: event["row"]][-50:]}
            assert known[row["episode"]]["context"] == row["context"]
        assert (behind["ts"], behind["cpu"]) == (row["ts"], row["cpu"])


def test_two_events_before_and_after_stand_in_order(
    answer: dict[str, Any], events: dict[int, list[tuple[int, int, str, int, int | None]]]
) -> None:
    place = {
        (table, row): (cpu, at)
        for cpu, rows in events.items()
        for at, (_, _, table, row, _) in enumerate(rows)
    }
    for item in answer["designs"]:
        for row in item["rows"]:
            cpu, at = place[row["event"]["table"], row["event"]["row"]]
            around = events[cpu][max(0, at - 2) : at + 3]
            shown = [(x["ts"], x["table"], x["row"], x["tid"]) for x in row["lines"]]
            assert shown == [(ts, table, n, tid) for ts, _, table, n, tid in around]


def test_context_and_limit_choose_rows_and_the_rest_is_counted(
    store: Store, answer: dict[str, Any]
) -> None:
    designs = choose_designs(*DESIGNS)
    for context in ("nmi", "context_switch", "mux_timer"):
        some = conflicts_of(store, designs, context, 2)
        for item, whole in zip(some["designs"], answer["designs"], strict=True):
            mine = [row for row in whole["rows"] if row["context"] == context]
            assert item["rows"] == mine[:2]
            assert item["rows_of_all"] == len(mine)
            assert set(item["summary"]["by_context"]) <= {context}
    assert [item["rows_of_all"] for item in answer["designs"]] == [
        len(item["rows"]) for item in answer["designs"]
    ]


def test_the_summary_counts_episodes_once_a_cause(answer: dict[str, Any]) -> None:
    for item in answer["designs"]:
        counted = {
            (row["ts"], row["cpu"], row["cause"])
            for row in item["rows"]
            if row["evidence"] == "observed"
        }
        for cause, count in item["summary"]["observed"].items():
            assert count == len([one for one in counted if one[2] == cause])


# Episodes and timer interrupts are points in time: those of parts side by side add up.
def test_parts_side_by_side_list_what_the_whole_lists(store: Store, answer: dict[str, Any]) -> None:
    half = store.manifest["recording"]["duration_ns"] / 2e9
    first, second = (
        conflicts_of(store, choose_designs(*DESIGNS), None, None, asked)
        for asked in (Asked(to_s=half), Asked(from_s=half))
    )
    for whole, a, b in zip(*(one["designs"] for one in (answer, first, second)), strict=True):
        keys = [[(r["ts"], r["cpu"], r["rule"]) for r in one["rows"]] for one in (whole, a, b)]
        assert keys[0] == keys[1] + keys[2]
        timers = [one["summary"]["timer_interrupts"] for one in (whole, a, b)]
        assert timers[0] is None or timers[0] == timers[1] + timers[2]
    assert (answer["asked"], first["asked"]) == (None, Asked(to_s=half).as_json())


def test_command_prints_the_rows_and_one_json_object(tmp_path: Path) -> None:
    name = "k73m-fn-hostperf.trace.dat"
    store = made(name, tmp_path)
    flags = ("conflicts", str(store.path), "-b", "vcpu", "--perf", "untold", "--context", "nmi")
    done = run_command(tmp_path, *flags, "-n", "3", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == "vpmu-analyzer/conflicts/1"
    want = conflicts_of(store, choose_designs(["vcpu"], ["untold"]), "nmi", 3)
    assert answer == json.loads(json.dumps(want))
    (item,) = answer["designs"]
    assert len(item["rows"]) == 3 < item["rows_of_all"]
    drawn = run_command(tmp_path, *flags, "-n", "1")
    assert drawn.returncode == 0, drawn.stderr
    lines = drawn.stdout.decode().splitlines()
    row = item["rows"][0]
    (at,) = [n for n, line in enumerate(lines) if line.startswith(f"  {row['ts']} cpu ")]
    event = row["event"]
    marks = [line for line in lines[at:] if line.startswith("  > ")]
    assert len(marks) == 1
    assert f"> {row['ts']} {event['table']}[{event['row']}]" in marks[0]
    assert f"and {item['rows_of_all'] - 1} more: -n 0 lists all" in drawn.stdout.decode()


def test_refusals_say_what_is_allowed_or_what_to_record(tmp_path: Path) -> None:
    store = made("A-arm64-k72-guestpmu.pftrace", tmp_path)
    done = run_command(tmp_path, "conflicts", str(store.path))
    assert done.returncode == 4
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith("record msr:read_msr, write_msr and rdpmc")
    assert done.stdout == b""
    designs = choose_designs(["vcpu"])
    with pytest.raises(MissingEvents, match="no register accesses are recorded"):
        conflicts_of(store, designs, None, 1)
    with pytest.raises(UsageError, match="--context is 'lunch'; allowed: tick, mux_timer"):
        conflicts_of(store, designs, "lunch", 1)
    for flags, said in (
        (("-n", "-1"), "--limit is -1; allowed: 0 or more"),
        (("-b", "nowhere"), "boundary 'nowhere' is unknown"),
        (("--perf", "maybe"), "--perf is 'maybe'; allowed: told, untold"),
    ):
        refused = run_command(tmp_path, "conflicts", str(store.path), *flags)
        assert refused.returncode == 2
        assert said in refused.stderr.decode()
        assert refused.stdout == b""
