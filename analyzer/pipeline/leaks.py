"""For how long could one side's counts be read by the other? Leak windows by clearing rule.

A put that clears nothing leaves the guest's values in the counters. Until the host has written each
counter that the guest uses, or the next load writes all, user code of another mm on that CPU reads
them if RDPMC is permitted to it: facts/x86.md 7. Nothing recorded tells of that permission, nor
which of a thread's time is user code: every number is an upper bound, "if RDPMC were allowed".

The same holds within a stay that a context switch does not end; `blind` and `dirty` puts leave 0
either way, and leak no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from analyzer.pipeline.conflicts import guest_counters_of
from analyzer.pipeline.replays import Design, Outcome
from analyzer.replay import CLEARINGS, Part, slices_of
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline.points import Kind

__all__ = ["Leak", "find_leaks"]

Array = np.ndarray[Any, Any]
ROWS = 1 << 20
NEVER = np.iinfo(np.int64).max
IDLE = 0
# Of a thread that is no vCPU's. VMs are numbered from 1.
NO_VM = 0
FIXED_BIT = 32
# Whose writes leave the host's values in a counter: KVM's own clearing is what is left out here.
HOST_ACTORS = ("host_perf", "perf_put", "perf_load")


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What of a recording bears on every design's leaks.

    vm: int64[v], number of each vCPU's VM from 1. tids: those of all vCPUs, int64[t], sorted, and
    of_vm: int64[t]. used: by vCPU the counters it uses; absent where nothing tells. writes: by CPU
    and counter the sorted times at which the host wrote it. puts: by CPU, begins and ends of the
    recorded puts. lost: by CPU, from when on nothing is known. switched: whether context switches
    are recorded.
    """

    vm: Array
    tids: Array
    of_vm: Array
    used: dict[int, int]
    writes: dict[tuple[int, int], Array]
    puts: dict[int, tuple[Array, Array]]
    lost: dict[int, Array]
    switched: bool


@dataclass(frozen=True, slots=True)
class Leak:
    """One bound's leak to user code under one clearing rule; ns None where no switch tells."""

    ns: int | None
    windows: int | None


def _surroundings_of(store: Store) -> _Surroundings:
    vcpus = store.read("vcpu", ["tid", "tgid"]).to_pylist()
    # Threads whose process is not known are taken for one VM's: they share an mm as far as we know.
    numbers = {tgid: n + 1 for n, tgid in enumerate(dict.fromkeys(row["tgid"] for row in vcpus))}
    by_tid = {row["tid"]: numbers[row["tgid"]] for row in vcpus}
    tids = np.array(sorted(by_tid), np.int64)
    return _Surroundings(
        np.array([numbers[row["tgid"]] for row in vcpus], np.int64),
        tids,
        np.array([by_tid[tid] for tid in tids.tolist()], np.int64),
        guest_counters_of(store),
        _host_writes(store),
        _puts(store),
        _lost(store),
        store.rows("sched_switch") > 0,
    )


def _frames(store: Store, table: str, columns: list[str]) -> Any:
    for batch in store.batches(table, columns, ROWS):
        frame = pl.from_arrow(pa.Table.from_batches([batch]))
        assert isinstance(frame, pl.DataFrame)
        yield frame


def _host_writes(store: Store) -> dict[tuple[int, int], Array]:
    # Row n of pmu_attribution is row n of pmu_access, but batches may be cut at other rows.
    kept, rest = [], None
    actors = _frames(store, "pmu_attribution", ["actor"])
    for accesses in _frames(store, "pmu_access", ["ts", "cpu", "op", "role", "index"]):
        while rest is None or len(rest) < len(accesses):
            more = next(actors, None)
            if more is None:
                return {}  # attribution was not made
            rest = more if rest is None else pl.concat([rest, more])
        whose, rest = rest[: len(accesses)], rest[len(accesses) :]
        words = [pl.col(name).cast(pl.String) for name in ("op", "role", "actor")]
        kept.append(
            pl.concat([accesses, whose], how="horizontal")
            .with_columns(words)
            .filter(
                pl.col("op") == "write",
                pl.col("role").is_in(["counter", "fixed_counter"]),
                pl.col("actor").is_in(HOST_ACTORS),
                pl.col("index").is_not_null(),
            )
            .select(
                "ts",
                "cpu",
                bit=pl.col("index") + FIXED_BIT * (pl.col("role") == "fixed_counter"),
            )
        )
    if not kept:
        return {}
    writes = pl.concat(kept).sort("ts")
    return {
        (int(cpu), int(bit)): mine["ts"].to_numpy()
        for (cpu, bit), mine in writes.group_by("cpu", "bit", maintain_order=True)
    }


