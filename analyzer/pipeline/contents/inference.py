"""How good is each rule of inference, held against what the recording itself shows?

Both sides are counted by handler: one run of a timer's function, of a called function or of the
timer's interrupt. A rule is right where an observed episode of its context begins in the handler
that it names. Where nothing could be observed there is nothing to hold it against: null.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from analyzer.store import Store
from analyzer.store.frames import frame_of
from analyzer.timeline.attribution.handlers import plain_name
from analyzer.timeline.attribution.words import CONTEXTS
from analyzer.timeline.inference import RULES, Rule

__all__ = ["inference_of", "unruled_of"]

NOT_RUN = {"applied": False, "because": "no event is recorded", "inferred": None}
SPAN = ["ts", "end", "cpu"]


def inference_of(store: Store) -> dict[str, dict[str, Any]]:
    """Return of each rule whether it was applied (`because`: why not), how many episodes it
    `inferred`, how many handlers hold `observed` ones of its context, how many it got `right`,
    `precision` and `recall`, and of the wrong ones those `while_guest_state_on`: a kernel that
    tells perf takes its events off for so long, and no rule knows of it."""
    made = store.manifest["inference"]
    episodes = _frame(store, "host_episode", [*SPAN, "context", "evidence", "rule"])
    known = _observable(store)
    observed = episodes.filter(evidence="observed")
    answer = {}
    for rule in RULES:
        mine = episodes.filter(rule=rule.id)
        said = dict(made.get(rule.id, NOT_RUN))
        said |= dict.fromkeys(("observed", "right", "precision", "recall", "while_guest_state_on"))
        if known:
            truth = observed.filter(context=CONTEXTS[rule.context])
            said["observed"] = total = _handlers_of(store, rule, truth)
            if said["applied"]:
                found = _found(mine, truth)
                wrong = mine.join(found, on=["cpu", "ts"], how="anti")
                said["right"] = right = len(found)
                said["while_guest_state_on"] = _while_guest(store, wrong)
                said["precision"] = right / len(mine) if len(mine) else None
                said["recall"] = right / total if total else None
        answer[rule.id] = said
    return answer


def unruled_of(store: Store) -> dict[str, int] | None:
    """Return observed episodes of contexts that no rule infers; None where none is observable."""
    if not _observable(store):
        return None
    ruled = {CONTEXTS[rule.context] for rule in RULES}
    observed = _frame(store, "host_episode", ["context", "evidence"]).filter(evidence="observed")
    counts = observed.group_by("context").len().sort("context").rows()
    return {context: count for context, count in counts if context not in ruled}


def _observable(store: Store) -> bool:
    # Register accesses or, on arm64, calls that stand for them.
    marks = store.manifest["marks"]
    return "calls_recorded" in marks


def _frame(store: Store, table: str, columns: list[str]) -> pl.DataFrame:
    return frame_of(store.read(table, columns), words=True)


def _found(inferred: pl.DataFrame, observed: pl.DataFrame) -> pl.DataFrame:
    # Handlers of one CPU follow each other, so the last one that began before is the only one that
    # can hold an episode.
    found = observed.sort("ts").join_asof(
        inferred.select("cpu", "ts", "end", begin="ts").sort("ts"),
        on="ts", by="cpu", strategy="backward", suffix="_handler", check_sortedness=False,
    )  # fmt: skip
    held = found.filter(pl.col("ts") <= pl.col("end_handler"))
    return held.select("cpu", ts="begin").unique()


def _while_guest(store: Store, inferred: pl.DataFrame) -> int:
    # How many begin while a guest's state was on that CPU, as recorded.
    stays = _frame(store, "owner_slice", [*SPAN, "owner"]).filter(owner="vcpu")
    found = inferred.select("ts", "cpu").sort("ts").join_asof(
        stays.select("ts", "cpu", until="end").sort("ts"),
        on="ts", by="cpu", strategy="backward", check_sortedness=False,
    )  # fmt: skip
    return found.filter(pl.col("ts") < pl.col("until")).height


def _handlers_of(store: Store, rule: Rule, observed: pl.DataFrame) -> int:
    # In how many handlers of the rule's kind there is an observed episode, whatever it inferred.
    begins = _begins(store, rule)
    found = observed.sort("ts").join_asof(
        begins.with_columns(begin="ts").sort("ts"),
        on="ts", by="cpu", strategy="backward", check_sortedness=False,
    )  # fmt: skip
    return found.filter("is_rules").select("cpu", "begin").unique().height


def _begins(store: Store, rule: Rule) -> pl.DataFrame:
    # Begins of all handlers of that kind, and whether the rule names the function. An observed
    # episode of a timer's context is in the timer whose function was last called, be it named.
    if CONTEXTS[rule.context] == "ipi":
        table, phase, name = "function_call", "entry", "func_name"
    elif store.rows("timer"):
        table, phase, name = "timer", "expire_entry", "function_name"
    else:
        vectors = _frame(store, "interrupt", ["ts", "cpu", "phase", "name"])
        timers = vectors.filter(phase="entry", name="local_timer").select("ts", "cpu")
        is_tick = CONTEXTS[rule.context] == "tick"
        return timers.with_columns(is_rules=pl.lit(is_tick))
    rows = _frame(store, table, ["ts", "cpu", "phase", name]).filter(phase=phase)
    names = {full: plain_name(full) for full in rows[name].drop_nulls().unique().to_list()}
    own = [full for full, plain in names.items() if plain in rule.functions]
    unnamed = not names and CONTEXTS[rule.context] != "ipi"
    is_rules = pl.col(name).is_in(own).fill_null(False) | pl.lit(unnamed)
    return rows.select("ts", "cpu", is_rules=is_rules)
