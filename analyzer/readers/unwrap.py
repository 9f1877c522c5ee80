"""How does a wrapped file or a pipe become something that can be read twice? By spooling it.

`.zst` and `.gz` are told by their first bytes, not by the name. The plain bytes go to an unnamed
temporary file, a chunk at a time.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from analyzer.errors import FormatError, InputError

__all__ = ["plain_name", "seekable_path"]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1024 * 1024


def plain_name(path: str) -> str:
    """Return a recording's file name less its wrapper.

    >>> plain_name("a/k73m-hostperf.pftrace.zst")
    'k73m-hostperf.pftrace'
    """
    name = "stdin" if path == "-" else os.path.basename(path)
    for suffix in (".zst", ".gz"):
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


@contextmanager
def seekable_path(path: str, note_damage: Callable[[str], None]) -> Iterator[str]:
    """Yield the path of a plain, seekable file with the recording's bytes.

    A wrapper that ends too early or contradicts itself is told to `note_damage` in one line; what
    came out of it before is kept. InputError where the file cannot be opened or nothing comes out.
    """
    try:
        source: IO[bytes] = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(path, "file", None, error.strerror or str(error)) from error
    with source:
        try:
            mode = os.fstat(source.fileno()).st_mode
            if stat.S_ISDIR(mode):
                raise InputError(path, "file", None, "is a directory, a recording is a file")
            head = _head(source)
        except OSError as error:
            raise InputError(path, "file", None, error.strerror or str(error)) from error
        wrapped = head.startswith((ZSTD_MAGIC, GZIP_MAGIC))
        if stat.S_ISREG(mode) and not wrapped:
            yield path
            return
        with tempfile.NamedTemporaryFile(prefix="vpmu-analyzer-") as spool:
            written = _spool(path, head, source, spool, note_damage)
            spool.flush()
            if written == 0:
                raise FormatError(path, "file", 0, "holds no bytes")
            yield spool.name


def _head(source: IO[bytes]) -> bytes:
    head = b""
    while len(head) < 4:
        more = source.read(4 - len(head))
        if not more:
            break
        head += more
    if source.seekable():
        source.seek(0)
    return head


def _chunks(head: bytes, source: IO[bytes]) -> Iterator[bytes]:
    if not source.seekable() and head:
        yield head
    while chunk := source.read(CHUNK):
        yield chunk


def _spool(
    path: str, head: bytes, source: IO[bytes], spool: Any, note_damage: Callable[[str], None]
) -> int:
    if head.startswith(ZSTD_MAGIC):
        return _spool_zstd(path, head, source, spool, note_damage)
    if head.startswith(GZIP_MAGIC):
        return _spool_gzip(path, head, source, spool, note_damage)
    written = 0
    for chunk in _chunks(head, source):
        written += spool.write(chunk)
    return written


def _spool_zstd(
    path: str, head: bytes, source: IO[bytes], spool: Any, note_damage: Callable[[str], None]
) -> int:
    import zstandard

    engine = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    taken = written = 0
    for chunk in _chunks(head, source):
        try:
            written += spool.write(engine.decompress(chunk))
        except zstandard.ZstdError as error:
            note_damage(
                str(FormatError(path, "zstd frame", taken, f"{error}; {written} plain bytes kept"))
            )
            return written
        taken += len(chunk)
    if not engine.eof and not getattr(engine, "unused_data", b""):
        # With read_across_frames the engine never says eof; a frame that is cut leaves input
        # that it waits for, which only shows in what a second look at the frame says.
        _check_zstd_end(path, source, taken, written, note_damage)
    return written


def _check_zstd_end(
    path: str, source: IO[bytes], taken: int, written: int, note_damage: Callable[[str], None]
) -> None:
    import zstandard

    if not source.seekable():
        return
    source.seek(0)
    size = zstandard.frame_content_size(source.read(64))
    if size > written:
        problem = f"ends at byte {taken}: {written} plain bytes of {size}"
        note_damage(str(FormatError(path, "zstd frame", taken, problem)))


def _spool_gzip(
    path: str, head: bytes, source: IO[bytes], spool: Any, note_damage: Callable[[str], None]
) -> int:
    engine = zlib.decompressobj(wbits=31)
    taken = written = 0
    for chunk in _chunks(head, source):
        try:
            rest = chunk
            while rest:
                written += spool.write(engine.decompress(rest))
                rest = engine.unused_data
                if rest:
                    engine = zlib.decompressobj(wbits=31)
        except (zlib.error, gzip.BadGzipFile) as error:
            note_damage(
                str(FormatError(path, "gzip member", taken, f"{error}; {written} plain bytes kept"))
            )
            return written
        taken += len(chunk)
    if not engine.eof:
        problem = f"ends at byte {taken} inside a member; {written} plain bytes kept"
        note_damage(str(FormatError(path, "gzip member", taken, problem)))
    return written
