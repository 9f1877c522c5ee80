"""How do answers look on a terminal? Tables that fit 100 columns; no arithmetic but of units."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "WIDTH",
    "escaped",
    "fill_table",
    "milliseconds",
    "print_info",
    "print_json",
    "print_whatif",
]

WIDTH = 100


def print_json(answer: dict[str, Any]) -> None:
    """Print one JSON object."""
    json.dump(answer, sys.stdout, indent=1, ensure_ascii=False)
    print()


def _console() -> Console:
    return Console(width=WIDTH, highlight=False, soft_wrap=False)


def escaped(text: Any) -> str:
    """Return text with what is not printable shown as its code: a recording may hold anything."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def milliseconds(value: float | None) -> str:
    """Return ns as ms with a stable number of digits."""
    return "-" if value is None else f"{value / 1e6:.3f}"


def _range(low: Any, high: Any, draw: Any = str) -> str:
    if low is None and high is None:
        return "-"
    if high is None:
        return f">= {draw(low)}"
    return str(draw(low)) if low == high else f"{draw(low)} .. {draw(high)}"


def fill_table(title: str, *columns: tuple[str, bool]) -> Table:
    """Return an empty table; columns are (name, is a number)."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    return table


def _head(console: Console, store: str, recording: dict[str, Any]) -> None:
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
    console.print(
        Text(
            f"{recording['events']} events, {recording['cpus']} CPUs, {recording['vcpus']} vCPUs, "
            f"{milliseconds(recording['duration_ns'])} ms recorded, "
            f"{milliseconds(recording['comparable_ns'])} ms on all CPUs, "
            f"lost: {'some, number unknown' if lost is None else lost}"
        )
    )


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
    console = _console()
    recording = answer["recording"]
    _head(console, store, recording)
    _asked(console, answer["asked"])
    console.print()
    table = fill_table(
        "swaps and residency", ("placement", False), ("loads", True), ("puts", True),
        ("loaded at start/end", True), ("residency ms", True), ("blind ms", True),
    )  # fmt: skip
    for p in answer["placements"]:
        table.add_row(
            p["name"],
            _range(p["loads_low"], p["loads_high"]),
            _range(p["puts_low"], p["puts_high"]),
            f"{p['loaded_at_start']}/{p['loaded_at_end']}",
            _range(p["residency_ns_low"], p["residency_ns_high"], milliseconds),
            _range(p["blind_ns_low"], p["blind_ns_high"], milliseconds),
        )
    console.print(table)
    console.print()
    kinds = ("kvm", "user", "interrupt", "other")
    table = fill_table("blind time, ms", ("placement", False), *((kind, True) for kind in kinds))
    for p in answer["placements"]:
        blind = p["blind_ns"]
        cells = [
            _range(blind[f"{kind}_low"], blind[f"{kind}_high"], milliseconds) for kind in kinds
        ]
        table.add_row(p["name"], *cells)
    console.print(table)
    console.print()
    table = fill_table(
        f"priced overhead ({', '.join(answer['placements'][0]['overhead']['cost_files'])})",
        ("placement", False), ("low ms", True), ("typical ms", True), ("high ms", True),
        ("% of guest time", True), ("on assumed", True),
    )  # fmt: skip
    for p in answer["placements"]:
        overhead = p["overhead"]
        percent = overhead["percent_of_guest_time"]
        share = "null"
        if percent is not None:
            share = " / ".join(
                "-" if percent[level] is None else f"{percent[level]:.2f}"
                for level in ("low", "typical", "high")
            )
        assumed = overhead["assumed_share"]
        cells = [milliseconds(overhead[f"{x}_ns"]) for x in ("low", "typical", "high")]
        table.add_row(p["name"], *cells, share, "-" if assumed is None else f"{assumed:.0%}")
    console.print(table)
    console.print()
    _breakdown(console, answer)
    for note in answer["notes"]:
        console.print(Text(note))
    _truth(console, answer["truth"])
    console.print(Text("rests on:"))
    for item in answer["assumptions"]:
        console.print(Text(f"  {item['id']}: {item['text']}"))
    if recording["emulated"] is True:
        console.print(Text("Times of an emulated machine mean nothing: no percentages, no rates."))


def _breakdown(console: Console, answer: dict[str, Any]) -> None:
    placements = answer["placements"]
    names = [(p["name"], True) for p in placements]
    table = fill_table("loads by exit reason", ("reason", False), ("exits", True), *names)
    for rows in zip(*(p["by_reason"] for p in placements), strict=True):
        loads = [_range(row["loads_low"], row["loads_high"]) for row in rows]
        nameless = "not recorded" if answer["notes"] else "none before"
        reason = escaped(rows[0]["reason"] or nameless)
        table.add_row(reason, str(rows[0]["exits"]), *loads)
    console.print(table)
    console.print()
    table = fill_table("loads by vCPU", ("tid", True), ("vcpu_id", True), *names)
    for at, vcpu in enumerate(answer["vcpus"]):
        mine = [p["by_vcpu"][at] for p in placements]
        loads = [_range(row["loads_low"], row["loads_high"]) for row in mine]
        number = "-" if vcpu["vcpu_id"] is None else str(vcpu["vcpu_id"])
        table.add_row(str(vcpu["tid"]), number, *loads)
    console.print(table)
    console.print()


def _truth(console: Console, truth: dict[str, Any] | None) -> None:
    if truth is None:
        console.print(Text("the kernel's own swaps: not recorded"))
        return
    predicted = _range(truth["predicted_loads_low"], truth["predicted_loads_high"])
    console.print(
        Text(
            f"the kernel's own swaps: {truth['recorded_loads']} loads, {truth['recorded_puts']} "
            f"puts recorded; loop predicted without looking at registers: {predicted} loads; "
            f"{truth['differences']} differences"
        )
    )


def print_info(store: str, answer: dict[str, Any]) -> None:
    """Draw the answer of `info`."""
    console = _console()
    _head(console, store, answer["recording"])
    console.print()
    table = fill_table("events", ("name", False), ("count", True))
    for name, count in sorted(answer["events"].items(), key=lambda item: (-item[1], item[0])):
        table.add_row(escaped(name), str(count))
    console.print(table)
    if answer["not_recorded"]:
        names = ", ".join(escaped(name) for name in answer["not_recorded"])
        console.print(Text(f"asked for, not recorded (absence means nothing): {names}"))
    console.print()
    table = fill_table(
        "exits", ("reason", False), ("count", True), ("exit to next entry, ms", True)
    )
    for reason, row in answer["exits"].items():
        table.add_row(escaped(reason), str(row["count"]), milliseconds(row["ns"]))
    console.print(table)
    console.print()
    table = fill_table(
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
            *cells, milliseconds(row["guest_ns"]), str(row["cpus"]), str(row["migrations"]), edges
        )
    console.print(table)
    console.print()
    table = fill_table(
        "windows, whole but for the losses below", ("cpu", True), ("from ns", True),
        ("to ns", True), ("events", True),
    )  # fmt: skip
    for row in answer["windows"]:
        table.add_row(*(str(row[key]) for key in ("cpu", "ts", "end", "events")))
    console.print(table)
    console.print()
    if answer["data_loss"]:
        table = fill_table(
            "data loss", ("cpu", True), ("from ns", True), ("to ns", True), ("cause", False),
            ("events", True),
        )  # fmt: skip
        for row in answer["data_loss"]:
            cells = [row[key] for key in ("cpu", "from", "to", "cause", "events")]
            table.add_row(*("-" if value is None else escaped(value) for value in cells))
        console.print(table)
        console.print()
    _trouble(console, answer)
    for item in answer["answers"]:
        word = (
            "yes"
            if item["answerable"]
            else f"no: lacks {', '.join(item['missing'])}; {item['remedy']}"
        )
        console.print(Text(f"{item['question']}: {word}"))


def _trouble(console: Console, answer: dict[str, Any]) -> None:
    from analyzer.trouble import COUNTERS

    found = [c for c in COUNTERS if answer["trouble"].get(c.name)]
    if not found:
        return
    table = fill_table(
        "trouble", ("what", False), ("count", True), ("meaning", False), ("advice", False)
    )
    for counter in found:
        count = str(answer["trouble"][counter.name])
        table.add_row(f"{counter.severity}: {counter.name}", count, counter.meaning, counter.advice)
    console.print(table)
    console.print()
