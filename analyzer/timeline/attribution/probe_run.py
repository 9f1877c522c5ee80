"""How is a recording attributed whose register accesses are probes? As run.py does, by function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from analyzer.arch import Family
from analyzer.arch.arm64.probes import FILTER_GRAMMARS, Meaning, Probe
from analyzer.readers.recording import RecordingFacts
from analyzer.timeline.attribution import bursts as b
from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.attribution import probed as p
from analyzer.timeline.attribution.handlers import Handlers, plain_name
from analyzer.timeline.attribution.rows import called_rows
from analyzer.timeline.attribution.run import Array, Attribution, Waiting
from analyzer.timeline.marks import KindCodes
from analyzer.timeline.spool import Chunk, Spool

__all__ = ["ProbeAttribution", "Probes", "function_of_event", "probes_of"]


OVERFLOW = "kvm_pmu_perf_overflow"
# KVM calls these for a vCPU that has a PMU, often enough that none in a recording means none has.
VPMU_ONLY = frozenset({"kvm_pmu_flush_hwstate", "kvm_pmu_sync_hwstate"})


def function_of_event(event: str, symbol: str | None, known: Mapping[str, Probe]) -> str | None:
    """Return the function that a probe of that event name sits on, None for none that we know.

    A symbol settles it. Else the name has to be the function's, as trace-cmd, perf and people
    write it.

    >>> from analyzer.arch.arm64.probes import PROBES
    >>> function_of_event("p_armpmu_add_0", None, PROBES), function_of_event("mine", None, PROBES)
    ('armpmu_add', None)
    """
    if symbol is not None:
        name = plain_name(symbol)
        return name if name in known else None
    name = event.rsplit(":", maxsplit=1)[-1]
    for short in (name, name.removesuffix("_0")):
        for plain in (short, short.removeprefix("p_")):
            if plain in known:
                return plain
    return None


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of a recording that tell of the PMU: by kind, and all functions that had one,
    whether it was ever hit or not."""

    of_kind: dict[int, Probe]
    functions: frozenset[str]


def probes_of(facts: RecordingFacts, family: Family | None) -> Probes:
    """Return the probes of a recording; none where the family declares none."""
    if family is None or not family.probes:
        return Probes({}, frozenset())
    found, functions = {}, set()
    for kind, symbol in facts.probes.items():
        name = function_of_event(facts.event_names[kind], symbol, family.probes)
        if name is not None:
            found[kind] = family.probes[name]
            functions.add(name)
    for item in facts.asked_events or ():
        name = function_of_event(item.split("/")[-1], None, family.probes)
        functions |= {name} if name is not None else set()
    return Probes(found, frozenset(functions))


