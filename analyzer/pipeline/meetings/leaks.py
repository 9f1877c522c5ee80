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

from analyzer.pipeline.meetings.conflicts import guest_counters_of
from analyzer.pipeline.replays import Design, Outcome, Run, cpus_of
from analyzer.replay import CLEARINGS, Part, ones_at
from analyzer.replay import kernel as q
from analyzer.replay.leaking import COUNTERS, no_puts, walk_leaks
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline.points import Kind

__all__ = ["Leak", "find_leaks"]

Array = np.ndarray[Any, Any]
# int64[k, n] in order of group and time, and where each group begins: replay.stays.seek.
Groups = tuple[Array, Array]
ROWS = 1 << 20
LEAST, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
IDLE = 0
# Of a thread that is no vCPU's. VMs are numbered from 1.
NO_VM = 0
FIXED_BIT = 32
# Whose writes leave the host's values in a counter: KVM's own clearing is what is left out here.
HOST_ACTORS = ("host_perf", "perf_put", "perf_load")


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What of a recording bears on every run's leaks, as replay.leaking.walk_leaks takes it.

    vm: int64[v], number of each vCPU's VM from 1. switched: whether context switches are recorded.
    """

    part: Array
    chosen: Array
    watched: Array
    vm: Array
    used: Array
    lists: Array
    of: Array
    first: Array
    switched: bool


@dataclass(frozen=True, slots=True)
class Leak:
    """One bound's leak to user code under one clearing rule; ns None where no switch tells."""

    ns: int | None
    windows: int | None


def _groups(rows: Array, group: Array, groups: int) -> Groups:
    # rows: [n] or [k, n], in order of group and time.
    return np.atleast_2d(rows).astype(np.int64), np.searchsorted(group, np.arange(groups + 1))


def _surroundings_of(store: Store, part: Part) -> _Surroundings:
    vcpus, cpus = store.read("vcpu", ["tid", "tgid"]).to_pylist(), cpus_of(store)
    # Threads whose process is not known are taken for one VM's: they share an mm as far as we know.
    numbers = {tgid: n + 1 for n, tgid in enumerate(dict.fromkeys(row["tgid"] for row in vcpus))}
    by_tid = {row["tid"]: numbers[row["tgid"]] for row in vcpus}
    times = np.array([LEAST if part.begin is None else part.begin, NEVER], np.int64)
    if part.end is not None:
        times[1] = part.end
    writes = _host_writes(store, cpus)
    # In the order of replay.leaking's G_*.
    every = [
        *_threads(store, by_tid, cpus, len(numbers) + 1),
        _user_code(store, part, len(vcpus)),
        writes,
        _puts(store, writes, cpus),
        _lost(store, cpus),
    ]
    size = np.cumsum([0, *(rows.shape[1] for rows, _ in every)])
    lists, of = np.zeros((3, size[-1]), np.int64), [np.zeros(1, np.int64)]
    for at, (rows, begins) in zip(size.tolist(), every, strict=False):
        lists[: len(rows), at : at + rows.shape[1]] = rows
        of.append(begins[1:] + at)
    first = np.cumsum([0, *(begins.size - 1 for _, begins in every)])
    return _Surroundings(
        times,
        ones_at(cpus, part.cpus),
        ones_at(len(vcpus), part.vcpus),
        np.array([numbers[row["tgid"]] for row in vcpus], np.int64),
        _used(guest_counters_of(store), len(vcpus)),
        lists,
        np.concatenate(of),
        first,
        store.rows("sched_switch") > 0,
    )


def _frames(store: Store, table: str, columns: list[str]) -> Any:
    for batch in store.batches(table, columns, ROWS):
        yield frame_of(batch)


