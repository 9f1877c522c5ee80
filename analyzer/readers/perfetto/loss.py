"""Where is a CPU's stream whole? Windows and losses, by bundles and by the kernel's statistics.

The rules are facts/formats.md 1.6: a stream begins at its first bundle's
previous_bundle_end_timestamp where that is there, else at its first event; it ends where the
kernel's buffer kept what was not read, else at its last event.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.readers.perfetto import layout
from analyzer.readers.perfetto.facts import CpuStatistics, SmallPackets
from analyzer.readers.perfetto.index import X_DROPPED
from analyzer.readers.recording import CpuWindow, Loss
from analyzer.trouble import Trouble

Array = np.ndarray[Any, Any]
NS = 1_000_000_000


def _count(row: Array) -> int:
    return int(row[layout.B_EVENTS] + row[layout.B_SWITCHES] + row[layout.B_WAKINGS])


def _ns(seconds: float) -> int:
    # The statistics are printed in seconds with microseconds, as a double.
    return round(seconds * NS)


def overrun_of(cpu: CpuStatistics) -> int | None:
    """Return the events that one CPU's buffer lost between its two statistics; None if unknown."""
    if cpu.start is None or cpu.end is None:
        return None
    return int(
        (cpu.end.overrun - cpu.start.overrun)
        + (cpu.end.commit_overrun - cpu.start.commit_overrun)
        + (cpu.end.dropped_events - cpu.start.dropped_events)
    )


def tail_of(cpu: CpuStatistics, events: int) -> int | None:
    """Return how many events stayed in one CPU's buffer at the end; None without statistics."""
    if cpu.end is None:
        return None
    read_before = cpu.start.read_events if cpu.start is not None else 0
    return max(0, int(cpu.end.entries + cpu.end.read_events - read_before - events))


def carry_flags(rows: Array) -> None:
    """Move the loss flag of bundles without events to the next bundle of that CPU, in place."""
    for cpu in np.unique(rows[:, layout.B_CPU]):
        pending = False
        for b in np.flatnonzero(rows[:, layout.B_CPU] == cpu).tolist():
            if _count(rows[b]) == 0:
                pending = pending or bool(rows[b, layout.B_LOST])
            elif pending:
                rows[b, layout.B_LOST] = 1
                pending = False


def begins_late(rows: Array, offsets: Array, b: int, ended: int | None) -> bool:
    """Say whether bundle `b` begins behind the end of the one before it on its CPU."""
    whole_from = int(rows[b, layout.B_PREVIOUS_END])
    return ended is not None and whole_from != 0 and whole_from + int(offsets[b]) > ended


def inner_losses(rows: Array, offsets: Array, last: Array, trouble: Trouble) -> list[Loss]:
    """Return the losses that the bundles themselves tell of, by CPU and time.

    rows: bundles in file order, after carry_flags; offsets: ns to add to their times; last: the
    last event's time of each (0: none), ns on the trace clock.
    """
    losses: list[Loss] = []
    for cpu in np.unique(rows[:, layout.B_CPU]).tolist():
        mine = np.flatnonzero((rows[:, layout.B_CPU] == cpu) & (_counts(rows) > 0))
        mine = mine[np.argsort(rows[mine, layout.B_FIRST] + offsets[mine], kind="stable")]
        ended: int | None = None
        for b in mine.tolist():
            first = int(rows[b, layout.B_FIRST] + offsets[b])
            if rows[b, layout.B_LOST]:
                # The kernel's own buffer lost what stands right before the first event.
                trouble.add("bundle_loss_flags", 1, f"cpu {cpu} before {first} ns")
                losses.append(Loss(ended, first, cpu, "bundle_flag", None))
            elif begins_late(rows, offsets, b, ended):
                whole_from = int(rows[b, layout.B_PREVIOUS_END] + offsets[b])
                trouble.add("bundle_sequence_gaps", 1, f"cpu {cpu} before {whole_from} ns")
                losses.append(Loss(ended, whole_from, cpu, "bundle_gap", None))
            elif ended is not None and not rows[b, layout.B_PREVIOUS_END] and rows[b, X_DROPPED]:
                losses.append(Loss(ended, first, cpu, "packets_dropped", None))
            ended = max(int(last[b]), first)
    return losses


