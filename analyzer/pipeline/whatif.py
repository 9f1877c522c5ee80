"""What would other placements have done on this recording? JSON-ready answers and result tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.errors import MissingEvents
from analyzer.pipeline.aside import set_aside
from analyzer.pipeline.by_time import BUCKETS, bucket_edges, time_rows
from analyzer.pipeline.contents.recorded import recorded_of, truth_of
from analyzer.pipeline.meetings.conflicts import (
    Episodes,
    conflict_rows,
    load_episodes,
    summary_of,
    timer_interrupts,
    timer_interrupts_met,
)
from analyzer.pipeline.meetings.exposure import feasible_of, guards_of, leak_of, unseen_of
from analyzer.pipeline.meetings.leaks import find_leaks
from analyzer.pipeline.part import Asked, part_of, recorded_ns
from analyzer.pipeline.prices.assumptions import ASSUMPTIONS, assumptions_of
from analyzer.pipeline.prices.beside import arming_traps, set_beside
from analyzer.pipeline.prices.emulation import Emulation, break_even_of, emulation_of
from analyzer.pipeline.prices.guest_effect import (
    price_rows,
    price_times,
    price_vcpu,
    set_guest_effect,
)
from analyzer.pipeline.prices.model import Pricing, pricing_of
from analyzer.pipeline.prices.moved import moves_of
from analyzer.pipeline.prices.operations import recorded_operations
from analyzer.pipeline.prices.pricing import overhead_of, priced_assumptions_of
from analyzer.pipeline.prices.sensitivity import add_sensitivity, label_of, set_dominated
from analyzer.pipeline.prices.ticks import count_ticks
from analyzer.pipeline.prices.verdict import verdict_of
from analyzer.pipeline.replays import Design, Outcome, cpus_of, replay_all
from analyzer.pipeline.results import BLIND, RESULTS, pair_of, result_rows, write_results
from analyzer.pipeline.swaps import Ground, Walk, course_of, walk_of
from analyzer.replay import Counts, has_rules
from analyzer.replay import kernel as q
from analyzer.store import Store

__all__ = ["whatif"]

Array = np.ndarray[Any, Any]


def whatif(
    store: Store, designs: list[Design], cost: str | None = None, emulated: bool | None = None,
    asked: Asked | None = None, sensitivity: bool = False, by_time: bool = False,
    buckets: int = BUCKETS,
) -> dict[str, Any]:  # fmt: skip
    """Return the answer of design.md section 10; result tables go to the store.

    `asked` restricts what is counted; `recording` describes the whole. by_time: what the table
    `placement_time` holds stands in the answer, too. MissingEvents where the recording has no vCPU.
    """
    asked = asked or Asked()
    recording = dict(store.manifest["recording"])
    if emulated is not None:
        recording["emulated"] = emulated
    if not recording["vcpus"]:
        problem = "no vCPU: neither kvm_entry nor kvm_exit nor KVM_RUN was recorded"
        raise MissingEvents(f"{store.path}: {problem}; record the kvm events and sched_switch")
    part = part_of(store, asked)
    stops = bucket_edges(store, part, buckets)
    outcomes, edges = replay_all(store, designs, part, stops[1:-1].tolist())
    recorded = recorded_of(store, part)
    told = {"told": True, "untold": False}.get(str((recorded["evidence"] or {}).get("perf")))
    operations = recorded_operations(store, part)
    pricing = pricing_of(recording, cost, operations, recorded["placement"], told)
    part_ns = recorded_ns(store, part)
    course = course_of(store, part)
    shown = _Shown(
        load_episodes(store), unseen_of(store), feasible_of(store), arming_traps(store, part),
        emulation_of(store, part) if any(d.placement.kind == "trap" for d in designs) else None,
        timer_interrupts(store, part),
    )  # fmt: skip
    answers: list[dict[str, Any]] = []
    rows: dict[str, list[Any]] = {name: [] for name in RESULTS}
    used: set[str] = set()
    # The tables have one set of rows a placement and hook, that of its first options.
    told_of: set[tuple[str, str | None]] = set()
    pairs = [(design, outcomes[design]) for design in designs]
    ground = Ground(course, part, int(recording["vcpus"]), cpus_of(store))
    distinct = dict.fromkeys(run for _, outcome in pairs for run in outcome.runs)
    walks = {run: walk_of(ground, run) for run in distinct}
    leaks = find_leaks(store, pairs, part)
    times = time_rows(pairs, stops, course.exits[:, 0])
    for design, leak in zip(designs, leaks, strict=True):
        outcome = outcomes[design]
        walk = walks[outcome.runs[0]], walks[outcome.runs[1]]
        answer = _answer(store, design, outcome, walk[1], recording, part_ns, pricing, shown)
        # Of the fewest only sums are asked for, so most of their rows need not stand beside these.
        low = None
        if outcome.runs[0] is not outcome.runs[1]:
            low = conflict_rows(design, outcome, shown.episodes, recording["vendor"], part, 0)
            low = low.select("ts", "cpu", "evidence", "cause")
        met = conflict_rows(design, outcome, shown.episodes, recording["vendor"], part)
        timers = timer_interrupts_met(shown.timers, outcome.runs[1], part)
        answer["conflicts"] = summary_of(met, met if low is None else low, shown.episodes, timers)
        answer["guards"] = guards_of(store, design, shown.episodes, met)
        answer["leak_ns"] = leak_of(design, leak)
        _expose(answer, design, shown)
        used.update(answer["assumptions"])
        answers.append(answer)
        set_guest_effect(pricing, answer, design.placement, walk, ground)
        result_rows(store, design, outcome, met, answer, rows, part, course.exits_by_vcpu())
        _price_rows(answer, rows, pricing, shown, walk[1])
        set_aside(pricing, answer, design.placement, walk, recording, part_ns)
        some = times[design.placement.name, design.hook]
        priced = zip(some, price_times(pricing, answer, some), strict=True)
        mine = [{**row, **price} for row, price in priced]
        if by_time:
            answer["by_time"] = mine
        if (design.placement.name, design.hook) not in told_of:
            told_of.add((design.placement.name, design.hook))
            label = {"placement": design.placement.name, "hook": design.hook}
            rows["placement_time"] += [{**label, **row} for row in mine]
    for answer in answers:
        answer["label"] = label_of(answer, answers)
    set_dominated(pricing, answers)
    moves = None
    if sensitivity:
        moves = add_sensitivity(pricing, answers, recording, count_ticks(store, part, recording))
    write_results(store, [d.label for d in designs], cost, asked, rows, buckets)
    vcpus = store.read("vcpu", ["vcpu", "tid", "vcpu_id"]).to_pylist()
    made: dict[str, Any] = {
        "schema": "vpmu-analyzer/whatif/1",
        "recording": recording,
        "asked": asked.as_json(),
        "recorded": recorded,
        "truth": truth_of(store, edges, recorded, part),
        "placements": answers,
        "sensitivity": moves,
        "vcpus": [row for row in vcpus if part.vcpus is None or row["vcpu"] in part.vcpus],
        "notes": _notes(store),
    }
    verdict = verdict_of(pricing, made)
    turned = moves_of(pricing, answers, verdict["without_conflicts"])
    made["assumptions"] = [
        {"id": i, "text": ASSUMPTIONS[i], "moves": turned[i]} for i in ASSUMPTIONS if i in used
    ]
    return {**made, "verdict": verdict}


@dataclass(frozen=True, slots=True)
class _Shown:
    # What of the recording bears on every design.
    episodes: Episodes
    unseen: dict[str, Any] | None
    feasible: tuple[str, str]
    arming: dict[str, tuple[float, float, float]] | None
    emulation: Emulation | None
    timers: tuple[Array, Array]


def _price_rows(
    answer: dict[str, Any], rows: dict[str, list[Any]], pricing: Pricing, shown: _Shown, walk: Walk
) -> None:  # fmt: skip
    # What each vCPU and exit reason costs. The tables have one set of rows a placement, that of
    # its first options; the answer has each design's own.
    name, emulation = answer["name"], shown.emulation
    for key, table in (("by_vcpu", "placement_vcpu"), ("by_reason", "placement_reason")):
        mine = [row for row in rows[table] if row["placement"] == name]
        exits = np.array([row["exits"] for row in mine], np.float64)
        if answer["exits_loaded"] != answer["exits"] and key == "by_vcpu":
            loaded = walk.exits[[row["vcpu"] for row in mine]]
            exits = loaded * (answer["exits"] / max(answer["exits_loaded"], 1))
        loads, puts = (
            np.array([[row[f"{n}_low"], row[f"{n}_high"]] for row in mine], np.float64)
            for n in ("loads", "puts")
        )
        prices = price_rows(pricing, answer, (loads, puts), exits)
        if answer["kind"] == "trap" and emulation is not None and key == "by_vcpu":
            prices = [price_vcpu(pricing, emulation, row["vcpu"]) for row in mine]
        answer[key] = [
            {**{k: v for k, v in row.items() if k != "placement"}, **price}
            for row, price in zip(mine, prices, strict=True)
        ]
        if mine and "overhead_low_ns" not in mine[0]:
            for row, price in zip(mine, prices, strict=True):
                row.update(price)


def _expose(answer: dict[str, Any], design: Design, shown: _Shown) -> None:
    answer["unseen"] = shown.unseen
    answer["feasible"], answer["because"] = shown.feasible
    answer["guest_uncounted_ns"] = answer["guest_ns"] if design.told else 0
    if answer["conflicts"]["observed"] and answer["loads_low"] != answer["loads_high"]:
        answer["assumptions"].append("conflicts-most")


def _totals(pair: tuple[Counts, Counts], column: int) -> tuple[int | None, int | None]:
    return pair_of(*(int(counts.vcpus[:, column].sum()) for counts in pair))


def _ranged(answer: dict[str, Any], name: str, low: int | None, high: int | None) -> None:
    # `name` alone is the number where the marks leave one, null where they leave a range.
    answer[name] = low if low == high else None
    answer[f"{name}_low"], answer[f"{name}_high"] = low, high


def _answer(
    store: Store,
    design: Design,
    outcome: Outcome,
    walk: Walk,
    recording: dict[str, Any],
    part_ns: int,
    pricing: Pricing,
    shown: _Shown,
) -> dict[str, Any]:
    marks, placement, pair = store.manifest["marks"], design.placement, outcome.counts
    answer: dict[str, Any] = {
        "name": placement.name,
        "boundary": placement.boundary,
        "options": design.options,
        "kind": placement.kind,
        "has_rules": has_rules(placement),
    }
    hidden = placement.name == "exit" and marks["hidden_reentries"]
    for name, column in (("loads", q.N_LOADS), ("puts", q.N_PUTS), ("residency_ns", q.N_RESIDENCY)):
        low, high = _totals(pair, column)
        _ranged(answer, name, low, None if hidden and name != "residency_ns" else high)
    for name, column in (("loaded_at_start", q.N_START), ("loaded_at_end", q.N_END)):
        answer[name] = _totals(pair, column)[0]
    answer["guest_ns"] = _totals(pair, q.N_GUEST)[0]
    answer["exits"] = int(pair[0].reasons[:, q.Q_EXITS].sum())
    answer["exits_loaded"] = answer["exits"]
    if placement.demand != "never":
        # Over other exits there is nothing to save.
        answer["exits_loaded"] = int(walk.exits.sum())
    blind_ns: dict[str, Any] = {}
    parts = {name: _totals(pair, column) for name, column in BLIND.items()}
    whole = pair_of(*(int(c.vcpus[:, list(BLIND.values())].sum()) for c in pair))
    for name, (low, high) in {"total": whole, **parts}.items():
        blind_ns[name] = low if low == high else None
        blind_ns[f"{name}_low"], blind_ns[f"{name}_high"] = low, high
    answer["blind_ns"] = blind_ns
    answer["blind_ns_low"], answer["blind_ns_high"] = whole
    answer["miscounted_ns"] = 0 if design.told else blind_ns["total"]
    emulation = shown.emulation if placement.kind == "trap" else None
    set_beside(answer, placement, pair, shown.arming, emulation)
    if emulation is not None:
        answer["emulation"] = {
            **emulation.facts,
            "break_even_per_loop": break_even_of(pricing, emulation, answer["exits"]),
        }
    assumptions = assumptions_of(placement, answer, recording, marks)
    assumptions += priced_assumptions_of(pricing, answer)
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
    answer["dominated_by"] = answer["sensitivity"] = None
    answer["assumptions"] = assumptions
    return answer


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
