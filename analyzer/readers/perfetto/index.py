"""Where does everything stand in a Perfetto trace? The first of two passes, packet by packet.

It keeps a few numbers a bundle and the small packets (configuration, clocks, statistics, process
tree) parsed by protobuf; events are only stepped over. Memory is bounded by the largest packet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.errors import FormatError, LimitError
from analyzer.readers.perfetto import layout, names
from analyzer.readers.perfetto.samples import Samples
from analyzer.readers.perfetto.symbols import KernelSymbols
from analyzer.readers.perfetto.unpack import inflate, unzstd
from analyzer.trouble import Trouble

__all__ = ["Bundles", "TraceIndex", "index_trace", "read_bytes", "read_container"]

# Small enough to stay in a CPU's cache between the copy and the scan.
CHUNK = 1024 * 1024
# A packet is a piece of a shared-memory buffer or a patched sequence of them; the service refuses
# those above 128 MiB (perfetto:src/tracing/core, kMaxTracePacketSize is of that order).
PACKET_LIMIT = 128 * 1024 * 1024
# perfetto's own trace processor refuses CPUs from 1024 on (formats.md 1.2).
CPU_LIMIT = 1024
READ_FIELDS = (
    "clock_snapshot",
    "process_tree",
    "trace_config",
    "system_info",
    "ftrace_stats",
    "trace_stats",
    "service_event",
)

# Columns of Bundles.rows beside layout's B_*.
X_OFFSET, X_LENGTH, X_CONTAINER, X_SEQUENCE, X_DROPPED, X_MACHINE, X_SYMBOLS = range(
    layout.BUNDLE_ROWS, layout.BUNDLE_ROWS + 7
)
ROWS = layout.BUNDLE_ROWS + 7


@dataclass(slots=True)
class Bundles:
    """All bundles: `rows` int64[n, ROWS], in file order; `containers`: (offset, length, zstd)."""

    rows: np.ndarray[Any, np.dtype[np.int64]]
    containers: list[tuple[int, int, bool]]


@dataclass(slots=True)
class TraceIndex:
    """What the first pass learned."""

    path: str
    size: int
    bundles: Bundles
    kinds: names.EventKinds
    samples: Samples = field(default_factory=Samples)
    symbols: KernelSymbols = field(default_factory=KernelSymbols)
    packets: list[Any] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


def read_bytes(
    fd: int, offset: int, length: int, into: np.ndarray[Any, np.dtype[np.uint8]] | None = None
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return up to `length` bytes of the file from `offset` on (put `into`), fewer at its end."""
    buf = np.empty(length, np.uint8) if into is None else into
    done = 0
    while done < length:
        got = os.preadv(fd, [buf.data[done:]], offset + done)
        if got == 0:
            break
        done += got
    return buf[:done]


def read_container(fd: int, container: tuple[int, int, bool]) -> bytes:
    """Return the plain bytes of a compressed packet; ValueError if damaged or too big."""
    offset, length, zstd = container
    raw = os.pread(fd, length, offset)
    return unzstd(raw) if zstd else inflate(raw)


