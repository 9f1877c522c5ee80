"""What would other placements have done on this recording? JSON-ready answers and result tables."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analyzer.errors import MissingEvents, OutputError, UsageError
from analyzer.pipeline.operations import recorded_operations
from analyzer.pipeline.part import Asked, part_of, recorded_ns
from analyzer.pipeline.pricing import (
    PRICING_ASSUMPTIONS,
    Pricing,
    assumptions_of,
    overhead_of,
    pricing_of,
)
from analyzer.pipeline.recorded import EdgeCounts, recorded_of, truth_of
from analyzer.pipeline.sensitivity import add_sensitivity, set_dominated
from analyzer.pipeline.ticks import count_ticks
from analyzer.replay import Counts, Part, Placement, Replay, leaves_range, shipped_placements
from analyzer.replay import kernel as q
from analyzer.store import Store, write_table
from analyzer.store.layout import DATA_VERSION, WHATIF_FOLDER, table_file
from analyzer.store.writing import replace_folder
from analyzer.tables import BY_NAME, arrow_schema

__all__ = ["choose_placements", "whatif"]

POINTS = 1024 * 1024
COLUMNS = ["ts", "cpu", "vcpu", "kind", "detail"]
BLIND = {"kvm": q.N_KVM, "user": q.N_USER, "interrupt": q.N_INTERRUPT, "other": q.N_OTHER}
ASSUMPTIONS = {
    **PRICING_ASSUMPTIONS,
    "priced-not-measured": "swap times come from a cost file; nothing of them was measured here",
    "guest-work-fixed": "guest work and exits are held as recorded under every placement",
    "loop-range": "no mark of the inner loop is recorded: `loop` lies between joining every "
    "gap that its events allow and swapping at every exit",
    "loop-events": "inner loops are told by exit reasons and the interrupt flag of the events "
    "between exit and entry",
    "loop-marks": "inner loops are told by the DEBUGCTL read (MSR 1d9) that precedes each",
    "vcpu-marks": "a switch between the marks just outside vcpu_load..vcpu_put (KVM_RUN's "
    "ioctl) and those just inside (kvm_fpu, kvm_timer) can be on either side",
    "vcpu-one-mark": "only one kind of mark of vcpu_load..vcpu_put is recorded: a switch "
    "beside it is not seen",
    "hidden-reentries": "the hypervisor re-enters by itself: `exit` swaps at least as often",
    "midpoint": "typical overhead takes the middle of a range of swaps",
    "vendor-unknown": "no vendor is known: the interval is the hull of both vendors' costs",
    "real-machine": "nothing tells whether the machine was emulated: percentages take it for real",
    "off-architecture": "this architecture has no such swap today: its price is a what-if too",
}


def choose_placements(names: list[str]) -> list[Placement]:
    """Return shipped placements by name; `all` means all of them. UsageError for an unknown one."""
    shipped = shipped_placements()
    chosen: list[Placement] = []
    for name in names:
        if name != "all" and name not in shipped:
            raise UsageError(f"boundary {name!r} is unknown; allowed: {', '.join(shipped)}, all")
        for placement in shipped.values() if name == "all" else (shipped[name],):
            if placement not in chosen:
                chosen.append(placement)
    return chosen


def whatif(
    store: Store, names: list[str], cost: str | None = None, emulated: bool | None = None,
    asked: Asked | None = None, sensitivity: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the answer of design.md section 10; result tables go to the store.

    `asked` restricts what is counted; `recording` describes the whole. MissingEvents where the
    recording has no vCPU.
    """
    asked = asked or Asked()
    placements = choose_placements(names)
    recording = dict(store.manifest["recording"])
    if emulated is not None:
        recording["emulated"] = emulated
    if not recording["vcpus"]:
        problem = "no vCPU: neither kvm_entry nor kvm_exit nor KVM_RUN was recorded"
        raise MissingEvents(f"{store.path}: {problem}; record the kvm events and sched_switch")
    part = part_of(store, asked)
    counted, edges = _replay_all(store, placements, part)
    recorded = recorded_of(store, part)
    shown = recorded_operations(store, part)
    pricing = pricing_of(recording, cost, shown, recorded["placement"])
    part_ns = recorded_ns(store, part)
    answers: list[dict[str, Any]] = []
    tables = ("placement", "placement_vcpu", "placement_reason")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
    used: set[str] = set()
    for placement in placements:
        answer = _answer(store, placement, counted[placement.name], recording, part_ns, pricing)
        used.update(answer["assumptions"])
        answers.append(answer)
        _rows(store, placement, counted[placement.name], answer, rows, part)
        for key, table in (("by_vcpu", "placement_vcpu"), ("by_reason", "placement_reason")):
            mine = [row for row in rows[table] if row["placement"] == placement.name]
            answer[key] = [{k: v for k, v in row.items() if k != "placement"} for row in mine]
    set_dominated(pricing, answers)
    moves = None
    if sensitivity:
        moves = add_sensitivity(pricing, answers, recording, count_ticks(store, part, recording))
    _write_results(store, names, cost, asked, rows)
    vcpus = store.read("vcpu", ["vcpu", "tid", "vcpu_id"]).to_pylist()
    return {
        "schema": "vpmu-analyzer/whatif/1",
        "recording": recording,
        "asked": asked.as_json(),
        "recorded": recorded,
        "truth": truth_of(store, edges, recorded, part),
        "placements": answers,
        "sensitivity": moves,
        "vcpus": [row for row in vcpus if part.vcpus is None or row["vcpu"] in part.vcpus],
        "notes": _notes(store),
        "assumptions": [
            {"id": i, "text": ASSUMPTIONS[i], "moves": None} for i in ASSUMPTIONS if i in used
        ],
    }


