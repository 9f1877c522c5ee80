"""Which host events does the user say were on? Words of perf, or perf.data's attributes in TOML.

`cycles:H,freq=997,cpu=0,2-3` is one event; a file has one [[event]] for each, with the keys of
perf_event_attr. Either becomes a row of table host_event that tells who said it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError

__all__ = ["host_event_of", "host_events_of"]

# linux:include/uapi/linux/perf_event.h: perf_type_id, perf_hw_id, perf_sw_ids; names are perf's
# (linux:tools/perf/util/parse-events.c).
TYPES = {
    "hardware": 0, "software": 1, "tracepoint": 2, "hw-cache": 3, "raw": 4, "breakpoint": 5,
}  # fmt: skip
EVENTS = {
    "cycles": (0, 0), "cpu-cycles": (0, 0), "instructions": (0, 1), "cache-references": (0, 2),
    "cache-misses": (0, 3), "branches": (0, 4), "branch-instructions": (0, 4),
    "branch-misses": (0, 5), "bus-cycles": (0, 6), "stalled-cycles-frontend": (0, 7),
    "stalled-cycles-backend": (0, 8), "ref-cycles": (0, 9), "cpu-clock": (1, 0),
    "task-clock": (1, 1), "page-faults": (1, 2), "context-switches": (1, 3),
    "cpu-migrations": (1, 4),
}  # fmt: skip
KEYS = (
    "freq", "period", "cpu", "tid", "pid", "exclude_guest", "exclude_host", "exclude_kernel",
    "exclude_user", "pinned",
)  # fmt: skip
FLAGS = KEYS[5:]
ATTRIBUTES = (
    "name", "type", "config", "sample_freq", "sample_period", *FLAGS, "cpus", "tid", "pid",
)  # fmt: skip
_RANGE = re.compile(r"\d{1,9}(-\d{1,9})?")
_YES = {"yes": True, "1": True, "true": True, "no": False, "0": False, "false": False}
# perf's modifiers that exclude: who counts only these excludes the others.
_WHERE = {"u": "exclude_user", "k": "exclude_kernel", "G": "exclude_guest", "H": "exclude_host"}
_LARGEST = 2**31 - 1


def host_events_of(
    texts: Sequence[str] | None, files: Sequence[Path] | None
) -> tuple[dict[str, Any], ...]:
    """Return rows of host_event for --host-event and --host-events; UsageError in one line."""
    rows = [host_event_of(text) for text in texts or ()]
    for file in files or ():
        rows += _file_rows(file)
    return tuple(rows)


def host_event_of(text: str) -> dict[str, Any]:
    """Return the row of host_event for one --host-event.

    >>> row = host_event_of("cycles:H,freq=997,cpu=0,2-3")
    >>> row["freq"], row["cpus"], row["exclude_guest"], row["exclude_kernel"]
    (997, '0,2-3', True, None)
    """
    flag = "--host-event"
    name, *items = text.split(",")
    row: dict[str, Any] = {"name": name, "source": flag, "cpus": None}
    event, _, modifiers = name.partition(":")
    _name(row, event, f"{flag} {text!r}")
    _modify(row, modifiers, f"{flag} {text!r}")
    cpus: list[str] | None = None
    for item in items:
        key, equals, value = item.partition("=")
        if cpus is not None and not equals and _RANGE.fullmatch(item):
            cpus.append(item)  # cpu=0,2-3 goes on behind its comma
            continue
        cpus = None
        where = f"{flag} {text!r}: key {key!r}"
        if key not in KEYS:
            raise UsageError(f"{where} is unknown; allowed: {', '.join(KEYS)}")
        if key == "cpu":
            cpus = [value]
            row["cpus"] = cpus
        elif key in FLAGS:
            if equals and value not in _YES:
                raise UsageError(f"{where} is {value!r}; allowed: yes, no")
            row[key] = _YES[value] if equals else True
        else:
            row[key] = _number(int(value) if value.isdecimal() else value, where)
    if row["cpus"] is not None:
        row["cpus"] = _cpus(",".join(row["cpus"]), f"{flag} {text!r}: key 'cpu'")
    return _whole(row, f"{flag} {text!r}: keys 'freq' and 'period'")


def _file_rows(file: Path) -> list[dict[str, Any]]:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    for key in raw:
        if key != "event":
            raise UsageError(f"{file}: key {key!r} is unknown; allowed: event")
    events = raw.get("event")
    if not isinstance(events, list) or not all(isinstance(one, dict) for one in events):
        raise UsageError(f"{file}: key 'event' must be there, as one [[event]] for each event")
    return [_attributes(one, f"{file}: event {n}", file.name) for n, one in enumerate(events, 1)]


def _attributes(raw: dict[str, Any], origin: str, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"source": f"--host-events {name}", "cpus": None}
    for key, value in raw.items():
        where = f"{origin}: key {key!r}"
        if key not in ATTRIBUTES:
            raise UsageError(f"{where} is unknown; allowed: {', '.join(ATTRIBUTES)}")
        if key in FLAGS:
            if not isinstance(value, bool):
                raise UsageError(f"{where} is {value!r}; allowed: true, false")
            row[key] = value
        elif key in ("sample_freq", "sample_period", "tid", "pid"):
            if value or key in ("tid", "pid"):  # 0 is perf's word for neither
                row[key.removeprefix("sample_")] = _number(value, where)
        elif key == "cpus":
            row["cpus"] = _cpus(value, where)
        elif key == "type":
            row["type"] = _type(value, where)
        elif key == "name" and not isinstance(value, str):
            raise UsageError(f"{where} is {value!r}; allowed: a text")
        elif key == "config" and not isinstance(value, str):
            row[key] = _number(value, where, 2**64 - 1, 0)
        elif key == "name":
            row[key] = value
    config = raw.get("config")
    if isinstance(config, str):
        _name(row, config, f"{origin}: key 'config'")
    if row.get("type") is None:
        allowed = f"{', '.join(TYPES)}, or a number"
        raise UsageError(f"{origin}: key 'type' must be there; allowed: {allowed}")
    row.setdefault("name", config if isinstance(config, str) else f"type {row['type']}")
    return _whole(row, f"{origin}: keys 'sample_freq' and 'sample_period'")


def _name(row: dict[str, Any], event: str, where: str) -> None:
    # What perf calls an event, as type and config.
    if event in EVENTS:
        row["type"], row["config"] = EVENTS[event]
    elif re.fullmatch(r"r[0-9a-fA-F]{1,16}", event):
        row["type"], row["config"] = TYPES["raw"], int(event[1:], 16)
    else:
        known = f"{', '.join(EVENTS)}, or r and a raw number"
        raise UsageError(f"{where}: event {event!r} is unknown; allowed: {known}")


def _modify(row: dict[str, Any], modifiers: str, where: str) -> None:
    for letter in modifiers:
        if letter not in "ukGHDpP":
            raise UsageError(f"{where}: modifier {letter!r} is unknown; allowed: u, k, G, H, D, p")
    for pair in ("uk", "GH"):
        if len(set(pair) & set(modifiers)) == 1:
            (other,) = set(pair) - set(modifiers)
            row[_WHERE[other]] = True
    if "D" in modifiers:
        row["pinned"] = True


def _number(value: Any, where: str, most: int = _LARGEST, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{where} is {value!r}; allowed: {least} to {most}")
    return value


def _type(value: Any, where: str) -> int:
    if isinstance(value, str):
        if value not in TYPES:
            raise UsageError(f"{where} is {value!r}; allowed: {', '.join(TYPES)}, or a number")
        return TYPES[value]
    return _number(value, where, least=0)


def _cpus(value: Any, where: str) -> str | None:
    # "all", "0,2-3" or [0, 2, 3]; None stands for all.
    if value == "all":
        return None
    if isinstance(value, list):
        value = ",".join(str(one) for one in value)
    items = value.split(",") if isinstance(value, str) else [""]
    for item in items:
        low, _, high = item.partition("-")
        if not _RANGE.fullmatch(item) or int(high or low) < int(low):
            raise UsageError(f"{where} is {value!r}; allowed: all, or numbers as in 0,2-3")
    return ",".join(items)


def _whole(row: dict[str, Any], where: str) -> dict[str, Any]:
    if row.get("freq") and row.get("period"):
        raise UsageError(f"{where} exclude each other; allowed: one of them, or none to count")
    row["use"] = "sampled" if row.get("freq") or row.get("period") else "counted"
    is_task = row.get("tid") is not None or row.get("pid") is not None
    row["scope"] = "task" if is_task else "cpu"
    columns = ("type", "config", "freq", "period", "tid", "pid", *FLAGS)
    return {**dict.fromkeys(columns), **row}
