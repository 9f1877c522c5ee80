"""How does the answer of `whatif` look on a terminal? A verdict, a table, what it rests on.

All that fits a screen for a handful of placements; what is longer comes with --full.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from analyzer.cli.conflicts import print_leaks, print_meetings
from analyzer.cli.drawing import escaped, in_ms, new_console, new_table, print_head, ranged

__all__ = ["print_whatif"]

LEVELS = ("low", "typical", "high")
ABREAST = 5
# What host perf does to a guest's state, the gravest first.
CAUSES = ("touches", "persists", "late", "new", "suppressed")


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


def print_whatif(store: str, answer: dict[str, Any], full: bool = False) -> None:
    """Draw the answer of `whatif`; full: with the long tables."""
    console = new_console()
    print_head(console, store, answer["recording"])
    _asked(console, answer["asked"])
    console.print()
    _verdict(console, answer)
    console.print()
    _table(console, answer)
    _truth(console, answer["truth"], answer["recorded"]["what"])
    first = answer["placements"][0]
    console.print(Text(f"feasible: {first['feasible']}: {first['because']}"))
    console.print()
    if full:
        _blind(console, answer["placements"])
        print_meetings(console, answer["placements"])
        print_leaks(console, answer["placements"])
        _guest(console, answer["placements"])
        _aside(console, answer["placements"])
        _breakdown(console, answer)
    for note in answer["notes"]:
        console.print(Text(note))
    _rests_on(console, answer, full)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:.2f}"


def _three(values: dict[str, Any]) -> str:
    return " / ".join(_short(values[level]) for level in LEVELS)


def _verdict(console: Console, answer: dict[str, Any]) -> None:
    verdict = answer["verdict"]
    of = "of those without conflicts" if verdict["conflicts_known"] else "(conflicts not known)"
    if verdict["cheapest"] is None:
        console.print(Text("verdict: none without conflicts has a price"))
    else:
        price = _three(verdict["overhead"])
        said = f"verdict: {verdict['cheapest']} is the cheapest {of}, priced {price} ms"
        console.print(Text(said))
    if verdict["next"] is not None:
        low, high = (_short(verdict["gap_ns"][end]) for end in ("low", "high"))
        sure = "" if verdict["is_decided"] else ": not decided, the order can turn"
        console.print(Text(f"next: {verdict['next']}, {low} .. {high} ms more{sure}"))
        flips = verdict["flips"]
        turns = "no single latency inside its range, the others typical"
        if flips is not None:
            turns = (
                f"{flips['operation']} at {flips['latency_ns']:.1f} ns instead of "
                f"{flips['typical_ns']:.1f}, to {flips['to']}"
            )
        console.print(Text(f"what would turn it: {turns}"))
    cheaper = verdict["cheaper"]
    if cheaper is not None:
        price = _short(cheaper["typical_ns"])
        name, met = cheaper["name"], cheaper["conflicts"]
        console.print(Text(f"cheaper still, but with {met} conflicts: {name}, {price} ms typical"))
    if verdict["cannot_tell"]:
        console.print(Text(f"not told by this recording: {'; '.join(verdict['cannot_tell'])}"))


def _met(p: dict[str, Any]) -> str:
    counts = p["conflicts"]["observed"]
    if counts is None:
        return "no evidence"
    worst = next((cause for cause in CAUSES if counts.get(cause)), None)
    return "none" if worst is None else f"{sum(counts.values())}, worst: {counts[worst]} {worst}"


def _table(console: Console, answer: dict[str, Any]) -> None:
    placements = answer["placements"]
    files = ", ".join(placements[0]["overhead"]["cost_files"])
    has_percent = any(p["overhead"]["percent_of_guest_time"] for p in placements)
    percent = (("% of guest", True),) if has_percent else ()
    table = new_table(
        f"priced with {files}, ms low / typical / high", ("placement", False), ("loads", True),
        ("overhead", True), *percent, ("blind ms", True), ("host perf meets it", False),
    )  # fmt: skip
    for p in placements:
        overhead = p["overhead"]
        price = {level: overhead[f"{level}_ns"] for level in LEVELS}
        cells = [ranged(p["loads_low"], p["loads_high"])]
        is_bound = overhead["typical_ns"] is None and overhead["high_ns"] is None
        cells.append(f">= {_short(price['low'])}" if is_bound else _three(price))
        if has_percent:
            share = overhead["percent_of_guest_time"]
            cells.append(
                "-" if share is None or share["typical"] is None else f"{share['typical']:.2f}"
            )
        blind = ranged(p["blind_ns_low"], p["blind_ns_high"], draw=lambda ns: f"{ns / 1e6:.1f}")
        table.add_row(p["label"], *cells, blind, _met(p))
    console.print(table)


def _blind(console: Console, every: list[dict[str, Any]]) -> None:
    kinds = ("kvm", "user", "interrupt", "other")
    table = new_table(
        "blind time, ms", ("placement", False), *((kind, True) for kind in kinds),
        ("loaded at start/end", True), ("residency ms", True),
    )  # fmt: skip
    # Options move no swap.
    for p in {p["name"]: p for p in every}.values():
        blind = p["blind_ns"]
        cells = [ranged(blind[f"{kind}_low"], blind[f"{kind}_high"], in_ms) for kind in kinds]
        cells.append(f"{p['loaded_at_start']}/{p['loaded_at_end']}")
        stays = ranged(p["residency_ns_low"], p["residency_ns_high"], in_ms)
        table.add_row(p["name"], *cells, stays)
    console.print(table)
    console.print()


def _us(values: dict[str, Any] | None) -> str:
    if values is None or values["typical"] is None:
        return "-"
    return f"{values['typical'] / 1e3:.2f}"


def _guest(console: Console, placements: list[dict[str, Any]]) -> None:
    table = new_table(
        "what the swaps do to the guest, typical prices", ("placement", False),
        ("critical ms", True), ("absorbed", True), ("entry us p50/p99/max", True),
        ("wake-up", True), ("irqs off/exit", True), ("longest stay ms", True),
    )  # fmt: skip
    for p in placements:
        effect, overhead = p["guest_effect"], p["overhead"]
        entry, woken = effect["entry_latency_ns"], effect["wakeup_latency_ns"]
        off = effect["interrupts_off"]
        shortest, longest = (effect[f"longest_residency_ns_{end}"] for end in ("low", "high"))
        table.add_row(
            p["label"],
            *(in_ms(overhead[f"{name}_ns"]) for name in ("critical", "absorbed")),
            "-" if entry is None else "/".join(_us(value) for value in entry.values()),
            "-" if woken is None else _us(woken["median"]),
            "-" if off is None else _us(off["per_exit_ns"]),
            ranged(shortest, longest, draw=lambda ns: f"{ns / 1e6:.1f}"),
        )
    console.print(table)
    console.print()


def _aside(console: Console, placements: list[dict[str, Any]]) -> None:
    table = new_table(
        "who must change what; what VMs pay that never use their PMU", ("placement", False),
        ("changes", False), ("needs", False), ("idle VMs, ms", True), ("swaps/s a CPU", True),
    )  # fmt: skip
    for p in {p["name"]: p for p in placements}.values():
        idle, rates = p["idle_guest_ns"], p["rates"]
        highest = [row["high"] for row in rates["swaps_per_second_by_cpu"]] if rates else []
        known = bool(highest) and None not in highest
        table.add_row(
            p["name"], escaped(", ".join(p["needs"]["changes"])), escaped(p["needs"]["hardware"]),
            _three(idle), f"<= {max(highest):.0f}" if known else "-",
        )  # fmt: skip
    console.print(table)
    console.print()


def _counted(row: dict[str, Any]) -> str:
    price = row["overhead_typical_ns"]
    loads = ranged(row["loads_low"], row["loads_high"])
    return loads if price is None else f"{loads}: {_short(price)}"


def _breakdown(console: Console, answer: dict[str, Any]) -> None:
    every = answer["placements"]
    # So many columns of numbers fit beside the names.
    for at in range(0, len(every), ABREAST):
        placements = every[at : at + ABREAST]
        names = [(p["label"], True) for p in placements]
        table = new_table(
            "loads by exit reason: typical ms", ("reason", False), ("exits", True), *names
        )
        for rows in zip(*(p["by_reason"] for p in placements), strict=True):
            nameless = "not recorded" if answer["notes"] else "none before"
            reason = escaped(rows[0]["reason"] or nameless)
            table.add_row(reason, str(rows[0]["exits"]), *(_counted(row) for row in rows))
        console.print(table)
        console.print()
        table = new_table("loads by vCPU: typical ms", ("tid", True), ("vcpu_id", True), *names)
        for n, vcpu in enumerate(answer["vcpus"]):
            number = "-" if vcpu["vcpu_id"] is None else str(vcpu["vcpu_id"])
            mine = [_counted(p["by_vcpu"][n]) for p in placements]
            table.add_row(str(vcpu["tid"]), number, *mine)
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


def _moves(moves: dict[str, Any] | None) -> str:
    # What an assumption would turn, behind its text; nothing where its ends are not known.
    if moves is None:
        return ""
    if not moves["turned"]:
        return " (turns no two of these placements)"
    first = f", the cheapest to {', '.join(moves['cheapest'])}" if moves["cheapest"] else ""
    pairs = len(moves["turned"])
    return f" (at its ends turns {pairs} pair{'s' * (pairs > 1)} of these placements{first})"


def _rests_on(console: Console, answer: dict[str, Any], full: bool) -> None:
    if full:
        console.print(Text("rests on:"))
        for item in answer["assumptions"]:
            console.print(Text(f"  {item['id']}: {item['text']}{_moves(item['moves'])}"))
    else:
        names = ", ".join(item["id"] for item in answer["assumptions"])
        shares = [p["overhead"]["assumed_share"] for p in answer["placements"]]
        known = [share for share in shares if share is not None]
        if known:
            console.print(Text(f"of these prices up to {max(known):.0%} is assumed latencies"))
        console.print(Text(f"rests on: {names} (--full says what each means, and has more tables)"))
        turning = [a["id"] for a in answer["assumptions"] if a["moves"] and a["moves"]["cheapest"]]
        if turning:
            console.print(Text(f"of these can turn which is the cheapest: {', '.join(turning)}"))
    if answer["recording"]["emulated"] is True:
        console.print(Text("Times of an emulated machine mean nothing: no percentages, no rates."))
