"""Which operations did the recorded swaps consist of? Counted by kind, direction and guest's PMU.

Everything is counted in polars, a batch of rows at a time; only the swaps themselves, some twenty
accesses each, are held as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from analyzer.arch.x86.operations import OPERATIONS, OPERATIONS_OF_OTHERS
from analyzer.replay import Part
from analyzer.store import Store

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BATCH_ROWS", "RecordedOperations", "accesses", "recorded_operations"]

BATCH_ROWS = 512 * 1024
KVM = {"kvm_load": "load", "kvm_put": "put"}
PERF = {"perf_load": "load", "perf_put": "put"}
# Host perf's own code around its register accesses: it reads a counter as it stops an event, and
# writes one as it starts it (facts/x86.md 1.3, "Host event cost"), so those tell how many events.
EVENT_OF = {("load", "counter_read"): "perf_event_out", ("put", "counter_write"): "perf_event_in"}


@dataclass(frozen=True, slots=True)
class RecordedOperations:
    """Mean operations of a recorded swap.

    kvm, perf: by direction, {operation: mean a swap}. by_state: KVM's half by direction and
    guest's PMU (on, off) of those swaps whose load was recorded. perf_least, perf_most: of a swap.
    swaps: number by direction. gp, fixed: counters walked (least, median, most). apic: xapic where
    no swap writes LVTPC by MSR. exit_reads: KVM's reads of global control at exits.
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


def accesses(
    store: Store, columns: list[str], attributed: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """Yield pmu_access's `columns` with op, role, actor as text, and each access's `operation`.

    attributed: columns of pmu_attribution that are wanted beside its actor.

    Row n of pmu_attribution belongs to row n of pmu_access: both are read at the same pace.
    """
    import polars as pl

    pairs = zip(
        _table(store, "pmu_access", [*columns, "op", "role"]),
        _table(store, "pmu_attribution", ["actor", *attributed]),
        strict=True,
    )
    names = pl.DataFrame(
        {
            "op": [op for op, _ in OPERATIONS],
            "role": [role for _, role in OPERATIONS],
            "operation": list(OPERATIONS.values()),
        }
    )
    for access, attribution in pairs:
        rows = pl.concat([access, attribution], how="horizontal").with_columns(
            pl.col("op", "role", "actor").cast(pl.String)
        )
        rows = rows.join(names, on=["op", "role"], how="left", maintain_order="left")
        other = pl.col("op").replace_strict(OPERATIONS_OF_OTHERS, default=None)
        yield rows.with_columns(pl.coalesce("operation", other))


def _table(store: Store, name: str, columns: list[str]) -> Iterator[pl.DataFrame]:
    import polars as pl

    # Readers may end a batch early at a row group's end, and two tables' groups differ.
    waiting, rows = [], 0
    for batch in store.batches(name, columns, BATCH_ROWS):
        waiting.append(pa.Table.from_batches([batch]))
        rows += batch.num_rows
        while rows >= BATCH_ROWS:
            whole = pa.concat_tables(waiting).unify_dictionaries()
            frame = pl.from_arrow(whole.slice(0, BATCH_ROWS))
            assert isinstance(frame, pl.DataFrame)
            yield frame
            waiting, rows = [whole.slice(BATCH_ROWS)], rows - BATCH_ROWS
    if rows:
        frame = pl.from_arrow(pa.concat_tables(waiting).unify_dictionaries())
        assert isinstance(frame, pl.DataFrame)
        yield frame


def _swaps(store: Store, part: Part) -> pl.DataFrame:
    import polars as pl

    columns = ["ts", "end", "cpu", "vcpu", "kind", "counters", "guest_pmu_on"]
    table = store.read("recorded_swap", columns)
    ts, cpu = (table[name].to_numpy() for name in ("ts", "cpu"))
    held = part.holds(ts, cpu, table["vcpu"].fill_null(-1).to_numpy())
    swaps = pl.from_arrow(table)
    assert isinstance(swaps, pl.DataFrame)
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
    )


