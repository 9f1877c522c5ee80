"""How does it look what the kernel recorded of itself? Its swaps, who touched the PMU, and when."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.drawing import escaped, in_ms, new_table

__all__ = ["print_recorded"]


def _spread(values: dict[str, Any] | None) -> str:
    if values is None:
        return "-"
    return f"{values['min']} / {values['median']:g} / {values['max']}"


def _swaps(console: Console, recorded: dict[str, Any]) -> None:
    evidence = recorded["evidence"]
    if evidence is None:
        console.print(Text("the kernel's own swaps: not recorded"))
        return
    place = recorded["placement"] or "at none of our boundaries"
    perf = {
        "told": "perf told",
        "untold": "perf untold",
        None: "nothing shows whether perf is told",
    }
    same = evidence["cannot_be_told_from"]
    beside = f"; here the same as {', '.join(same)}" if same else ""
    console.print(Text(f"the kernel swaps at: {place}, {perf[evidence['perf']]}{beside}"))
    against = ", ".join(f"{name} {n}" for name, n in evidence["differences"].items())
    console.print(
        Text(f"  of {evidence['recorded_stays']} recorded stays, against each boundary: {against}")
    )
    table = new_table(
        "  registers moved (min / median / max)", ("", False), ("number", True),
        ("KVM's half", True), ("perf's half", True), ("guest PMU on", True), ("off", True),
    )  # fmt: skip
    for kind in ("load", "put"):
        moved, states = recorded[f"operations_per_{kind}"], recorded["operations_by_guest_pmu"]
        table.add_row(
            kind, str(recorded[f"{kind}s"]), _spread(moved["kvm"]), _spread(moved["perf"]),
            _spread(states[f"{kind}_on"]), _spread(states[f"{kind}_off"]),
        )  # fmt: skip
    console.print(table)
    share, same_value = recorded["pmu_on_share"], recorded["redundant_write_share"]
    on = "-" if share is None else f"{share:.3f}"
    redundant = "-" if same_value is None else f"{same_value:.3f}"
    console.print(
        Text(
            f"  share of loads with the guest's PMU on: {on}; of KVM's writes that put in what is "
            f"there already: {redundant}"
        )
    )
    if evidence["grammars_never_shown"]:
        console.print(
            Text(
                f"  {evidence['grammars_never_shown']} swaps fit only a grammar that no recording "
                "of ours has shown"
            )
        )


def _attribution(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = new_table(
        "whose PMU accesses", ("actor", False), ("context", False), ("register role", False),
        ("accesses", True),
    )  # fmt: skip
    for row in rows:
        words = [escaped(row[key] or "-") for key in ("actor", "context", "role")]
        table.add_row(*words, str(row["accesses"]))
    console.print(table)
    console.print()


def _activity(console: Console, activity: dict[str, Any] | None) -> None:
    if activity is None:
        console.print(Text("host perf: register accesses are not recorded"))
        return
    if not activity["episodes"]:
        console.print(Text("host perf: not active, as far as register accesses show"))
        return
    table = new_table(
        "host perf over time (episodes; counters it touched)", ("from ns", True), ("ms", True),
        ("episodes", False), ("counters", False),
    )  # fmt: skip
    for row in activity["over_time"]:
        said = ", ".join(f"{n} {context}" for context, n in row["episodes"].items()) or "none"
        counters = [str(n) for n in row["counters"]] + [f"fixed {n}" for n in row["fixed_counters"]]
        table.add_row(
            str(row["from"]), in_ms(row["to"] - row["from"]), said, " ".join(counters) or "-"
        )
    console.print(table)


def print_recorded(console: Console, answer: dict[str, Any]) -> None:
    """Draw what `info` says of swaps, accesses and host perf."""
    _swaps(console, answer["recorded"])
    console.print(
        Text(f"a mediated VM beside host perf: {answer['feasible']}: {answer['because']}")
    )
    console.print()
    _attribution(console, answer["attribution"])
    _activity(console, answer["host_perf"])
    console.print()
