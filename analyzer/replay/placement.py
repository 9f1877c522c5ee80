"""Where does a placement load and put? TOML files, checked, compiled to transition tables."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from analyzer.errors import UsageError
from analyzer.timeline.points import Kind, Level

__all__ = [
    "HOOKS",
    "Placement",
    "leaves_range",
    "load_placement",
    "shipped_placements",
    "transition_table",
]

SCHEMA = "vpmu-analyzer/placement/1"
# Words of `load` and `put` -> the levels whose edge they name, by bound (fewest, most).
LOAD_WORDS = {
    "entry": (Level.GUEST, Level.GUEST),
    "loop_begin": (Level.LOOP, Level.GUEST),
    "vcpu_load": (Level.INNER, Level.OUTER),
    "sched_in": (Level.SCHED, Level.SCHED),
}
PUT_WORDS = {
    "guest_end": (Level.GUEST, Level.GUEST),
    "loop_end": (Level.LOOP, Level.GUEST),
    "vcpu_put": (Level.INNER, Level.OUTER),
    "sched_out": (Level.SCHED, Level.SCHED),
}
# Which hook swaps at a context switch: perf's own, before perf's work, or KVM's preempt notifiers,
# which run after it; kernel._meet.
HOOKS = ("perf", "notifier")
ORDER = ("exit", "loop", "vcpu", "sched")
NOTHING, LOAD, PUT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Placement:
    """One placement as its file declares it."""

    name: str
    boundary: str
    title: str
    proposed_by: str
    hardware: str
    changes: tuple[str, ...]
    load: tuple[str, ...]
    put: tuple[str, ...]
    perf_told: bool
    hook: str | None = None


def load_placement(text: str, origin: str) -> Placement:
    """Return a placement out of a TOML text; UsageError names the key and what is allowed."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin}: {error}") from error
    kinds: dict[str, type] = {
        "schema": str, "name": str, "boundary": str, "title": str, "proposed_by": str,
        "hardware": str, "changes": list, "load": list, "put": list, "perf_told": bool,
    }  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(raw.get(key), kind):
            raise UsageError(f"{origin}: key {key!r} must be there and be a {kind.__name__}")
    allowed = [*kinds, "hook"]
    for key in raw:
        if key not in allowed:
            raise UsageError(f"{origin}: key {key!r} is unknown; allowed: {', '.join(allowed)}")
    if raw.get("hook", HOOKS[0]) not in HOOKS:
        raise UsageError(f"{origin}: key 'hook' is {raw['hook']!r}; allowed: {', '.join(HOOKS)}")
    if raw["schema"] != SCHEMA:
        raise UsageError(f"{origin}: key 'schema' is {raw['schema']!r}; allowed: {SCHEMA!r}")
    for key, words in (("load", LOAD_WORDS), ("put", PUT_WORDS)):
        if not raw[key]:
            raise UsageError(f"{origin}: key {key!r} is empty; allowed: {', '.join(words)}")
        for word in raw[key]:
            if not isinstance(word, str) or word not in words:
                raise UsageError(f"{origin}: key {key!r} has {word!r}; allowed: {', '.join(words)}")
    return Placement(
        raw["name"], raw["boundary"], raw["title"], raw["proposed_by"], raw["hardware"],
        tuple(raw["changes"]), tuple(raw["load"]), tuple(raw["put"]), raw["perf_told"],
        raw.get("hook"),
    )  # fmt: skip


def shipped_placements() -> dict[str, Placement]:
    """Return the placements that come with the program, innermost first."""
    found: dict[str, Placement] = {}
    for file in resources.files("analyzer").joinpath("placements").iterdir():
        if file.name.endswith(".toml"):
            placement = load_placement(file.read_text(encoding="utf-8"), file.name)
            found[placement.name] = placement
    return {name: found[name] for name in ORDER if name in found}


def leaves_range(placement: Placement) -> bool:
    """Say whether the marks can leave a range: its words name other levels by bound."""
    bounds = [LOAD_WORDS[word] for word in placement.load]
    bounds += [PUT_WORDS[word] for word in placement.put]
    return any(fewest != most for fewest, most in bounds)


def transition_table(
    placement: Placement, most: bool
) -> tuple[np.ndarray[Any, np.dtype[np.int8]], int]:
    """Return int8[kinds, 64]: what a point of that kind and those levels does, and the level mask.

    `most`: the bound of the marks that gives the most swaps or the longest stay, see points.py.
    The mask tells which levels mean "loaded" where a window begins.
    """
    table = np.zeros((len(Kind), 64), np.int8)
    load_mask = put_mask = 0
    for word in placement.load:
        load_mask |= int(LOAD_WORDS[word][most])
    for word in placement.put:
        put_mask |= int(PUT_WORDS[word][most])
    levels = np.arange(64)
    for kind in Kind:
        if Kind.SWITCH_IN <= kind <= Kind.ENTRY:
            table[kind, (levels & load_mask) != 0] = LOAD
        elif Kind.GUEST_END <= kind <= Kind.SWITCH_OUT:
            table[kind, (levels & put_mask) != 0] = PUT
    return table, load_mask
