"""How do `info` and JSON look on a terminal? Tables of 100 columns; no arithmetic but of units."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.drawing import escaped, in_ms, new_console, new_table, print_head
from analyzer.cli.inference import print_inference
from analyzer.cli.recorded import print_recorded

__all__ = ["print_info", "print_json"]


def print_json(answer: dict[str, Any]) -> None:
    """Print one JSON object."""
    json.dump(answer, sys.stdout, indent=1, ensure_ascii=False)
    print()


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