def _threads(store: Store, by_tid: dict[int, int], cpus: int, vms: int) -> tuple[Groups, Groups]:
    # Every stretch with a thread that is not idle, by CPU, and those of VMs by CPU and VM. Until a
    # CPU's first switch the thread is not known; where a put stands there, it is the vCPU's own.
    frame = pl.concat(
        [
            pl.DataFrame(schema={"ts": pl.Int64, "cpu": pl.Int32, "next_pid": pl.Int32}),
            *_frames(store, "sched_switch", ["ts", "cpu", "next_pid"]),
        ]
    )
    frame = frame.filter(pl.col("cpu") < cpus).sort("cpu", "ts", maintain_order=True)
    frame = frame.with_columns(end=pl.col("ts").shift(-1).over("cpu"))
    frame = frame.filter(pl.col("next_pid").fill_null(IDLE) != IDLE)
    cpu, tid = frame["cpu"].to_numpy().astype(np.int64), frame["next_pid"].to_numpy()
    # The last goes on, beyond whatever is asked for.
    goes_on = frame["end"].is_null().to_numpy()
    begin, end = frame["ts"].to_numpy(), frame["end"].fill_null(NEVER).to_numpy()
    tids = np.array(sorted(by_tid), np.int64)
    of_vm = np.array([by_tid[tid] for tid in tids.tolist()], np.int64)
    at = np.minimum(np.searchsorted(tids, tid), tids.size - 1)
    vm = np.where(tids[at] == tid, of_vm[at], NO_VM)

    def stretches(rows: Array, group: Array, groups: int) -> Groups:
        length = end[rows] - begin[rows]
        finite = np.where(goes_on[rows], 0, length)
        before = np.cumsum(finite) - finite
        return _groups(np.stack([begin[rows], length, before]), group[rows], groups)

    mine = np.flatnonzero(vm != NO_VM)
    group = cpu * vms + vm
    mine = mine[np.argsort(group[mine], kind="stable")]
    return stretches(np.arange(cpu.size), cpu, cpus), stretches(mine, group, cpus * vms)


def _user_code(store: Store, part: Part, vcpus: int) -> Groups:
    # Ends, begins and CPUs of the stretches in which a vCPU's thread ran outside KVM_RUN.
    names = ["end", "ts", "cpu", "vcpu"]
    kept = [pl.DataFrame(schema=dict.fromkeys(names, pl.Int64))]
    for frame in _frames(store, "mode_slice", [*names, "mode"]):
        user = frame.filter(pl.col("mode").cast(pl.String) == "user").drop_nulls()
        kept.append(user.select(pl.col(names).cast(pl.Int64)))
    found = pl.concat(kept)
    if part.begin is not None:
        found = found.with_columns(pl.col("ts").clip(part.begin))
    if part.end is not None:
        found = found.with_columns(pl.col("end").clip(upper_bound=part.end))
    found = found.filter(pl.col("end") > pl.col("ts")).sort("vcpu", maintain_order=True)
    rows = found.select(names[:3]).to_numpy().T.reshape(3, -1)
    return _groups(rows, found["vcpu"].to_numpy(), vcpus)


def _used(counters: dict[int, int], vcpus: int) -> Array:
    # Of each vCPU where it stands how many counters it uses, and which; -1 where nothing tells.
    found = [-1] * vcpus
    for vcpu, mask in counters.items():
        bits = [bit for bit in range(COUNTERS) if mask >> bit & 1]
        found[vcpu] = len(found)
        found += [len(bits), *bits]
    return np.array(found, np.int64)


def _host_writes(store: Store, cpus: int) -> Groups:
    # Row n of pmu_attribution is row n of pmu_access, but batches may be cut at other rows; where
    # attribution was not made there is none.
    kept = [pl.DataFrame(schema={"ts": pl.Int64, "group": pl.Int64})]
    actors = _frames(store, "pmu_attribution", ["actor"])
    whose = pl.DataFrame(schema={"actor": pl.String})
    for accesses in _frames(store, "pmu_access", ["ts", "cpu", "op", "role", "index"]):
        while len(whose) < len(accesses):
            more = next(actors, None)
            if more is None:
                return _groups(np.zeros(0, np.int64), np.zeros(0, np.int64), cpus * COUNTERS)
            whose = pl.concat([whose, more.cast(pl.String)])
        words = [pl.col(name).cast(pl.String) for name in ("op", "role")]
        bit = pl.col("index") + FIXED_BIT * (pl.col("role") == "fixed_counter")
        kept.append(
            pl.concat([accesses, whose[: len(accesses)]], how="horizontal")
            .with_columns(words)
            .filter(
                pl.col("op") == "write",
                pl.col("role").is_in(["counter", "fixed_counter"]),
                pl.col("actor").is_in(HOST_ACTORS),
                bit < COUNTERS,
                pl.col("cpu") < cpus,
            )
            .select("ts", group=(pl.col("cpu").cast(pl.Int64) * COUNTERS + bit).cast(pl.Int64))
        )
        whose = whose[len(accesses) :]
    found = pl.concat(kept).sort("group", "ts")
    return _groups(found["ts"].to_numpy(), found["group"].to_numpy(), cpus * COUNTERS)


