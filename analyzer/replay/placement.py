"""Where does a placement load and put? TOML files, checked, compiled to transition tables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import UsageError
from analyzer.replay import kernel as q
from analyzer.timeline.attribution import Context
from analyzer.timeline.points import Kind, Level

__all__ = [
    "CLEARINGS",
    "GUARDS",
    "HOOKS",
    "Placement",
    "default_guard",
    "has_rules",
    "leaves_range",
    "load_placement",
    "read_placement",
    "rules_of",
    "shipped_placements",
    "shipped_text",
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
# What keeps the host's own work out of a guest's state: interrupts are off around the swap; perf's
# NMI handler returns at once while a guest's state is on; a guest's overflow comes on a vector of
# its own and is no NMI. Mainline 7.x has all three: facts/x86.md 6.
GUARDS = ("irq_off", "nmi_guard", "dedicated_vector")
# What a put writes to a guest's counters: 0 to every one, 0 to those that are not 0 (mainline), or
# nothing.
CLEARINGS = ("blind", "dirty", "none")
# Words that swap when the vCPU's thread is scheduled: there a hook has to be named.
SWITCHED = ("vcpu_load", "vcpu_put", "sched_in", "sched_out")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# A declaration is a screenful; chosen by us, so that no endless file is read.
MOST_BYTES = 1 << 16
# Contexts of host perf's episodes that `evict` may name, and their numbers.
EVICT_WORDS = {
    "tick": (Context.TICK,),
    "mux_timer": (Context.MUX_TIMER,),
    "ipi": (Context.IPI,),
    "nmi": (Context.NMI,),
    "context_switch": (Context.SWITCH_OUT, Context.SWITCH_IN),
    "rdpmc": (Context.RDPMC,),
    "other": (Context.OTHER,),
}
HOST_WORDS = {"never": 0, "any": q.BY_ANY, "kernel": q.BY_KERNEL}
DEMAND_WORDS = {"never": 0, "while_used": q.WHILE_USED, "once_used": q.ONCE_USED}
# What moves the registers: KVM swaps; counters are split and only the guest's share is swapped; no
# swap, accesses trap; the machine swaps the guest's half; a bound that knows the future.
KINDS = ("swap", "shared", "trap", "hardware", "hindsight")
ORDER = (
    "exit", "loop", "vcpu", "sched", "lazy-core", "lazy-driver", "dynamic", "profiled",
    "exit-demand", "loop-demand", "partition", "emulated", "hardware", "oracle",
)  # fmt: skip
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
    deterministic: str
    hook: str | None = None
    kind: str = "swap"
    evict: tuple[str, ...] = ()
    evict_core: bool = False
    host_events: str = "never"
    demand: str = "never"
    # None: what goes with being told or not, see default_guard.
    guard: tuple[str, ...] | None = None
    clearing: str = "dirty"
    selective: bool = False


_REQUIRED: dict[str, type] = {
    "schema": str, "name": str, "boundary": str, "title": str, "proposed_by": str, "hardware": str,
    "changes": list, "load": list, "put": list, "perf_told": bool, "deterministic": str,
}  # fmt: skip
_OPTIONAL: dict[str, type] = {
    "hook": str, "kind": str, "evict": list, "evict_core": bool, "host_events": str, "demand": str,
    "guard": list, "clearing": str, "selective": bool,
}  # fmt: skip
_WORDS: dict[str, Iterable[str]] = {
    "schema": (SCHEMA,), "load": LOAD_WORDS, "put": PUT_WORDS, "hook": HOOKS, "kind": KINDS,
    "evict": EVICT_WORDS, "host_events": HOST_WORDS, "demand": DEMAND_WORDS, "guard": GUARDS,
    "clearing": CLEARINGS,
}  # fmt: skip


def load_placement(text: str, origin: str) -> Placement:
    """Return a placement out of a TOML text; UsageError names the key and what is allowed."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin}: {error}") from error
    kinds = {**_REQUIRED, **_OPTIONAL}
    for key, kind in kinds.items():
        if not isinstance(raw.get(key), kind) and (key in raw or key in _REQUIRED):
            raise UsageError(
                f"{origin}: key {key!r} must be there and be a {kind.__name__}{_of(key)}"
            )
    for key, value in raw.items():
        if key not in kinds:
            raise UsageError(f"{origin}: key {key!r} is unknown; allowed: {', '.join(kinds)}")
        for word in value if isinstance(value, list) else ():
            if not isinstance(word, str):
                raise UsageError(
                    f"{origin}: key {key!r} holds {word!r}; allowed: strings{_of(key)}"
                )
    for key, words in _WORDS.items():
        value = raw.get(key, [])
        for word in value if isinstance(value, list) else [value]:
            if word not in words:
                raise UsageError(f"{origin}: key {key!r} is {word!r}; allowed{_of(key)}")
    if not NAME.fullmatch(raw["name"]) or raw["name"] == "all":
        allowed = "up to 40 of a-z, 0-9, - and _, and not all, which means every shipped one"
        raise UsageError(f"{origin}: key 'name' is {raw['name']!r}; allowed: {allowed}")
    if not raw["load"] and raw.get("kind") != "trap":
        raise UsageError(f"{origin}: key 'load' is empty; allowed{_of('load')}")
    if raw["load"] and not raw["put"] and not raw.get("evict"):
        raise UsageError(f"{origin}: keys 'put' and 'evict' are empty: nothing would ever put")
    switched = [word for word in (*raw["load"], *raw["put"]) if word in SWITCHED]
    if switched and "hook" not in raw:
        problem = f"{switched[0]!r} swaps at context switches, by a hook"
        raise UsageError(f"{origin}: key 'hook' must be there: {problem}; allowed{_of('hook')}")
    made: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()
    }
    del made["schema"]
    return Placement(**made)