def _puts(store: Store) -> dict[int, tuple[Array, Array]]:
    frame = pl.from_arrow(store.read("recorded_swap", ["ts", "end", "cpu", "kind"]))
    assert isinstance(frame, pl.DataFrame)
    puts = frame.filter(pl.col("kind").cast(pl.String) == "put").sort("ts")
    return {
        int(cpu): (mine["ts"].to_numpy(), mine["end"].to_numpy())
        for (cpu,), mine in puts.group_by("cpu", maintain_order=True)
    }


def _lost(store: Store) -> dict[int, Array]:
    found = [
        frame.filter(kind=int(Kind.LOST)).select("ts", "cpu")
        for frame in _frames(store, "point", ["ts", "cpu", "kind"])
    ]
    if not found:
        return {}
    return {
        int(cpu): mine["ts"].to_numpy()
        for (cpu,), mine in pl.concat(found).group_by("cpu", maintain_order=True)
    }


def _next(times: Array | None, after: Array) -> Array:
    # int64[n]: the first of the sorted times that is not before each; NEVER where none is.
    if times is None:
        return np.full(after.size, NEVER)
    return np.append(times, NEVER)[np.searchsorted(times, after)]


def _half_writes(around: _Surroundings, cpu: int, times: Array | None, put: Array) -> Array:
    # bool[n]: a put at this time has a half of perf's that writes the counter with those writes: a
    # host event is on it, for the recorded puts before and after both write it.
    begin, end = around.puts.get(cpu, (np.zeros(0, np.int64),) * 2)
    if times is None or not begin.size:
        return np.zeros(put.size, bool)
    writes = np.searchsorted(times, end, side="right") > np.searchsorted(times, begin)
    after = np.searchsorted(begin, put, side="right")
    known = (after > 0) & (after < begin.size)
    last, following = np.maximum(after - 1, 0), np.minimum(after, begin.size - 1)
    found: Array = known & writes[last] & writes[following]
    return found


def _cleared(around: _Surroundings, cpu: int, vcpu: Array, put: Array, told: bool) -> Array:
    # int64[n]: when the last of the vCPU's counters has been written by the host, after its put or,
    # if perf is told, by perf's half of it.
    found = np.full(put.size, NEVER)
    for v in np.unique(vcpu).tolist():
        used = around.used.get(v)
        if used is None:
            continue
        mine = np.flatnonzero(vcpu == v)
        # A guest that enabled no counter has left nothing.
        latest = put[mine].copy()
        for bit in range(64):
            if used >> bit & 1:
                times = around.writes.get((cpu, bit))
                written = _next(times, put[mine])
                if told:
                    written[_half_writes(around, cpu, times, put[mine])] = 0
                np.maximum(latest, written, out=latest)
        found[mine] = latest
    return found


@dataclass(slots=True)
class _Windows:
    # Where a guest's values stand in a CPU's counters, in order of begin; ns: for how long foreign
    # code ran meanwhile. stay: row of the owner slice; tail: behind its put.
    begin: Array
    end: Array
    cpu: Array
    vm: Array
    stay: Array
    tail: Array
    ns: Array


