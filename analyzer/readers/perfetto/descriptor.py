"""Is this file a Perfetto trace? What the registry knows of the format before it reads one."""

from __future__ import annotations

import numpy as np

from analyzer.readers.recording import ReaderDescriptor, ReadOptions, Recording
from analyzer.trouble import Trouble

__all__ = ["DESCRIPTOR"]


def _sniff(head: bytes) -> bool:
    # A run of `packet` fields has no magic: the first must be one, not empty, and begin with a
    # plausible field. 0x0a alone is also a line feed in text.
    if len(head) < 4 or head[0] != 0x0A:
        return False
    from analyzer.readers.perfetto import layout

    buf = np.frombuffer(bytearray(head[:16]), np.uint8)
    body, length = layout.packet_extent(buf, 0, buf.size)
    if length < 2 or body >= buf.size:
        return False
    return bool((buf[body] & 7) in (0, 1, 2, 5) and buf[body] >= 8)


def _open(path: str, options: ReadOptions, trouble: Trouble) -> Recording:
    # Only now: a reader's kernels are compiled when they are imported, needed or not.
    from analyzer.readers.perfetto.reader import PerfettoRecording

    return PerfettoRecording(path, options, trouble)


DESCRIPTOR = ReaderDescriptor("perfetto", _sniff, _open)