def _of(key: str) -> str:
    # The words that a key takes, as the end of a line; nothing where it takes free text.
    return ": " + ", ".join(repr(word) for word in _WORDS[key]) if key in _WORDS else ""


def read_placement(path: Path) -> Placement:
    """Return the placement in a user's file; UsageError as load_placement, or if it isn't read."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise UsageError(f"{path}: more than {MOST_BYTES} bytes: this is no placement")
        return load_placement(raw.decode(), str(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the placement: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is no UTF-8") from error


def default_guard(told: bool) -> tuple[str, ...]:
    """Return the guards that a design has where nothing names any.

    The vector and the NMI guard are part of perf's guest-context API: who doesn't call it has only
    what KVM can do alone.
    """
    return GUARDS if told else ("irq_off",)


def _level(word: str, most: bool, loop_known: bool) -> Level:
    # The level whose edge a word names under one bound; inner loops that are known are the same
    # under both.
    bounds = LOAD_WORDS[word] if word in LOAD_WORDS else PUT_WORDS[word]
    return bounds[most and not (loop_known and bounds[0] == Level.LOOP)]


def rules_of(
    placement: Placement, most: bool, loop_known: bool = False
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return int64[kernel.RULES]: what of a placement is no edge of a level."""
    rules = np.zeros(q.RULES, np.int64)
    for word in placement.evict:
        for context in EVICT_WORDS[word]:
            rules[q.R_EVICT] |= 1 << context
    rules[q.R_CORE] = placement.evict_core
    rules[q.R_HOST] = HOST_WORDS[placement.host_events]
    rules[q.R_DEMAND] = q.NEVER if placement.kind == "trap" else DEMAND_WORDS[placement.demand]
    rules[q.R_LOOP] = int(_level("loop_end", most, loop_known))
    return rules


def _shipped() -> dict[str, str]:
    # Texts by name, innermost placement first; a file is named as the placement in it.
    folder = resources.files("analyzer").joinpath("placements")
    files = {file.name: file for file in folder.iterdir()}
    names = [name for name in ORDER if f"{name}.toml" in files]
    return {name: files[f"{name}.toml"].read_text(encoding="utf-8") for name in names}


def has_rules(placement: Placement) -> bool:
    """Say whether more than edges of levels decide when it swaps: demand, eviction, host events."""
    return bool(rules_of(placement, False)[: q.R_LOOP].any())


def shipped_placements() -> dict[str, Placement]:
    """Return the placements that come with the program, innermost first."""
    return {name: load_placement(text, f"{name}.toml") for name, text in _shipped().items()}


def shipped_text(name: str) -> str:
    """Return a shipped placement's TOML as declared; UsageError for a name that there is not."""
    texts = _shipped()
    if name not in texts:
        raise UsageError(f"placement {name!r} is unknown; allowed: {', '.join(texts)}")
    return texts[name]


def leaves_range(placement: Placement, loop_known: bool = False) -> bool:
    """Say whether the marks can leave a range: its words name other levels by bound.

    loop_known: the recording shows where each inner loop begins and ends.
    """
    words = {*placement.load, *placement.put}
    if placement.host_events != "never":
        words.add("loop_end")
    return any(_level(word, False, loop_known) != _level(word, True, loop_known) for word in words)


def transition_table(
    placement: Placement, most: bool, loop_known: bool = False
) -> tuple[np.ndarray[Any, np.dtype[np.int8]], int]:
    """Return int8[kinds, 64]: what a point of that kind and those levels does, and the level mask.

    `most`: the bound of the marks that gives the most swaps or the longest stay, see points.py;
    loop_known: as leaves_range has it.
    The mask tells which levels mean "loaded" where a window begins.
    """
    table = np.zeros((len(Kind), 64), np.int8)
    load_mask = put_mask = 0
    for word in placement.load:
        load_mask |= int(_level(word, most, loop_known))
    for word in placement.put:
        put_mask |= int(_level(word, most, loop_known))
    levels = np.arange(64)
    for kind in Kind:
        if Kind.SWITCH_IN <= kind <= Kind.ENTRY:
            table[kind, (levels & load_mask) != 0] = LOAD
        elif Kind.GUEST_END <= kind <= Kind.SWITCH_OUT:
            table[kind, (levels & put_mask) != 0] = PUT
    return table, load_mask
