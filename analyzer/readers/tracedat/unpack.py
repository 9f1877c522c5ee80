"""How do compressed sections become plain? Never larger than they say, nor than we allow."""

from __future__ import annotations

import zlib

import zstandard

from analyzer.errors import FormatError, LimitError

__all__ = ["CHUNK_LIMIT", "SECTION_LIMIT", "unpack"]

# The largest section met is kallsyms with 11 MB, the largest chunk ten pages of 4 KiB; chosen by
# us so far above that no real file meets them and no small file can ask for all memory.
SECTION_LIMIT = 512 * 1024 * 1024
CHUNK_LIMIT = 64 * 1024 * 1024


def unpack(
    path: str, structure: str, offset: int, method: str, raw: bytes, plain_size: int, limit: int
) -> bytes:
    """Return exactly `plain_size` bytes out of `raw`; FormatError where they are not that many."""
    if plain_size > limit:
        raise LimitError(path, structure, offset, f"{plain_size} plain bytes, {limit} are allowed")
    try:
        plain = _plain(method, raw, plain_size)
    except (zstandard.ZstdError, zlib.error, ValueError) as error:
        problem = f"{len(raw)} bytes of {method[:20]!r} do not unpack to {plain_size}: {error}"
        raise FormatError(path, structure, offset, problem) from error
    if len(plain) != plain_size:
        problem = f"unpacks to {len(plain)} bytes, its head says {plain_size}"
        raise FormatError(path, structure, offset, problem)
    return plain


def _plain(method: str, raw: bytes, plain_size: int) -> bytes:
    if method == "zlib":
        return zlib.decompressobj().decompress(raw, plain_size + 1)
    if method == "zstd":
        # A frame's own size is as unverified as the section's.
        told = zstandard.frame_content_size(raw)
        if told not in (-1, plain_size):
            raise ValueError(f"the frame says {told}")
        return zstandard.ZstdDecompressor().decompress(raw, max_output_size=max(1, plain_size))
    raise ValueError("this method is not known; known: zlib, zstd")
