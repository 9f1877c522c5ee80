"""What would host perf have met? Episodes in a guest's stay, held against the declared table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analyzer.arch.x86.conflicts import AFTER_THE_PUT, CAUSES, RULES, Rule
from analyzer.pipeline.replays import Design, Outcome, Run, cpus_of
from analyzer.replay import Part, Rows, meetings_of, ones_at, slices_of
from analyzer.replay import kernel as q
from analyzer.replay.stays import count_within
from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline.attribution import Context

__all__ = [
    "Episodes",
    "conflict_rows",
    "guest_counters_of",
    "load_episodes",
    "summary_of",
    "timer_interrupts",
    "timer_interrupts_met",
]

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
    (arch.x86.swaps.Token), counters int64 (sets, fixed ones from bit 32), met bool (a guest's state
    was on as recorded). recorded: whether the recording could show any. guest_counters: by vCPU,
    the counters that it used in any stay. in_swap bool: it began within a recorded swap. rules:
    those that inferred episodes where nothing could be observed, empty where it could; by_rule: of
    each episode its rule."""

    context: Array
    evidence: Array
    operations: Array
    counters: Array
    met: Array
    recorded: bool
    guest_counters: dict[int, int]
    in_swap: Array
    rules: tuple[str, ...] = ()
    by_rule: Array | None = None


def load_episodes(store: Store) -> Episodes:
    """Return the host episodes of a store: what is observed or, where nothing could be, inferred.

    Inferred ones beside what could be observed are there to be judged only, and have no points.
    """
    columns = [
        "episode", "context", "evidence", "rule", "operations", "counters", "guest_state_on", "ts",
        "cpu",
    ]  # fmt: skip
    table = store.read("host_episode", columns)
    frame = frame_of(table)
    # Attribution leaves this mark wherever it ran: on register accesses, or on probes.
    observable = "calls_recorded" in store.manifest["marks"]
    rules = [name for name, said in store.manifest["inference"].items() if said["applied"]]
    frame = frame.with_columns(pl.col("evidence", "rule").cast(pl.String))
    frame = frame.filter(evidence="observed" if observable else "inferred").sort("episode")
    counts = store.read("event_count").to_pylist()
    named = {row["name"] for row in counts if row["count"]}
    return Episodes(
        frame["context"].cast(pl.String).to_numpy(),
        frame["evidence"].to_numpy(),
        frame["operations"].to_numpy(),
        # Probes tell no counter: an episode of theirs collides with none that is known.
        frame["counters"].fill_null(0).to_numpy(),
        frame["guest_state_on"].fill_null(False).to_numpy(),
        (observable and len(frame) > 0) or not named.isdisjoint({"read_msr", "write_msr", "rdpmc"}),
        guest_counters_of(store),
        _in_swap(store, frame),
        () if observable else tuple(rules),
        frame["rule"].to_numpy(),
    )


def _in_swap(store: Store, episodes: pl.DataFrame) -> Array:
    # bool[n], the episodes that begin within a recorded swap. Swaps of one CPU follow each other.
    frame = frame_of(store.read("recorded_swap", ["ts", "end", "cpu"]))
    began, of = episodes["ts"].to_numpy(), episodes["cpu"].to_numpy()
    found = np.zeros(len(began), bool)
    for (cpu,), swaps in frame.sort("ts").group_by("cpu"):
        mine = np.flatnonzero(of == cpu)
        at = np.searchsorted(swaps["ts"].to_numpy(), began[mine], side="right") - 1
        found[mine] = (at >= 0) & (began[mine] <= swaps["end"].to_numpy()[at])
    return found


def _is_here(rule: Rule, design: Design, vendor: str | None) -> bool:
    guarded = rule.having <= set(design.guard) and rule.without.isdisjoint(design.guard)
    return rule.told == design.told and guarded and rule.vendor in (None, vendor)


def _fits(
    rule: Rule, context: pl.Series, operations: Array, follows: Array, met: Array, in_swap: Array
) -> Array:
    fits = np.ones(len(context), bool)
    if rule.contexts is not None:
        fits &= context.is_in(sorted(rule.contexts)).to_numpy()
    if rule.any_of is not None:
        fits &= (operations & int(rule.any_of)) != 0
    if rule.none_of is not None:
        fits &= (operations & int(rule.none_of)) == 0
    if rule.entry_follows is not None:
        fits &= follows == rule.entry_follows
    if rule.met_as_recorded is not None:
        fits &= met == rule.met_as_recorded
    if rule.in_swap is not None:
        fits &= in_swap == rule.in_swap
    return fits


