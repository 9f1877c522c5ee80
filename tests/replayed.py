"""Runs as a replay leaves them, out of rows written by hand, and rows out of runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.pipeline.replays import Outcome, Run
from analyzer.replay import Counts, Replay, Rows, meetings_of, slices_of
from analyzer.replay import kernel as q

__all__ = ["meetings", "outcome_of", "run_of", "slices", "written"]

Array = np.ndarray[Any, Any]


def slices(run: Run) -> Array:
    """int64[n, SLICE_ROW] of a run's owner slices."""
    return slices_of(run.slices.read())


def meetings(run: Run) -> Array:
    """int64[n, MEETING_ROW] of a run's meetings."""
    return meetings_of(run.meetings.read())


def run_of(replay: Replay) -> Run:
    return Run(replay.counts(), replay.slices, replay.meetings, replay.sums())


def outcome_of(run: Run) -> Outcome:
    """A design whose bounds are one."""
    return Outcome((run, run))


def written(counts: Counts, stays: Array, met: Array | None = None) -> Run:
    """A run with these rows: int64[n, SLICE_ROW], int64[m, MEETING_ROW]."""
    rows, packed = stays.astype(np.int64), Rows(q.PACKED_SLICE)
    who = rows[:, q.S_VCPU] << q.VCPU_SHIFT | rows[:, q.S_CPU] << q.CPU_SHIFT
    packed.add(
        np.stack(
            [
                rows[:, q.S_TS], rows[:, q.S_END], rows[:, q.S_ENTERED],
                rows[:, q.S_STAY] << q.STAY_SHIFT | rows[:, q.S_ENTRIES],
                who | rows[:, q.S_LOADED] << 1 | rows[:, q.S_WHOLE],
            ],
            axis=1,
        )
    )  # fmt: skip
    met = np.zeros((0, q.MEETING_ROW), np.int64) if met is None else met
    found = Rows(q.PACKED_MEETING)
    found.add(
        np.stack(
            [
                met[:, q.E_TS], met[:, q.E_EPISODE] << q.SHIFT | met[:, q.E_CONTEXT],
                met[:, q.E_STAY] << q.STAY_SHIFT | met[:, q.E_ENTRIES],
                met[:, q.E_VCPU] << q.VCPU_SHIFT | met[:, q.E_CPU] << q.CPU_SHIFT
                | met[:, q.E_COUNTED],
            ],
            axis=1,
        )
    )  # fmt: skip
    return Run(counts, packed, found, np.zeros((1, q.COUNTS), np.int64))
