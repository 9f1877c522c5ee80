"""What does a perf-backed PMU pay instead of swaps? Traps, reprogramming and PMIs, by vCPU.

A perf-backed recording shows them itself: the guest's accesses that KVM intercepts, the register
accesses that host perf makes for the guest's events (in KVM, and at context switches), and the PMIs
of those events. A mediated one shows only what is intercepted there too, so it bounds the price
from below: what its guest reads and writes directly would have trapped, and left no trace.

What both kinds of PMU pay, intercepted selectors and the injection of a PMI, is part of the guest's
exits, which are held as recorded under every placement: it is left out of low and typical.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyzer.arch.x86.msrs import lookup
from analyzer.arch.x86.operations import OPERATION_NAMES
from analyzer.pipeline.prices.model import Pricing
from analyzer.pipeline.prices.one_swap import vectors_of
from analyzer.pipeline.prices.operations import accesses
from analyzer.pipeline.rows import held_points, with_vcpu
from analyzer.replay import Part
from analyzer.replay.cost import LEVELS
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline import Kind
from analyzer.timeline.attribution.words import Actor

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Emulation", "break_even_of", "emulation_of"]

# Guest's accesses by who intercepts them: mediation never does, does where the guest sees fewer
# counters than the host has, always does (facts/x86.md 3.1).
DIRECT = ("counter", "fixed_counter")
MAYBE_DIRECT = ("global_ctrl", "global_status", "global_status_reset", "global_status_set")
NEVER_DIRECT = ("selector", "fixed_ctrl", "lvtpc")
# A write of these makes KVM reprogram an event before the next entry (pmu.c:kvm_pmu_set_msr).
REPROGRAMMING = ("selector", "fixed_ctrl", "global_ctrl")
RDPMC_REASONS = ("rdpmc", "RDPMC")
FOR_GUEST = (Actor.VPMU_EMULATION, Actor.VPMU_SCHED)
# Host perf's own code beside its registers, as for perf's half of a swap.
OUT, IN = "counter_read", "counter_write"
Three = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Emulation:
    """What was counted, and what it is priced as.

    by_vcpu: {vCPU: {operation: (low, typical, high)}}, -1 for what is nobody's turn. is_lower: only
    what happened to be intercepted was seen. facts: counts as JSON has them.
    """

    by_vcpu: dict[int, dict[str, Three]]
    is_lower: bool
    facts: dict[str, Any]

    def operations(self) -> dict[str, Three]:
        """Return the operations of all vCPUs together."""
        total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for mine in self.by_vcpu.values():
            for name, counts in mine.items():
                total[name] = [a + b for a, b in zip(total[name], counts, strict=True)]
        return {name: (n[0], n[1], n[2]) for name, n in sorted(total.items())}


def break_even_of(pricing: Pricing, emulation: Emulation, exits: int) -> dict[str, Any] | None:
    """Return how many trapped accesses, or PMIs, an inner loop has to have for traps to cost what
    mainline's load and put cost (facts/claims.md C15), beside what was recorded.

    low: the cheapest swap against the dearest trap, high the reverse. None with two cost files.
    """
    if len(pricing.models) != 1:
        return None
    [model] = pricing.models
    loop = {"name": "loop", "boundary": "loop", "options": {"perf_told": True}}
    pair = (vectors_of(pricing, model, loop)[:2].sum(axis=0) * model.latencies).sum(axis=1)
    costs = {
        "reads": {"trapped_pmu_read": 1.0},
        "writes": {"trapped_pmu_write": 1.0},
        "pmis": {"pmi_host": 1.0, "perf_reprogram": 1.0},
    }
    found: dict[str, Any] = {}
    for name, operations in costs.items():
        price = model.latencies @ model.vector(operations)
        found[name] = {
            level: float(of / by) if by else None
            for level, of, by in zip(LEVELS, pair, price[::-1], strict=True)
        }
    trapped = emulation.facts.get("trapped")
    if trapped is not None and exits:
        every = sum(trapped.values()) + (emulation.facts["trapped_rdpmc"] or 0)
        found["recorded_accesses_per_exit"] = every / exits
    return found


class _Sums:
    # {vCPU: {operation: [low, typical, high]}}.

    def __init__(self) -> None:
        self.found: dict[int, dict[str, list[float]]] = defaultdict(dict)

    def add(self, vcpu: int, operation: str, low: float, typical: float, high: float) -> None:
        row = self.found[vcpu].setdefault(operation, [0.0, 0.0, 0.0])
        for at, more in enumerate((low, typical, high)):
            row[at] += more

    def as_tuples(self) -> dict[int, dict[str, Three]]:
        return {
            vcpu: {name: (n[0], n[1], n[2]) for name, n in rows.items() if n[2]}
            for vcpu, rows in self.found.items()
        }


def emulation_of(store: Store, part: Part) -> Emulation:
    """Return what a perf-backed PMU would have paid, or did, in a part of the recording."""
    if store.manifest["recording"]["arch"] != "x86":
        return Emulation({}, True, {"perf_backed": None})
    traps, rdpmc = _traps(store, part), _rdpmc_exits(store, part)
    touching = _touching(store, part)
    # Mediation never intercepts a counter, so a trapped one says that there was none.
    is_perf_backed = not store.manifest["marks"]["swaps_recorded"] and bool(
        touching or any(role in DIRECT for _, _, role in traps)
    )
    trapped: Counter[str] = Counter()
    for (_, op, role), times in sorted(traps.items()):
        trapped[f"{op} {role}"] += times
    facts: dict[str, Any] = {
        "perf_backed": is_perf_backed,
        "trapped": dict(trapped),
        "trapped_rdpmc": None if rdpmc is None else sum(rdpmc.values()),
    }
    sums = _Sums()
    if is_perf_backed and touching:
        _add_traps(sums, traps, rdpmc or {})
        _add_touching(sums, touching)
        facts["reprogramming_accesses"] = sum(touching.values())
        facts["guest_pmis"] = _add_pmis(store, part, sums)
    else:
        if is_perf_backed:
            _add_traps(sums, traps, rdpmc or {})
        facts["reprogramming_writes"] = _add_changes(store, part, sums)
        facts["guest_pmis"] = _add_overflows(store, part, sums)
    # Without exit reasons the RDPMC exits are among the others, and nobody knows which.
    is_whole = is_perf_backed and bool(touching) and rdpmc is not None
    return Emulation(sums.as_tuples(), not is_whole, facts)


def _frame(store: Store, table: str, columns: list[str], part: Part) -> pl.DataFrame:
    # Rows of the part, with the vCPU of their thread, -1 where it is none.
    import polars as pl

    rows = frame_of(store.read(table, columns))
    if "tid" in columns:
        rows = with_vcpu(store, rows)
    else:
        rows = rows.with_columns(pl.col("vcpu").fill_null(-1))
    return _held(rows, part)


def _held(rows: pl.DataFrame, part: Part) -> pl.DataFrame:
    import polars as pl

    held = part.holds(*(rows[name].to_numpy() for name in ("ts", "cpu", "vcpu")))
    return rows.filter(pl.Series(held))


def _pmu_writes_and_reads(store: Store, part: Part) -> pl.DataFrame:
    # The guest's intercepted accesses to PMU registers, with the register's role.
    import polars as pl

    rows = _frame(store, "kvm_msr", ["ts", "cpu", "tid", "write", "ecx", "data"], part)
    vendor = store.manifest["recording"]["vendor"]
    role = {
        ecx: found.role
        for ecx in rows["ecx"].unique()
        if (found := lookup("write", ecx, vendor)) is not None
    }
    named = rows.with_columns(
        pl.col("ecx").replace_strict(role, default=None, return_dtype=pl.String).alias("role")
    )
    return named.filter(pl.col("role").is_in([*DIRECT, *MAYBE_DIRECT, *NEVER_DIRECT]))


def _traps(store: Store, part: Part) -> dict[tuple[int, str, str], int]:
    # {(vCPU, read or write, role): how often}.
    each = _pmu_writes_and_reads(store, part).group_by("vcpu", "write", "role").len()
    return {
        (vcpu, "write" if write else "read", role): times
        for vcpu, write, role, times in each.iter_rows()
    }


def _rdpmc_exits(store: Store, part: Part) -> dict[int, int] | None:
    import polars as pl

    exits = _frame(store, "vm_exit", ["ts", "cpu", "tid", "reason"], part)
    exits = exits.with_columns(pl.col("reason").cast(pl.String))
    if exits["reason"].null_count() == exits.height:
        return None
    each = exits.filter(pl.col("reason").is_in(RDPMC_REASONS)).group_by("vcpu").len()
    return dict(each.iter_rows())


def _touching(store: Store, part: Part) -> Counter[tuple[int, str]]:
    # {(vCPU, operation): how often} of host perf's register accesses for the guest's events.
    import polars as pl

    found: Counter[tuple[int, str]] = Counter()
    for rows in accesses(store, ["ts", "cpu", "tid"]):
        mine = rows.filter(pl.col("actor").is_in([int(actor) for actor in FOR_GUEST]))
        each = _held(with_vcpu(store, mine), part).group_by("vcpu", "operation").len()
        for vcpu, operation, times in each.iter_rows():
            found[vcpu, OPERATION_NAMES[operation]] += times
    return found


def _add_traps(sums: _Sums, traps: dict[tuple[int, str, str], int], rdpmc: dict[int, int]) -> None:
    for (vcpu, op, role), times in traps.items():
        typical = 0 if role in NEVER_DIRECT else times
        low = times if role in DIRECT else 0
        sums.add(vcpu, f"trapped_pmu_{op}", low, typical, times)
    for vcpu, times in rdpmc.items():
        sums.add(vcpu, "trapped_pmu_read", 0, times, times)


def _add_touching(sums: _Sums, touching: Counter[tuple[int, str]]) -> None:
    # What perf's own code does for each event that it stops or starts is paid beside.
    software = {OUT: "perf_event_out", IN: "perf_event_in"}
    for (vcpu, operation), times in touching.items():
        sums.add(vcpu, operation, times, times, times)
        if operation in software:
            sums.add(vcpu, software[operation], times, times, times)


def _add_pmis(store: Store, part: Part, sums: _Sums) -> int:
    # A PMI of the guest's event is one after which KVM reprograms before the next entry.
    import polars as pl

    nmis = _frame(store, "host_episode", ["ts", "cpu", "vcpu", "context"], part).filter(
        pl.col("context").cast(pl.String) == "nmi", pl.col("vcpu") >= 0
    )
    entries = _frame(store, "vm_entry", ["ts", "cpu", "tid"], Part())
    touched = [
        with_vcpu(store, rows.filter(pl.col("actor") == int(Actor.VPMU_EMULATION)))
        for rows in accesses(store, ["ts", "cpu", "tid"])
    ]
    for name, rows in (("entry", entries), ("touched", pl.concat(touched))):
        later = rows.select("ts", "vcpu", pl.col("ts").alias(name))
        nmis = nmis.sort("ts").join_asof(
            later.sort("ts"), on="ts", by="vcpu", strategy="forward", check_sortedness=False
        )
    is_guests = pl.col("touched") < pl.col("entry")
    each = nmis.group_by("vcpu").agg(pl.len(), is_guests.fill_null(False).sum().alias("sure"))
    for vcpu, every, sure in each.iter_rows():
        sums.add(vcpu, "pmi_host", sure, sure, every)
        sums.add(vcpu, "pmi_inject", 0, 0, every)
    return int(each["sure"].sum())


def _add_changes(store: Store, part: Part, sums: _Sums) -> int:
    # KVM reprograms where a control changes; what it was before the recording nobody knows.
    import polars as pl

    writes = _pmu_writes_and_reads(store, part).filter("write", pl.col("role").is_in(REPROGRAMMING))
    before = pl.col("data").shift(1).over("vcpu", "ecx")
    changes = writes.sort("ts").filter((pl.col("data") != before).fill_null(False))
    for vcpu, times in changes.group_by("vcpu").len().iter_rows():
        sums.add(vcpu, "perf_reprogram", times, times, times)
    return changes.height


def _add_overflows(store: Store, part: Part, sums: _Sums) -> int:
    # A guest's overflow would have been an NMI of the host, and a new period for its event.
    overflows = held_points(store, part, [Kind.GUEST_PMI])
    for vcpu, times in overflows.group_by("vcpu").len().iter_rows():
        for operation in ("pmi_host", "perf_reprogram"):
            sums.add(vcpu, operation, times, times, times)
    return overflows.height
