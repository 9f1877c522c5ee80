"""Is a varint of any length and form read as protobuf reads it, and never beyond its end?"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analyzer.readers.perfetto.layout import packet_extent

PACKET = 10  # field 1 of Trace, length-delimited


def varint(value: int, least: int) -> bytes:
    """The value in seven bits a byte, padded with redundant bytes to at least so many."""
    out = []
    while value >= 128 or len(out) + 1 < least:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# A packet's length is one varint behind its tag: the shortest way to a number of any size.
@given(st.integers(0, 2**62), st.integers(1, 10), st.binary(max_size=12), st.integers(0, 24))
def test_lengths_of_packets(value: int, least: int, behind: bytes, room: int) -> None:
    coded = varint(value, least)
    raw = np.frombuffer(bytes([PACKET]) + coded + behind, np.uint8).copy()
    whole = 1 + len(coded)
    end = min(room, raw.size)
    at, length = packet_extent(raw, 0, end)
    if end >= whole:
        assert (at, length) == (whole, value)
    else:
        assert length == -1


@given(st.binary(min_size=10, max_size=10), st.binary(max_size=8))
def test_more_than_ten_bytes_are_no_varint(first: bytes, behind: bytes) -> None:
    raw = bytes([PACKET]) + bytes(byte | 128 for byte in first) + behind
    assert packet_extent(np.frombuffer(raw, np.uint8).copy(), 0, len(raw))[1] == -1
