"""How do the rules of inference look on a terminal? What each found, and how good it is here."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.drawing import escaped, new_table

__all__ = ["print_inference"]


def print_inference(console: Console, answer: dict[str, Any]) -> None:
    """Draw what `info` says of stated host events and of each rule."""
    for event in answer["host_events"]:
        known = ("freq", "period", "cpus", "tid", "pid", "exclude_guest", "pinned")
        words = [f"{key} {event[key]}" for key in known if event[key] is not None]
        text = ", ".join([f"host event {event['name']}", *words])
        console.print(Text(escaped(f"{text} (says {event['source']})")))
    table = new_table(
        "host perf inferred by rule, held against what is observed (handlers)", ("rule", False),
        ("inferred", True), ("observed", True), ("right", True), ("precision", True),
        ("recall", True),
    )  # fmt: skip
    for name, said in answer["inference"].items():
        counts = [
            "-" if said[k] is None else str(said[k]) for k in ("inferred", "observed", "right")
        ]
        shares = ["-" if said[k] is None else f"{said[k]:.4f}" for k in ("precision", "recall")]
        table.add_row(name, *counts, *shares)
    console.print(table)
    for name, said in answer["inference"].items():
        if said["while_guest_state_on"]:
            count = said["while_guest_state_on"]
            console.print(Text(f"{name}: {count} of the wrong ones while a guest's state was on"))
        if not said["applied"]:
            console.print(Text(f"{name} is not applied: {said['because']}"))
    without = answer["inference_without_rule"]
    if without:
        words = [f"{count} {context}" for context, count in without.items()]
        console.print(Text(f"observed in contexts that no rule infers: {', '.join(words)}"))
    console.print()
