"""How long a trace.dat can we make of a short one? Its pages again and again, with shifted times.

A page's times are its own u64 plus deltas, so moving that number moves all of the page; a source
with absolute stamps inside its pages would not do and is refused.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import zstandard

__all__ = ["SOURCE", "make_trace_dat"]

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "fixtures" / "k73m-guestpmu-v6.trace.dat.zst"
EVENTS = 27_620  # in SOURCE, by trace-cmd report
PAGE = 4096


def make_trace_dat(path: Path, events: int) -> int:
    """Write SOURCE (version 6) repeated to at least `events` events; return how many there are."""
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(SOURCE.read_bytes())
    copies = -(-events // EVENTS)
    table = raw.index(b"flyrecord\0") + 10
    places = [struct.unpack_from("<QQ", raw, table + 16 * cpu) for cpu in range(2)]
    first = min(offset for offset, _ in places)
    cpus = [
        np.frombuffer(raw, "<u8", size // 8, offset).reshape(-1, PAGE // 8)
        for offset, size in places
    ]
    for pages in cpus:
        # Heads of absolute stamps have the type 31; the first event of a page shows them.
        if (pages[:, 2] & 31 == 31).any():
            raise SystemExit(f"{SOURCE.name}: absolute stamps inside its pages")
    times = np.concatenate([pages[:, 0] for pages in cpus])
    step = int(times.max() - times.min()) + 100_000_000
    head = bytearray(raw[:first])
    at = first
    for cpu, (_, size) in enumerate(places):
        struct.pack_into("<QQ", head, table + 16 * cpu, at, size * copies)
        at += size * copies
    with path.open("wb") as out:
        out.write(head)
        for pages in cpus:
            for copy in range(copies):
                shifted = pages.copy()
                shifted[:, 0] += np.uint64(step * copy)
                out.write(shifted.tobytes())
    return EVENTS * copies
