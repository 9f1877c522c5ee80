"""How do the answers about costs look on a terminal? Sensitivity and calibration, 100 columns."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.drawing import escaped, in_ms, new_console, new_table

__all__ = ["print_calibration", "print_sensitivity"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _three(values: dict[str, float | None] | None, unit: float = 1.0) -> str:
    if values is None:
        return "null"
    cells = ["-" if v is None else f"{v / unit:.4g}" for v in values.values()]
    return cells[0] if len(set(cells)) == 1 else " / ".join(cells)


def print_sensitivity(answer: dict[str, Any]) -> None:
    """Draw what `whatif --sensitivity` adds."""
    console = new_console()
    moves, placements = answer["sensitivity"], answer["placements"]
    console.print()
    names = [(p["sensitivity"]["label"], True) for p in placements]
    table = new_table(
        f"% of the typical price by operation ({escaped(moves['cost_file'])})",
        ("operation", False), ("ns low / typical / high", True), *names,
    )  # fmt: skip
    for name, latency in moves["operations"].items():
        found = [p["sensitivity"]["operations"].get(name) for p in placements]
        shares = [_percent(None if row is None else row["percent_per_percent"]) for row in found]
        table.add_row(name, _three(latency), *shares)
    console.print(table)
    console.print()
    table = new_table(
        f"cheapest at which share of {moves['points']} cost points",
        ("placement", False), ("all", True), ("of those without conflicts", True),
        ("dominated by", False),
    )  # fmt: skip
    for p in placements:
        by = p["dominated_by"]
        told = "conflicts not known" if by is None else ", ".join(by) or "nobody"
        mine = p["sensitivity"]
        without = mine["cheapest_share_without_conflicts"]
        table.add_row(
            p["sensitivity"]["label"], _percent(mine["cheapest_share"]), _percent(without), told
        )
    console.print(table)
    console.print()
    _break_even(console, placements)
    _rates(console, placements)


def _break_even(console: Console, placements: list[dict[str, Any]]) -> None:
    table = new_table(
        "break-even: the latency at which two cost the same, the others typical",
        ("placement", False), ("against", False), ("operation", False), ("ns", True),
        ("times typical", True), ("inside its range", False),
    )  # fmt: skip
    order = [p["sensitivity"]["label"] for p in placements]
    for p in placements:
        for row in p["sensitivity"]["break_even"]:
            # Each pair once; JSON has both directions.
            if (
                order.index(row["against"]) > order.index(p["sensitivity"]["label"])
                and row["operation"] != "all"
            ):
                inside = "yes" if row["is_in_range"] else "no"
                table.add_row(
                    p["sensitivity"]["label"], row["against"], row["operation"],
                    f"{row['latency_ns']:.1f}", f"{row['factor']:.2f}", inside,
                )  # fmt: skip
    if table.row_count:
        console.print(table)
    else:
        console.print(Text("break-even: no single latency turns the order of any two"))
    console.print()


def _rates(console: Console, placements: list[dict[str, Any]]) -> None:
    table = new_table(
        "an exit that a tick forces, ns; typical ms at other exit rates",
        ("placement", False), ("swaps a tick", True), ("ns low / typical / high", True),
        ("x 0.5", True), ("x 2", True), ("x 10", True),
    )  # fmt: skip
    for p in placements:
        hz, rate = p["sensitivity"]["hz"], p["sensitivity"]["exit_rate"]["overhead_ns"]
        cells = [in_ms(rate[factor]["typical"]) for factor in ("0.5", "2", "10")]
        table.add_row(
            p["sensitivity"]["label"],
            _three(hz["swaps_per_tick"]),
            _three(hz["per_tick_ns"]),
            *cells,
        )
    console.print(table)
    first = placements[0]["sensitivity"]["hz"]
    if first["forced_exits"] is None:
        console.print(Text("exits that ticks forced: not told by this recording"))
    else:
        hz = "not told" if first["recorded_hz"] is None else f"{first['recorded_hz']:g}"
        exits = placements[0]["sensitivity"]["exit_rate"]["exits"]
        console.print(Text(f"ticks forced {first['forced_exits']} of {exits} exits; HZ: {hz}"))
        _hertz(console, placements)
    if first["per_guest_second_ns"] is not None:
        console.print()
        rates = list(first["per_guest_second_ns"])
        table = new_table(
            "ticks of a guest second, typical us, by HZ",
            ("placement", False), *((name, True) for name in rates),
        )  # fmt: skip
        for p in placements:
            per = p["sensitivity"]["hz"]["per_guest_second_ns"]
            cells = [
                "-" if per[r]["typical"] is None else f"{per[r]['typical'] / 1e3:.1f}"
                for r in rates
            ]
            table.add_row(p["sensitivity"]["label"], *cells)
        console.print(table)


def _hertz(console: Console, placements: list[dict[str, Any]]) -> None:
    console.print()
    rates = list(placements[0]["sensitivity"]["hz"]["overhead_ns"])
    table = new_table(
        "typical ms, had the tick run at", ("placement", False), *((name, True) for name in rates)
    )
    for p in placements:
        prices = p["sensitivity"]["hz"]["overhead_ns"]
        found = [None if prices[name] is None else prices[name]["typical"] for name in rates]
        table.add_row(p["sensitivity"]["label"], *(in_ms(value) for value in found))
    console.print(table)


def print_calibration(answer: dict[str, Any]) -> None:
    """Draw what `calibrate` fitted and what it refused; the file itself is not shown."""
    console = new_console()
    tracer = answer["tracer_ns"]
    console.print(
        Text(
            f"tracer: {_three(tracer)} ns a record (low / typical / high), from the gaps before "
            f"{answer['anchor']['operation']} less its {_three(answer['anchor']['latency_ns'])} ns "
            f"in {escaped(answer['inherits'])}"
        )
    )
    console.print()
    table = new_table(
        "measured, ns", ("operation", False), ("gaps", True), ("median gap", True),
        ("5 .. 95 % of gaps", True), ("low / typical / high", True), ("inherited", True),
    )  # fmt: skip
    for row in answer["operations"]:
        table.add_row(
            row["operation"], str(row["gaps"]), f"{row['median_ns']:.0f}",
            f"{row['p5_ns']:.0f} .. {row['p95_ns']:.0f}", _three(row["latency_ns"]),
            _three(row["inherited_ns"]),
        )  # fmt: skip
    console.print(table)
    console.print()
    table = new_table("refused: inherited as it is", ("operation", False), ("why", False))
    for row in answer["refused"]:
        table.add_row(row["operation"], row["because"])
    console.print(table)
    if answer["output"] is not None:
        print(f"written: {answer['output']}", file=sys.stderr)
