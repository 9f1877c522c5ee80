"""Makes evidence for claims by hand: result tables as rows, designs as numbers.

Rows are held to the declared tables, so that a claim can't be tested on a column that is not there.
"""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from analyzer.claims import CLAIMS, Evidence, Verdict, decide_all, load_thresholds
from analyzer.pipeline.meetings.conflicts import SCHEMA
from analyzer.tables import BY_NAME, arrow_schema

Rows = list[dict[str, Any]]
S = 1_000_000_000
EVENTS = (
    "kvm_entry", "kvm_exit", "sched_switch", "sys_enter_ioctl", "write_msr", "read_msr", "rdpmc",
    "nmi_handler", "hrtimer_expire_entry", "local_timer_entry",
)  # fmt: skip
MARKS = {"kvm_run_ioctl": True, "swaps_recorded": True, "loop_marks_trusted": True}
BLIND = ("total", "kvm", "user", "interrupt", "other")


def frame(table: str, rows: Rows) -> pl.DataFrame:
    """Return rows as a table's frame; columns that a row leaves out are null."""
    declared = BY_NAME[table]
    for row in rows:
        assert set(row) <= set(declared.names), (table, set(row) - set(declared.names))
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(declared)])
    made = pl.from_arrow(pa.Table.from_pylist(rows, schema))
    assert isinstance(made, pl.DataFrame)
    return made.with_columns(pl.col(pl.Categorical).cast(pl.String))


def design(
    name: str,
    loads: int | tuple[int, int] = 100,
    *,
    told: bool = True,
    cost_ns: tuple[float | None, float | None] = (1e6, 2e6),
    guest_ns: int = 10 * S,
    residency_ns: int = 20 * S,
    blind: dict[str, int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return one design's answer; a range of loads is (fewest, most), puts are the same."""
    low, high = loads if isinstance(loads, tuple) else (loads, loads)
    dark = {kind: (blind or {}).get(kind, 0) for kind in BLIND}
    dark["total"] = sum(dark.values())
    counted = {"loads_low": low, "loads_high": high, "puts_low": low, "puts_high": high}
    return {
        "name": name, "options": {"perf_told": told, "hook": "notifier"}, **counted,
        "guest_ns": guest_ns, "residency_ns_low": residency_ns, "residency_ns_high": residency_ns,
        "blind_ns": {f"{kind}_{end}": n for kind, n in dark.items() for end in ("low", "high")},
        "blind_ns_low": dark["total"], "blind_ns_high": dark["total"],
        "overhead": {"low_ns": cost_ns[0], "high_ns": cost_ns[1], "cost_files": ["x86-amd"]},
        "by_vcpu": [{"vcpu": 0, "guest_ns": guest_ns, **counted}],
        "by_reason": [{"reason": "hlt", "exits": high, "blind_ns_low": dark["total"],
                       "blind_ns_high": dark["total"], **counted}],
        "conflicts": {"observed": {"touches": 0}}, "leak_ns": {"to_user_high": 0},
        "unseen": None, **more,
    }  # fmt: skip


def met(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return rows of `conflict`, observed if nothing else is said."""
    base = {"cpu": 0, "vcpu": 0, "evidence": "observed", "consequence": "", "rule": ""}
    return pl.DataFrame([{**base, **row} for row in rows], schema=SCHEMA)


def episodes(
    count: int, context: str, *, first: int = 0, on: bool = False, evidence: str = "observed"
) -> Rows:
    """Return host episodes of 4 accesses, 100 ns long, 1000 ns apart on CPU 0."""
    return [
        {"episode": n, "ts": first + 1000 * n, "end": first + 1000 * n + 100, "cpu": 0,
         "context": context, "evidence": evidence, "accesses": 4, "operations": 0, "counters": 1,
         "guest_state_on": on}
        for n in range(count)
    ]  # fmt: skip


def evicted(**contexts: int) -> dict[str, Any]:
    """Return what a lazy placement's replay counted, by context; `core` by perf core itself."""
    core = contexts.pop("core", 0)
    return {
        "by_context": contexts, "evicted_by_perf_core": core, "evicted_for_nothing": 0,
        "displaced_by_a_vcpu": 0, "migrated": 0, "changes_of_mode": 0,
    }  # fmt: skip


def make(
    *designs: dict[str, Any],
    tables: dict[str, Rows] | None = None,
    meetings: dict[tuple[str, bool], Any] | None = None,
    emulated: bool = False,
    without: tuple[str, ...] = (),
    arch: str = "x86",
    **more: Any,
) -> Evidence:
    """Return evidence; `without` names events that were not recorded; meetings: one frame, or those
    of the shortest and of the longest stays."""
    marks = {**MARKS, **more.pop("marks", {})}
    recorded = more.pop("recorded", {"placement": "loop", "evidence": {"perf": "told"}})

    def read(table: str, columns: list[str]) -> pl.DataFrame:
        return frame(table, (tables or {}).get(table, [])).select(columns)

    every = {(name, told): (met(), met()) for name in ("exit", "loop", "vcpu", "sched", "lazy-core",
             "lazy-driver") for told in (True, False)}  # fmt: skip
    return Evidence(
        {"arch": arch, "vendor": "AuthenticAMD", "emulated": emulated, "duration_ns": S},
        marks,
        {name: None if name in without else 1 for name in EVENTS},
        {"placements": list(designs), "recorded": recorded},
        read,
        met={
            **every,
            **{
                key: one if isinstance(one, tuple) else (one, one)
                for key, one in (meetings or {}).items()
            },
        },
        evictions=more.pop("evictions", {"lazy-core": evicted(), "lazy-driver": evicted()}),
        **more,
    )


def verdict(claim: str, evidence: Evidence, **limits: float) -> Verdict:
    """Return one claim's verdict, with thresholds moved."""
    words = [f"{claim}.{name}={value}" for name, value in limits.items()]
    chosen = [one for one in CLAIMS if one.id == claim.upper()]
    return decide_all(evidence, chosen, load_thresholds(None, words))[0][1]


def word(claim: str, evidence: Evidence, **limits: float) -> str:
    """Return one claim's verdict as the word that a user reads, with what qualifies it."""
    found = verdict(claim, evidence, **limits)
    return found.verdict + (f" ({found.qualifier})" if found.qualifier else "")
