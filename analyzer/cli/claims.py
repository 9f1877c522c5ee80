"""How do verdicts look on a terminal? A table of all, then each with its numbers and rows."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.text import Text

from analyzer.cli.drawing import WIDTH, escaped, new_console, new_table, print_head

__all__ = ["print_claims"]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_number(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        ends = [_number(v) for v in value]
        if len(ends) == 2 and not any(isinstance(v, str) for v in value):
            return ends[0] if ends[0] == ends[1] else f"{ends[0]} .. {ends[1]}"
        return " ".join(ends) or "none"
    return "-" if value is None else escaped(value)


def _deciding(claim: dict[str, Any]) -> str:
    deciding = claim["deciding"]
    if deciding is None:
        return "-"
    margin = "" if claim["margin"] is None else f", {claim['margin']:.3g} x"
    held = f"{_number(deciding['value'])} against {_number(deciding['threshold'])}"
    return f"{deciding['name']} {held}{margin}"


def _word(claim: dict[str, Any]) -> str:
    qualifier = f" ({claim['qualifier']})" if claim["qualifier"] else ""
    return f"{claim['verdict']}{qualifier}"


def print_claims(store: str, answer: dict[str, Any]) -> None:
    """Draw the answer of `claims`."""
    console = new_console()
    print_head(console, store, answer["recording"])
    console.print()
    table = new_table(
        "claims of the argument", ("id", False), ("claim", False), ("verdict", False),
        ("deciding number, threshold, margin", False),
    )  # fmt: skip
    for claim in answer["claims"]:
        table.add_row(claim["id"], claim["text"], escaped(_word(claim)), escaped(_deciding(claim)))
    console.print(table)

    def line(name: str, text: str) -> None:
        wrapped = textwrap.wrap(escaped(text), WIDTH - 14) or [""]
        for at, piece in enumerate(wrapped):
            console.print(Text(f"  {name if at == 0 else '':<11} {piece}"))

    for claim in answer["claims"]:
        console.print()
        console.print(Text(f"{claim['id']}  {claim['text']} ({claim['source']})"))
        line("verdict", f"{_word(claim)}: {claim['because']}")
        for part in claim["parts"]:
            line("", f"{part['name']}: {part['verdict']}: {part['because']}")
        if claim["deciding"] is not None:
            line("decided by", _deciding(claim))
        if claim["base"]:
            line("base", claim["base"])
        if claim["numbers"]:
            words = [f"{name} = {_number(value)}" for name, value in claim["numbers"].items()]
            line("numbers", "; ".join(words))
        line("thresholds", ", ".join(f"{k} {v:g}" for k, v in claim["thresholds"].items()))
        for at, rows in enumerate(claim["evidence"]):
            first = "" if rows["first_ns"] is None else f", first at {rows['first_ns']} ns"
            which = f" ({rows['which']})" if rows["which"] else ""
            line("rows" if at == 0 else "", f"{rows['table']}: {rows['rows']}{which}{first}")
        for need in claim["needs"]:
            line("record", need)
    console.print()
    console.print(Text(answer["note"]))