class _Indexer:
    def __init__(self, path: str, fd: int, size: int, trouble: Trouble) -> None:
        self.path, self.fd, self.size, self.trouble = path, fd, size, trouble
        packet = names.message("TracePacket")
        self.numbers = names.packet_numbers()
        self.bundle_numbers = names.bundle_numbers()
        self.ftrace = names.field_number(packet, "ftrace_events")
        self.deflate = names.field_number(packet, "compressed_packets")
        self.zstd = names.field_number(packet, "zstd_compressed_packets")
        self.field_names = {found.number: found.name for found in packet.fields}
        self.rank = np.ones(1024, np.uint8)
        for name in (
            "interned_data",
            "synchronization_marker",
            "trace_uuid",
        ):
            self.rank[names.field_number(packet, name)] = 0
        for name in READ_FIELDS:
            self.rank[names.field_number(packet, name)] = 2
        self.sample = names.field_number(packet, "perf_sample")
        self.defaults = names.field_number(packet, "trace_packet_defaults")
        self.rank[self.defaults] = 2
        for number in (self.ftrace, self.deflate, self.zstd, self.sample):
            if number >= 0:
                self.rank[number] = 3
        self.index = TraceIndex(
            path, size, Bundles(np.zeros((0, ROWS), np.int64), []), names.EventKinds()
        )
        self.rows: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self.unread = np.zeros(1024, np.int64)
        self.sequences: set[int] = set()
        self.out = np.empty((layout.PACKET_ROWS, 4096), np.int64)
        self.fresh = np.empty((2, 1024), np.int64)

    def damaged(self, counter: str, structure: str, offset: int, problem: str) -> None:
        line = str(FormatError(self.path, structure, offset, problem))
        self.trouble.add(counter, 1, line)
        self.index.damage.append(line)

    def take(self, buf: np.ndarray[Any, Any], base: int, container: int) -> int:
        """Index the whole packets in buf, whose first byte is at `base`; return bytes taken."""
        pos = 0
        while pos < buf.size:
            count, stop = layout.scan_packets(buf, pos, buf.size, self.numbers, self.rank, self.out)
            for row in np.flatnonzero(
                (self.rank[np.minimum(self.out[layout.P_FIELD, :count], 1023)] >= 2)
                | (self.out[layout.P_LENGTH, :count] < 0)
                | (self.out[layout.P_DROPPED, :count] != 0)
            ):
                self.packet(buf, base, container, self.out[:, row])
            fields = self.out[layout.P_FIELD, :count]
            self.unread += np.bincount(fields[fields < 1024], minlength=1024)
            if stop == pos:
                break
            pos = stop
        return pos

    def packet(
        self, buf: np.ndarray[Any, Any], base: int, container: int, packet: np.ndarray[Any, Any]
    ) -> None:
        offset, number = int(packet[layout.P_OFFSET]), int(packet[layout.P_FIELD])
        begin, length = int(packet[layout.P_FIELD_OFFSET]), int(packet[layout.P_FIELD_LENGTH])
        sequence = int(packet[layout.P_SEQUENCE])
        if packet[layout.P_LENGTH] < 0:
            self.damaged(
                "damaged_event",
                "TracePacket",
                base + offset,
                "a field is longer than its packet allows; the packet is left out",
            )
            return
        # Writers mark their very first packet too, where nothing can have been lost before it.
        dropped = packet[layout.P_DROPPED] != 0 and sequence in self.sequences
        dropped = dropped and not packet[layout.P_FIRST_ON_SEQUENCE]
        self.sequences.add(sequence)
        if dropped:
            self.trouble.add("packets_dropped", 1, f"packet at offset {base + offset:#x}")
        if number == self.ftrace:
            self.bundle(buf, base, container, packet, bool(dropped))
        elif number in (self.deflate, self.zstd):
            self.container(buf, base, container, begin, length, number == self.zstd)
        elif self.rank[min(number, 1023)] >= 2:
            self.small(bytes(buf[offset : offset + int(packet[layout.P_LENGTH])]), base + offset)

    def bundle(
        self,
        buf: np.ndarray[Any, Any],
        base: int,
        container: int,
        packet: np.ndarray[Any, Any],
        dropped: bool,
    ) -> None:
        begin, length = int(packet[layout.P_FIELD_OFFSET]), int(packet[layout.P_FIELD_LENGTH])
        row = np.zeros(ROWS, np.int64)
        rest = buf[begin + length : int(packet[layout.P_OFFSET] + packet[layout.P_LENGTH])]
        row[X_SYMBOLS] = self.index.symbols.take(
            rest.tobytes(), int(packet[layout.P_SEQUENCE]), dropped
        )
        layout.scan_bundle(
            buf, begin, begin + length, self.bundle_numbers, self.index.kinds.lut,
            row[: layout.BUNDLE_ROWS], self.fresh,
        )  # fmt: skip
        for n in range(min(int(row[layout.B_DESCRIPTORS]), self.fresh.shape[1])):
            at = int(self.fresh[0, n])
            raw = bytes(buf[at : at + int(self.fresh[1, n])])
            try:
                self.index.kinds.add_descriptor(raw)
            except ValueError as error:
                self.damaged("damaged_event", "GenericEventDescriptor", base + at, str(error))
        if row[layout.B_BAD]:
            self.damaged(
                "damaged_event", "FtraceEventBundle", base + int(row[layout.B_BAD]) - 1,
                f"a field is longer than what is left of the bundle's {length} bytes",
            )  # fmt: skip
        if not 0 <= row[layout.B_CPU] < CPU_LIMIT:
            self.trouble.add(
                "bundles_without_cpu", 1,
                f"{self.path}: FtraceEventBundle at offset {base + begin:#x}: "
                f"cpu {int(row[layout.B_CPU])}, allowed 0..{CPU_LIMIT - 1}",
            )  # fmt: skip
            return
        row[X_OFFSET] = begin if container >= 0 else base + begin
        row[X_LENGTH], row[X_CONTAINER] = length, container
        row[X_SEQUENCE], row[X_DROPPED] = packet[layout.P_SEQUENCE], dropped
        row[X_MACHINE] = packet[layout.P_MACHINE]
        self.rows.append(row)

    def container(
        self,
        buf: np.ndarray[Any, Any],
        base: int,
        container: int,
        begin: int,
        length: int,
        zstd: bool,
    ) -> None:
        structure = "zstd_compressed_packets" if zstd else "compressed_packets"
        if container >= 0:
            self.damaged(
                "compressed_packet_damaged", structure, base + begin,
                "stands inside another compressed packet, which the format does not allow",
            )  # fmt: skip
            return
        raw = bytes(buf[begin : begin + length])
        try:
            plain = unzstd(raw) if zstd else inflate(raw)
        except ValueError as error:
            self.damaged("compressed_packet_damaged", structure, base + begin, str(error))
            return
        containers = self.index.bundles.containers
        containers.append((base + begin, length, zstd))
        inner = np.frombuffer(bytearray(plain), np.uint8)
        taken = self.take(inner, 0, len(containers) - 1)
        if taken < inner.size:
            self.damaged(
                "compressed_packet_damaged", structure, base + begin,
                f"its {inner.size} plain bytes end inside a packet that begins at {taken}",
            )  # fmt: skip

    def small(self, raw: bytes, offset: int) -> None:
        from google.protobuf.message import DecodeError
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2

        packet = perfetto_trace_pb2.TracePacket()
        try:
            packet.ParseFromString(raw)
        except DecodeError as error:
            self.damaged("damaged_event", "TracePacket", offset, str(error))
            return
        # Of samples there may be very many; the others are few and small.
        if packet.HasField("perf_sample"):
            self.index.samples.take(packet)
        elif packet.HasField("trace_packet_defaults"):
            self.index.samples.take_defaults(packet)
        else:
            self.index.packets.append(packet)

    def run(self) -> Iterator[int]:
        """Index the file; yields the bytes done after each chunk."""
        pos, want = 0, CHUNK
        while pos < self.size:
            buf = read_bytes(self.fd, pos, min(want, self.size - pos))
            taken = self.take(buf, pos, -1)
            pos += taken
            if taken:
                want = CHUNK
                yield pos
                continue
            body, length = layout.packet_extent(buf, 0, buf.size)
            left = self.size - pos - int(body)
            if length < 0:
                self.damaged(
                    "truncated_packet", "Trace", pos,
                    f"{min(left, 10)} bytes here are no packet head (tag 0x0a, varint length)",
                )  # fmt: skip
                return
            if length > left:
                self.damaged(
                    "truncated_packet", "TracePacket", pos,
                    f"length {int(length)}, but the file has only {left} bytes left",
                )  # fmt: skip
                return
            if length > PACKET_LIMIT:
                raise LimitError(
                    self.path, "TracePacket", pos, f"length {int(length)} is above {PACKET_LIMIT}"
                )
            want = int(body) + int(length)


def index_trace(path: str, fd: int, trouble: Trouble) -> Iterator[int | TraceIndex]:
    """Index the trace open at `fd`; yields bytes done, and the TraceIndex at last.

    Raises LimitError for a packet that no recorder writes. What is damaged is counted in
    `trouble`, listed in `TraceIndex.damage`, and everything whole before it is kept.
    """
    indexer = _Indexer(path, fd, os.fstat(fd).st_size, trouble)
    yield from indexer.run()
    index = indexer.index
    if indexer.rows:
        index.bundles.rows = np.stack(indexer.rows)
    read = {names.field_number(names.message("TracePacket"), name) for name in READ_FIELDS}
    read |= {0, indexer.ftrace, indexer.deflate, indexer.zstd, indexer.sample, indexer.defaults}
    for number in np.flatnonzero(indexer.unread):
        if int(number) not in read:
            name = indexer.field_names.get(int(number), f"field {int(number)}")
            index.unread[name] = int(indexer.unread[number])
            trouble.add("unread_packets", int(indexer.unread[number]), name)
    yield index
