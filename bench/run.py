"""How fast is ingest, and in how much memory, beside peers on the same file in one run?

`just bench` repeats a shipped recording with shifted time to 1 and to 10 million events, ingests
both in fresh processes after one warm-up, and prints CPU seconds per million events as the slope
between the two (so start-up counts for nothing), peak memory, and what protobuf needs to parse the
smaller file and to read kind, time and pid of each event.

With --trace-processor (or VPMU_BENCH_TRACE_PROCESSOR) naming the query.mjs of a Perfetto trace
processor in wasm, that one loads the smaller file too and counts its events by name. A native build
is faster, so its number is no measure of Perfetto; it is another whole reading on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zstandard

ROOT = Path(__file__).resolve().parents[1]
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


def child_ingest(path: str) -> dict[str, Any]:
    """Ingest in this process: CPU seconds by part, and peak memory."""
    start = time.process_time()
    from analyzer.arch import family_of_machine
    from analyzer.readers.recording import ReadOptions
    from analyzer.readers.registry import find_reader
    from analyzer.store import StoreWriter
    from analyzer.timeline import Timeline
    from analyzer.trouble import Trouble

    ready = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        writer, timeline = StoreWriter(Path(folder) / "x.vpmu"), Timeline()
        opened = find_reader(path, path).open(path, ReadOptions(), Trouble())
        feeding = 0.0
        for batch in opened.batches(lambda done, total: None):
            for name, rows in batch.tables.items():
                writer.append(name, rows)
            before = time.process_time()
            timeline.feed(batch.stream)
            feeding += time.process_time() - before
        recorded = time.process_time()
        for name, rows in timeline.tables(
            opened.facts, family_of_machine(opened.facts.machine), None
        ):
            writer.append(name, rows)
        writer.finish({})
        done = time.process_time()
    return {
        "start": ready - start,
        "recorded": recorded - ready - feeding,
        "timeline": done - recorded + feeding,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "PATH"))
    parser.add_argument("--small", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    parser.add_argument(
        "--trace-processor",
        metavar="QUERY_MJS",
        default=os.environ.get("VPMU_BENCH_TRACE_PROCESSOR"),
    )
    options = parser.parse_args()
    if options.child:
        what, path = options.child
        print(json.dumps(child_ingest(path) if what == "ingest" else child_protobuf(path)))
        return
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        n_small, n_large = (
            make_recording(small, options.small),
            make_recording(large, options.large),
        )
        measure("ingest", small)
        few, many, peer = (
            measure("ingest", small),
            measure("ingest", large),
            measure("protobuf", small),
        )
        script = options.trace_processor
        wasm = measure_trace_processor(script, small) if script else None
    millions = (n_large - n_small) / 1e6
    for name in ("recorded", "timeline"):
        print(f"{name}: {(many[name] - few[name]) / millions:.3f} CPU s per million events")
    print(f"start-up: {few['start']:.2f} CPU s; peak {few['peak_mb']:.0f} MB at {n_small} events,")
    print(f"  {many['peak_mb']:.0f} MB at {n_large}")
    per_million = n_small / 1e6
    print(
        f"protobuf: parse {peer['parse'] / per_million:.3f}, read kind, time and pid "
        f"{peer['read'] / per_million:.3f} CPU s per million; peak {peer['peak_mb']:.0f} MB"
    )
    if wasm is not None:
        ours = (few["recorded"] + few["timeline"]) / per_million
        print(f"trace processor (wasm): load and count by name {wasm / per_million:.3f} CPU s per")
        print(f"  million; ours on that file, to a whole store: {ours:.3f}")


if __name__ == "__main__":
    main()
