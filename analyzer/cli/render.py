"""How do answers look on a terminal? Tables that fit 100 columns; no arithmetic but of units."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.conflicts import print_leaks, print_meetings
from analyzer.cli.drawing import escaped, in_ms, new_console, new_table, print_head, ranged
from analyzer.cli.inference import print_inference
from analyzer.cli.recorded import print_recorded

__all__ = ["print_info", "print_json", "print_whatif"]


def print_json(answer: dict[str, Any]) -> None:
    """Print one JSON object."""
    json.dump(answer, sys.stdout, indent=1, ensure_ascii=False)
    print()


def _asked(console: Console, asked: dict[str, Any] | None) -> None:
    if asked is None:
        return
    words = [
        f"{key} {asked[f'{key}_s']} s" for key in ("from", "to") if asked[f"{key}_s"] is not None
    ]
    for name, key in (("CPUs", "cpus"), ("vCPUs by tid", "vcpus")):
        if asked[key]:
            words.append(f"{name} {', '.join(map(str, asked[key]))}")
    console.print(Text(f"counted below: {'; '.join(words)} (all of the recording is replayed)"))


def print_whatif(store: str, answer: dict[str, Any]) -> None:
    """Draw the answer of `whatif`."""
    console = new_console()
    recording = answer["recording"]
    print_head(console, store, recording)
    _asked(console, answer["asked"])
    console.print()
    table = new_table(
        "swaps and residency", ("placement", False), ("loads", True), ("puts", True),
        ("loaded at start/end", True), ("residency ms", True), ("blind ms", True),
    )  # fmt: skip
    drawn: set[str] = set()
    for p in answer["placements"]:
        if p["name"] in drawn:
            continue  # options move no swap
        drawn.add(p["name"])
        table.add_row(
            p["name"],
            ranged(p["loads_low"], p["loads_high"]),
            ranged(p["puts_low"], p["puts_high"]),
            f"{p['loaded_at_start']}/{p['loaded_at_end']}",
            ranged(p["residency_ns_low"], p["residency_ns_high"], in_ms),
            ranged(p["blind_ns_low"], p["blind_ns_high"], in_ms),
        )
    console.print(table)
    console.print()
    kinds = ("kvm", "user", "interrupt", "other")
    table = new_table("blind time, ms", ("placement", False), *((kind, True) for kind in kinds))
    placements = list({p["name"]: p for p in answer["placements"]}.values())
    for p in placements:
        blind = p["blind_ns"]
        cells = [ranged(blind[f"{kind}_low"], blind[f"{kind}_high"], in_ms) for kind in kinds]
        table.add_row(p["name"], *cells)
    console.print(table)
    console.print()
    table = new_table(
        f"priced overhead ({', '.join(answer['placements'][0]['overhead']['cost_files'])})",
        ("placement", False), ("low ms", True), ("typical ms", True), ("high ms", True),
        ("% of guest time", True), ("on assumed", True),
    )  # fmt: skip
    for p in placements:
        overhead = p["overhead"]
        percent = overhead["percent_of_guest_time"]
        share = "null"
        if percent is not None:
            share = " / ".join(
                "-" if percent[level] is None else f"{percent[level]:.2f}"
                for level in ("low", "typical", "high")
            )
        assumed = overhead["assumed_share"]
        cells = [in_ms(overhead[f"{x}_ns"]) for x in ("low", "typical", "high")]
        table.add_row(p["name"], *cells, share, "-" if assumed is None else f"{assumed:.0%}")
    console.print(table)
    console.print()
    print_meetings(console, answer["placements"])
    print_leaks(console, answer["placements"])
    _breakdown(console, answer)
    for note in answer["notes"]:
        console.print(Text(note))
    _truth(console, answer["truth"], answer["recorded"]["what"])
    console.print(Text("rests on:"))
    for item in answer["assumptions"]:
        console.print(Text(f"  {item['id']}: {item['text']}"))
    if recording["emulated"] is True:
        console.print(Text("Times of an emulated machine mean nothing: no percentages, no rates."))


def _breakdown(console: Console, answer: dict[str, Any]) -> None:
    placements = list({p["name"]: p for p in answer["placements"]}.values())
    names = [(p["name"], True) for p in placements]
    table = new_table("loads by exit reason", ("reason", False), ("exits", True), *names)
    for rows in zip(*(p["by_reason"] for p in placements), strict=True):
        loads = [ranged(row["loads_low"], row["loads_high"]) for row in rows]
        nameless = "not recorded" if answer["notes"] else "none before"
        reason = escaped(rows[0]["reason"] or nameless)
        table.add_row(reason, str(rows[0]["exits"]), *loads)
    console.print(table)
    console.print()
    table = new_table("loads by vCPU", ("tid", True), ("vcpu_id", True), *names)
    for at, vcpu in enumerate(answer["vcpus"]):
        mine = [p["by_vcpu"][at] for p in placements]
        loads = [ranged(row["loads_low"], row["loads_high"]) for row in mine]
        number = "-" if vcpu["vcpu_id"] is None else str(vcpu["vcpu_id"])
        table.add_row(str(vcpu["tid"]), number, *loads)
    console.print(table)
    console.print()


def _truth(console: Console, truth: dict[str, Any] | None, what: str | None) -> None:
    if truth is None:
        console.print(Text("the kernel's own swaps: not recorded, or at no boundary of these"))
        return
    filters = what == "el0_filters"
    subject = (
        "the kernel's own filters of EL0 (no swap of registers)"
        if filters
        else ("the kernel's own swaps")
    )
    predicted = ranged(truth["predicted_loads_low"], truth["predicted_loads_high"])
    console.print(
        Text(
            f"{subject}: {truth['recorded_loads']} loads, {truth['recorded_puts']} puts recorded, "
            f"at {truth['boundary']}; predicted without looking at registers: {predicted} loads; "
            f"{truth['differences']} differences"
        )
    )


def print_info(store: str, answer: dict[str, Any]) -> None:
    """Draw the answer of `info`."""
    console = new_console()
    print_head(console, store, answer["recording"])
    console.print()
    table = new_table("events", ("name", False), ("count", True))
    for name, count in sorted(answer["events"].items(), key=lambda item: (-item[1], item[0])):
        table.add_row(escaped(name), str(count))
    console.print(table)
    if answer["not_recorded"]:
        names = ", ".join(escaped(name) for name in answer["not_recorded"])
        console.print(Text(f"asked for, not recorded (absence means nothing): {names}"))
    console.print()
    table = new_table("exits", ("reason", False), ("count", True), ("exit to next entry, ms", True))
    for reason, row in answer["exits"].items():
        table.add_row(escaped(reason), str(row["count"]), in_ms(row["ns"]))
    console.print(table)
    console.print()
    table = new_table(
        "vCPUs", ("tid", True), ("VM", True), ("vcpu_id", True), ("entries", True), ("exits", True),
        ("guest ms", True), ("CPUs", True), ("migrations", True), ("inside at start/end", False),
    )  # fmt: skip
    for row in answer["vcpus"]:
        edges = (
            f"{'yes' if row['inside_at_start'] else 'no'}/{'yes' if row['inside_at_end'] else 'no'}"
        )
        shown = [row[key] for key in ("tid", "vm", "vcpu_id", "entries", "exits")]
        cells = ["-" if value is None else str(value) for value in shown]
        table.add_row(
            *cells, in_ms(row["guest_ns"]), str(row["cpus"]), str(row["migrations"]), edges
        )
    console.print(table)
    console.print()
    table = new_table(
        "windows, whole but for the losses below", ("cpu", True), ("from ns", True),
        ("to ns", True), ("events", True),
    )  # fmt: skip
    for row in answer["windows"]:
        table.add_row(*(str(row[key]) for key in ("cpu", "ts", "end", "events")))
    console.print(table)
    console.print()
    if answer["data_loss"]:
        table = new_table(
            "data loss", ("cpu", True), ("from ns", True), ("to ns", True), ("cause", False),
            ("events", True),
        )  # fmt: skip
        for row in answer["data_loss"]:
            cells = [row[key] for key in ("cpu", "from", "to", "cause", "events")]
            table.add_row(*("-" if value is None else escaped(value) for value in cells))
        console.print(table)
        console.print()
    print_recorded(console, answer)
    _trouble(console, answer)
    _judged(console, answer["attribution_truth"])
    print_inference(console, answer)
    for item in answer["answers"]:
        word = (
            "yes"
            if item["answerable"]
            else f"no: lacks {', '.join(item['missing'])}; {item['remedy']}"
        )
        console.print(Text(f"{item['question']}: {word}"))


def _judged(console: Console, truth: dict[str, Any] | None) -> None:
    if truth is None:
        return
    how = {
        "spans": "traced from begin to end",
        "probes": "probed where they begin; what is not certain then is left out",
    }[truth["evidence"]]
    table = new_table(
        f"attribution of register accesses, held against the kernel's functions ({how})",
        ("actor or context", False), ("accesses", True), ("found", True), ("right", True),
        ("precision", True), ("recall", True),
    )  # fmt: skip
    for name, score in [*truth["actors"].items(), *truth["contexts"].items()]:
        if score["accesses"] or score["said"]:
            shares = [score[key] for key in ("precision", "recall")]
            counts = [str(score[key]) for key in ("accesses", "said", "right")]
            table.add_row(name, *counts, *("-" if x is None else f"{x:.4f}" for x in shares))
    console.print(table)
    console.print(
        Text(
            f"functions name {truth['named']} of {truth['accesses']} accesses; "
            f"{truth['disagreements']} differ, of which {truth['unknown']} left unknown"
        )
    )
    for row in truth["examples"]:
        found, true = (
            "/".join(str(row[key]) for key in keys if row[key] is not None)
            for keys in (("actor", "context"), ("true_actor", "true_context"))
        )
        console.print(
            Text(f"  {row['ts']} ns, CPU {row['cpu']}: {found}; {row['function']} says {true}")
        )
    console.print()


def _trouble(console: Console, answer: dict[str, Any]) -> None:
    from analyzer.trouble import COUNTERS

    found = [c for c in COUNTERS if answer["trouble"].get(c.name)]
    if not found:
        return
    table = new_table(
        "trouble", ("what", False), ("count", True), ("meaning", False), ("advice", False)
    )
    for counter in found:
        count = str(answer["trouble"][counter.name])
        table.add_row(f"{counter.severity}: {counter.name}", count, counter.meaning, counter.advice)
    console.print(table)
    console.print()
