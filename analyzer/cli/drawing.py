"""With what are answers drawn? The console, its tables, and how numbers and text look in them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["escaped", "in_ms", "new_console", "new_table", "print_head", "ranged"]

WIDTH = 100


def new_console() -> Console:
    """Return the console that all answers are drawn on."""
    return Console(width=WIDTH, highlight=False, soft_wrap=False)


def escaped(text: Any) -> str:
    """Return text of a recording with what is not printable as its code."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def in_ms(value: float | None) -> str:
    """Return ns as ms with three digits; `-` where not known."""
    return "-" if value is None else f"{value / 1e6:.3f}"


def ranged(low: Any, high: Any, draw: Any = str) -> str:
    """Return one number, or low .. high; `-` where neither is known."""
    if low is None and high is None:
        return "-"
    if high is None:
        return f">= {draw(low)}"
    return str(draw(low)) if low == high else f"{draw(low)} .. {draw(high)}"


def new_table(title: str, *columns: tuple[str, bool]) -> Table:
    """Return a table; columns are (name, is it a number)."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    return table


def print_head(console: Console, store: str, recording: dict[str, Any]) -> None:
    """Print what the answer is about."""
    emulated = {True: "emulated", False: "real machine", None: "emulated or not: not told"}
    console.print(Text(f"store {escaped(store)}"))
    kernel = escaped(recording["kernel"] or "kernel not recorded")
    vendor = escaped(recording["vendor"] or "vendor not known")
    console.print(
        Text(
            f"{recording['format']}, {recording['arch'] or 'architecture not recorded'}, {vendor}, "
            f"{kernel}, {emulated[recording['emulated']]}"
        )
    )
    lost = recording["lost_events"]
    recorded, comparable = in_ms(recording["duration_ns"]), in_ms(recording["comparable_ns"])
    console.print(
        Text(
            f"{recording['events']} events, {recording['cpus']} CPUs, {recording['vcpus']} vCPUs, "
            f"{recorded} ms recorded, {comparable} ms on "
            f"all CPUs, lost: {'some, number unknown' if lost is None else lost}"
        )
    )
