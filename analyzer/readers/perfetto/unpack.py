"""What is inside a compressed packet? Deflate and zstd, with a bound on what comes out."""

from __future__ import annotations

import zlib

# The tracing service keeps the plain side of a compressed packet below 512 KB
# (perfetto:src/tracing/service); 64 MiB is ours: far above any honest recorder, and small enough
# that a bomb does no harm.
UNPACKED_LIMIT = 64 * 1024 * 1024


def inflate(raw: bytes) -> bytes:
    """Return the plain bytes of a `compressed_packets` field; ValueError if damaged or too big."""
    engine = zlib.decompressobj()
    try:
        plain = engine.decompress(raw, UNPACKED_LIMIT)
    except zlib.error as error:
        raise ValueError(f"deflate: {error}") from error
    if engine.unconsumed_tail:
        raise ValueError(f"deflate: {len(raw)} bytes unpack to more than {UNPACKED_LIMIT}")
    if not engine.eof:
        raise ValueError(f"deflate: ends after {len(plain)} plain bytes without its end mark")
    return plain


def unzstd(raw: bytes) -> bytes:
    """Return the plain bytes of a `zstd_compressed_packets` field; ValueError as `inflate`."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=UNPACKED_LIMIT).stream_reader(
            raw
        ) as reader:
            plain = reader.read(UNPACKED_LIMIT + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd: {error}") from error
    if len(plain) > UNPACKED_LIMIT:
        raise ValueError(f"zstd: {len(raw)} bytes unpack to more than {UNPACKED_LIMIT}")
    if not plain and raw:
        raise ValueError(f"zstd: {len(raw)} bytes unpack to nothing")
    return bytes(plain)
