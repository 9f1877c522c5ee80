"""By which rules is a host episode inferred? One declared table, and when each may be used.

A rule looks at events alone. One whose precondition nothing tells of is not applied at all: that
nothing was inferred is then no evidence that nothing happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analyzer.arch.x86.swaps import Token
from analyzer.timeline.attribution.words import Context

__all__ = ["IPI_READ", "IPI_REMOTE", "MUX", "RULES", "TICK", "Rule", "is_frequency", "unapplied"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. operations: the least that its handler does, as arch.x86.swaps.Token, of a general
    counter (a fixed one has registers of its own for the same). functions: whose call it is."""

    id: str
    context: Context
    looks_at: str
    concludes: str
    operations: Token
    functions: frozenset[str]
    source: str


_AROUND = Token.GLOBAL_OFF | Token.GLOBAL_ON
RULES: tuple[Rule, ...] = (
    Rule(
        "tick-freq",
        Context.TICK,
        "hrtimer_expire_entry of the tick's function, else local_timer_entry, while a host event "
        "of the core PMU in frequency mode is on that CPU or in that thread",
        "perf_adjust_freq_unthr_context stops, reads and starts every such event",
        _AROUND | Token.SELECTOR_WRITE | Token.COUNTER_READ | Token.COUNTER_WRITE,
        # tick_sched_timer was renamed in 6.10 or near it.
        frozenset({"tick_nohz_handler", "tick_sched_timer"}),
        "facts/x86.md 5.4, 5.1 A1",
    ),
    Rule(
        "mux-timer",
        Context.MUX_TIMER,
        "hrtimer_expire_entry of perf_mux_hrtimer_handler",
        "perf_rotate_context takes events off and puts others on",
        _AROUND | Token.SELECTOR_WRITE | Token.COUNTER_READ | Token.COUNTER_WRITE,
        frozenset({"perf_mux_hrtimer_handler"}),
        "facts/x86.md 5.1 A2",
    ),
    Rule(
        "ipi-event-read",
        Context.IPI,
        "csd_function_entry of __perf_event_read, but for calls that a vCPU's thread makes on its "
        "own CPU: a perf-backed guest's",
        "the counter of an active event is read",
        Token.COUNTER_READ,
        frozenset({"__perf_event_read"}),
        "facts/x86.md 5.1 A4",
    ),
    Rule(
        "ipi-remote-function",
        Context.IPI,
        "csd_function_entry of remote_function, but for calls that a vCPU's thread makes on its "
        "own CPU: a perf-backed guest's",
        "perf core stops the PMU, changes its events, and starts it",
        _AROUND,
        frozenset({"remote_function"}),
        "facts/x86.md 5.1 A3",
    ),
)
TICK, MUX, IPI_READ, IPI_REMOTE = range(len(RULES))

# linux:include/uapi/linux/perf_event.h: PERF_TYPE_HARDWARE, HW_CACHE, RAW. Others never touch the
# core PMU: what is NO_INTERRUPT or software is passed over in the tick (facts/x86.md 5.4).
_CORE_TYPES = (0, 3, 4)
# PMUs by name, whose type is the running kernel's own number.
_CORE_PMUS = ("cpu", "cpu_core", "cpu_atom", "armv8", "arm_")


def is_frequency(event: dict[str, Any]) -> bool:
    """Say whether a row of host_event is a frequency-mode event of the core PMU."""
    if not event.get("freq") or event.get("period"):
        return False
    kind = event.get("type")
    if kind is None:
        return str(event.get("name")).startswith(_CORE_PMUS)
    return kind in _CORE_TYPES


def unapplied(events: set[str], named: bool, host_events: list[dict[str, Any]]) -> list[str | None]:
    """Return of each rule why it is not applied, None where it is.

    events: names of the recorded ones; named: functions have names; host_events: rows of table
    host_event.
    """
    timer = "hrtimer_expire_entry" in events
    nameless = "functions of timers and calls have no names in this recording"
    tick = None
    if not (timer or "local_timer_entry" in events):
        tick = "neither hrtimer_expire_entry nor local_timer_entry is recorded"
    elif not host_events:
        tick = "nothing says which host events were on; --host-event can"
    mux = None if timer else "hrtimer_expire_entry is not recorded"
    call = None if "csd_function_entry" in events else "csd_function_entry is not recorded"
    if not named:
        mux, call = mux or nameless, call or nameless
    return [tick, mux, call, call]
