"""Does the trace.dat reader agree with another reader, and with what trace-cmd printed?

fixtures/make_golden_tracedat.py shares nothing with the analyzer; fixtures/README.md defines its
sums. `peer` in a golden is out of the stored output of trace-cmd report.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.pipeline import IngestOptions, info_of, ingest
from analyzer.readers.recording import ReadOptions
from analyzer.readers.tracedat.batches import Pieces
from analyzer.readers.tracedat.formats import FieldKind
from analyzer.readers.tracedat.layout import gather_fields
from analyzer.readers.tracedat.reader import TraceDatRecording
from analyzer.readers.unwrap import seekable_path
from analyzer.store import Store
from analyzer.trouble import Trouble

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
GOLDEN = FIXTURES / "golden" / "tracedat"
FILES = {
    path.name.removesuffix(".zst").removesuffix(".dat").removesuffix(".trace"): path
    for path in sorted(FIXTURES.glob("*.dat.zst"))
}
MASK = 2**64 - 1


class Case:
    """One recording: its golden, and every event with all its fields, by kind."""

    def __init__(self, name: str) -> None:
        self.path = FILES[name]
        self.golden: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
        self.heads: list[tuple[int, int, int, str]] = []
        # Per event name: position among all events, header columns and fields, one row an event.
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.trouble = Trouble()
        with seekable_path(str(self.path), lambda line: None) as plain:
            recording = TraceDatRecording(plain, ReadOptions(), self.trouble)
            kinds = recording.kinds.kinds
            done = 0
            for rows, order in Pieces(recording.streams):
                place = np.empty(order.size, np.int64)
                place[order] = np.arange(order.size) + done
                done += order.size
                for number in np.unique(rows.kind).tolist():
                    at = np.flatnonzero(rows.kind == number)
                    if kinds[number].name in self.golden["sums"]:
                        self._take(recording, number, rows, at, place[at])
                columns = (rows.ts, rows.cpu, rows.tid, rows.kind)
                self.heads += [
                    (ts, cpu, tid, kinds[kind].name)
                    for ts, cpu, tid, kind in zip(
                        *(column[order].tolist() for column in columns), strict=True
                    )
                ]
            recording.close()

    def _take(self, recording: Any, number: int, rows: Any, at: Any, place: Any) -> None:
        kind = recording.kinds.kinds[number]
        fields = {
            name: field
            for name, field in kind.fields.items()
            if not name.startswith("common_") and field.kind != FieldKind.OTHER
        }
        places = np.array([[(f.offset, f.size, f.kind) for f in fields.values()]], np.int32)
        values = np.zeros((len(fields), at.size), np.int64)
        sizes = np.zeros((len(fields), at.size), np.int32)
        gather_fields(
            rows.buf, rows.off[at], rows.size[at], np.zeros(at.size, np.int32), places,
            recording.parts.big, values, sizes,
        )  # fmt: skip
        part: dict[str, Any] = {
            "place": place, "ts": rows.ts[at], "cpu": rows.cpu[at], "pid": rows.tid[at],
            "flags": rows.flags[at],
        }  # fmt: skip
        for n, (name, field) in enumerate(fields.items()):
            part[f"field:{name}"] = values[n]
            if field.kind == FieldKind.CHARS:
                texts = zip(values[n].tolist(), (sizes[n] - 1).tolist(), strict=True)
                part[f"field:{name}"] = np.array(
                    [zlib.crc32(rows.buf[a : a + size].tobytes()) for a, size in texts], np.int64
                )
        self.events.setdefault(kind.name, []).append(part)

    def sums(self, name: str, before: int | None = None) -> dict[str, int]:
        """Sum up an event's columns, of its rows among the first `before` events."""
        out = {"n": 0}
        for part in self.events.get(name, []):
            chosen = part["place"] < before if before is not None else slice(None)
            out["n"] += int(part["place"][chosen].size)
            for key, column in part.items():
                if key != "place":
                    out[key] = (out.get(key, 0) + sum(column[chosen].tolist())) & MASK
        return out


@pytest.fixture(scope="module", params=sorted(FILES))
def case(request: Any) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: Any) -> Store:
    target = tmp_path_factory.mktemp("store") / "x.vpmu"
    options = IngestOptions(emulated=True)
    return ingest(str(case.path), target, options, lambda done, total: None)


def test_goldens_and_fixtures_are_the_same_set() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(FILES)