def _in_swaps(rows: pl.DataFrame, swaps: pl.DataFrame) -> pl.DataFrame:
    # Each access of a swap's actors beside the swap that it lies in.
    import polars as pl

    wanted = rows.filter(pl.col("actor").is_in([*KVM, *PERF]))
    wanted = wanted.with_columns(
        half=pl.when(pl.col("actor").is_in([*KVM])).then(pl.lit("kvm")).otherwise(pl.lit("perf")),
        kind=pl.col("actor").replace_strict({**KVM, **PERF}),
    ).sort("ts")
    found = wanted.join_asof(
        swaps.sort("ts"), on="ts", by=["cpu", "kind"], strategy="backward", check_sortedness=False
    )
    return found.filter(pl.col("ts") <= pl.col("end"), pl.col("held"))


def recorded_operations(store: Store, part: Part) -> RecordedOperations | None:
    """Return what the recorded swaps of the part consist of; None where it records none."""
    import polars as pl

    if not store.rows("recorded_swap") or store.manifest["recording"]["arch"] != "x86":
        return None
    swaps = _swaps(store, part)
    if not swaps["held"].any():
        return None
    found: list[pl.DataFrame] = []
    exit_reads = 0
    for rows in accesses(store, ["ts", "cpu"]):
        # An exit's read is told from its CPU and time alone: no swap stands beside it.
        reads = rows.filter(actor="kvm_exit_read")
        ts, cpu = reads["ts"].to_numpy(), reads["cpu"].to_numpy()
        anybody = Part(part.begin, part.end, part.cpus)
        exit_reads += int(anybody.holds(ts, cpu, ts).sum())
        keys = ["number", "half", "kind", "on", "operation", "role"]
        found.append(_in_swaps(rows, swaps).group_by(keys).len())
    each = pl.concat(found).group_by(keys).agg(pl.col("len").sum())
    swaps = swaps.filter("held")
    return _means(each, swaps, exit_reads)


def _means(each: pl.DataFrame, swaps: pl.DataFrame, exit_reads: int) -> RecordedOperations:
    import polars as pl

    number = {kind: swaps.filter(kind=kind).height for kind in ("load", "put")}

    def mean(rows: pl.DataFrame, of: int) -> dict[str, float]:
        sums = rows.group_by("operation").agg(pl.col("len").sum()).sort("operation")
        return {name: total / of for name, total in sums.iter_rows()} if of else {}

    kvm, perf, by_state = {}, {}, {}
    least: dict[str, dict[str, float]] = {}
    most: dict[str, dict[str, float]] = {}
    for kind, of in number.items():
        mine = each.filter(kind=kind)
        kvm[kind] = mean(mine.filter(half="kvm"), of)
        host = mine.filter(half="perf")
        perf[kind] = _with_events(kind, mean(host, of))
        per_swap = host.group_by("number", "operation").agg(pl.col("len").sum())
        len_of = pl.col("len")
        # A swap without the operation has no row.
        fewest = pl.when(pl.len() < of).then(0).otherwise(len_of.min())
        ends = per_swap.group_by("operation").agg(least=fewest, most=len_of.max()).sort("operation")
        for into, column in ((least, "least"), (most, "most")):
            found = zip(ends["operation"], ends[column].cast(pl.Float64), strict=True)
            into[kind] = _with_events(kind, dict(found))
        for state, flag in (("on", True), ("off", False)):
            those = swaps.filter(pl.col("kind") == kind, pl.col("on") == flag).height
            of_state = mine.filter(pl.col("half") == "kvm", pl.col("on") == flag)
            by_state[kind, state] = mean(of_state, those)
    is_read = (pl.col("half") == "kvm") & (pl.col("operation") == "counter_read")
    fixed = each.filter(is_read, pl.col("role") == "fixed_counter")["len"]
    lvtpc = any("lvtpc_write_x2apic" in kvm[kind] for kind in number)
    return RecordedOperations(
        number, kvm, perf, least, most, by_state, _spread(swaps["counters"]), _spread(fixed),
        "x2apic" if lvtpc else "xapic", exit_reads,
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
