"""How long do ten thousand cost points over twenty placements take?

Part of `just bench`: the algebra alone (sampling, pricing, who is cheapest), on random counts of
the size that a what-if has; no recording is needed, since no replay is.
"""

from __future__ import annotations

import time

import numpy as np

from analyzer.replay import algebra

PLACEMENTS, OPERATIONS, POINTS, TIMES = 20, 30, 10_000, 7


def main() -> None:
    """Print the least and the median of a few runs, in CPU seconds."""
    random = np.random.default_rng(3)
    counts = np.sort(random.random((PLACEMENTS, 3, OPERATIONS)) * 1e6, axis=1)
    latencies = np.sort(random.random((3, OPERATIONS)) * 1e3, axis=0)
    took = []
    for _ in range(TIMES):
        begin = time.process_time()
        points = algebra.sample_between(latencies[0], latencies[2], POINTS)
        along = points[:, 0] / latencies[2, 0]
        overheads = algebra.sweep(counts[:, 0], counts[:, 2], points, along)
        algebra.cheapest_share(overheads, np.ones(PLACEMENTS, bool))
        took.append(time.process_time() - begin)
    print(
        f"{POINTS} cost points, {PLACEMENTS} placements: "
        f"{min(took):.3f} CPU s at least, {np.median(took):.3f} median"
    )


if __name__ == "__main__":
    main()