def windows_and_losses(
    rows: Array,
    offsets: Array,
    last: Array,
    small: SmallPackets,
    inner: list[Loss],
    trouble: Trouble,
) -> tuple[list[CpuWindow], list[Loss], int | None]:
    """Return every CPU's window, all losses, and the number of events lost (None: only flags).

    inner: what inner_losses found. Statistics are on the same clock as the bundles they frame.
    """
    windows: list[CpuWindow] = []
    losses: list[Loss] = []
    total: int | None = 0
    for cpu in np.unique(rows[:, layout.B_CPU]).tolist():
        mine = rows[:, layout.B_CPU] == cpu
        counted = np.flatnonzero(mine & (_counts(rows) > 0))
        statistics = small.cpus.get(cpu, CpuStatistics())
        events = int(_counts(rows)[counted].sum())
        overrun = overrun_of(statistics)
        here = [loss for loss in inner if loss.cpu == cpu]
        losses += _with_counts(here, overrun, statistics)
        trouble.add("overrun_events", overrun or 0, f"cpu {cpu}: {overrun} events")
        tail = tail_of(statistics, events)
        if overrun is None or tail is None or any(x.cause != "bundle_flag" for x in here):
            total = None
        elif total is not None:
            total += overrun + tail
        if counted.size == 0:
            continue
        firsts = rows[counted, layout.B_FIRST] + offsets[counted]
        head = counted[int(np.argmin(firsts))]
        end = int(last[counted].max())
        if rows[head, layout.B_PREVIOUS_END] and not any(x.ts is None for x in here):
            start = int(rows[head, layout.B_PREVIOUS_END] + offsets[head])
        else:
            start = int(firsts.min())
        if tail is None:
            trouble.add("tail_unknown", 1, f"cpu {cpu}")
            losses.append(Loss(end, None, cpu, "no_final_statistics", None))
        elif tail > 0:
            oldest = max(end, _ns(statistics.end.oldest_event_ts))
            end = oldest
            trouble.add("tail_events", tail, f"cpu {cpu}: {tail} events from {oldest} ns on")
            cause = "final_flush_failed" if small.final_flush_failed else "kept_in_kernel_buffer"
            losses.append(Loss(oldest, max(oldest, _ns(statistics.end.now_ts)), cpu, cause, tail))
        elif small.final_flush_failed:
            # The statistics show that nothing had stayed behind when they were taken.
            losses.append(Loss(end, None, cpu, "final_flush_failed", 0))
        windows.append(CpuWindow(cpu, start, end, events))
    if small.buffer_loss:
        total = None
        losses.append(Loss(None, None, None, "trace_buffer", None))
    losses.sort(key=lambda x: (x.end is None, x.end or 0, -1 if x.cpu is None else x.cpu))
    return windows, losses, total


def _counts(rows: Array) -> Array:
    return rows[:, layout.B_EVENTS] + rows[:, layout.B_SWITCHES] + rows[:, layout.B_WAKINGS]


def _with_counts(here: list[Loss], overrun: int | None, statistics: CpuStatistics) -> list[Loss]:
    # One flagged gap of a CPU must hold all that its buffer overwrote; of several, nothing tells.
    flagged = [loss for loss in here if loss.cause == "bundle_flag"]
    made = []
    for loss in here:
        ts, events = loss.ts, loss.events
        if loss.cause == "bundle_flag" and len(flagged) == 1 and overrun is not None:
            events = overrun
        if ts is None and statistics.start is not None and loss.end is not None:
            ts = min(_ns(statistics.start.oldest_event_ts), loss.end)
        made.append(Loss(ts, loss.end, loss.cpu, loss.cause, events))
    return made
