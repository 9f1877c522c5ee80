"""Which clock do a recording's times stand on, and how do they become nanoseconds?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.errors import ClockError

__all__ = ["NANOSECONDS", "TscScale", "clock_in_use"]

Array = np.ndarray[Any, Any]
# Clocks whose unit is 1 ns; linux:kernel/trace/trace.c trace_clocks.
NANOSECONDS = frozenset({"local", "global", "perf", "mono", "mono_raw", "boot", "tai"})


def clock_in_use(text: str) -> str:
    """Return the clock that stands in brackets, or the only one named.

    >>> clock_in_use("local global [mono] boot")
    'mono'
    """
    words = text.replace("\0", " ").split()
    for word in words:
        if word.startswith("[") and word.endswith("]"):
            return word[1:-1]
    return words[0] if len(words) == 1 else "unknown"


@dataclass(frozen=True, slots=True)
class TscScale:
    """Option TSC2NSEC: ns = ticks * mult >> shift. The option's offset is not added: the peer
    does not add it either (trace-cmd:lib/trace-cmd/trace-input.c timestamp_calc)."""

    mult: int
    shift: int

    def apply(self, ticks: Array) -> Array:
        """Return int64[n] ns of int64[n] ticks, exact in 128 bits; ClockError beyond 2^62."""
        if ticks.size == 0:
            return ticks
        if (int(ticks.max()) * self.mult) >> self.shift > 1 << 62:
            raise ClockError(
                f"TSC2NSEC: {int(ticks.max())} ticks times {self.mult} / 2^{self.shift} "
                f"is above 2^62 ns"
            )
        plain = ticks.astype(np.uint64)
        high = (plain >> np.uint64(32)) * np.uint64(self.mult)
        low = (plain & np.uint64(0xFFFFFFFF)) * np.uint64(self.mult)
        if self.shift <= 32:
            scaled = (high << np.uint64(32 - self.shift)) + (low >> np.uint64(self.shift))
        else:
            scaled = (high + (low >> np.uint64(32))) >> np.uint64(self.shift - 32)
        return scaled.astype(np.int64)