def conflict_rows(
    design: Design, outcome: Outcome, episodes: Episodes, vendor: str | None, part: Part,
    bound: int = 1,
) -> pl.DataFrame:  # fmt: skip
    """Return one row for each episode that met a guest's state and each rule that fits it, in
    order of time; columns as table `conflict` less the placement's name.

    bound: 0 the fewest, 1 the most that the marks allow.
    """
    run = outcome.runs[bound]
    met = meetings_of(run.meetings.read())
    met = met[met[:, q.E_COUNTED] == 1]
    if part.vcpus is not None:
        met = met[np.isin(met[:, q.E_VCPU], part.vcpus)]
    if design.placement.kind == "shared":
        met = _colliding(met, episodes)
    number = met[:, q.E_EPISODE]
    end, follows = _stays(run.slices, met)
    # A guest's overflow is no episode of the host's: its number is -1.
    own = number >= 0
    # Behind all episodes stands what an overflow is taken for.
    at = np.where(own, number, len(episodes.context))
    context, evidence = (
        pl.Series([*words, word], dtype=pl.String).gather(at)
        for words, word in ((episodes.context, "guest_pmi"), (episodes.evidence, "observed"))
    )
    operations, met_before = np.zeros(len(met), np.int64), np.zeros(len(met), bool)
    in_swap = np.zeros(len(met), bool)
    in_swap[own] = episodes.in_swap[number[own]]
    operations[own], met_before[own] = episodes.operations[number[own]], episodes.met[number[own]]
    operations[met[:, q.E_CONTEXT] == Context.SWITCH_OUT] &= ~int(AFTER_THE_PUT)
    here = sorted((r for r in RULES if _is_here(r, design, vendor)), key=lambda rule: rule.name)
    frames = [pl.DataFrame(schema={"met": pl.UInt32, "rule": pl.UInt8})]
    for place, rule in enumerate(here):
        fits = _fits(rule, context, operations, follows, met_before, in_swap)
        found = pl.DataFrame({"met": np.flatnonzero(fits)}, schema={"met": pl.UInt32})
        frames.append(found.with_columns(rule=pl.lit(place, pl.UInt8)))
    # Put in order while a row is a few numbers; words come last.
    pairs = pl.concat(frames)
    rows = pairs["met"].to_numpy()
    keys = pl.DataFrame(
        {"ts": met[rows, q.E_TS], "cpu": met[rows, q.E_CPU], "episode": number[rows]}
    )
    pairs = pl.concat([pairs, keys], how="horizontal").sort("ts", "cpu", "rule", "episode", "met")
    rows, rules = pairs["met"].to_numpy(), pairs["rule"]

    def words(said: list[str]) -> pl.Series:
        return pl.Series(said, dtype=pl.String).gather(rules)

    return pl.DataFrame(
        {
            "ts": pairs["ts"],
            "cpu": pairs["cpu"].cast(pl.Int32),
            "vcpu": met[rows, q.E_VCPU].astype(np.int32),
            "episode": pairs["episode"].replace(NONE, None),
            "context": context.gather(rows),
            "evidence": evidence.gather(rows),
            "cause": words([rule.cause for rule in here]),
            "consequence": words([rule.consequence for rule in here]),
            "rule": words([rule.name for rule in here]),
            "shown": words([rule.shown or "derived" for rule in here]),
            "entry_follows": follows[rows],
            "until": pl.Series(end[rows], dtype=pl.Int64).replace(NEVER, None),
        },
        schema=SCHEMA,
    )


def _colliding(met: Array, episodes: Episodes) -> Array:
    # Where counters are split, an episode matters only if it touches one that this guest uses: by
    # identity, since each exists once. A guest's own overflow is the guest's alone.
    used = np.array(
        [episodes.guest_counters.get(v, 0) for v in met[:, q.E_VCPU].tolist()], np.int64
    )
    own = met[:, q.E_EPISODE] >= 0
    touched = np.zeros(len(met), np.int64)
    touched[own] = episodes.counters[met[own, q.E_EPISODE]]
    collides: Array = met[(touched & used) != 0]
    return collides


def guest_counters_of(store: Store) -> dict[int, int]:
    """Return by vCPU the set of counters that any recorded load enabled; those of no load aren't
    in it."""
    frame = frame_of(store.read("recorded_swap", ["vcpu", "guest_counters"]))
    rows = frame.drop_nulls().group_by("vcpu").agg(pl.col("guest_counters").bitwise_or()).rows()
    return {int(vcpu): int(mask) for vcpu, mask in rows}


def _stays(slices: Rows, met: Array) -> tuple[Array, Array]:
    # Of each meeting: where the stay is put (-1: never seen), and whether a VM entry comes before.
    # A stay of -1 ended with the switch that perf acts in.
    stay = met[:, q.E_STAY]
    numbers = np.unique(stay)
    end, entries = np.full(numbers.size, NEVER), np.zeros(numbers.size, np.int64)
    for packed in slices.pieces() if numbers.size else ():
        found = packed[:, q.P_STAY] >> q.STAY_SHIFT
        at = np.minimum(np.searchsorted(numbers, found), numbers.size - 1)
        is_met = numbers[at] == found
        at, rows = at[is_met], slices_of(packed[is_met])
        end[at] = np.where(rows[:, q.S_WHOLE] == 1, rows[:, q.S_END], NEVER)
        entries[at] = rows[:, q.S_ENTRIES]
    at = np.searchsorted(numbers, stay)
    follows = (stay >= 0) & (entries[at] > met[:, q.E_ENTRIES])
    return np.where(stay >= 0, end[at], met[:, q.E_TS]), follows


