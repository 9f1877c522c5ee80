"""How often, how long, how blind? Counts of one placement over a store's points or some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.replay import kernel as q
from analyzer.replay.kernel import replay
from analyzer.replay.placement import HOOKS, Placement, rules_of, transition_table

__all__ = ["Counts", "Part", "Replay", "Scratch"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """What one replay counted: per vCPU int64[v, COUNTS], per reason int64[r + 1, 4], and of the
    whole run int64[TOTALS]; columns are replay.kernel's N_*, Q_* and T_*."""

    vcpus: Array
    reasons: Array
    totals: Array


@dataclass(frozen=True, slots=True)
class Part:
    """What of a recording counts; None: all of it.

    Times are begin <= ts < end, so that parts side by side add up to the whole: a stay across a
    cut is loaded at the end of one and at the start of the other, and no swap. All of the
    recording is replayed in any case: who owns a PMU depends on what nobody asked for, too.
    """

    begin: int | None = None
    end: int | None = None
    cpus: tuple[int, ...] | None = None
    vcpus: tuple[int, ...] | None = None

    def holds(self, ts: Array, cpu: Array, vcpu: Array) -> Array:
        """Return bool[n], which rows are in the part; vcpu -1 where a row has none."""
        inside = np.ones(ts.size, bool)
        if self.begin is not None:
            inside &= ts >= self.begin
        if self.end is not None:
            inside &= ts < self.end
        if self.cpus is not None:
            inside &= np.isin(cpu, self.cpus)
        if self.vcpus is not None:
            inside &= np.isin(vcpu, self.vcpus)
        return inside


def _ones_at(size: int, chosen: tuple[int, ...] | None) -> Array:
    ones = np.zeros(size, np.int64)
    ones[slice(None) if chosen is None else list(chosen)] = 1
    return ones


class Scratch:
    """Room for the rows of one chunk; replays that are fed one after the other can share it."""

    def __init__(self) -> None:
        self.slices = np.empty((0, q.SLICE_ROW), np.int64)
        self.meetings = np.empty((0, q.MEETING_ROW), np.int64)

    def make_room(self, points: int) -> None:
        """Make room for what that many points can give."""
        if len(self.meetings) < points:
            # A load may put another vCPU's state here and its own elsewhere first.
            self.slices = np.empty((3 * points, q.SLICE_ROW), np.int64)
            self.meetings = np.empty((points, q.MEETING_ROW), np.int64)


class Replay:
    """Runs one placement, bound by bound, over chunks of points."""

    def __init__(
        self, placement: Placement, most: bool, vcpus: int, cpus: int, reasons: int,
        part: Part | None = None, hook: str = "perf", scratch: Scratch | None = None,
        loop_known: bool = False,
    ) -> None:  # fmt: skip
        self._scratch = scratch or Scratch()
        self._table, self._mask = transition_table(placement, most, loop_known)
        self._rules = rules_of(placement, most, loop_known)
        self._vcpus = np.zeros((vcpus, q.VCPU_COLUMNS), np.int64)
        self._vcpus[:, (q.V_CPU, q.V_USES)] = -1
        self._totals = np.zeros(q.TOTALS, np.int64)
        self._cpus = q.no_cpus(cpus)
        self._count = np.zeros((vcpus, q.COUNTS), np.int64)
        self._held = np.zeros((vcpus, q.HELD), np.int64)
        self._reason_of = np.zeros(vcpus, np.int64)
        self._reasons = np.zeros((reasons + 1, 4), np.int64)
        part = part or Part()
        self._hook = HOOKS.index(hook)
        self._filled = np.zeros(3, np.int64)
        self._found: list[tuple[Array, Array]] = []
        self._begin, self._end = part.begin, part.end
        self._chosen = _ones_at(cpus, part.cpus)
        self._watched = _ones_at(vcpus, part.vcpus)
        # Nothing counts before the part begins.
        self._counted = self._chosen if part.begin is None else np.zeros(cpus, np.int64)

    def feed(self, ts: Array, cpu: Array, vcpu: Array, kind: Array, detail: Array) -> None:
        """Take points (int64[n] each) that follow all before; vcpu -1 where there is none."""
        points = (ts, cpu, vcpu, kind, detail)
        for cut, reached in ((self._begin, self._open), (self._end, self._close)):
            if cut is None:
                continue
            before = int(np.searchsorted(points[0], cut))
            self._run(*(column[:before] for column in points))
            points = tuple(column[before:] for column in points)  # type: ignore[assignment]
            if points[0].size:
                reached()
        self._run(*points)

    def _run(self, ts: Array, cpu: Array, vcpu: Array, kind: Array, detail: Array) -> None:
        self._scratch.make_room(ts.size)
        room = self._scratch
        replay(
            ts, cpu, vcpu, kind, detail, self._table, self._mask, self._hook, self._rules,
            self._cpus, self._vcpus, self._count, self._held, self._reason_of, self._reasons,
            self._totals, self._counted, self._watched, room.slices, room.meetings, self._filled,
        )  # fmt: skip
        slices, meetings = self._filled[q.SLICES], self._filled[q.MEETINGS]
        self._found.append((room.slices[:slices].copy(), room.meetings[:meetings].copy()))

    def _pass_time(self, ts: int) -> None:
        # A STATE that names no vCPU changes nothing but the time up to which a CPU is counted.
        cpus = np.arange(len(self._cpus), dtype=np.int64)
        self._run(
            np.full_like(cpus, ts), cpus, np.full_like(cpus, -1), np.full_like(cpus, q.STATE),
            np.zeros_like(cpus),
        )  # fmt: skip

    def _edge(self, column: int) -> None:
        # Who owns a PMU at a cut is loaded there, as at the edge of a window.
        owners = self._cpus[(self._cpus[:, q.K_OWNER] >= 0) & (self._chosen == 1), q.K_OWNER]
        np.add.at(self._count[:, column], owners, 1)

    def _open(self) -> None:
        assert self._begin is not None
        self._pass_time(self._begin)
        self._counted, self._begin = self._chosen, None
        self._edge(q.N_START)

    def _close(self) -> None:
        # Beyond the end an exit may still tell the reason of what happened before it.
        assert self._end is not None
        self._pass_time(self._end)
        self._edge(q.N_END)
        self._counted, self._end = np.zeros_like(self._chosen), None

    def found(self) -> tuple[Array, Array]:
        """Return owner slices (kernel.S_* columns) and meetings (kernel.E_*) since the last call.

        A stay that is still open has no slice yet: every window ends with a LOST, so none is.
        """
        slices = [pair[0] for pair in self._found] or [np.empty((0, q.SLICE_ROW), np.int64)]
        meetings = [pair[1] for pair in self._found] or [np.empty((0, q.MEETING_ROW), np.int64)]
        self._found = []
        return np.concatenate(slices), np.concatenate(meetings)

    def counts(self) -> Counts:
        """Return the counts; what is still held goes to the reason of its last exit."""
        reasons = self._reasons.copy()
        np.add.at(reasons, self._reason_of, self._held[:, :4] * self._watched[:, None])
        return Counts(self._count * self._watched[:, None], reasons, self._totals.copy())
