"""How do conflicts look on a terminal? Sums beside a what-if, and one by one with their events."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.drawing import escaped, in_ms, new_console, new_table, ranged

__all__ = ["print_conflicts", "print_leaks", "print_meetings"]

ALL_GUARDS = ["irq_off", "nmi_guard", "dedicated_vector"]


def _design(item: dict[str, Any], name: str) -> str:
    options = item["options"]
    told = options["perf_told"]
    words = [name, "told" if told else "untold"]
    words += [f"hook {options['hook']}"] if options["hook"] else []
    # Other options are said where they are not what goes with that by default.
    if options["guard"] != (ALL_GUARDS if told else ALL_GUARDS[:1]):
        words.append(f"guard {'+'.join(options['guard']) or 'none'}")
    words += [f"clearing {options['clearing']}"] if options["clearing"] != "dirty" else []
    words += ["selective"] if options["selective"] else []
    return ", ".join(words)


def _sums(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "no evidence"
    said = [f"{count} {word.replace('_', ' ')}" for word, count in counts.items() if count]
    return ", ".join(said) or "none"


def print_meetings(console: Console, placements: list[dict[str, Any]]) -> None:
    """Draw what host perf would have met under each design."""
    table = new_table(
        "host perf meets a guest's state (episodes; consequences)", ("design", False),
        ("what host perf does", False), ("what comes of it", False),
    )  # fmt: skip
    for p in placements:
        met = p["conflicts"]
        done = _sums(met["observed"])
        if met["no_evidence"]:
            done = f"no evidence: {met['no_evidence']}"
        if met["inferred_by_rule"] is not None:
            table.add_row(
                f"{_design(p, p['name'])}, inferred", _sums(met["inferred"]),
                _sums(met["inferred_consequences"]),
            )  # fmt: skip
            continue
        table.add_row(_design(p, p["name"]), done, _sums(met["consequences"]))
    console.print(table)
    if placements:
        console.print(Text(f"feasible: {placements[0]['feasible']}: {placements[0]['because']}"))
        unseen = placements[0]["unseen"]
        if unseen and unseen["episodes_high"]:
            bound = ", ".join(f"{n} {context}" for context, n in unseen["episodes_high"].items())
            console.print(Text(f"hidden by the recorded swaps: up to {bound}: {unseen['rule']}"))
    console.print()


def print_leaks(console: Console, placements: list[dict[str, Any]]) -> None:
    """Draw for how long others could read a guest's counters, by what a put clears."""
    table = new_table(
        "a guest's values where others could read them, if RDPMC were allowed", ("design", False),
        ("put clears: ms", True), ("windows", True), ("put leaves them: ms", True),
        ("windows", True),
    )  # fmt: skip
    for p in placements:
        cells = []
        for clearing in ("dirty", "none"):
            leak = p["leak_ns"]["by_clearing"][clearing]
            known = leak["to_user_high"] is not None
            cells += [
                ranged(leak["to_user_low"], leak["to_user_high"], in_ms) if known else "unknown",
                ranged(leak["windows_low"], leak["windows_high"]) if known else "unknown",
            ]
        table.add_row(_design(p, p["name"]), *cells)
    console.print(table)
    console.print()


def print_conflicts(store: str, answer: dict[str, Any]) -> None:
    """Draw the answer of `conflicts`."""
    console = new_console()
    console.print(Text(f"store {escaped(store)}; times are ns on the recording's trace clock"))
    for item in answer["designs"]:
        console.print()
        console.print(Text(_design(item, item["placement"])))
        summary = item["summary"]
        if summary["no_evidence"]:
            console.print(Text(f"no evidence: {summary['no_evidence']}"))
            if summary["inferred_by_rule"] is None:
                continue
            console.print(Text(f"  inferred episodes: {_sums(summary['inferred'])}"))
            console.print(Text(f"  by rule: {_sums(summary['inferred_by_rule'])}"))
            console.print(Text(f"  consequences: {_sums(summary['inferred_consequences'])}"))
            _print_rows(console, item)
            continue
        console.print(Text(f"  episodes: {_sums(summary['observed'])}"))
        console.print(Text(f"  by context: {_sums(summary['by_context'])}"))
        console.print(Text(f"  consequences: {_sums(summary['consequences'])}"))
        _print_rows(console, item)


def _print_rows(console: Console, item: dict[str, Any]) -> None:
    for row in item["rows"]:
        _print_row(console, row)
    left = item["rows_of_all"] - len(item["rows"])
    if left:
        console.print(Text(f"  and {left} more: -n 0 lists all"))


def _print_row(console: Console, row: dict[str, Any]) -> None:
    console.print()
    until = "no put seen" if row["until"] is None else f"put at {row['until']}"
    inferred = "inferred " if row["evidence"] == "inferred" else ""
    entry = "a VM entry comes first" if row["entry_follows"] else "no VM entry before it"
    console.print(
        Text(
            f"  {row['ts']} cpu {row['cpu']} vcpu {row['vcpu']}: "
            f"{inferred}{row['context']} {row['cause']}: "
            f"{row['consequence']} ({row['rule']}, {row['shown']}); {until}, {entry}"
        )
    )
    event = row["event"] or {"table": None, "row": None}
    for line in row["lines"]:
        mark = ">" if (line["table"], line["row"]) == (event["table"], event["row"]) else " "
        text = f"{line['table']}[{line['row']}] tid {line['tid']} {escaped(line['text'])}"
        console.print(Text(f"  {mark} {line['ts']} {text}", no_wrap=True, overflow="ellipsis"))