# trace-cmd draws a leaf function's entry and exit as one line: its count of exits is smaller.
def test_every_event_is_counted_by_name(case: Case, store: Store) -> None:
    counted = info_of(store)["events"]
    assert counted == case.golden["events"]
    peer = case.golden["peer"]["counts"]
    assert peer.keys() == counted.keys()
    assert {k: v for k, v in peer.items() if k != "funcgraph_exit"} == {
        k: v for k, v in counted.items() if k != "funcgraph_exit"
    }


def test_windows_and_losses_stand_where_the_pages_say(case: Case, store: Store) -> None:
    windows = {
        str(row["cpu"]): [row["ts"], row["end"], row["events"]]
        for row in store.read("window").to_pylist()
    }
    assert windows == case.golden["windows"]
    rows = sorted((x["cpu"], x["ts"], x["end"]) for x in store.read("data_loss").to_pylist())
    assert rows == sorted((cpu, after, before) for cpu, after, before, _ in case.golden["lost"])
    counts = {x["ts"]: x["events"] for x in store.read("data_loss").to_pylist()}
    assert all(counts[after] == n for _, after, _, n in case.golden["lost"] if n > 0)


def test_every_field_is_what_the_second_reader_reads(case: Case) -> None:
    for name, expected in case.golden["sums"].items():
        assert case.sums(name) == expected, name


def test_the_peer_prints_the_same_events_in_the_same_order(case: Case) -> None:
    head = case.golden["peer"]["head"]
    unit = head["unit_ns"]
    lines = [
        f"{(ts + unit // 2) // unit} {cpu} {tid} {name}"
        for ts, cpu, tid, name in case.heads[: head["lines"]]
    ]
    assert zlib.crc32("\n".join(lines).encode()) == head["crc32"]
    for name, fields in head["fields"].items():
        ours = case.sums(name, head["lines"])
        assert {field: ours[f"field:{field}"] for field in fields} == fields, name


# Event, table, filter on a column, and fields that its columns do not keep the name of.
TABLES = (
    ("kvm_entry", "vm_entry", None, {}),
    ("kvm_exit", "vm_exit", None, {"isa": None}),
    ("read_msr", "pmu_access", ("op", "read"), {"msr": "address", "val": "value"}),
    ("write_msr", "pmu_access", ("op", "write"), {"msr": "address", "val": "value"}),
    ("rdpmc", "pmu_access", ("op", "rdpmc"), {"msr": "address", "val": "value"}),
    ("sched_switch", "sched_switch", None, {}),
    ("kvm_msr", "kvm_msr", None, {}),
)


@pytest.mark.parametrize(("event", "table", "where", "renamed"), TABLES, ids=[t[0] for t in TABLES])
def test_tables_hold_what_the_second_reader_reads(
    case: Case, store: Store, event: str, table: str, where: Any, renamed: dict[str, str | None]
) -> None:
    if event not in case.golden["sums"]:
        assert event not in case.golden["events"]
        return
    rows = store.read(table).to_pylist()
    if where is not None:
        rows = [row for row in rows if row[where[0]] == where[1]]
    for key, expected in case.golden["sums"][event].items():
        name = key.removeprefix("field:")
        if key == "n":
            assert len(rows) == expected
            continue
        column = renamed.get(name, {"pid": "tid"}.get(key, name))
        if column is None or key == "flags":
            continue
        values = [row[column] for row in rows]
        assert None not in values, (table, column)
        total = sum(zlib.crc32(v.encode()) if isinstance(v, str) else int(v) for v in values)
        assert total & MASK == expected, (table, column)


# Only x86's fixture with function_graph has kernel functions by name around register accesses.
def test_traced_functions_are_named(store: Store, case: Case) -> None:
    if "funcgraph_entry" not in case.golden["events"]:
        return
    spans = store.read("function_span").to_pylist()
    names = {row["name"] for row in spans}
    assert {"perf_event_nmi_handler", "amd_pmu_v2_handle_irq"} <= names
    assert not [name for name in names if name.startswith("0x")]
    assert all(row["function"] == row["name"] for row in spans)
    assert {row["phase"] for row in spans} == {"enter", "return"}
    named = {row["handler_name"] for row in store.read("interrupt").to_pylist()} - {None}
    assert "perf_event_nmi_handler" in named


def test_the_machine_is_known(store: Store, case: Case) -> None:
    recording = store.manifest["recording"]
    assert recording["machine"] == case.golden["machine"]
    assert recording["format"] == "trace.dat"
    assert recording["recorder"].startswith("trace-cmd ")