def _replay_all(
    store: Store, placements: list[Placement], part: Part
) -> tuple[dict[str, tuple[Counts, Counts]], EdgeCounts]:
    vcpus = int(store.manifest["recording"]["vcpus"])
    windows = store.read("window", ["cpu"])
    cpus = (pc.max(windows["cpu"]).as_py() or 0) + 1
    reasons = len(store.manifest["reasons"])
    runs = {
        p.name: [Replay(p, most, vcpus, cpus, reasons, part) for most in _bounds(store, p)]
        for p in placements
    }
    edges = EdgeCounts()
    for batch in store.batches("point", COLUMNS, POINTS):
        columns = []
        for name in COLUMNS:
            column = batch.column(name)
            filled = column.fill_null(-1) if name == "vcpu" else column
            columns.append(filled.to_numpy(zero_copy_only=False).astype(np.int64))
        for pair in runs.values():
            for run in pair:
                run.feed(*columns)
        mine = part.holds(*columns[:3])
        edges.add(kind=columns[3][mine], detail=columns[4][mine])
    # Where one bound was run, it is both.
    return {name: (pair[0].counts(), pair[-1].counts()) for name, pair in runs.items()}, edges


def _bounds(store: Store, placement: Placement) -> tuple[bool, ...]:
    # A trusted mark of the inner loop leaves no range; nor does a kernel without inner loops.
    marks = store.manifest["marks"]
    known = ("loop_marks_trusted", "loop_events_exact", "hidden_reentries")
    exact = placement.name == "loop" and any(marks[name] for name in known)
    return (False, True) if leaves_range(placement) and not exact else (False,)


def _pair(low: int | None, high: int | None) -> tuple[int | None, int | None]:
    if low is None or high is None:
        return low, high
    return min(low, high), max(low, high)


def _totals(pair: tuple[Counts, Counts], column: int) -> tuple[int | None, int | None]:
    return _pair(*(int(counts.vcpus[:, column].sum()) for counts in pair))


def _ranged(answer: dict[str, Any], name: str, low: int | None, high: int | None) -> None:
    # `name` alone is the number where the marks leave one, null where they leave a range.
    answer[name] = low if low == high else None
    answer[f"{name}_low"], answer[f"{name}_high"] = low, high


def _answer(
    store: Store,
    placement: Placement,
    pair: tuple[Counts, Counts],
    recording: dict[str, Any],
    part_ns: int,
    pricing: Pricing,
) -> dict[str, Any]:
    marks = store.manifest["marks"]
    answer: dict[str, Any] = {
        "name": placement.name,
        "boundary": placement.boundary,
        "options": {"perf_told": placement.perf_told},
    }
    hidden = placement.name == "exit" and marks["hidden_reentries"]
    for name, column in (("loads", q.N_LOADS), ("puts", q.N_PUTS), ("residency_ns", q.N_RESIDENCY)):
        low, high = _totals(pair, column)
        _ranged(answer, name, low, None if hidden and name != "residency_ns" else high)
    for name, column in (("loaded_at_start", q.N_START), ("loaded_at_end", q.N_END)):
        answer[name] = _totals(pair, column)[0]
    answer["guest_ns"] = _totals(pair, q.N_GUEST)[0]
    answer["exits"] = int(pair[0].reasons[:, q.Q_EXITS].sum())
    blind_ns: dict[str, Any] = {}
    parts = {name: _totals(pair, column) for name, column in BLIND.items()}
    whole = _pair(*(int(c.vcpus[:, list(BLIND.values())].sum()) for c in pair))
    for name, (low, high) in {"total": whole, **parts}.items():
        blind_ns[name] = low if low == high else None
        blind_ns[f"{name}_low"], blind_ns[f"{name}_high"] = low, high
    answer["blind_ns"] = blind_ns
    answer["blind_ns_low"], answer["blind_ns_high"] = whole
    answer["miscounted_ns"] = 0 if placement.perf_told else blind_ns["total"]
    assumptions = _assumptions(placement, answer, recording, marks)
    assumptions += assumptions_of(pricing, answer)
    answer["overhead"] = overhead_of(pricing, answer, recording)
    overhead = answer["overhead"]
    answer["swap_ns"] = overhead["typical_ns"]
    answer["swap_ns_low"], answer["swap_ns_high"] = overhead["low_ns"], overhead["high_ns"]
    real = recording["emulated"] is not True and part_ns
    seconds = part_ns / 1e9
    swaps = (
        None
        if answer["loads"] is None or answer["puts"] is None
        else answer["loads"] + answer["puts"]
    )
    answer["swaps_per_second"] = swaps / seconds if real and swaps is not None else None
    answer.update(
        conflicts=None,
        leak_ns=None,
        unseen=None,
        feasible=None,
        because=None,
        dominated_by=None,
        sensitivity=None,
    )
    answer["assumptions"] = assumptions
    return answer