def _puts(store: Store, writes: Groups, cpus: int) -> Groups:
    # Recorded puts, and the set of counters that the host writes in each.
    frame = frame_of(store.read("recorded_swap", ["ts", "end", "cpu", "kind"]))
    puts = frame.filter(pl.col("kind").cast(pl.String) == "put").sort("cpu", "ts")
    begin, end, cpu = (puts[name].to_numpy() for name in ("ts", "end", "cpu"))
    masks = np.zeros(begin.size, np.int64)
    (times,), of = writes
    for group in np.flatnonzero(np.diff(of)).tolist():
        on, bit = divmod(group, COUNTERS)
        mine = slice(*np.searchsorted(cpu, [on, on + 1]).tolist())
        written = times[of[group] : of[group + 1]]
        first = np.searchsorted(written, begin[mine])
        within = np.searchsorted(written, end[mine], side="right") > first
        masks[mine] |= within.astype(np.int64) << bit
    return _groups(np.stack([begin, masks]), cpu, cpus)


def _lost(store: Store, cpus: int) -> Groups:
    kept = [pl.DataFrame(schema={"ts": pl.Int64, "cpu": pl.Int32})]
    for frame in _frames(store, "point", ["ts", "cpu", "kind"]):
        kept.append(frame.filter(kind=int(Kind.LOST)).select("ts", "cpu"))
    found = pl.concat(kept).sort("cpu", "ts")
    return _groups(found["ts"].to_numpy(), found["cpu"].to_numpy(), cpus)


def find_leaks(
    store: Store, designs: list[tuple[Design, Outcome]], part: Part
) -> list[tuple[dict[str, Leak], dict[str, Leak]]]:
    """Return each design's leaks to user code by clearing rule, of both its bounds."""
    around = _surroundings_of(store, part)
    found: dict[tuple[Run, bool], dict[str, Leak]] = {}
    pairs = []
    for design, outcome in designs:
        for run in outcome.runs:
            # Designs that swap alike share their runs, and an exact one has one for both bounds.
            if (run, design.told) not in found:
                found[run, design.told] = _leak(around, run, design.told)
        fewest, most = (found[run, design.told] for run in outcome.runs)
        pairs.append((fewest, most))
    return pairs


def _leak(around: _Surroundings, run: Run, told: bool) -> dict[str, Leak]:
    # A stay and what follows its put are a window each.
    cpus, windows = around.chosen.size, np.zeros((2, 2), np.int64)
    held, nothing = no_puts(cpus), np.empty((0, q.PACKED_SLICE), np.int64)
    at = around.of[:-1].copy()
    for rows in chain(run.slices.pieces(), [nothing]):
        walk_leaks(
            rows, rows is nothing, told, around.part, around.chosen, around.watched, around.vm,
            around.used, around.lists, around.of, at, around.first, held, windows,
        )  # fmt: skip
    # With their own thread's user code the stays leak for as long as it ran.
    own = int(run.counts.vcpus[:, q.N_USER].sum())
    (ns, leaky), (ns_behind, behind) = windows.tolist()
    within, left = Leak(own + ns, leaky), Leak(None, None)
    if around.switched:
        left = Leak(own + ns + ns_behind, leaky + behind)
    return {clearing: left if clearing == "none" else within for clearing in CLEARINGS}
