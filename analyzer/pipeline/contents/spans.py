"""In which kernel function was an access made? Function spans and probes laid over the accesses."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

__all__ = ["INNER", "OTHER", "Order", "by_probes", "by_spans"]

Array = np.ndarray[Any, Any]
# Numbers of functions are from 0 on; these stand for any other, and for one that is only ever
# called within those that have a number.
OTHER, INNER = -1, -2
NEVER = -(2**62)


class Order:
    """Accesses and function events of a recording in one frame of rows, accesses first.

    accesses: columns ts, cpu, tid. spans: ts, cpu, tid, number, phase. losses: int64[k], sorted,
    where streams are whole again after a loss.
    """

    def __init__(self, accesses: pl.DataFrame, spans: pl.DataFrame, losses: Array) -> None:
        self.size = len(accesses)
        both = pl.concat([frame.select("ts", "cpu", "tid") for frame in (accesses, spans)])
        self.ts, self.cpu = both["ts"].to_numpy(), both["cpu"].to_numpy()
        self.number = np.full(len(both), OTHER, np.int64)
        self.number[self.size :] = spans["number"].to_numpy()
        self.delta = np.zeros(len(both), np.int64)
        self.delta[self.size :] = np.where((spans["phase"] == "return").to_numpy(), -1, 1)
        # A function belongs to the thread whose stack it is on, wherever that thread moves. Every
        # CPU's idle thread is number 0. Behind a loss nothing is known to be open any more.
        tid = both["tid"].fill_null(0).to_numpy().astype(np.int64)
        self.stack = np.where(tid > 0, tid, -1 - self.cpu)
        self.part = np.searchsorted(losses, self.ts, "right")

    def is_tied(self, events: Array) -> Array:
        """Return bool[size], the accesses at the very time of one of the events (bool[rows]) on
        their CPU: tables keep no order between each other, so what came first cannot be told."""
        times = pl.DataFrame({"ts": self.ts[events], "cpu": self.cpu[events]}).unique()
        accesses = pl.DataFrame({"ts": self.ts[: self.size], "cpu": self.cpu[: self.size]})
        tied = accesses.with_row_index("row").join(times, on=["ts", "cpu"], how="semi")
        found = np.zeros(self.size, bool)
        found[tied["row"].to_numpy()] = True
        return found


def _begins(*keys: Array) -> Array:
    # int64[n]: where the run of equal keys begins that each row stands in.
    changes = np.ones(keys[0].size, bool)
    if changes.size:
        changes[1:] = False
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.maximum.accumulate(np.where(changes, np.arange(changes.size), 0))


def by_spans(order: Order) -> Array:
    """Return int64[size], for each access the number of the function that was entered last of
    those open on its stack; OTHER where none is."""
    at = np.lexsort((order.ts, order.stack, order.part))
    begin = _begins(order.part[at], order.stack[at])
    place = np.arange(at.size)
    which, entered = np.full(at.size, OTHER, np.int64), np.full(at.size, NEVER, np.int64)
    number, delta = order.number[at], order.delta[at]
    for candidate in np.unique(number[number >= 0]).tolist():
        mine = number == candidate
        moved = np.where(mine, delta, 0)
        depth = np.cumsum(moved)
        depth -= depth[begin] - moved[begin]
        # A return without its entry belongs to a function that was open at the begin; of several
        # such, the one that returns first was entered last.
        lowest, back = np.zeros(at.size, np.int64), np.full(at.size, at.size)
        np.minimum.at(lowest, begin, depth)
        unmatched = mine & (delta < 0) & (depth == -1)
        np.minimum.at(back, begin[unmatched], place[unmatched])
        is_open = depth > lowest[begin]
        last = np.maximum.accumulate(np.where(mine & (delta > 0), place, -1))
        last = np.where(last >= begin, last, -1 - back[begin])
        inner = is_open & (last > entered)
        which[inner], entered[inner] = candidate, last[inner]
    found = np.empty(at.size, np.int64)
    found[at] = which
    return np.where(order.is_tied(order.number >= 0), OTHER, found[: order.size])


def by_probes(order: Order, proofs: pl.DataFrame, continued: int | None) -> Array:
    """Return as `by_spans` what probes on functions' begins alone leave certain.

    An access is the last probed function's if nothing on that CPU since then proves that it is
    over: no row of `proofs` (ts, cpu), no other probe but those of INNER functions. In the
    function `continued`, whose caller goes on behind it, only what an inner call still follows is
    certain; where it makes no inner call, it made no access, and its caller did.
    """
    rows, more = order.ts.size, len(proofs)
    ts = np.concatenate([order.ts, proofs["ts"].to_numpy()])
    cpu = np.concatenate([order.cpu, proofs["cpu"].to_numpy()])
    number = np.concatenate([order.number, np.full(more, OTHER, np.int64)])
    stack = np.concatenate([order.stack, np.zeros(more, np.int64)])
    is_access = np.arange(rows + more) < order.size
    stops = ~is_access & (number != INNER)

    at = np.lexsort((ts, cpu))
    begin, place = _begins(cpu[at]), np.arange(rows + more)
    number, stack, is_stop, is_call = number[at], stack[at], stops[at], (number == INNER)[at]
    last = np.maximum.accumulate(np.where(is_stop, place, -1))
    stop = np.maximum(last, 0)
    known = (last >= begin) & (stack == stack[stop])
    which = np.where(known, number[stop], OTHER)
    if continued is not None:
        next_call = np.minimum.accumulate(np.where(is_call, place, at.size)[::-1])[::-1]
        bounds = is_stop | (begin == place)
        next_stop = np.minimum.accumulate(np.where(bounds, place, at.size)[::-1])[::-1]
        last_call = np.maximum.accumulate(np.where(is_call, place, -1))
        # Its caller does nothing before it, so the caller's probe stands directly before its own.
        caller = np.where(last > begin, number[np.maximum(last - 1, 0)], OTHER)
        outside = (which == continued) & (next_call >= next_stop)
        which = np.where(outside, np.where(last_call < last, caller, OTHER), which)
    found = np.empty(at.size, np.int64)
    found[at] = which
    return np.where(order.is_tied(stops[:rows]), OTHER, found[: order.size])
