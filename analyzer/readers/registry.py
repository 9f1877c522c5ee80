"""Which formats can be read, and which of them is this file?"""

from __future__ import annotations

from analyzer.errors import FormatError, InputError
from analyzer.readers.perfetto.descriptor import DESCRIPTOR as PERFETTO
from analyzer.readers.recording import ReaderDescriptor
from analyzer.readers.tracedat.descriptor import DESCRIPTOR as TRACE_DAT

__all__ = ["READERS", "find_reader"]

# One line a format, asked in this order: the more certain a format's first bytes, the earlier.
READERS: tuple[ReaderDescriptor, ...] = (TRACE_DAT, PERFETTO)
# Formats that we know by sight but cannot read yet.
FOREIGN = (
    (b"PERFILE2", "a perf.data"),
    (b"2ELIFREP", "a perf.data of the other endianness"),
    (b"# tracer:", "a text trace"),
)
HEAD = 64 * 1024


def find_reader(path: str, name: str) -> ReaderDescriptor:
    """Return the reader of the plain file at `path`; `name` is what the user called it.

    FormatError where no reader knows its first bytes.
    """
    try:
        with open(path, "rb") as source:
            head = source.read(HEAD)
    except OSError as error:
        raise InputError(name, "file", None, error.strerror or str(error)) from error
    if not head:
        raise FormatError(name, "file", 0, "is empty: 0 bytes")
    for reader in READERS:
        if reader.sniff(head):
            return reader
    for magic, what in FOREIGN:
        if head.startswith(magic):
            raise FormatError(name, "file", 0, f"is {what}, which this version does not read yet")
    begin = head[:4].hex(" ")
    known = ", ".join(reader.name for reader in READERS)
    raise FormatError(name, "file", 0, f"begins with {begin}; formats that we read: {known}")