def _windows(slices: Array, told: bool, around: _Surroundings, part: Part) -> _Windows:
    pieces = []
    for cpu in np.unique(slices[:, q.S_CPU]).tolist():
        if part.cpus is not None and cpu not in part.cpus:
            continue
        rows = np.flatnonzero(slices[:, q.S_CPU] == cpu)
        # Stays of one CPU follow each other.
        rows = rows[np.lexsort((slices[rows, q.S_STAY], slices[rows, q.S_TS]))]
        begin, end = slices[rows, q.S_TS], slices[rows, q.S_END]
        until = np.minimum(np.append(begin[1:], NEVER), _next(around.lost.get(cpu), end))
        until = np.minimum(until, _cleared(around, cpu, slices[rows, q.S_VCPU], end, told))
        # Where sight of a stay was lost nobody knows what came after.
        until = np.where(slices[rows, q.S_WHOLE] == 1, until, end)
        for first, last, tail in ((begin, end, 0), (end, until, 1)):
            of = np.full(rows.size, cpu)
            pieces.append(np.stack([first, last, of, rows, np.full(rows.size, tail)]))
    joined = np.concatenate(pieces, axis=1) if pieces else np.zeros((5, 0), np.int64)
    begin, end, cpus, rows, is_tail = (joined[n] for n in range(5))
    if part.begin is not None:
        begin = np.maximum(begin, part.begin)
    if part.end is not None:
        end = np.minimum(end, part.end)
    vcpu = slices[rows, q.S_VCPU]
    kept = end > begin
    if part.vcpus is not None:
        kept &= np.isin(vcpu, part.vcpus)
    order = np.flatnonzero(kept)[np.argsort(begin[kept], kind="stable")]
    size = order.size
    return _Windows(
        begin[order], end[order], cpus[order], around.vm[vcpu[order]], rows[order],
        is_tail[order].astype(bool), np.zeros(size, np.int64),
    )  # fmt: skip


def _spent(keys: Array, length: Array, at: Array) -> Array:
    # int64[m]: how much of a group's disjoint intervals lies before `at`, plus a constant of the
    # group. keys: their begins, sorted; both as group * span + time, so that groups follow on.
    if not keys.size:
        return np.zeros(at.size, np.int64)
    last = np.searchsorted(keys, at, side="right") - 1
    before = np.cumsum(length) - length
    inside = before[last] + np.minimum(at - keys[last], length[last])
    return np.where(last >= 0, inside, 0)


def _add(windows: _Windows, rows: Array, runs: tuple[Array, ...], low: int, high: int) -> None:
    # Adds the time of foreign threads within [low, high) to those rows of the windows.
    begin, end, cpu, vm = runs
    vms = 1 + max(int(vm.max(initial=0)), int(windows.vm.max(initial=0)))
    # No two groups overlap: an interval ends with its group's span at the latest.
    span = high - low + 1
    edges = [np.clip(x[rows], low, high) - low for x in (windows.begin, windows.end)]
    for sign, of, mine in (
        (1, cpu, windows.cpu[rows]),
        (-1, cpu * vms + vm, windows.cpu[rows] * vms + windows.vm[rows]),
    ):
        keys = of * span + (begin - low)
        order = np.argsort(keys, kind="stable")
        first, last = (
            _spent(keys[order], (end - begin)[order], mine * span + edge) for edge in edges
        )
        windows.ns[rows] += sign * (last - first)


def _runs(store: Store, around: _Surroundings, low: int, end: int) -> Any:
    # Yields, batch by batch from low to end, which threads ran: (begin, end, cpu, vm) of every
    # stretch with a thread that is not idle, cut where the batch is, and the batch's span. Until a
    # CPU's first switch the thread is not known; where a put stands there, it is the vCPU's own.
    nothing = pl.DataFrame(schema={"ts": pl.Int64, "cpu": pl.Int32, "next_pid": pl.Int32})
    latest, columns = nothing, nothing.columns
    for frame in chain(_frames(store, "sched_switch", columns), [nothing]):
        high = min(int(frame["ts"][-1]), end) if len(frame) else end
        rows = pl.concat([latest, frame])
        if high > low:
            yield _stretches(rows, around, low, high), low, high
        latest = rows.group_by("cpu", maintain_order=True).last().select(columns)
        low = max(low, high)


def _stretches(rows: pl.DataFrame, around: _Surroundings, low: int, high: int) -> tuple[Array, ...]:
    rows = rows.sort("cpu", "ts", maintain_order=True)
    rows = rows.with_columns(end=pl.col("ts").shift(-1).over("cpu").fill_null(high))
    rows = rows.with_columns(pl.col("ts", "end").clip(low, high))
    rows = rows.filter(pl.col("next_pid").fill_null(IDLE) != IDLE, pl.col("end") > pl.col("ts"))
    tid = rows["next_pid"].to_numpy().astype(np.int64)
    at = np.minimum(np.searchsorted(around.tids, tid), around.tids.size - 1)
    vm = np.where(around.tids[at] == tid, around.of_vm[at], NO_VM)
    ts, end, cpu = (rows[name].to_numpy().astype(np.int64) for name in ("ts", "end", "cpu"))
    return ts, end, cpu, vm


