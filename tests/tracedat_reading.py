"""Reads what tests/tracedat_writer.py writes, into plain rows that tests can compare."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analyzer.readers.recording import ReadOptions, RecordingFacts
from analyzer.readers.registry import find_reader
from analyzer.trouble import Trouble
from tests.tracedat_writer import Instance, Shape

EXIT, ENTRY, MSR, SWITCH, IRQ, IPI, IPI_EXIT, PROBE, RETURN, CLASH, LONELY = range(100, 111)
GRAPH = 11


class Read:
    """A file read to its end: rows of all tables, the stream as tuples, facts, trouble."""

    def __init__(self, path: Path) -> None:
        self.trouble = Trouble()
        reader = find_reader(str(path), "a.dat")
        assert reader.name == "trace.dat"
        recording = reader.open(str(path), ReadOptions(), self.trouble)
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.stream: list[tuple[int, int, int, str, int, int, int]] = []
        streams = []
        try:
            for batch in recording.batches(lambda done, total: None):
                for name, rows in batch.tables.items():
                    self.tables.setdefault(name, []).extend(
                        pa.Table.from_batches([rows]).to_pylist()
                    )
                streams.append(batch.stream)
        finally:
            recording.close()
        self.facts: RecordingFacts = recording.facts
        names = self.facts.event_names
        for s in streams:
            for ts, cpu, tid, kind, first, second, flags in zip(
                *(s[c].tolist() for c in ("ts", "cpu", "tid", "kind", "first", "second", "flags")),
                strict=True,
            ):
                self.stream.append((ts, cpu, tid, names[kind], first, second, flags))

    @property
    def heads(self) -> list[tuple[int, int, int, str]]:
        return [row[:4] for row in self.stream]


def read(tmp_path: Path, raw: bytes) -> Read:
    path = tmp_path / "a.dat"
    path.write_bytes(raw)
    return Read(path)


SHAPES = [
    Shape(version, compression, big, long_size)
    for version, compression, big, long_size in itertools.product(
        (6, 7), ("none", "zlib", "zstd"), (False, True), (4, 8)
    )
    if version == 7 or compression == "none"
]


def name_of(shape: Shape) -> str:
    order = "big" if shape.big else "little"
    return f"v{shape.version}-{shape.compression}-{order}-long{shape.long_size}"


every_shape = pytest.mark.parametrize("shape", SHAPES, ids=name_of)


def exits(shape: Shape, pid: int, reason: int, vcpu: int, flags: int = 0) -> bytes:
    return shape.record(
        EXIT, pid, shape.pack("IIQII", reason, 0, 0xFFFFFFFF81000000, 1, vcpu), flags
    )


def small(shape: Shape) -> list[Instance]:
    """Two CPUs with two pages each."""
    entry = shape.record(ENTRY, 7, shape.pack("I", 3))
    msr = shape.record(MSR, 7, shape.pack("IIQi", 0x1D9, 0, (1 << 64) - 2, -1))
    return [
        Instance(
            {
                0: [
                    shape.page(1000, shape.event(0, entry), shape.event(5, exits(shape, 7, 12, 3))),
                    shape.page(2000, shape.event(1, msr)),
                ],
                1: [
                    shape.page(1002, shape.event(0, entry)),
                    shape.page(1500, shape.event(0, entry), shape.event(1000, entry)),
                ],
            }
        )
    ]