def _assumptions(
    placement: Placement, answer: dict[str, Any], recording: dict[str, Any], marks: dict[str, Any]
) -> list[str]:
    used = ["priced-not-measured", "guest-work-fixed"]
    if placement.name == "loop" and not marks["hidden_reentries"]:
        told = "loop-marks" if marks["loop_marks_trusted"] else "loop-range"
        exact = marks["loop_events_exact"] and not marks["loop_marks_trusted"]
        used.append("loop-events" if exact else told)
    if placement.name == "vcpu":
        inside = marks["kvm_fpu"] or marks["kvm_timer"]
        used.append("vcpu-marks" if inside and marks["kvm_run_ioctl"] else "vcpu-one-mark")
    if placement.name == "exit" and marks["hidden_reentries"]:
        used.append("hidden-reentries")
    if answer["loads_low"] != answer["loads_high"]:
        used.append("midpoint")
    if recording["vendor"] is None:
        used.append("vendor-unknown")
    if recording["emulated"] is None:
        used.append("real-machine")
    if recording["arch"] != "x86":
        used.append("off-architecture")
    return used


def _notes(store: Store) -> list[str]:
    # What the user should be told once beside the numbers.
    if not store.manifest["trouble"].get("kvm_fields_missing"):
        return []
    return [
        (
            "exit reasons: not recorded (Perfetto drops the fields of x86's kvm_entry and "
            "kvm_exit); record the same load with trace-cmd or perf for them"
        )
    ]


def _rows(
    store: Store,
    placement: Placement,
    pair: tuple[Counts, Counts],
    answer: dict[str, Any],
    rows: dict[str, list[dict[str, Any]]],
    part: Part,
) -> None:
    hidden = placement.name == "exit" and store.manifest["marks"]["hidden_reentries"]

    def counted(per: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        columns = {"loads": q.N_LOADS, "puts": q.N_PUTS, "residency_ns": q.N_RESIDENCY}
        columns.update({f"blind_{name}_ns": column for name, column in BLIND.items()})
        for name, column in columns.items():
            made[f"{name}_low"], made[f"{name}_high"] = _pair(
                int(per[0][column]), int(per[1][column])
            )
        blind = [int(p[list(BLIND.values())].sum()) for p in per]
        made["blind_ns_low"], made["blind_ns_high"] = _pair(*blind)
        if hidden:
            made["loads_high"] = made["puts_high"] = None
        made["loaded_at_start"], made["loaded_at_end"] = (
            int(per[0][q.N_START]),
            int(per[0][q.N_END]),
        )
        made["guest_ns"] = int(per[0][q.N_GUEST])
        return made

    name = {"placement": placement.name}
    overhead = {
        f"overhead_{x}_ns": answer["overhead"][f"{x}_ns"] for x in ("low", "typical", "high")
    }
    every = counted([c.vcpus.sum(axis=0) for c in pair])
    rows["placement"].append({**name, "boundary": placement.boundary, **every, **overhead})
    for v in range(pair[0].vcpus.shape[0]) if part.vcpus is None else part.vcpus:
        rows["placement_vcpu"].append({**name, "vcpu": v, **counted([c.vcpus[v] for c in pair])})
    for number, reason in enumerate([None, *store.manifest["reasons"]]):
        fewest, most = pair[0].reasons[number], pair[1].reasons[number]
        # Every placement lists the same reasons: those that the recording has exits of.
        seen = fewest[q.Q_EXITS] or fewest.any() or most.any()
        if seen or number == 0:
            row = {**name, "reason": reason, "exits": int(fewest[q.Q_EXITS])}
            for key, column in (("loads", q.Q_LOADS), ("puts", q.Q_PUTS), ("blind_ns", q.Q_BLIND)):
                low, high = _pair(int(fewest[column]), int(most[column]))
                row[f"{key}_low"], row[f"{key}_high"] = low, high
            rows["placement_reason"].append(row)


def _write_results(
    store: Store, names: list[str], cost: str | None, asked: Asked,
    rows: dict[str, list[dict[str, Any]]],
) -> None:  # fmt: skip
    key = json.dumps([sorted(names), cost, DATA_VERSION, asked.as_json()])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = store.path / WHATIF_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        for table, made in rows.items():
            declared = BY_NAME[table]
            write_table(
                aside / table_file(table),
                pa.Table.from_pylist(made, arrow_schema(declared)),
                declared,
            )
        (aside / "manifest.json").write_text(key + "\n")
        os.chmod(aside, 0o755)
        replace_folder(aside, folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write results: {error}") from error