class ProbeAttribution(Attribution):
    """Marks every call of a probed function that touches the PMU, and finds host episodes; what
    it calls swaps are KVM's settings of EL0's filters."""

    def __init__(
        self, spool: Spool, codes: KindCodes, slot: Array, probes: Probes, facts: RecordingFacts
    ) -> None:
        super().__init__(spool, codes, None, slot)
        self.grammars.names, self.grammars.registers = list(FILTER_GRAMMARS), False
        tables = {name: table for name, (_, table) in facts.event_counts.items()}
        self._is_span = np.array([tables.get(n) == "function_span" for n in facts.event_names])
        self._names = sorted({probe.function for probe in probes.of_kind.values()})
        # The last place is for events of our own, whose kinds are negative.
        kinds = len(facts.event_names) + 1
        self._function = np.full(kinds, -1, np.int64)
        self._meaning = np.full(kinds, p.NO_PROBE, np.uint8)
        self._token = np.zeros(kinds, np.int64)
        for kind, probe in probes.of_kind.items():
            self._function[kind] = self._names.index(probe.function)
            self._meaning[kind] = int(probe.meaning)
        hits = self._look(probes)
        hit = {probe.function for kind, probe in probes.of_kind.items() if hits[kind]}
        for kind, probe in probes.of_kind.items():
            # What a function has done for it is counted there.
            if probe.does is not None and not probe.by & hit:
                self._token[kind] = int(probe.does)
        meanings = {probe.meaning for probe in probes.of_kind.values()}
        self._edges = {Meaning.SWITCH_OUT, Meaning.SWITCH_IN} <= {
            probes.of_kind[kind].meaning for kind in probes.of_kind if hits[kind]
        }
        self._overflows = Meaning.GUEST_OVERFLOW in meanings or OVERFLOW in probes.functions
        if not probes.functions & VPMU_ONLY:
            self._vpmu[self._vpmu == p.NO_VPMU] = p.NOT_TOLD

    def _look(self, probes: Probes) -> Array:
        # Hits of each kind; and which threads KVM emulates a PMU for.
        hits = np.zeros(self._token.size, np.int64)
        self._vpmu = np.full(self.spool.top_tid + 2, p.NO_VPMU, np.uint8)
        for number in range(self.spool.chunks):
            chunk = self.spool.chunk(number, self.codes)
            kind = np.maximum(chunk.kind, -1)
            hits += np.bincount(kind[kind >= 0], minlength=hits.size)
            shows = self._meaning[kind] == p.EMULATION
            self._vpmu[np.maximum(chunk.tid[shows], -1) + 1] = p.HAS_VPMU
        return hits

    def run(self, handlers: Handlers) -> Iterator[tuple[Array, Array]]:
        """Yield rows of swaps and of episodes in order of their end, as run.py does."""
        yield from self._pass(handlers)

    def _pass(self, handlers: Handlers) -> Iterator[tuple[Array, Array]]:
        cpus = self.spool.top_cpu + 1
        state = np.zeros((cpus, x.CPU_COLUMNS), np.int64)
        state[:, (x.X_PREVIOUS, x.X_NEXT)] = x.NOBODY
        state[:, x.X_WHOLE : x.X_PLACE] = x.NOBODY
        own = np.zeros((cpus, p.STATE_COLUMNS), np.int64)
        accesses = np.zeros((cpus * b.LEVELS, b.ROOM, b.ACCESS_COLUMNS), np.int64)
        burst = np.zeros((cpus * b.LEVELS, b.BURST_COLUMNS), np.int64)
        swaps, episodes = Waiting(b.SWAP_ROW, b.S_END), Waiting(b.EPISODE_ROW, b.E_END)
        at = 0
        for number in range(self.spool.chunks):
            chunk = self.chunk = self.spool.chunk(number, self.codes)
            size = chunk.ts.size
            kind = np.maximum(chunk.kind, -1)
            classes = handlers.classes(chunk.code, chunk.kind, chunk.first, chunk.second)
            marks, episodes_of = np.zeros(size, np.uint16), np.full(size, -1, np.int32)
            out = self._outputs(size + cpus * b.LEVELS * b.ROOM)
            patches, swap_rows, episode_rows, filled = out
            ends = number == self.spool.chunks - 1
            p.attribute_probes(
                at, chunk.ts, chunk.cpu, chunk.tid, chunk.code, chunk.flags, chunk.first,
                chunk.second, classes, self._meaning[kind], self._token[kind], self.slot,
                self._vpmu, self._overflows, self._edges, handlers.timers_recorded, ends, state,
                own, accesses, burst, self.count, marks, episodes_of, patches, swap_rows,
                episode_rows, filled,
            )  # fmt: skip
            self._keep(at, marks, episodes_of)
            self._settle(out, swaps, episodes)
            at += size
            self.filters |= any(len(rows) for rows in swaps.rows)
            yield self._found(swaps, episodes, self._open_since(accesses, burst))

    def _outputs(self, room: int) -> tuple[Array, Array, Array, Array]:
        # Three calls at least set the filters once.
        patches, _, episodes, filled = super()._outputs(room)
        return patches, np.empty((room // 3 + 1, b.SWAP_ROW), np.int64), episodes, filled

    def _found(self, swaps: Waiting, episodes: Waiting, before: int) -> tuple[Array, Array]:
        # No filter puts a guest's state on the CPU: guest_state_on stays false.
        self.settled = before
        return swaps.take(before), episodes.take(before)

    def rows(
        self, chunk: Chunk, marks: Array, episodes: Array
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield rows of function_attribution of one chunk."""
        yield from called_rows(chunk, marks, episodes, self._is_span, self._function, self._names)