def _counts(rows: pl.DataFrame, column: str, words: Sequence[str]) -> dict[str, int]:
    # Of causes an episode counts once, whatever rules it fits: rows are in order of time and CPU,
    # so it is where either changes, among those of a word.
    place = pl.struct("ts", "cpu").rle_id()
    found = rows.select(column, place=place).group_by(column)
    times = found.agg(times=(pl.col("place").diff() != 0).sum() + 1)
    counted: dict[str, int] = dict(times.rows())
    return {word: counted.get(word, 0) for word in words if word in counted or words is CAUSES}


def timer_interrupts(store: Store, part: Part) -> tuple[Array, Array]:
    """Return the part's timer interrupts: int64[n] ts by CPU and ts, and int64[cpus + 1], where
    those of each CPU begin."""
    kept = [pl.DataFrame(schema={"ts": pl.Int64, "cpu": pl.Int32})]
    for batch in store.batches("interrupt", ["ts", "cpu", "name", "phase"], 1 << 20):
        frame = frame_of(batch)
        is_timer = pl.col("name").cast(pl.String) == "local_timer"
        is_entry = pl.col("phase").cast(pl.String) == "entry"
        kept.append(frame.filter(is_timer & is_entry).select("ts", "cpu"))
    found = pl.concat(kept).sort("cpu", maintain_order=True)
    ts, cpu = (found[name].to_numpy() for name in ("ts", "cpu"))
    # Whose state an interrupt meets is asked of the stays.
    held = Part(part.begin, part.end, part.cpus).holds(ts, cpu, cpu)
    ts, cpu = ts[held], cpu[held]
    return ts, np.searchsorted(cpu, np.arange(cpus_of(store) + 1))


def timer_interrupts_met(timers: tuple[Array, Array], run: Run, part: Part) -> int | None:
    """Return how many of them fall into a stay of the part's vCPUs; None where there is none."""
    ts, of = timers
    if not ts.size:
        return None
    watched, at = ones_at(len(run.counts.vcpus), part.vcpus), of[:-1].copy()
    return sum(int(count_within(rows, watched, ts[None], of, at)) for rows in run.slices.pieces())


def summary_of(
    rows: pl.DataFrame, fewest: pl.DataFrame, episodes: Episodes, timers: int | None
) -> dict[str, Any]:
    """Return `conflicts` of design.md section 10, null where the recording shows no host episode.

    rows, fewest: of the bounds with the longest and the shortest stays. timers: timer interrupts
    in the longest. Where no host event was active there is no evidence of what one would have met:
    null, not 0.
    """
    inferred = _inferred(rows, episodes)
    if not episodes.recorded or not len(episodes.context):
        why = "no host event was active" if episodes.recorded else "no register access is recorded"
        if episodes.rules:
            why += f"; inferred by {', '.join(episodes.rules)}"
        nothing = dict.fromkeys(
            ("observed", "observed_low", "inferred", "consequences", "by_context", "derived")
        )
        return {
            **nothing, **inferred, "timer_interrupts": timers, "ticks_per_timer_interrupt": None,
            "no_evidence": why,
        }  # fmt: skip
    observed = rows.filter(evidence="observed")
    late = observed.filter(cause="late")
    waits = (late["until"] - late["ts"]).drop_nulls()
    by_context = _counts(observed, "context", sorted(observed["context"].unique().to_list()))
    return {
        "observed": _counts(observed, "cause", CAUSES),
        "observed_low": _counts(fewest.filter(evidence="observed"), "cause", CAUSES),
        **inferred,
        # Of what is observed only, as all below: the two are never added up.
        "consequences": _counts(
            observed, "consequence", sorted(observed["consequence"].unique().to_list())
        ),
        "by_context": by_context,
        "timer_interrupts": timers,
        "ticks_per_timer_interrupt": (
            by_context.get("tick", 0) / timers if timers else None
        ),
        "derived": _counts(observed, "shown", ["derived"]).get("derived", 0),
        "late_ns": {
            "median": waits.median(), "p99": waits.quantile(0.99, "nearest"),
            "longest": waits.max(),
            "open_ended": late["until"].null_count(),
        },
        "no_evidence": None,
    }  # fmt: skip


def _inferred(rows: pl.DataFrame, episodes: Episodes) -> dict[str, Any]:
    # Null where episodes could be observed (nothing inferred stands beside them), and where no rule
    # could be applied: 0 is what a rule says that found none.
    mine = rows.filter(evidence="inferred")
    if not episodes.rules and mine.is_empty():
        empty = None
        if episodes.recorded and len(episodes.context):
            empty = _counts(mine, "cause", CAUSES)
        return {"inferred": empty, "inferred_by_rule": None, "inferred_consequences": None}
    consequences = sorted(mine["consequence"].unique().to_list())
    by_rule = None
    if episodes.by_rule is not None:
        met = mine.unique(["ts", "cpu", "episode"])["episode"].to_numpy()
        by_rule = {r: int((episodes.by_rule[met] == r).sum()) for r in episodes.rules}
    return {
        "inferred": _counts(mine, "cause", CAUSES),
        "inferred_by_rule": by_rule,
        "inferred_consequences": _counts(mine, "consequence", consequences),
    }
