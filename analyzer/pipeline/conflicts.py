"""What would host perf have met? Episodes in a guest's stay, held against the declared table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analyzer.arch.x86.conflicts import AFTER_THE_PUT, CAUSES, RULES, Rule
from analyzer.pipeline.replays import Design, Outcome
from analyzer.replay import Part
from analyzer.replay import kernel as q
from analyzer.store import Store
from analyzer.timeline.attribution import Context

__all__ = ["Episodes", "conflict_rows", "load_episodes", "summary_of"]

Array = np.ndarray[Any, Any]
# Columns of a row, as table `conflict` has them less the design's own.
SCHEMA = {
    "ts": pl.Int64, "cpu": pl.Int32, "vcpu": pl.Int32, "episode": pl.Int64, "context": pl.String,
    "evidence": pl.String, "cause": pl.String, "consequence": pl.String, "rule": pl.String,
    "shown": pl.String, "entry_follows": pl.Boolean, "until": pl.Int64,
}  # fmt: skip
# A stay that no put ended, as far as the recording shows.
NEVER = -1
# Number of no episode.
NONE = -1


@dataclass(frozen=True, slots=True)
class Episodes:
    """Host episodes of a store by their number: context and evidence (words), operations int64
    (arch.x86.swaps.Token), met bool (a guest's state was on as recorded). `recorded`: whether the
    recording could show any."""

    context: Array
    evidence: Array
    operations: Array
    met: Array
    recorded: bool


def load_episodes(store: Store) -> Episodes:
    """Return the host episodes of a store."""
    columns = ["episode", "context", "evidence", "operations", "guest_state_on"]
    table = store.read("host_episode", columns)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame = frame.sort("episode")
    counts = store.read("event_count").to_pylist()
    named = {row["name"] for row in counts if row["count"]}
    return Episodes(
        frame["context"].cast(pl.String).to_numpy(),
        frame["evidence"].cast(pl.String).to_numpy(),
        frame["operations"].to_numpy(),
        frame["guest_state_on"].to_numpy(),
        len(frame) > 0 or not named.isdisjoint({"read_msr", "write_msr", "rdpmc"}),
    )


def _fits(
    rule: Rule, told: bool, vendor: str | None, context: Array, operations: Array, follows: Array,
    met: Array,
) -> Array:  # fmt: skip
    fits = np.full(len(context), rule.told == told and rule.vendor in (None, vendor))
    if rule.contexts is not None:
        fits &= np.isin(context, list(rule.contexts))
    if rule.any_of is not None:
        fits &= (operations & int(rule.any_of)) != 0
    if rule.none_of is not None:
        fits &= (operations & int(rule.none_of)) == 0
    if rule.entry_follows is not None:
        fits &= follows == rule.entry_follows
    if rule.met_as_recorded is not None:
        fits &= met == rule.met_as_recorded
    return fits


def conflict_rows(
    design: Design, outcome: Outcome, episodes: Episodes, vendor: str | None, part: Part
) -> pl.DataFrame:
    """Return one row for each episode that met a guest's state and each rule that fits it, in
    order of time; columns as table `conflict` less the placement's name."""
    met = outcome.meetings
    met = met[met[:, q.E_COUNTED] == 1]
    if part.vcpus is not None:
        met = met[np.isin(met[:, q.E_VCPU], part.vcpus)]
    number = met[:, q.E_EPISODE]
    end, follows = _stays(outcome.slices, met)
    # A guest's overflow is no episode of the host's: its number is -1.
    own = number >= 0
    context, evidence = (
        np.full(len(met), "guest_pmi", object),
        np.full(len(met), "observed", object),
    )
    operations, met_before = np.zeros(len(met), np.int64), np.zeros(len(met), bool)
    context[own], evidence[own] = episodes.context[number[own]], episodes.evidence[number[own]]
    operations[own], met_before[own] = episodes.operations[number[own]], episodes.met[number[own]]
    operations[met[:, q.E_CONTEXT] == Context.SWITCH_OUT] &= ~int(AFTER_THE_PUT)
    frames = [pl.DataFrame(schema=SCHEMA)]
    for rule in RULES:
        fits = _fits(rule, design.told, vendor, context, operations, follows, met_before)
        rows = np.flatnonzero(fits)
        if not rows.size:
            continue
        until = end[rows]
        frames.append(
            pl.DataFrame(
                {
                    "ts": met[rows, q.E_TS],
                    "cpu": met[rows, q.E_CPU].astype(np.int32),
                    "vcpu": met[rows, q.E_VCPU].astype(np.int32),
                    "episode": pl.Series(number[rows], dtype=pl.Int64).replace(NONE, None),
                    "context": context[rows],
                    "evidence": evidence[rows],
                    "cause": rule.cause,
                    "consequence": rule.consequence,
                    "rule": rule.name,
                    "shown": rule.shown or "derived",
                    "entry_follows": follows[rows],
                    "until": pl.Series(until, dtype=pl.Int64).replace(NEVER, None),
                },
                schema=SCHEMA,
            )
        )
    return pl.concat(frames).sort("ts", "cpu", "rule", "episode")


def _stays(slices: Array, met: Array) -> tuple[Array, Array]:
    # Of each meeting: where the stay is put (-1: never seen), and whether a VM entry comes before.
    # A stay of -1 ended with the switch that perf acts in.
    stays = int(max(slices[:, q.S_STAY].max(initial=-1), met[:, q.E_STAY].max(initial=-1))) + 1
    end, entries = np.full(stays + 1, NEVER, np.int64), np.zeros(stays + 1, np.int64)
    number = slices[:, q.S_STAY]
    end[number] = np.where(slices[:, q.S_WHOLE] == 1, slices[:, q.S_END], NEVER)
    entries[number] = slices[:, q.S_ENTRIES]
    stay = met[:, q.E_STAY]
    follows = (stay >= 0) & (entries[stay] > met[:, q.E_ENTRIES])
    return np.where(stay >= 0, end[stay], met[:, q.E_TS]), follows


def _counts(rows: pl.DataFrame, column: str, words: Sequence[str]) -> dict[str, int]:
    # Of causes an episode counts once, whatever rules it fits.
    found = rows.unique(["ts", "cpu", column]).group_by(column).len()
    counted = dict(zip(found[column].to_list(), found["len"].to_list(), strict=True))
    return {word: counted.get(word, 0) for word in words if word in counted or words is CAUSES}


def summary_of(rows: pl.DataFrame, episodes: Episodes) -> dict[str, Any]:
    """Return `conflicts` of design.md section 10, null where the recording shows no host episode.

    Where none was active there is no evidence of what one would have met: null, not 0.
    """
    if not episodes.recorded or not len(episodes.context):
        return {
            "observed": None, "inferred": None, "consequences": None, "by_context": None,
            "derived": None, "no_evidence": "no host event was active" if episodes.recorded
            else "register accesses are not recorded",
        }  # fmt: skip
    observed = rows.filter(evidence="observed")
    late = observed.filter(cause="late")
    waits = (late["until"] - late["ts"]).drop_nulls()
    return {
        "observed": _counts(observed, "cause", CAUSES),
        "inferred": _counts(rows.filter(evidence="inferred"), "cause", CAUSES),
        # Of what is observed only, as all below: the two are never added up.
        "consequences": _counts(
            observed, "consequence", sorted(observed["consequence"].unique().to_list())
        ),
        "by_context": _counts(observed, "context", sorted(observed["context"].unique().to_list())),
        "derived": observed.filter(shown="derived").unique(["ts", "cpu"]).height,
        "late_ns": {
            "median": waits.median(), "longest": waits.max(),
            "open_ended": late["until"].null_count(),
        },
        "no_evidence": None,
    }  # fmt: skip
