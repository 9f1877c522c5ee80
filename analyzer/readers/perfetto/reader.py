"""How is a Perfetto trace read? Two passes: an index, then pieces in order of time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from analyzer.errors import FormatError
from analyzer.readers.perfetto import layout
from analyzer.readers.perfetto.assemble import Assembler, Rows
from analyzer.readers.perfetto.batches import Pieces
from analyzer.readers.perfetto.facts import (
    CLOCKS,
    SNAPSHOT_CLOCKS,
    SmallPackets,
    read_small_packets,
    realtime_offset,
)
from analyzer.readers.perfetto.index import (
    X_DROPPED,
    X_MACHINE,
    TraceIndex,
    index_trace,
)
from analyzer.readers.perfetto.loss import (
    begins_late,
    carry_flags,
    inner_losses,
    windows_and_losses,
)
from analyzer.readers.perfetto.merge import NOBODY, rebuild_threads
from analyzer.readers.perfetto.names import EventKinds, legacy_numbers
from analyzer.readers.perfetto.payload import payload_fields
from analyzer.readers.recording import (
    NO_FLAGS,
    STREAM_DTYPE,
    Batch,
    Loss,
    ReadOptions,
    RecordingFacts,
    ThreadName,
)
from analyzer.trouble import Trouble

__all__ = ["PerfettoRecording"]

Array = np.ndarray[Any, Any]


class PerfettoRecording:
    """One opened Perfetto trace; `batches` may be run once."""

    def __init__(self, path: str, options: ReadOptions, trouble: Trouble) -> None:
        self.path, self.options, self.trouble = path, options, trouble
        self.facts = RecordingFacts("perfetto")
        self._fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def batches(self, progress: Callable[[int, int], None]) -> Iterator[Batch]:
        """Yield all batches; FormatError where the file holds no packet at all."""
        size = os.fstat(self._fd).st_size
        index: TraceIndex | None = None
        for step in index_trace(self.path, self._fd, self.trouble):
            if isinstance(step, TraceIndex):
                index = step
            else:
                progress(step, 2 * size)
        assert index is not None
        if not len(index.bundles.rows) and not index.packets:
            problem = index.damage[0] if index.damage else f"none in {size} bytes"
            raise FormatError(
                self.path, "Trace", 0, f"no whole packet that we can read ({problem})"
            )
        self.facts.damage += index.damage
        small = read_small_packets(index.packets, self.facts, self.trouble)
        rows, machine = self._of_machine(index)
        carry_flags(rows)
        index.bundles.rows = rows
        offsets = self._clock(rows, small)
        counts = rows[:, layout.B_EVENTS] + rows[:, layout.B_SWITCHES] + rows[:, layout.B_WAKINGS]
        chosen = np.flatnonzero(counts > 0)
        chosen = chosen[
            np.lexsort((rows[chosen, layout.B_CPU], (rows[:, layout.B_FIRST] + offsets)[chosen]))
        ]
        assembler = Assembler(index.kinds.kinds, legacy_numbers()[1], index.symbols)
        pieces = Pieces(
            self._fd,
            index.bundles,
            chosen,
            offsets,
            index.kinds,
            assembler.text,
            self.trouble,
            self.path,
        )
        merger = _Merger(index.kinds, assembler, pieces, rows, chosen)
        for data, order, bundle in pieces:
            if order.size:
                yield merger.batch(data, order, bundle)
            progress(size + min(size, pieces.bytes_done), 2 * size)
        clock = SNAPSHOT_CLOCKS.get(self.facts.clock)
        nothing = {name: np.zeros(0, STREAM_DTYPE[name]) for name in STREAM_DTYPE.names or ()}
        for samples in index.samples.batches(machine, clock, small.snapshots, self.trouble):
            yield Batch({"perf_sample": samples}, nothing)
        self.facts.damage += pieces.damage
        self._finish(index, small, rows, offsets, pieces, merger)

    def _of_machine(self, index: TraceIndex) -> tuple[Array, int]:
        # CPU and thread numbers of several machines collide: only one machine's events are taken,
        # the recorder's own (no id) unless the user names another or there is just one.
        rows = index.bundles.rows
        machines = np.unique(rows[:, X_MACHINE])
        wanted = self.options.machine
        if wanted is None:
            wanted = int(machines[0]) if machines.size == 1 else 0
        left_out = rows[rows[:, X_MACHINE] != wanted]
        if len(left_out):
            events = left_out[:, [layout.B_EVENTS, layout.B_SWITCHES, layout.B_WAKINGS]].sum()
            ids = ", ".join(str(m) for m in machines.tolist() if m != wanted)
            self.trouble.add("other_machine_events", int(events), f"machine_id {ids}")
        return np.ascontiguousarray(rows[rows[:, X_MACHINE] == wanted]), wanted

    def _clock(self, rows: Array, small: SmallPackets) -> Array:
        # Returns ns to add to each bundle's times. One clock for all bundles stays as it is; mixed
        # clocks are brought to boot by each bundle's own pair of readings, else by the last one
        # of that clock.
        offsets = np.zeros(len(rows), np.int64)
        clocks = np.unique(rows[:, layout.B_CLOCK])
        pair = rows[:, layout.B_BOOT_TS] - rows[:, layout.B_FTRACE_TS]
        paired = (rows[:, layout.B_BOOT_TS] != 0) & (rows[:, layout.B_FTRACE_TS] != 0)
        if clocks.size <= 1:
            clock = int(clocks[0]) if clocks.size else 0
            self.facts.clock = CLOCKS.get(clock, "unknown")
            known = int(pair[paired][0]) if paired.any() else None
            self.facts.realtime_offset_ns = realtime_offset(small, self.facts.clock, known)
            return offsets
        self.facts.clock = "boot"
        self.facts.realtime_offset_ns = realtime_offset(small, "boot", None)
        for clock in clocks.tolist():
            if clock == 0:
                continue
            latest: int | None = None
            for b in np.flatnonzero(rows[:, layout.B_CLOCK] == clock):
                if paired[b]:
                    latest = int(pair[b])
                if latest is None:
                    self.trouble.add("clock_unpaired", 1, f"clock {CLOCKS.get(clock, clock)}")
                else:
                    offsets[b] = latest
        return offsets

    def _finish(
        self, index: TraceIndex, small: SmallPackets, rows: Array, offsets: Array, pieces: Pieces,
        merger: _Merger,
    ) -> None:  # fmt: skip
        facts, assembler = self.facts, merger.assembler
        inner = inner_losses(rows, offsets, pieces.last_of_bundle, self.trouble)
        facts.windows, facts.losses, facts.lost_events = windows_and_losses(
            rows, offsets, pieces.last_of_bundle, small, inner, self.trouble
        )
        facts.losses += index.samples.losses
        if facts.damage:
            facts.lost_events = None
            end = max((window.end for window in facts.windows), default=None)
            facts.losses.append(Loss(end, None, None, "damaged_file", None))
        facts.event_names = [kind.name for kind in index.kinds.kinds]
        counts = assembler.counts
        for number in np.flatnonzero(counts).tolist():
            kind = index.kinds.kinds[number]
            before = facts.event_counts.get(kind.name, (0, None))[0]
            facts.event_counts[kind.name] = (before + int(counts[number]), kind.target.table)
        facts.reasons = assembler.reasons.names
        facts.probes = {
            n: None for n, kind in enumerate(index.kinds.kinds) if kind.form == "kprobe"
        }
        facts.symbols = dict(enumerate(index.symbols.names.names))
        for tid, (_, code) in assembler.comm_of.items():
            known = small.names.get(tid)
            name = assembler.text.names[code]
            small.names[tid] = ThreadName(
                tid, known.tgid if known else None, name, known.cmdline if known else None
            )
        facts.threads = [small.names[tid] for tid in sorted(small.names)]
        facts.vcpu_ids = assembler.vcpu_of_threads()
        self.trouble.add("kvm_fields_missing", assembler.fields_missing)
        self.trouble.add("pointers_renumbered", assembler.pointers)
        self.trouble.add("prev_pid_unknown", merger.unknown_threads)
        self.trouble.add("switch_contradictions", merger.contradictions)


class _Merger:
    # Turns placed rows into batches, with the state that goes from piece to piece.

    def __init__(
        self, kinds: EventKinds, assembler: Assembler, pieces: Pieces, rows: Array, chosen: Array
    ) -> None:
        self.kinds, self.assembler, self.pieces, self.rows = kinds, assembler, pieces, rows
        cpus = int(rows[:, layout.B_CPU].max()) + 1 if len(rows) else 1
        self.switched_to = np.full(cpus, NOBODY, np.int32)
        self.seen = np.full(cpus, NOBODY, np.int32)
        self.fresh = np.ones(len(rows), np.int8)
        self.unknown_threads = 0
        self.contradictions = 0
        # -1: not looked at yet; before: the bundle before it on its CPU, -1 for the first.
        self.lost = np.full(len(rows), -1, np.int64)
        self.before = np.full(len(rows), -1, np.int64)
        latest: dict[int, int] = {}
        for b in chosen.tolist():
            cpu = int(rows[b, layout.B_CPU])
            self.before[b] = latest.get(cpu, -1)
            latest[cpu] = b

    def batch(self, data: Rows, order: Array, bundle: Array) -> Batch:
        self._note_losses(bundle)
        kinds = self.kinds.kinds
        # Rows of a damaged bundle that could not be decoded have kind -1 and play no role.
        role_of_kind = np.zeros(len(kinds) + 1, np.int8)
        role_of_kind[self.kinds.compact_switch] = 2
        role_of_kind[self.kinds.compact_waking] = 3
        for number, kind in enumerate(kinds):
            if kind.name == "sched_switch" and kind.form != "compact":
                role_of_kind[number] = 1
        self.contradictions += int(
            rebuild_threads(
                order,
                data.cpu,
                data.kind,
                role_of_kind,
                self._next_pids(data, np.flatnonzero(role_of_kind == 1)),
                bundle,
                data.tid,
                data.origin,
                self.lost,
                self.switched_to,
                self.seen,
                self.fresh,
            )
        )
        # FtraceEvent.common_flags stands in no recording that we have seen.
        batch = self.assembler.batch(data, order, NO_FLAGS)
        unknown = (batch.stream["kind"] == self.kinds.compact_switch) & (batch.stream["tid"] < 0)
        self.unknown_threads += int(np.count_nonzero(unknown))
        return batch

    def _note_losses(self, bundle: Array) -> None:
        # A bundle's neighbour on its CPU was decoded with it or before it, so its end is known.
        begins = np.flatnonzero(bundle[1:] != bundle[:-1]) + 1
        for b in {int(bundle[0]), *bundle[begins].tolist()} if bundle.size else ():
            if self.lost[b] < 0:
                before = int(self.before[b])
                ended = int(self.pieces.last_of_bundle[before]) if before >= 0 else None
                late = begins_late(self.rows, self.pieces.offsets, b, ended)
                row = self.rows[b]
                self.lost[b] = bool(row[layout.B_LOST]) or bool(row[X_DROPPED]) or late

    def _next_pids(self, data: Rows, switches: Array) -> Array:
        # switches: kinds of switches in full.
        found = np.zeros(data.ts.size, np.int64)
        compact = np.flatnonzero(data.kind == self.kinds.compact_switch)
        found[compact] = data.compact[2, data.off[compact]]
        for number in switches.tolist():
            at = np.flatnonzero(data.kind == number)
            slots = np.full((1, 64), -1, np.int16)
            field = self.kinds.kinds[number].fields.get("next_pid", -1)
            if at.size == 0 or not 0 <= field < 64:
                continue
            slots[0, field] = 0
            values, sizes = np.zeros((1, at.size), np.int64), np.empty((1, at.size), np.int32)
            payload_fields(
                data.buf,
                data.off[at],
                data.size[at],
                np.zeros(at.size, np.int32),
                slots,
                values,
                sizes,
            )
            found[at] = values[0]
        return found
