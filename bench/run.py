"""How fast is ingest, and in how much memory, beside peers on the same file in one run?

`just bench` repeats a shipped recording with shifted time to 1 and to 10 million events, ingests
both in fresh processes after one warm-up, and prints CPU seconds per million events as the slope
between the two (so start-up counts for nothing), peak memory, and what protobuf needs to parse the
smaller file and to read kind, time and pid of each event. Then the same for a trace.dat, beside
`trace-cmd report` if that is installed.

With --trace-processor (or VPMU_BENCH_TRACE_PROCESSOR) naming the query.mjs of a Perfetto trace
processor in wasm, that one loads the smaller file too and counts its events by name. A native build
is faster, so its number is no measure of Perfetto; it is another whole reading on this machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard
from tracedat import make_trace_dat

ROOT = Path(__file__).resolve().parents[1]
# Tables that come of attribution and inference; recorded ones come with the batches, and all else
# is the timeline's.
ATTRIBUTION = {"pmu_attribution", "function_attribution", "recorded_swap", "host_episode"}
PARTS = ("read", "stored", "timeline", "attribution")
SOURCE = ROOT / "fixtures" / "k73m-hostperf.pftrace.zst"


def make_recording(path: Path, events: int) -> int:
    """Write SOURCE repeated to at least `events` events; return how many there are."""
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2

    trace = perfetto_trace_pb2.Trace()
    trace.ParseFromString(
        zstandard.ZstdDecompressor().decompressobj().decompress(SOURCE.read_bytes())
    )
    head, bundles = perfetto_trace_pb2.Trace(), perfetto_trace_pb2.Trace()
    for packet in trace.packet:
        if packet.HasField("ftrace_events"):
            bundles.packet.append(packet)
        elif packet.HasField("system_info") or packet.HasField("trace_config"):
            head.packet.append(packet)
    count, last = 0, 0
    for packet in bundles.packet:
        bundle = packet.ftrace_events
        count += len(bundle.event) + len(bundle.compact_sched.switch_timestamp)
        count += len(bundle.compact_sched.waking_timestamp)
        last = max(last, max((event.timestamp for event in bundle.event), default=0))
    first = min(e.timestamp for p in bundles.packet for e in p.ftrace_events.event[:1])
    step, total = last - first + 1_000_000, 0
    with path.open("wb") as out:
        out.write(head.SerializeToString())
        while total < events:
            out.write(bundles.SerializeToString())
            total += count
            for packet in bundles.packet:
                bundle = packet.ftrace_events
                for event in bundle.event:
                    event.timestamp += step
                for column in (
                    bundle.compact_sched.switch_timestamp,
                    bundle.compact_sched.waking_timestamp,
                ):
                    if column:
                        column[0] += step
                if bundle.previous_bundle_end_timestamp:
                    bundle.previous_bundle_end_timestamp += step
    return total


class Clock:
    """CPU seconds of this process by part; what runs inside a part that is named is not in it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._part, self._since = "start", time.process_time()

    def turn(self, part: str) -> str:
        """Begin a part and return the one that ran until now."""
        now, before = time.process_time(), self._part
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._part, self._since = part, now
        return before

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted to a part."""

        def call(*arguments: Any) -> Any:
            before = self.turn(part)
            try:
                return function(*arguments)
            finally:
                self.turn(before)

        return call

    def timed_rows(self, part: str, function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        """Return the generator with its time counted to a part."""

        def rows(*arguments: Any) -> Iterator[Any]:
            made = function(*arguments)
            following = self.timed(part, lambda: next(made, None))
            while (item := following()) is not None:
                yield item

        return rows


def child_ingest(path: str) -> dict[str, Any]:
    """Ingest in this process: CPU seconds by part, and peak memory."""
    clock = Clock()
    from analyzer.arch import family_of_machine
    from analyzer.pipeline.vendor import VendorEvidence
    from analyzer.readers.recording import ReadOptions
    from analyzer.readers.registry import find_reader
    from analyzer.store import StoreWriter
    from analyzer.timeline import Timeline, build
    from analyzer.timeline.attribution.run import Attribution
    from analyzer.timeline.inference.run import Inference
    from analyzer.trouble import Trouble

    # Readers come with their file, but are part of the start and not of what was recorded.
    importlib.import_module("analyzer.readers.perfetto.reader")
    importlib.import_module("analyzer.readers.tracedat.reader")
    vars(build)["beside"] = clock.timed_rows("attribution", build.beside)
    Attribution.marks = clock.timed("attribution", Attribution.marks)  # type: ignore[method-assign]
    Attribution.rows = clock.timed_rows("attribution", Attribution.rows)  # type: ignore[method-assign]
    Inference.feed = clock.timed("attribution", Inference.feed)  # type: ignore[method-assign]
    clock.turn("read")
    with tempfile.TemporaryDirectory() as folder:
        writer, timeline = StoreWriter(Path(folder) / "x.vpmu"), Timeline()
        trouble, evidence = Trouble(), VendorEvidence()
        opened = find_reader(path, path).open(path, ReadOptions(), trouble)
        store, feed = clock.timed("stored", writer.append), clock.timed("timeline", timeline.feed)
        for batch in opened.batches(lambda done, total: None):
            for name, rows in batch.tables.items():
                store(name, rows)
            evidence.take(batch.tables)
            feed(batch.stream)
        clock.turn("timeline")
        family = family_of_machine(opened.facts.machine)
        vendor = evidence.vendor(family, None, trouble)
        store = clock.timed("attribution", writer.append)
        for name, rows in timeline.tables(opened.facts, family, vendor):
            (store if name in ATTRIBUTION else writer.append)(name, rows)
        evidence.correct_names(vendor, writer)
        writer.finish({})
        clock.turn("done")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**clock.seconds, "peak_mb": peak}


def child_protobuf(path: str) -> dict[str, Any]:
    """Parse with protobuf and read kind, time and pid of each event, in this process."""
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2

    start = time.process_time()
    trace = perfetto_trace_pb2.Trace()
    trace.ParseFromString(Path(path).read_bytes())
    parsed = time.process_time()
    kinds: dict[Any, int] = {}
    for packet in trace.packet:
        for event in packet.ftrace_events.event:
            key = event.WhichOneof("event")
            kinds[key] = kinds.get(key, 0) + (event.timestamp >= 0) + (event.pid < 0)
    read = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"parse": parsed - start, "read": read - parsed, "peak_mb": peak}


def measure(what: str, path: Path) -> dict[str, Any]:
    """Run one child on a file and return what it printed."""
    command = [sys.executable, __file__, "--child", what, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure_trace_processor(script: str, path: Path) -> float:
    """Return CPU seconds to load a file and count its events by name, less those of the start."""

    def cpu_seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["node", script, *arguments], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    query = "select name, count(*) as n from ftrace_event group by name"
    return cpu_seconds(str(path), query) - cpu_seconds("--version")


def report_seconds(path: Path) -> float:
    """Return the CPU seconds of `trace-cmd report -N -R` on a file."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["trace-cmd", "report", "-N", "-R", "-i", str(path)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def slopes(
    make: Callable[[Path, int], int], small: int, large: int, peer: Callable[[Path, int], None]
) -> None:
    """Measure ingest of two lengths of one recording and print the slope; then ask the peer."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "small", Path(folder) / "large"
        n_short, n_long = make(short, small), make(long, large)
        measure("ingest", short)
        few, many = measure("ingest", short), measure("ingest", long)
        millions = (n_long - n_short) / 1e6
        slope = {name: (many[name] - few[name]) / millions for name in PARTS}
        for name in PARTS:
            print(f"  {name}: {slope[name]:.3f} CPU s per million events")
        recorded = slope["read"] + slope["stored"]
        print(f"  recorded tables: {recorded:.3f}; all: {sum(slope.values()):.3f}")
        print(f"  start-up: {few['start']:.2f} CPU s; peak {few['peak_mb']:.0f} MB at {n_short}")
        print(f"  events, {many['peak_mb']:.0f} MB at {n_long}")
        peer(short, n_short)


def ask_protobuf(path: Path, events: int) -> None:
    """Print what protobuf needs for the same file."""
    peer = measure("protobuf", path)
    millions = events / 1e6
    print(
        f"  protobuf: parse {peer['parse'] / millions:.3f}, read kind, time and pid "
        f"{peer['read'] / millions:.3f} CPU s per million; peak {peer['peak_mb']:.0f} MB"
    )


def ask_trace_cmd(path: Path, events: int) -> None:
    """Print what trace-cmd needs for the same file, and for one of a tenth less its slope."""
    if shutil.which("trace-cmd") is None:
        print("  trace-cmd is not installed: no peer")
        return
    with tempfile.TemporaryDirectory() as folder:
        tenth = Path(folder) / "tenth"
        n_tenth = make_trace_dat(tenth, events // 10)
        slope = (report_seconds(path) - report_seconds(tenth)) / ((events - n_tenth) / 1e6)
    print(f"  trace-cmd report: {slope:.3f} CPU s per million events")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "PATH"))
    parser.add_argument("--small", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    parser.add_argument(
        "--trace-processor",
        metavar="QUERY_MJS",
        default=os.environ.get("VPMU_BENCH_TRACE_PROCESSOR"),
    )
    parser.add_argument("--only", choices=("perfetto", "trace.dat"))
    options = parser.parse_args()
    if options.child:
        what, path = options.child
        print(json.dumps(child_ingest(path) if what == "ingest" else child_protobuf(path)))
        return
    script = options.trace_processor

    def ask_perfettos_peers(path: Path, events: int) -> None:
        ask_protobuf(path, events)
        if script:
            wasm = measure_trace_processor(script, path) / (events / 1e6)
            print(f"  trace processor (wasm), load and count by name: {wasm:.3f} CPU s per million")

    if options.only in (None, "perfetto"):
        print("Perfetto")
        slopes(make_recording, options.small, options.large, ask_perfettos_peers)
    if options.only in (None, "trace.dat"):
        print("trace.dat")
        slopes(make_trace_dat, options.small, options.large, ask_trace_cmd)


if __name__ == "__main__":
    main()
