"""Which commands are there? Parsing and exit codes; pipeline works and render draws."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.placements import placements
from analyzer.errors import UsageError, VpmuError

if TYPE_CHECKING:
    from analyzer.store import Store

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="What would each placement of the guest-PMU swap have cost and blinded on this host?",
)
app.add_typer(placements, name="placement")
Emulated = Annotated[
    str | None,
    typer.Option("--emulated", help="yes or no: was the recorded machine emulated (or a guest)?"),
]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Perf = Annotated[
    list[str] | None, typer.Option("--perf", help="told, untold: is perf told at the boundary?")
]
Hook = Annotated[
    list[str] | None,
    typer.Option("--hook", help="perf, notifier: which hook swaps at a context switch?"),
]
HostEvent = Annotated[
    list[str] | None,
    typer.Option("--host-event", help="what ran beside it: cycles,freq=997,cpu=all (repeatable)"),
]
HostEvents = Annotated[
    list[Path] | None,
    typer.Option("--host-events", help="TOML file of what ran: [[event]] type, sample_freq, …"),
]
Guard = Annotated[
    list[str] | None,
    typer.Option(
        "--guard", help="one set: irq_off,nmi_guard,dedicated_vector, fewer of them, or none"
    ),
]
Clearing = Annotated[
    list[str] | None,
    typer.Option("--clearing", help="blind, dirty, none: what a put writes to guest counters"),
]
Selective = Annotated[
    list[str] | None,
    typer.Option("--selective", help="yes, no: do only counters that are enabled move?"),
]
Own = Annotated[
    list[Path] | None,
    typer.Option(
        "--placement", help="a design of your own, beside --boundary's; docs/placements.md"
    ),
]
From = Annotated[
    float | None, typer.Option("--from", help="count from this second of the recording on")
]
To = Annotated[float | None, typer.Option("--to", help="count up to this second")]
Cpu = Annotated[
    str | None, typer.Option("--cpu", "-C", help="count on these CPUs only, as in 0,2-3")
]
Vcpu = Annotated[
    str | None, typer.Option("--vcpu", help="count these vCPUs only, by the tids that info shows")
]
DAMAGED = 3
# Of numbers in one range of --cpu or --vcpu; chosen by us, above any host's CPUs.
RANGE_LIMIT = 65536
# Chosen by us: more than any screen has columns, and rows enough to plot from.
BUCKET_LIMIT = 100_000


def _flag(emulated: str | None) -> bool | None:
    if emulated not in (None, "yes", "no"):
        raise UsageError(f"--emulated is {emulated!r}; allowed: yes, no")
    return None if emulated is None else emulated == "yes"


def _words(items: list[str] | None) -> list[str] | None:
    # Comma lists, repeatable.
    return None if items is None else [word for item in items for word in item.split(",") if word]


def _numbers(flag: str, text: str | None) -> tuple[int, ...]:
    # "0,2-3", as perf and trace-cmd take it.
    found: set[int] = set()
    for item in (text or "").split(",") if text is not None else ():
        low, dash, high = item.partition("-")
        if not (low.isdecimal() and (high.isdecimal() or not dash)) or len(item) > 20:
            raise UsageError(f"{flag} is {text!r}; allowed: numbers and ranges, as in 0,2-3")
        last = int(high or low)
        if not int(low) <= last < int(low) + RANGE_LIMIT:
            raise UsageError(f"{flag} has the range {item}; allowed: up to {RANGE_LIMIT} upwards")
        found.update(range(int(low), last + 1))
    return tuple(sorted(found))


def _ingest(recording: str, target: Path | None, options: Any) -> Store:
    from analyzer.cli.progress import progress_bar
    from analyzer.pipeline import ingest

    with progress_bar(os.path.basename(recording)) as progress:
        return ingest(recording, target, options, progress)


def _report_damage(store: Store) -> int:
    for line in store.manifest["damage"]:
        print(line, file=sys.stderr)
    return DAMAGED if store.manifest["damage"] else 0


def _open(name: str | None, options: Any) -> tuple[Store, int]:
    # A store, or a recording that is ingested first; the exit code tells of damage met then.
    from analyzer.store import find_store

    if name is None or os.path.isdir(name):
        if options.host_events:
            problem = "--host-event says what ran beside a recording; allowed: with a TRACE"
            raise UsageError(f"{problem}, not with a store: ingest it again")
        return find_store(name), 0
    store = _ingest(name, None, options)
    print(f"store: {store.path}", file=sys.stderr)
    return store, _report_damage(store)


def _announce() -> None:
    # First of all in every command: kernels with fixed signatures compile when they are imported.
    from analyzer.cli.progress import announce_compilation

    announce_compilation()


@app.command("ingest")
def ingest_command(
    recordings: Annotated[list[str], typer.Argument(metavar="TRACE…", help="recordings")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="store to write")] = None,
    emulated: Emulated = None,
    vendor: Annotated[
        str | None, typer.Option(help="GenuineIntel or AuthenticAMD, where nothing recorded tells")
    ] = None,
    machine: Annotated[int | None, typer.Option(help="machine_id whose events are wanted")] = None,
    host_event: HostEvent = None,
    host_events: HostEvents = None,
    json_output: Json = False,
) -> None:
    """Turn recordings into stores of Parquet tables."""
    _announce()
    from analyzer.pipeline import IngestOptions, host_events_of

    stated = host_events_of(host_event, host_events)
    if output is not None and len(recordings) > 1:
        raise UsageError("-o names one store, but more than one recording is given")
    if vendor not in (None, "GenuineIntel", "AuthenticAMD"):
        raise UsageError(f"--vendor is {vendor!r}; allowed: GenuineIntel, AuthenticAMD")
    code, made = 0, []
    for recording in recordings:
        options = IngestOptions(_flag(emulated), vendor, machine, stated)
        store = _ingest(recording, output, options)
        code = max(code, _report_damage(store))
        about = store.manifest["recording"]
        made.append({"store": str(store.path), "recording": about})
        if not json_output:
            print(f"{store.path}: {about['events']} events")
    if json_output:
        from analyzer.cli.render import print_json

        print_json({"schema": "vpmu-analyzer/ingest/1", "stores": made})
    raise typer.Exit(code)


@app.command("info")
def info_command(
    source: Annotated[str | None, typer.Argument(metavar="[STORE|TRACE]")] = None,
    emulated: Emulated = None,
    json_output: Json = False,
) -> None:
    """Show what a recording holds, what is missing, and which questions it can answer."""
    _announce()
    from analyzer.cli import render
    from analyzer.pipeline import IngestOptions, info_of

    store, code = _open(source, IngestOptions(_flag(emulated)))
    answer = info_of(store)
    render.print_json(answer) if json_output else render.print_info(str(store.path), answer)
    raise typer.Exit(code)


@app.command("whatif")
def whatif_command(
    source: Annotated[str | None, typer.Argument(metavar="[STORE|TRACE]")] = None,
    boundary: Annotated[
        list[str] | None, typer.Option("--boundary", "-b", help="exit, loop, vcpu, sched or all")
    ] = None,
    cost: Annotated[str | None, typer.Option(help="cost file: a name or a path")] = None,
    from_s: From = None,
    to_s: To = None,
    cpu: Cpu = None,
    vcpu: Vcpu = None,
    perf: Perf = None,
    hook: Hook = None,
    guard: Guard = None,
    clearing: Clearing = None,
    selective: Selective = None,
    own: Own = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="what would turn the answer: latencies, HZ, exits")
    ] = False,
    by_time: Annotated[
        bool, typer.Option("--by-time", help="with --json: loads, puts and blind time by bucket")
    ] = False,
    buckets: Annotated[int, typer.Option(help="of time, for --by-time and its table")] = 100,
    full: Annotated[
        bool, typer.Option("--full", help="the long tables, too: by exit reason, by vCPU, …")
    ] = False,
    emulated: Emulated = None,
    host_event: HostEvent = None,
    host_events: HostEvents = None,
    json_output: Json = False,
) -> None:
    """Replay placements of the swap over a recording: swaps, overhead, blind time."""
    _announce()
    from analyzer.cli import render, render_whatif
    from analyzer.pipeline import Asked, IngestOptions, choose_designs, host_events_of, whatif

    designs = choose_designs(
        _words(boundary) or ["all"], _words(perf), _words(hook), guard, _words(clearing), own,
        _words(selective),
    )  # fmt: skip
    if not 1 <= buckets <= BUCKET_LIMIT:
        raise UsageError(f"--buckets is {buckets}; allowed: 1 to {BUCKET_LIMIT}")
    flag = _flag(emulated)
    asked = Asked(from_s, to_s, _numbers("--cpu", cpu), _numbers("--vcpu", vcpu))
    stated = host_events_of(host_event, host_events)
    store, code = _open(source, IngestOptions(flag, host_events=stated))
    answer = whatif(store, designs, cost, flag, asked, sensitivity, by_time, buckets)
    if json_output:
        render.print_json(answer)
    else:
        render_whatif.print_whatif(str(store.path), answer, full)
        if sensitivity:
            from analyzer.cli.render_costs import print_sensitivity

            print_sensitivity(answer)
    raise typer.Exit(code)


@app.command("calibrate")
def calibrate_command(
    source: Annotated[str | None, typer.Argument(metavar="[STORE|TRACE]")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="cost file to write, NAME.toml")
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="cost file to inherit from: a name or a path")
    ] = None,
    emulated: Emulated = None,
    json_output: Json = False,
) -> None:
    """Fit latencies of register accesses from a recording of a real machine."""
    _announce()
    from analyzer.cli import render, render_costs
    from analyzer.pipeline import IngestOptions, calibrate, write_cost_file

    flag = _flag(emulated)
    store, code = _open(source, IngestOptions(flag))
    answer = calibrate(store, cost, flag)
    if output is not None:
        answer = write_cost_file(answer, output)
    render.print_json(answer) if json_output else render_costs.print_calibration(answer)
    raise typer.Exit(code)


@app.command("conflicts")
def conflicts_command(
    source: Annotated[str | None, typer.Argument(metavar="[STORE|TRACE]")] = None,
    boundary: Annotated[
        list[str] | None, typer.Option("--boundary", "-b", help="exit, loop, vcpu, sched or all")
    ] = None,
    perf: Perf = None,
    hook: Hook = None,
    guard: Guard = None,
    clearing: Clearing = None,
    selective: Selective = None,
    own: Own = None,
    context: Annotated[
        str | None, typer.Option(help="only this context: tick, mux_timer, ipi, nmi, …")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", help="rows to list, 0: all")] = 20,
    from_s: From = None,
    to_s: To = None,
    cpu: Cpu = None,
    vcpu: Vcpu = None,
    emulated: Emulated = None,
    json_output: Json = False,
) -> None:
    """List what host perf would have met, with the recorded events around each."""
    _announce()
    from analyzer.cli.conflicts import print_conflicts
    from analyzer.cli.render import print_json
    from analyzer.pipeline import Asked, IngestOptions, choose_designs, conflicts_of

    designs = choose_designs(
        _words(boundary) or ["vcpu"], _words(perf), _words(hook), guard, _words(clearing), own,
        _words(selective),
    )  # fmt: skip
    if limit < 0:
        raise UsageError(f"--limit is {limit}; allowed: 0 or more")
    asked = Asked(from_s, to_s, _numbers("--cpu", cpu), _numbers("--vcpu", vcpu))
    store, code = _open(source, IngestOptions(_flag(emulated)))
    answer = conflicts_of(store, designs, context, limit or None, asked)
    print_json(answer) if json_output else print_conflicts(str(store.path), answer)
    raise typer.Exit(code)


@app.command("claims")
def claims_command(
    source: Annotated[str | None, typer.Argument(metavar="[STORE|TRACE]")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="these claims: c5,c8")] = None,
    threshold: Annotated[
        list[str] | None, typer.Option("--threshold", help="move one: c1.saving=0.002")
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option("--thresholds", help="file of thresholds over the shipped ones")
    ] = None,
    cost: Annotated[str | None, typer.Option(help="cost file: a name or a path")] = None,
    emulated: Emulated = None,
    json_output: Json = False,
) -> None:
    """Decide each claim of the argument for this recording: holds, fails or no evidence."""
    _announce()
    from analyzer.claims import choose_claims, decide, load_thresholds
    from analyzer.cli.claims import print_claims
    from analyzer.cli.render import print_json
    from analyzer.pipeline import IngestOptions

    limits, flag, chosen = (
        load_thresholds(thresholds, threshold or ()),
        _flag(emulated),
        _words(only),
    )
    choose_claims(chosen)  # a name that is unknown is refused before the work
    store, code = _open(source, IngestOptions(flag))
    answer = decide(store, chosen, limits, cost, flag)
    print_json(answer) if json_output else print_claims(str(store.path), answer)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line; every refusal is one line on stderr and an exit code."""
    try:
        # Without standalone mode typer.Exit comes back as a number.
        sys.exit(app(standalone_mode=False, prog_name="analyzer") or 0)
    except VpmuError as error:
        print(f"analyzer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("analyzer: interrupted; nothing was left behind", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (head, less): that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # click's own errors, without importing its private copy by name
        code = getattr(error, "exit_code", None)
        show = getattr(error, "show", None)
        if code is None:
            raise
        if show is not None:
            show()
        sys.exit(code)
