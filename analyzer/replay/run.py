"""How often, how long, how blind? Counts of one placement over a store's points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.replay import kernel as q
from analyzer.replay.kernel import replay
from analyzer.replay.placement import Placement, transition_table

__all__ = ["Counts", "Replay"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """What one replay counted: per vCPU int64[v, COUNTS] and per reason int64[r + 1, 4]."""

    vcpus: Array
    reasons: Array


class Replay:
    """Runs one placement, bound by bound, over chunks of points."""

    def __init__(
        self, placement: Placement, most: bool, vcpus: int, cpus: int, reasons: int
    ) -> None:
        self._table, self._mask = transition_table(placement, most)
        self._cpus = np.zeros((cpus, q.CPU_COLUMNS), np.int64)
        self._cpus[:, q.K_CURRENT] = self._cpus[:, q.K_OWNER] = -1
        self._count = np.zeros((vcpus, q.COUNTS), np.int64)
        self._held = np.zeros((vcpus, 4), np.int64)
        self._reason_of = np.zeros(vcpus, np.int64)
        self._reasons = np.zeros((reasons + 1, 4), np.int64)

    def feed(self, ts: Array, cpu: Array, vcpu: Array, kind: Array, detail: Array) -> None:
        """Take points (int64[n] each) that follow all before; vcpu -1 where there is none."""
        replay(
            ts, cpu, vcpu, kind, detail, self._table, self._mask, self._cpus, self._count,
            self._held, self._reason_of, self._reasons,
        )  # fmt: skip

    def counts(self) -> Counts:
        """Return the counts; what is still held goes to the reason of its last exit."""
        reasons = self._reasons.copy()
        np.add.at(reasons, self._reason_of, self._held)
        return Counts(self._count.copy(), reasons)
