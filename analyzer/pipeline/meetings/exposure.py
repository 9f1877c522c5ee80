"""What leaks, what the recording cannot show, and would this VM have been allowed beside perf?"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from analyzer.pipeline.meetings.conflicts import Episodes
from analyzer.pipeline.meetings.leaks import Leak
from analyzer.pipeline.replays import Design
from analyzer.replay import CLEARINGS, GUARDS
from analyzer.store import Store
from analyzer.store.frames import frame_of

__all__ = ["feasible_of", "guards_of", "leak_of", "unseen_of"]

# _IO(KVMIO, 0x41); linux:include/uapi/linux/kvm.h. EBUSY is 16 on every architecture.
KVM_CREATE_VCPU, EBUSY = 0xAE41, 16


def _read(store: Store, table: str, columns: list[str]) -> pl.DataFrame:
    return frame_of(store.read(table, columns))


def leak_of(design: Design, bounds: tuple[dict[str, Leak], dict[str, Leak]]) -> dict[str, Any]:
    """Return `leak_ns`: time in which one side's counts stand where the other could read them.

    to_user: user code runs on the CPU while a guest's values are in its counters, so its RDPMC
    would read them if its mm may use it: an upper bound, for no event tells whether it may.
    to_guest: whatever a put clears, every load writes each counter that the guest can reach, so it
    reads none of the host's. facts/x86.md 7. Both of the design's own clearing, and of each.
    """
    by_clearing = {}
    for clearing in CLEARINGS:
        low, high = (bound[clearing] for bound in bounds)
        by_clearing[clearing] = {
            **_pair("to_user", low.ns, high.ns),
            "to_guest": 0,
            **_pair("windows", low.windows, high.windows),
        }
    own = by_clearing[design.clearing]
    return {
        **{key: own[key] for key in ("to_user", "to_user_low", "to_user_high", "to_guest")},
        "rdpmc_permission": None,
        "bound": "if RDPMC were allowed",
        "clearing": design.clearing,
        "by_clearing": by_clearing,
    }


def _pair(name: str, one: int | None, other: int | None) -> dict[str, int | None]:
    # Which bound of the marks leaks more is not known beforehand.
    low, high = (one, other) if one is None or other is None else sorted((one, other))
    return {name: low if low == high else None, f"{name}_low": low, f"{name}_high": high}


def guards_of(
    store: Store, design: Design, episodes: Episodes, met: pl.DataFrame
) -> dict[str, Any]:
    """Return for each guard whether the design has it, and how much it bears on.

    irq_off: host perf's episodes within the recorded swaps, where the recording has both, by
    context; null, nobody knows. Another boundary's swaps are elsewhere, so it says what one swap
    meets and not how many of the design's do. The others: rows of the design's conflicts by rule.
    """
    found: dict[str, Any] = {
        guard: {"held": guard in design.guard, "conflicts": _rows_of(met, guard)}
        for guard in GUARDS
    }
    within = None
    if episodes.recorded and store.rows("recorded_swap"):
        words, counts = np.unique(
            episodes.context[episodes.in_swap].astype(str), return_counts=True
        )
        within = dict(zip(words.tolist(), counts.tolist(), strict=True))
    found["irq_off"]["episodes_in_recorded_swaps"] = within
    return found


def _rows_of(met: pl.DataFrame, guard: str) -> int:
    word = "no-" + guard.replace("_", "-")
    return met.filter(pl.col("rule").str.contains(word, literal=True)).height


def unseen_of(store: Store) -> dict[str, Any] | None:
    """Return what host perf would have done while the recorded kernel had a guest's state on.

    None where nothing was hidden: no swap is recorded, or perf was not told. With interrupts off
    around a stay only PMIs are missing (the rest comes after the put, and is recorded); elsewhere
    every context is. Bound: no more of a context than at its rate while the PMU was the host's.
    """
    slices = _read(store, "owner_slice", ["ts", "end", "owner"])
    spans = slices.with_columns(ns=pl.col("end") - pl.col("ts"), owner=pl.col("owner").cast(str))
    guest = int(spans.filter(owner="vcpu")["ns"].sum())
    host = int(spans.filter(owner="host")["ns"].sum())
    swaps = _read(store, "recorded_swap", ["perf"])["perf"].cast(pl.String)
    if not guest or not host or "untold" in set(swaps):
        return None
    episodes = _read(store, "host_episode", ["context", "guest_state_on"])  # null where inferred
    counts = (
        episodes.filter(~pl.col("guest_state_on"))["context"].cast(pl.String).value_counts().rows()
    )
    rate = {context: count / host for context, count in counts}
    hidden = {context: round(rate[context] * guest) for context in ("nmi",) if context in rate}
    return {
        "rule": "no more PMIs than at their rate while the PMU was the host's",
        "guest_owned_ns": guest,
        "host_owned_ns": host,
        "episodes_high": hidden,
    }


def feasible_of(store: Store) -> tuple[str, str]:
    """Return `feasible` and `because` of design.md section 10, the same for every mediated design.

    vm_refused where KVM_CREATE_VCPU was seen to fail with EBUSY, or a recorded host event counts
    guests; yes where a mediated VM ran; else unknown.
    """
    calls = _read(store, "kvm_run", ["ts", "tid", "phase", "cmd", "ret"])
    if len(calls):
        calls = calls.sort("tid", "ts").with_columns(
            returned=pl.col("ret").shift(-1).over("tid"),
            then=pl.col("phase").cast(pl.String).shift(-1).over("tid"),
        )
        refused = calls.filter(
            (pl.col("cmd") == KVM_CREATE_VCPU)
            & (pl.col("then") == "exit")
            & (pl.col("returned") == -EBUSY)
        )
        if len(refused):
            at = int(refused["ts"][0])
            return "vm_refused", (
                f"KVM_CREATE_VCPU at {at} ns failed with EBUSY ({len(refused)} such calls): a host "
                "event that counts guests was there first"
            )
    events = _read(store, "host_event", ["exclude_guest"])
    counting = int((~events["exclude_guest"]).sum() or 0)
    if counting:
        return "vm_refused", f"{counting} recorded or stated host events do not exclude guests"
    if store.manifest["marks"]["swaps_recorded"]:
        return "yes", "a mediated VM ran: what host events there were exclude guests"
    return "unknown", "attributes of host events are not recorded"
