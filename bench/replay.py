"""What does replaying cost? All shipped placements over a store with its points repeated.

`just bench-replay` ingests a shipped recording, repeats its points with shifted time to 1, 10 and
50 million, and replays all placements over each in a fresh process: CPU and wall seconds, peak
memory, and the slope between one size and the next.
"""

from __future__ import annotations

import argparse
import json
import resource
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


def child(path: str, names: list[str]) -> None:
    """Run one what-if and print what it took as JSON."""
    from analyzer.pipeline import choose_designs
    from analyzer.pipeline.replays import replay_all
    from analyzer.replay import Part
    from analyzer.store import open_store

    store = open_store(Path(path))
    designs = choose_designs(names)
    cpu, wall = time.process_time(), time.perf_counter()
    replay_all(store, designs, Part())
    took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    took["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took["points"] = store.manifest["tables"]["point"]
    print(json.dumps(took))


def main() -> None:
    """Print one line a size, and the slope."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--child", metavar="STORE")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--boundary", nargs="+", default=["all"])
    options = parser.parse_args()
    if options.child:
        child(options.child, options.boundary)
        return
    before: tuple[int, float] | None = None
    for millions in options.millions:
        with tempfile.TemporaryDirectory() as folder:
            path = make_store(Path(folder), millions * 10**6)
            command = [sys.executable, __file__, "--child", str(path), "--boundary"]
            command += options.boundary
            took = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            took = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        line = f"{millions} million points: {took['cpu']:.2f} CPU s, {took['wall']:.2f} s"
        print(f"{line}, peak {took['peak_mb']:.0f} MB")
        if before is not None:
            slope = (took["cpu"] - before[1]) / (millions - before[0])
            print(f"  slope: {slope:.3f} CPU s per million points")
        before = (millions, took["cpu"])


if __name__ == "__main__":
    main()
