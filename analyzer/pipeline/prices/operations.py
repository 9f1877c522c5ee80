"""Which operations did the recorded swaps consist of? Counted by kind, direction and guest's PMU.

Everything is counted in polars, a batch of rows at a time; only the swaps themselves, some twenty
accesses each, are held as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from analyzer.arch.x86.msrs import ROLES
from analyzer.arch.x86.operations import OPERATION_NAMES, OPERATIONS, OPERATIONS_OF_OTHERS
from analyzer.replay import Part
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline.attribution.words import ACTORS, Actor

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BATCH_ROWS", "RecordedOperations", "accesses", "recorded_operations"]

Array = np.ndarray[Any, Any]
BATCH_ROWS = 512 * 1024
SWAPPING = {Actor.KVM_LOAD: ("kvm", "load"), Actor.KVM_PUT: ("kvm", "put")}
SWAPPING |= {Actor.PERF_LOAD: ("perf", "load"), Actor.PERF_PUT: ("perf", "put")}
LOADING, OF_KVM = (Actor.KVM_LOAD, Actor.PERF_LOAD), (Actor.KVM_LOAD, Actor.KVM_PUT)
# Host perf's own code around its register accesses: it reads a counter as it stops an event, and
# writes one as it starts it (facts/x86.md 1.3, "Host event cost"), so those tell how many events.
EVENT_OF = {("load", "counter_read"): "perf_event_out", ("put", "counter_write"): "perf_event_in"}

# Kept apart while swaps are counted, as it tells how many fixed counters were walked.
FIXED_READ = "counter_read of a fixed counter"
SELECTS, FIXED_CONTROL = (OPERATION_NAMES.index(f"{n}_write") for n in ("selector", "fixed_ctrl"))
# A selector's enable bit, and of fixed control's four bits a counter the two that say in what rings
# it counts.
ENABLE, FIXED_RINGS = np.uint64(1 << 22), np.uint64(3)
FIXED_FIELDS = np.arange(0, 64, 4, dtype=np.uint64)
COUNTED = (*OPERATION_NAMES, FIXED_READ)
OPS = tuple(OPERATIONS_OF_OTHERS)
# int8[op, role]: number in OPERATION_NAMES. One row and column more, which -1 means: 0 is as good
# as any there, as an access without op is none and one without role has no actor.
_OPERATION_OF = np.zeros((len(OPS) + 1, len(ROLES) + 1), np.int8)
for _n, _op in enumerate(OPS):
    _OPERATION_OF[_n] = OPERATION_NAMES.index(OPERATIONS_OF_OTHERS[_op])
    for _m, _role in enumerate(ROLES):
        if (_op, _role) in OPERATIONS:
            _OPERATION_OF[_n, _m] = OPERATION_NAMES.index(OPERATIONS[_op, _role])


@dataclass(frozen=True, slots=True)
class RecordedOperations:
    """Mean operations of a recorded swap.

    kvm, perf: by direction, {operation: mean a swap}. by_state: KVM's half by direction and
    guest's PMU (on, off) of those swaps whose load was recorded. perf_least, perf_most: of a swap.
    swaps: number by direction. gp, fixed: counters walked (least, median, most). apic: xapic where
    no swap writes LVTPC by MSR. exit_reads: KVM's reads of global control at exits. enabled:
    general and fixed counters that a load enables by selector and fixed control, mean.
    """

    swaps: dict[str, int]
    kvm: dict[str, dict[str, float]]
    perf: dict[str, dict[str, float]]
    perf_least: dict[str, dict[str, float]]
    perf_most: dict[str, dict[str, float]]
    by_state: dict[tuple[str, str], dict[str, float]]
    gp: tuple[float, float, float]
    fixed: tuple[float, float, float]
    apic: str
    exit_reads: int
    enabled: tuple[float, float]


def accesses(
    store: Store, columns: list[str], attributed: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """Yield pmu_access's `columns` and pmu_attribution's `attributed`, with three codes beside:

    actor: int8, Actor, 0 where it is null. operation: int8, of OPERATION_NAMES. is_fixed: the
    register is a fixed counter. Row n of one table belongs to row n of the other, so both are read
    at the same pace. Names stay dictionaries until here: as text they would cost ten times as much.
    """
    import polars as pl

    pairs = zip(
        _table(store, "pmu_access", [*columns, "op", "role"]),
        _table(store, "pmu_attribution", ["actor", *attributed]),
        strict=True,
    )
    for access, attribution in pairs:
        op, role = _codes(access["op"], OPS), _codes(access["role"], ROLES)
        found = frame_of(pa.table([access[name] for name in columns], columns))
        yield found.with_columns(
            pl.Series("actor", np.maximum(_codes(attribution["actor"], ACTORS), 0)),
            pl.Series("operation", _OPERATION_OF[op, role]),
            pl.Series("is_fixed", role == ROLES.index("fixed_counter")),
            *(pl.Series(name, attribution[name]) for name in attributed),
        )


def _table(store: Store, name: str, columns: list[str]) -> Iterator[pa.Table]:
    # Readers may end a batch early at a row group's end, and two tables' groups differ.
    waiting, rows = [], 0
    for batch in store.batches(name, columns, BATCH_ROWS):
        waiting.append(pa.Table.from_batches([batch]))
        rows += batch.num_rows
        while rows >= BATCH_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, BATCH_ROWS)
            waiting, rows = [whole.slice(BATCH_ROWS)], rows - BATCH_ROWS
    if rows:
        yield pa.concat_tables(waiting)


def _codes(column: pa.ChunkedArray, names: Sequence[str]) -> Array:
    # int8[n]: which of `names` it is; -1, the last row of a table of codes, for null and others.
    found = [np.empty(0, np.int8)]
    for chunk in column.chunks:
        known = [names.index(n) if n in names else -1 for n in chunk.dictionary.to_pylist()]
        code = np.array([*known, -1], np.int8)
        indices = chunk.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        found.append(code[indices])
    return np.concatenate(found)


def _swaps(store: Store, part: Part) -> pl.DataFrame:
    import polars as pl

    columns = ["ts", "end", "cpu", "vcpu", "kind", "counters", "guest_pmu_on"]
    table = store.read("recorded_swap", columns)
    ts, cpu = (table[name].to_numpy() for name in ("ts", "cpu"))
    held = part.holds(ts, cpu, table["vcpu"].fill_null(-1).to_numpy())
    swaps = frame_of(table)
    # A put's guest is the one whose load came last on that CPU; none in a loss or at the start.
    return (
        swaps.with_columns(pl.col("kind").cast(pl.String), pl.Series("held", held))
        .sort("cpu", "ts")
        .with_columns(
            number=pl.int_range(pl.len()),
            on=pl.when(pl.col("kind") == "load")
            .then("guest_pmu_on")
            .otherwise(
                pl.when(pl.col("kind").shift(1) == "load")
                .then(pl.col("guest_pmu_on").shift(1))
                .over("cpu")
            ),
        )
        .with_columns(is_load=pl.col("kind") == "load")
        .select("number", "ts", "end", "cpu", "kind", "is_load", "counters", "on", "held")
        .sort("ts")
    )


def _in_swaps(rows: pl.DataFrame, swaps: pl.DataFrame) -> pl.DataFrame:
    # Accesses of the swaps' actors, each with its swap's number, end and guest; rows in time order.
    import polars as pl

    first, last = rows["ts"][0], rows["ts"][-1]
    near = swaps.filter(pl.col("end") >= first, pl.col("ts") <= last)
    actor = pl.col("actor")
    is_fixed_read = pl.col("operation") == COUNTED.index("counter_read")
    wanted = rows.filter(actor.is_in(list(SWAPPING))).with_columns(
        is_load=actor.is_in(LOADING),
        operation=pl.when(actor.is_in(OF_KVM), "is_fixed", is_fixed_read)
        .then(pl.lit(COUNTED.index(FIXED_READ), pl.Int8))
        .otherwise("operation"),
    )
    found = wanted.join_asof(
        near, on="ts", by=["cpu", "is_load"], strategy="backward", check_sortedness=False
    )
    found = found.filter(pl.col("ts") <= pl.col("end"), pl.col("held"))
    return found.select("number", "end", "actor", "on", "operation", "value")


def _enabled(found: pl.DataFrame) -> Array:
    # int64[2]: general and fixed counters that the values of KVM's loads enable.
    import polars as pl

    loads = found.filter(pl.col("actor") == Actor.KVM_LOAD)
    selectors, control = (
        loads.filter(pl.col("operation") == operation)["value"].fill_null(0).to_numpy()
        for operation in (SELECTS, FIXED_CONTROL)
    )
    fields = control[:, None].astype(np.uint64) >> FIXED_FIELDS
    return np.array(
        [
            np.count_nonzero(selectors.astype(np.uint64) & ENABLE),
            np.count_nonzero(fields & FIXED_RINGS),
        ]
    )


def _count(found: pl.DataFrame) -> pl.DataFrame:
    # In how many swaps an actor does an operation how often. One integer as key: grouping by five
    # columns took most of the time.
    import polars as pl

    key = pl.col("number") * 1024 + pl.col("actor").cast(pl.Int64) * 64 + pl.col("operation")
    each = found.group_by(key.alias("key")).agg(times=pl.len(), on=pl.col("on").first())
    each = each.group_by(pl.col("key") % 1024, "on", "times").agg(swaps=pl.len())
    return each.select(
        "on", "times", "swaps", actor=pl.col("key") // 64, operation=pl.col("key") % 64
    )


def _distribution(store: Store, swaps: pl.DataFrame, part: Part) -> tuple[pl.DataFrame, int, Array]:
    # How many swaps have an operation how often, the reads at exits, and the counters that loads
    # enable. Swaps that the next batch may go on with wait; all others are only counted, so nothing
    # grows with the recording.
    import polars as pl

    kinds = ["actor", "on", "operation", "times"]
    waiting: list[pl.DataFrame] = []
    counted, exit_reads, enabled = [], 0, np.zeros(2, np.int64)
    tids = store.read("vcpu", ["vcpu", "tid"]).to_pylist()
    asked = [row["tid"] for row in tids if part.vcpus is None or row["vcpu"] in part.vcpus]
    when = Part(part.begin, part.end, part.cpus)
    for rows in accesses(store, ["ts", "cpu", "tid", "value"]):
        reads = rows.filter(pl.col("actor") == Actor.KVM_EXIT_READ, pl.col("tid").is_in(asked))
        ts, cpu = reads["ts"].to_numpy(), reads["cpu"].to_numpy()
        exit_reads += int(when.holds(ts, cpu, ts).sum())
        inside = _in_swaps(rows, swaps)
        enabled += _enabled(inside)
        found = pl.concat([*waiting, inside.drop("value")])
        is_open = pl.col("end") >= rows["ts"][-1]
        waiting = [found.filter(is_open)]
        counted.append(_count(found.filter(~is_open)))
    counted += map(_count, waiting)
    each = pl.concat(counted).group_by(kinds).agg(pl.col("swaps").sum())
    words = {int(actor): word for actor, word in SWAPPING.items()}
    each = each.with_columns(
        half=pl.col("actor").replace_strict({n: half for n, (half, _) in words.items()}),
        kind=pl.col("actor").replace_strict({n: kind for n, (_, kind) in words.items()}),
        operation=pl.col("operation").replace_strict(dict(enumerate(COUNTED))),
    )
    return each, exit_reads, enabled


def recorded_operations(store: Store, part: Part) -> RecordedOperations | None:
    """Return what the recorded swaps of the part consist of; None where it records none."""
    if not store.rows("recorded_swap") or store.manifest["recording"]["arch"] != "x86":
        return None
    swaps = _swaps(store, part)
    if not swaps["held"].any():
        return None
    return _means(swaps.filter("held"), *_distribution(store, swaps, part))


def _means(
    swaps: pl.DataFrame, each: pl.DataFrame, exit_reads: int, enabled: Array
) -> RecordedOperations:
    import polars as pl

    number = {kind: swaps.filter(kind=kind).height for kind in ("load", "put")}

    def mean(rows: pl.DataFrame, of: int) -> dict[str, float]:
        name = pl.col("operation").replace(FIXED_READ, "counter_read")
        sums = rows.group_by(name).agg((pl.col("times") * pl.col("swaps")).sum()).sort("operation")
        return {name: total / of for name, total in sums.iter_rows()} if of else {}

    kvm, perf, by_state = {}, {}, {}
    least: dict[str, dict[str, float]] = {}
    most: dict[str, dict[str, float]] = {}
    for kind, of in number.items():
        mine = each.filter(kind=kind)
        kvm[kind] = mean(mine.filter(half="kvm"), of)
        host = mine.filter(half="perf")
        perf[kind] = _with_events(kind, mean(host, of))
        # A swap without the operation stands in no row.
        fewest = pl.when(pl.col("swaps").sum() < of).then(0).otherwise(pl.col("times").min())
        ends = host.group_by("operation").agg(least=fewest, most=pl.col("times").max())
        for into, column in ((least, "least"), (most, "most")):
            found = zip(ends["operation"], ends[column].cast(pl.Float64), strict=True)
            into[kind] = _with_events(kind, dict(sorted(found)))
        for state, flag in (("on", True), ("off", False)):
            those = swaps.filter(pl.col("kind") == kind, pl.col("on") == flag).height
            of_state = mine.filter(pl.col("half") == "kvm", pl.col("on") == flag)
            by_state[kind, state] = mean(of_state, those)
    is_fixed = (pl.col("half") == "kvm") & (pl.col("operation") == FIXED_READ)
    fixed = each.filter(is_fixed).select(pl.col("times").repeat_by("swaps").explode())
    lvtpc = any("lvtpc_write_x2apic" in kvm[kind] for kind in number)
    return RecordedOperations(
        number, kvm, perf, least, most, by_state, _spread(swaps["counters"]),
        _spread(fixed["times"]), "x2apic" if lvtpc else "xapic", exit_reads,
        (float(enabled[0]) / max(number["load"], 1), float(enabled[1]) / max(number["load"], 1)),
    )  # fmt: skip


def _with_events(kind: str, counts: dict[str, float]) -> dict[str, float]:
    # What perf's own code does for each event that it stops or starts.
    events = {
        name: counts[operation]
        for (direction, operation), name in EVENT_OF.items()
        if direction == kind and operation in counts
    }
    return {**counts, **events}


def _spread(values: pl.Series) -> tuple[float, float, float]:
    if values.is_empty():
        return 0.0, 0.0, 0.0
    low, middle, high = values.min(), values.median(), values.max()
    # A series of integers gives integers, and a float as its median.
    found = [float(value) for value in (low, middle, high) if isinstance(value, int | float)]
    return found[0], found[1], found[2]
