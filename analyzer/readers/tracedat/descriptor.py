"""Is this file a trace.dat? What the registry knows of the format before it reads one."""

from __future__ import annotations

from analyzer.readers.recording import ReaderDescriptor, ReadOptions, Recording
from analyzer.readers.tracedat.head import MAGIC
from analyzer.trouble import Trouble

__all__ = ["DESCRIPTOR"]


def _sniff(head: bytes) -> bool:
    return head.startswith(MAGIC)


def _open(path: str, options: ReadOptions, trouble: Trouble) -> Recording:
    # Only now: a reader's kernels are compiled when they are imported, needed or not.
    from analyzer.readers.tracedat.reader import TraceDatRecording

    return TraceDatRecording(path, options, trouble)


DESCRIPTOR = ReaderDescriptor("trace.dat", _sniff, _open)
