"""What does replaying cost? All shipped placements over a store with its points repeated.

`just bench-replay` ingests a shipped recording, repeats its points with shifted time to 1, 10 and
50 million, and replays all placements over each in a fresh process, then does a whole what-if in
another: CPU and wall seconds, peak memory, and the slope between one size and the next. Of the
store only the points are repeated, so a whole what-if reads the other tables of a short recording.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECORDING = Path(__file__).parent.parent / "fixtures" / "k73m-hostperf.pftrace.zst"
ROWS = 1 << 20


def make_store(folder: Path, points: int) -> Path:
    """Return a store with that many points, whole repetitions of the recording's."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from analyzer.pipeline import IngestOptions, ingest

    path = folder / f"{points}.vpmu"
    ingest(str(RECORDING), path, IngestOptions(emulated=True), lambda done, total: None)
    whole = pq.read_table(path / "point.parquet")
    length = int(np.ptp(whole["ts"].to_numpy())) + 1
    times = max(1, points // len(whole))
    each = max(1, ROWS // len(whole))
    with pq.ParquetWriter(
        path / "point.parquet", whole.schema, compression="zstd", compression_level=1
    ) as writer:
        for begin in range(0, times, each):
            parts = []
            for n in range(begin, min(times, begin + each)):
                ts = pa.array(whole["ts"].to_numpy() + n * length)
                parts.append(whole.set_column(0, whole.schema.field("ts"), ts))
            writer.write_table(pa.concat_tables(parts).combine_chunks())
    return path


def child(path: str, names: list[str], whole: bool) -> None:
    """Replay, or do a whole what-if, and print what it took as JSON."""
    from analyzer.pipeline import choose_designs, whatif
    from analyzer.pipeline.replays import replay_all
    from analyzer.replay import Part
    from analyzer.store import open_store

    store = open_store(Path(path))
    designs = choose_designs(names)
    cpu, wall = time.process_time(), time.perf_counter()
    if whole:
        whatif(store, designs)
    else:
        replay_all(store, designs, Part())
    took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    # Not getrusage's: that has the parent's in it, who made the store.
    status = Path("/proc/self/status").read_text()
    took["peak_mb"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(took))


def main() -> None:
    """Print a line for each size and question, and the slopes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--child", metavar="STORE")
    parser.add_argument("--whole", action="store_true", help="the child does a whole what-if")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--boundary", nargs="+", default=["all"])
    options = parser.parse_args()
    if options.child:
        child(options.child, options.boundary, options.whole)
        return
    before: dict[str, tuple[int, float]] = {}
    for millions in options.millions:
        with tempfile.TemporaryDirectory() as folder:
            path = make_store(Path(folder), millions * 10**6)
            for question, more in (("replay", []), ("what-if", ["--whole"])):
                command = [sys.executable, __file__, "--child", str(path), *more, "--boundary"]
                command += options.boundary
                # The first one compiles, and brings the file into memory.
                for _ in range(2):
                    out = subprocess.run(command, check=True, capture_output=True).stdout
                took = json.loads(out)
                line = f"{millions} million points, {question}: {took['cpu']:.2f} CPU s"
                print(f"{line}, {took['wall']:.2f} s, peak {took['peak_mb']:.0f} MB")
                if question in before:
                    size, cpu = before[question]
                    slope = (took["cpu"] - cpu) / (millions - size)
                    print(f"  slope: {slope:.3f} CPU s per million points")
                before[question] = millions, took["cpu"]


if __name__ == "__main__":
    main()
