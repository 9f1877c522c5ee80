"""Which handlers touch host perf's events? Kernel functions by name, else by what they do.

Source: facts/x86.md 5.1, which has it from Linux 7.3.4 kernel/events/core.c and kernel/time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.timeline.attribution import contexts as x
from analyzer.timeline.marks import Code

__all__ = ["Handlers", "plain_name"]

Array = np.ndarray[Any, Any]
# tick_sched_timer was renamed in 6.10 or near it; both are the tick's hrtimer.
TICK_FUNCTIONS = frozenset({"tick_nohz_handler", "tick_sched_timer"})
MUX_FUNCTIONS = frozenset({"perf_mux_hrtimer_handler"})
PERF_FUNCTIONS = frozenset(
    {"remote_function", "__perf_event_read", "cr4_update_pce", "__perf_event_exit_context"}
)
MILLISECOND = 1_000_000
# HZ of 100, 250 and 1000 divide a second into whole milliseconds. A tick of HZ=300, or one with
# skew_tick, is not found so: where no function is named its accesses are a mux_timer's.
_SOURCES = {
    "local_timer_entry": x.SOURCE_TIMER,
    "call_function_entry": x.SOURCE_CALL,
    "call_function_single_entry": x.SOURCE_CALL,
    "softirq_entry": x.SOURCE_SOFTIRQ,
}


class Handlers:
    """Classes of interrupts, timers and called functions of one recording.

    Where the recording names no functions, a timer that was set to a whole millisecond is taken
    for the tick's (contexts.follow), any other that touches the PMU for the multiplexing timer's,
    and a called function that touches it for perf's; `named` tells which holds.
    """

    def __init__(self, event_names: list[str], symbols: dict[int, str]) -> None:
        self._source = np.full(len(event_names) + 1, x.SOURCE_OTHER, np.uint8)
        for kind, name in enumerate(event_names):
            self._source[kind] = _SOURCES.get(name, x.SOURCE_OTHER)
        self.timers_recorded = "hrtimer_expire_entry" in event_names
        self.named = bool(symbols)
        names = {number: plain_name(name) for number, name in symbols.items()}
        self._ticks = _numbers(names, TICK_FUNCTIONS)
        self._muxes = _numbers(names, MUX_FUNCTIONS)
        self._perf = _numbers(names, PERF_FUNCTIONS)

    def classes(self, code: Array, kind: Array, first: Array, second: Array) -> Array:
        """Return uint8[n], the class of each event that begins a handler; see contexts.follow."""
        found = np.zeros(code.size, np.uint8)
        rows = np.flatnonzero(code == Code.IRQ_IN)
        found[rows] = self._source[kind[rows]]
        rows = np.flatnonzero(code == Code.TIMER_IN)
        timer = np.full(rows.size, x.TIMER_OTHER if self.named else x.TIMER_UNNAMED, np.uint8)
        timer[np.isin(first[rows], self._ticks)] = x.TIMER_TICK
        timer[np.isin(first[rows], self._muxes)] = x.TIMER_MUX
        found[rows] = timer
        rows = np.flatnonzero(code == Code.TIMER_START)
        found[rows] = second[rows] % MILLISECOND == 0
        rows = np.flatnonzero(code == Code.FUNCTION_IN)
        perf = np.isin(first[rows], self._perf) if self.named else np.ones(rows.size, bool)
        found[rows] = np.where(perf, x.FUNCTION_PERF, x.FUNCTION_OTHER)
        return found


def plain_name(name: str) -> str:
    """Return a symbol without an offset or a compiler's suffix: perf_foo+0x0, perf_foo.isra.0."""
    return name.split("+", maxsplit=1)[0].split(".", maxsplit=1)[0]


def _numbers(names: dict[int, str], wanted: frozenset[str]) -> Array:
    return np.array([n for n, name in names.items() if name in wanted], np.int64)
