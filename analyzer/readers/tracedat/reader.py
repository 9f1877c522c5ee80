"""How is a trace.dat read? Its head names the parts, then pages become batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from analyzer.readers.event_map import PROBE_ENTER
from analyzer.readers.recording import Batch, ReadOptions, RecordingFacts
from analyzer.readers.tracedat.assemble import Assembler
from analyzer.readers.tracedat.batches import Pieces, Stream
from analyzer.readers.tracedat.head import read_parts
from analyzer.readers.tracedat.kinds import EventKinds, page_layout
from analyzer.readers.tracedat.literals import Literals
from analyzer.readers.tracedat.loss import windows_and_losses
from analyzer.readers.tracedat.options import read_options
from analyzer.readers.tracedat.parts import Buffer
from analyzer.readers.tracedat.source import FileBytes
from analyzer.readers.tracedat.streams import PageBlocks
from analyzer.readers.tracedat.symbols import Symbols
from analyzer.readers.tracedat.threads import thread_names
from analyzer.trouble import Trouble

__all__ = ["TraceDatRecording"]

Array = np.ndarray[Any, Any]


class TraceDatRecording:
    """One opened trace.dat; `batches` may be run once."""

    def __init__(self, path: str, options: ReadOptions, trouble: Trouble) -> None:
        self.path, self.trouble = path, trouble
        self.facts = RecordingFacts("trace.dat")
        self._fd = os.open(path, os.O_RDONLY)
        try:
            source = FileBytes(path, self._fd)
            self.parts = read_parts(source)
            self.said = read_options(path, self.parts, self.facts, trouble)
            self.kinds = EventKinds(self.parts.formats)
            layout = page_layout(path, self.parts, self.kinds)
            self.streams = [
                Stream(
                    PageBlocks(source, self.parts, buffer, place, self.facts.damage.append),
                    layout,
                    self.kinds,
                    self.said.scale,
                )
                for buffer in self._buffers()
                for place in buffer.cpus
            ]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _buffers(self) -> list[Buffer]:
        # Instances on another clock than the top one cannot be put on one axis with it.
        chosen = []
        for buffer in self.parts.buffers:
            clock = self.said.clock_of(buffer)
            if clock == self.facts.clock:
                chosen.append(buffer)
            else:
                size = sum(place.size for place in buffer.cpus)
                self.trouble.add("instance_other_clock", 1, f"{buffer.name}: {clock}, {size} bytes")
        return chosen

    def batches(self, progress: Callable[[int, int], None]) -> Iterator[Batch]:
        """Yield all batches."""
        total = sum(stream.blocks.size for stream in self.streams)
        symbols = Symbols(self.parts.kallsyms, self.facts.damage.append)
        literals = Literals(self.parts.printk, self.facts.damage.append)
        assembler = Assembler(self.kinds.kinds, symbols, literals, self.parts.big)
        pieces = Pieces(self.streams)
        for data, order in pieces:
            yield assembler.batch(data, order, data.flags[order])
            progress(min(pieces.done, total), total)
        self._finish(assembler)

    def _finish(self, assembler: Assembler) -> None:
        facts, counts = self.facts, assembler.counts
        facts.event_names = [kind.name for kind in self.kinds.kinds]
        for number in np.flatnonzero(counts).tolist():
            kind = self.kinds.kinds[number]
            facts.event_counts[kind.name] = (int(counts[number]), kind.target.table)
            if kind.form is None:
                self.trouble.add("event_format_missing", int(counts[number]), kind.name)
        facts.reasons = assembler.reasons.names
        # What events say of their own thread wins over what the recorder knew beforehand.
        facts.vcpu_ids = {**self.said.guest_vcpus, **assembler.vcpu_of_threads()}
        named = {**assembler.name_of, **assembler.start_of}
        facts.symbols = {number: name for number, name in named.items() if name}
        facts.probes = {
            number: assembler.probed.get(number)
            for number, kind in enumerate(self.kinds.kinds)
            if kind.target is PROBE_ENTER
        }
        facts.threads = thread_names(self.parts.cmdlines, assembler.comm_of)
        facts.windows, facts.losses, facts.lost_events = windows_and_losses(
            self.streams, self.said.cpu_statistics, self.trouble
        )
        if facts.damage:
            facts.lost_events = None
        self.trouble.add("events_out_of_order", sum(s.out_of_order for s in self.streams))
        self.trouble.add("kvm_fields_missing", assembler.fields_missing)
