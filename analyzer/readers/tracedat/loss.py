"""Where is a CPU's stream whole? Its first to its last event, but for gaps that the pages tell.

The recorder's final statistics say how many events the kernel's buffer lost in all: what no flag
places stands before the window (overwritten before anybody read) or nowhere (dropped).
"""

from __future__ import annotations

from analyzer.readers.recording import CpuWindow, Loss
from analyzer.readers.tracedat.batches import Gap, Stream
from analyzer.readers.tracedat.options import CpuStatistics
from analyzer.trouble import Trouble

__all__ = ["windows_and_losses"]

OVERRUN = "ring_buffer_overrun"


def windows_and_losses(
    streams: list[Stream],
    statistics: dict[tuple[str, int], CpuStatistics],
    trouble: Trouble,
) -> tuple[list[CpuWindow], list[Loss], int | None]:
    """Return every CPU's window, all losses, and the number of events lost (None: unknown)."""
    windows: dict[int, CpuWindow] = {}
    losses: list[Loss] = []
    total: int | None = 0
    for stream in streams:
        cpu = stream.cpu
        known = statistics.get((stream.blocks.buffer.name, cpu))
        found = _losses(stream, known, trouble)
        losses += found
        for loss in found:
            total = None if loss.events is None or total is None else total + loss.events
        if stream.first is None or stream.last is None:
            continue
        before = windows.get(cpu)
        windows[cpu] = CpuWindow(
            cpu,
            min(stream.first, before.ts) if before else stream.first,
            max(stream.last, before.end) if before else stream.last,
            stream.events + (before.events if before else 0),
        )
    losses.sort(key=lambda x: (x.end is None, x.end or 0, -1 if x.cpu is None else x.cpu))
    return [windows[cpu] for cpu in sorted(windows)], losses, total


def _losses(stream: Stream, known: CpuStatistics | None, trouble: Trouble) -> list[Loss]:
    cpu = stream.cpu
    gaps = stream.gaps
    flagged = [gap for gap in gaps if gap.cause == OVERRUN]
    overrun = known.overrun if known is not None else 0
    placed = sum(gap.count or 0 for gap in flagged)
    unknown = [gap for gap in flagged if gap.count is None]
    losses = []
    for gap in gaps:
        count = gap.count
        if len(unknown) == 1 and gap is unknown[0] and overrun > placed:
            # One gap without a number must hold all that the others do not.
            count = overrun - placed
        losses.append(Loss(gap.ts, gap.end, cpu, gap.cause, count))
    _count(gaps, stream, trouble)
    if overrun > placed and not unknown:
        left = overrun - placed
        trouble.add("overrun_events", left, f"cpu {cpu}: {left} before its first event")
        losses.append(Loss(None, stream.first, cpu, OVERRUN, left))
    dropped = known.commit_overrun + known.dropped_events if known is not None else 0
    if dropped:
        trouble.add("dropped_events", dropped, f"cpu {cpu}: {dropped} events")
        losses.append(Loss(stream.first, None, cpu, "dropped_events", dropped))
    return losses


def _count(gaps: list[Gap], stream: Stream, trouble: Trouble) -> None:
    for gap in gaps:
        where = f"cpu {stream.cpu} after {gap.ts} ns"
        if gap.cause == OVERRUN:
            trouble.add("page_loss_flags", 1, where)
    trouble.add("damaged_page", stream.bad_pages, f"cpu {stream.cpu}")
    if stream.blocks.cut:
        trouble.add("cpu_data_cut", 1, f"cpu {stream.cpu}")
