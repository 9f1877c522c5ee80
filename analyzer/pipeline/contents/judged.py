"""How good is attribution, held against the kernel functions that the recording itself names?

Where the functions of the swap were traced (function_graph) or probed, they say which kernel
function made an access, whatever was written where. This module knows functions and no registers,
attribution knows registers and no functions, so neither can hide the other's mistakes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from analyzer.pipeline.contents import spans
from analyzer.store import Store
from analyzer.store.frames import frame_of

__all__ = ["FUNCTIONS", "judge_attribution"]

Array = np.ndarray[Any, Any]
# Function -> whose the accesses are that it makes itself or through functions not listed here, and
# host perf's context. Source: Linux 7.3.4, facts/x86.md 1.2, 1.3 and 5.1. The functions that set
# LVTPC are perf's by name, but KVM calls them in the middle of its own half.
FUNCTIONS: dict[str, tuple[str, str | None]] = {
    "kvm_mediated_pmu_load": ("kvm_load", None),
    "perf_load_guest_lvtpc": ("kvm_load", None),
    "perf_load_guest_context": ("perf_load", None),
    "kvm_mediated_pmu_put": ("kvm_put", None),
    "perf_put_guest_lvtpc": ("kvm_put", None),
    "perf_put_guest_context": ("perf_put", None),
    "svm_vcpu_run": ("kvm_exit_read", None),
    "vmx_vcpu_run": ("kvm_exit_read", None),
    "kvm_pmu_set_msr": ("vpmu_emulation", None),
    "kvm_pmu_get_msr": ("vpmu_emulation", None),
    "kvm_pmu_handle_event": ("vpmu_emulation", None),
    "kvm_pmu_instruction_retired": ("vpmu_emulation", None),
    "perf_event_nmi_handler": ("host_perf", "nmi"),
    # The handler itself may not be probed, only what it calls.
    "amd_pmu_v2_handle_irq": ("host_perf", "nmi"),
    "intel_pmu_handle_irq": ("host_perf", "nmi"),
    "perf_event_task_tick": ("host_perf", "tick"),
    "perf_mux_hrtimer_handler": ("host_perf", "mux_timer"),
    "remote_function": ("host_perf", "ipi"),
    "__perf_event_read": ("host_perf", "ipi"),
    "__perf_event_task_sched_out": ("host_perf", "context_switch"),
    "__perf_event_task_sched_in": ("host_perf", "context_switch"),
}
# What those of them that are perf's call: a probe on one of these ends none of them.
INNER = (
    "x86_pmu_disable", "x86_pmu_enable", "x86_pmu_add", "x86_pmu_del", "x86_pmu_start",
    "x86_pmu_stop", "x86_pmu_read", "perf_adjust_freq_unthr_context", "ctx_resched",
    "__perf_install_in_context", "__perf_remove_from_context",
)  # fmt: skip
# Without these two, no function says whose half of a swap an access is in.
NEEDED = ("kvm_mediated_pmu_load", "kvm_mediated_pmu_put")
# KVM's load goes on behind it: with a probe on its begin alone, its last accesses are nobody's for
# certain.
CONTINUED = "perf_load_guest_context"
# Registers of the core PMU that a swap or host perf moves.
ROLES = (
    "global_ctrl", "global_status", "global_status_reset", "global_status_set", "counter",
    "selector", "fixed_counter", "fixed_ctrl", "lvtpc",
)  # fmt: skip
# Events that prove on a CPU that the function which was probed last has returned.
PROOFS = (
    "vm_entry", "vm_exit", "userspace_exit", "kvm_run", "kvm_fpu", "interrupt", "timer",
    "function_call", "sched_switch", "wakeup", "other_event",
)  # fmt: skip
# perf_clear_dirty_counters, in the switch to another address space, writes zeros to counters that
# host perf has left; nobody probed it, and a put may be the last probe before it.
PUTS = ("kvm_mediated_pmu_put", "perf_put_guest_context")
EXAMPLES = 20


def judge_attribution(store: Store, examples: int = EXAMPLES) -> dict[str, Any] | None:
    """Return accesses, right, said, precision and recall of each actor and context, over those
    accesses whose function is certain; None where the swap's functions were neither traced nor
    probed. At most `examples` rows of disagreement are kept, the first ones."""
    if not store.rows("function_span") or not store.rows("pmu_attribution"):
        return None
    events = _function_events(store)
    seen = set(events["function"].unique())
    if not seen.issuperset(NEEDED):
        return None
    deciding = [name for name in FUNCTIONS if name in seen]
    function, accesses, evidence = _functions_of(store, events, deciding)
    accesses = accesses.with_columns(
        pl.Series("function", [*deciding, None], pl.String).gather(function).alias("function")
    ).with_columns(
        true_actor=pl.col("function").replace_strict(
            {name: who for name, (who, _) in FUNCTIONS.items()}, default=None
        ),
        true_context=pl.col("function").replace_strict(
            {name: context for name, (_, context) in FUNCTIONS.items()},
            default=None,
            return_dtype=pl.String,
        ),
    )
    named = accesses.filter(pl.col("function").is_not_null())
    # Attribution that says `unknown` does not answer; it costs recall, and no precision.
    unknown = int((named["actor"] == "unknown").sum())
    wrong = named.filter(
        pl.col("actor").ne_missing(pl.col("true_actor"))
        | pl.col("context").ne_missing(pl.col("true_context"))
    )
    shown = ["ts", "cpu", "function", "actor", "context", "true_actor", "true_context"]
    return {
        "evidence": evidence,
        "functions": deciding,
        "accesses": len(accesses),
        "named": len(named),
        "actors": _scores(named, "actor", {FUNCTIONS[name][0] for name in deciding}),
        "contexts": _scores(named, "context", {FUNCTIONS[name][1] for name in deciding}),
        "unknown": unknown,
        "disagreements": len(wrong),
        "examples": wrong.select(shown).head(examples).to_dicts(),
    }


def _frame(store: Store, table: str, columns: list[str]) -> pl.DataFrame:
    return frame_of(store.read(table, columns))


def _function_events(store: Store) -> pl.DataFrame:
    frame = _frame(store, "function_span", ["ts", "cpu", "tid", "name", "phase", "function"])
    # A probe is named by who made it. Where its address names no function, that name does, less
    # the p_ that keeps it apart from the function's own.
    name = pl.col("name").cast(pl.String).str.strip_prefix("p_")
    own = pl.col("function").cast(pl.String).str.extract(r"^([^+.]+)")
    return frame.with_columns(
        function=pl.coalesce(own, name), phase=pl.col("phase").cast(pl.String)
    ).drop("name")


def _functions_of(
    store: Store, events: pl.DataFrame, deciding: list[str]
) -> tuple[Array, pl.DataFrame, str]:
    # Number of the function (in `deciding`, or -1) of each access, the accesses, the evidence.
    numbers = {name: number for number, name in enumerate(deciding)}
    codes = {**dict.fromkeys(INNER, spans.INNER), **numbers}
    events = events.with_columns(
        number=pl.col("function").replace_strict(codes, default=spans.OTHER, return_dtype=pl.Int64)
    )
    accesses = _accesses(store)
    losses = np.sort(store.read("data_loss", ["end"])["end"].drop_null().to_numpy())
    order = spans.Order(accesses, events, losses)
    if len(events.filter(pl.col("phase") == "return", pl.col("number") >= 0)):
        return spans.by_spans(order), accesses, "spans"
    proofs = pl.concat([_frame(store, table, ["ts", "cpu"]) for table in PROOFS])
    function = spans.by_probes(order, proofs, numbers.get(CONTINUED))
    puts = [numbers[name] for name in PUTS if name in numbers]
    function[np.isin(function, puts) & accesses["clears"].to_numpy()] = spans.OTHER
    in_nmi = [number for name, number in numbers.items() if FUNCTIONS[name][1] == "nmi"]
    function[_within_nmi(store, accesses) & ~np.isin(function, in_nmi)] = spans.OTHER
    return function, accesses, "probes"


def _accesses(store: Store) -> pl.DataFrame:
    accesses = _frame(store, "pmu_access", ["ts", "cpu", "tid", "role", "op", "value"])
    said = _frame(store, "pmu_attribution", ["actor", "context"])
    return (
        pl.concat([accesses, said], how="horizontal")
        .with_columns(pl.col("role", "op", "actor", "context").cast(pl.String))
        .filter(pl.col("role").is_in(ROLES))
        .with_columns(
            clears=(pl.col("op") == "write")
            & pl.col("role").is_in(("counter", "fixed_counter"))
            & (pl.col("value") == 0)
        )
    )


def _within_nmi(store: Store, accesses: pl.DataFrame) -> Array:
    # A probe that an NMI hits while another one is being served is missed, so that no probe in an
    # NMI does not say that there was none. What a handler's own event says of its length does.
    nmis = (
        _frame(store, "interrupt", ["ts", "cpu", "phase", "delta_ns"])
        .filter(pl.col("phase") == "handler")
        .select("ts", "cpu", begin=pl.col("ts") - pl.col("delta_ns").fill_null(0))
        .sort("ts")
    )
    found = (
        accesses.with_row_index("row")
        .select("row", "ts", "cpu")
        .sort("ts")
        .join_asof(nmis, on="ts", by="cpu", strategy="forward", check_sortedness=False)
        .sort("row")
    )
    return (found["begin"] <= found["ts"]).fill_null(False).to_numpy()


def _scores(
    named: pl.DataFrame, column: str, possible: set[str] | set[str | None]
) -> dict[str, dict[str, Any]]:
    # What none of the recording's functions could have named is not judged under its own name; it
    # is missing from the recall of what they do name.
    truth, found = named[f"true_{column}"], named[column]
    scores: dict[str, dict[str, Any]] = {}
    for name in sorted(name for name in possible if name is not None):
        accesses, said = int((truth == name).sum()), int((found == name).sum())
        right = int(((truth == name) & (found == name)).sum())
        scores[name] = {
            "accesses": accesses,
            "said": said,
            "right": right,
            "precision": right / said if said else None,
            "recall": right / accesses if accesses else None,
        }
    return scores