def _with_user_code(store: Store, slices: list[Array], part: Part) -> list[Array]:
    # Of each, bool[n]: the stays in which their own vCPU's thread ran outside KVM_RUN.
    found = [np.zeros(len(some), bool) for some in slices]
    # A vCPU's stays follow each other, as those of a CPU do.
    orders = [np.lexsort((x[:, q.S_STAY], x[:, q.S_TS], x[:, q.S_VCPU])) for x in slices]
    for frame in _frames(store, "mode_slice", ["ts", "end", "cpu", "vcpu", "mode"]):
        user = frame.filter(pl.col("mode").cast(pl.String) == "user").drop_nulls()
        every = [user[name].to_numpy().astype(np.int64) for name in ("ts", "end", "cpu", "vcpu")]
        if part.begin is not None:
            every[0] = np.maximum(every[0], part.begin)
        if part.end is not None:
            every[1] = np.minimum(every[1], part.end)
        kept = every[1] > every[0]
        begin, end, cpu, vcpu = (column[kept] for column in every)
        for some, order, marked in zip(slices, orders, found, strict=True):
            mine = some[order]
            for v in np.unique(vcpu).tolist():
                edges = np.searchsorted(mine[:, q.S_VCPU], [v, v + 1])
                here = slice(*edges.tolist())
                code = np.flatnonzero(vcpu == v)
                first = np.searchsorted(mine[here, q.S_END], begin[code], side="right")
                count = np.searchsorted(mine[here, q.S_TS], end[code]) - first
                count = np.maximum(count, 0)
                # Each pair of such code and a stay that it reaches into; its CPU's, if it does.
                of = np.repeat(np.arange(code.size), count)
                nth = np.arange(of.size) - np.repeat(np.cumsum(count) - count, count)
                at = edges[0] + first[of] + nth
                at = at[mine[at, q.S_CPU] == cpu[code[of]]]
                marked[order[at]] = True
    return found


def find_leaks(
    store: Store, designs: list[tuple[Design, Outcome]], part: Part
) -> list[tuple[dict[str, Leak], dict[str, Leak]]]:
    """Return each design's leaks to user code by clearing rule, of both its bounds."""
    around = _surroundings_of(store)
    # Designs that swap alike share their slices, and an exact one has them once for both bounds.
    distinct = {(run, design.told) for design, outcome in designs for run in outcome.runs}
    slices = [slices_of(run.slices.read()) for run, _ in distinct]
    every = [
        _windows(some, told, around, part) for (_, told), some in zip(distinct, slices, strict=True)
    ]
    low = min((int(w.begin[0]) for w in every if w.begin.size), default=0)
    end = max((int(w.end.max()) for w in every if w.end.size), default=0)
    carried = [np.zeros(0, np.int64) for _ in every]
    reached = [0] * len(every)
    for runs, since, high in _runs(store, around, low, end) if around.switched else ():
        for n, windows in enumerate(every):
            upto = int(np.searchsorted(windows.begin, high))
            rows = np.concatenate([carried[n], np.arange(reached[n], upto)])
            _add(windows, rows, runs, since, high)
            carried[n], reached[n] = rows[windows.end[rows] > high], upto
    marked = _with_user_code(store, slices, part)
    at = {key: n for n, key in enumerate(distinct)}
    found = []
    for design, outcome in designs:
        pair = []
        for run in outcome.runs:
            n = at[run, design.told]
            own = int(run.counts.vcpus[:, q.N_USER].sum())
            pair.append(_leak(every[n], marked[n], own, around.switched))
        found.append((pair[0], pair[1]))
    return found


def _leak(windows: _Windows, user: Array, own: int, switched: bool) -> dict[str, Leak]:
    # user: the stays with user code of their own thread, own: for how long it ran. A stay and what
    # follows its put are a window each.
    foreign = windows.stay[~windows.tail & (windows.ns > 0)]
    seen = np.zeros(user.size, bool)
    seen[windows.stay[~windows.tail]] = True
    leaky = user & seen
    leaky[foreign] = True
    within = Leak(own + int(windows.ns[~windows.tail].sum()), int(np.count_nonzero(leaky)))
    assert within.ns is not None
    assert within.windows is not None
    left = Leak(None, None)
    if switched:
        behind = windows.ns[windows.tail]
        left = Leak(within.ns + int(behind.sum()), within.windows + int(np.count_nonzero(behind)))
    return {clearing: left if clearing == "none" else within for clearing in CLEARINGS}
