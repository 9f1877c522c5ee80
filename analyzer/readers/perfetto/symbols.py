"""Which kernel function is the number in an event's pointer field? Interned symbols, tick by tick.

The recorder replaces every pointer by a serial number and starts again at 1 each time that it has
read all CPUs' buffers once (perfetto:src/traced/probes/ftrace/ftrace_metadata.h, Clear), so a
number means nothing without its tick. With `symbolize_ksyms` it puts the names of the numbers that
are functions behind the first bundle that needs them, and clears the sequence's state with the
first of a tick (cpu_reader.cc). A later bundle of that tick uses them too, on any CPU:

    bundle + symbols 2, 4, cleared | bundle + symbol 7 | bundle of another CPU | bundle + 1, cleared
    |<-------------------------------- one map -------------------------------->|<--- the next -->|
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from analyzer.readers.columns import TextPool
from analyzer.readers.perfetto.names import message

__all__ = ["NO_MAP", "KernelSymbols"]

Array = np.ndarray[Any, Any]
NO_MAP = 0
_NUMBER_BITS = 32


class KernelSymbols:
    """All maps of a trace; every name is kept once, each entry of a map as two numbers."""

    def __init__(self) -> None:
        self.names = TextPool()
        self._map_of_sequence: dict[int, int] = {}
        self._maps = NO_MAP
        self._keys = array("q")
        self._codes = array("i")
        flags = message("TracePacket").enum_types_by_name["SequenceFlags"].values_by_name
        self._cleared = flags["SEQ_INCREMENTAL_STATE_CLEARED"].number
        self._sorted: tuple[Array, Array] | None = None

    def take(self, rest: bytes, sequence: int, dropped: bool) -> int:
        """Return the number of the map that a bundle's pointers are in, NO_MAP for none.

        rest: what stands behind the bundle in its packet; dropped: packets are missing before it.
        Packets of one sequence must come in the order of the file.
        """
        from google.protobuf.message import DecodeError
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2

        packet = perfetto_trace_pb2.TracePacket()
        try:
            packet.ParseFromString(rest)
        except DecodeError:
            return NO_MAP
        symbols = packet.interned_data.kernel_symbols
        cleared = packet.sequence_flags & self._cleared
        # Behind a gap the tick may be another one; what comes from here on is sure of its own.
        if cleared or dropped or (symbols and sequence not in self._map_of_sequence):
            self._maps += 1
            self._map_of_sequence[sequence] = self._maps
        found = self._map_of_sequence.get(sequence, NO_MAP)
        for symbol in symbols:
            self._keys.append(found << _NUMBER_BITS | symbol.iid & 0xFFFF_FFFF)
            self._codes.append(self.names.code(symbol.str.decode("utf-8", "backslashreplace")))
        return found

    def codes(self, maps: Array, numbers: Array) -> Array:
        """Return int32[n] numbers in `names`, -1 where none is known; after the last `take`."""
        if self._sorted is None:
            keys = np.array(self._keys, np.int64)
            order = np.argsort(keys, kind="stable")
            self._sorted = keys[order], np.array(self._codes, np.int32)[order]
        keys, codes = self._sorted
        wanted = maps.astype(np.int64) << _NUMBER_BITS | numbers
        at = np.maximum(np.searchsorted(keys, wanted, side="right") - 1, 0)
        fits = (numbers >= 0) & (numbers >> _NUMBER_BITS == 0)
        return np.where(fits & (keys[at] == wanted), codes[at], np.int32(-1))
