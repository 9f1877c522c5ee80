"""Which thresholds apply? The shipped file, a user's file over it, single words over both."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError

__all__ = ["load_thresholds"]

SCHEMA = "vpmu-analyzer/thresholds/1"
Table = dict[str, dict[str, float]]


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"thresholds {name}: {error}") from error
    if raw.pop("schema", None) != SCHEMA:
        raise UsageError(f"thresholds {name}: key 'schema' is missing or not {SCHEMA!r}")
    return raw


def _set(table: Table, claim: str, name: str, value: object) -> None:
    known = table.get(claim)
    if known is None or name not in known:
        there = ", ".join(f"{c}.{n}" for c in table for n in table[c] if claim in (c, ""))
        raise UsageError(f"threshold {claim}.{name} is unknown; there are: {there or list(table)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise UsageError(f"threshold {claim}.{name} is {value!r}; allowed: a number from 0 on")
    known[name] = value


def load_thresholds(file: str | None = None, words: Iterable[str] = ()) -> Table:
    """Return thresholds by claim ("c1") and name; words: "c1.saving=0.002".

    UsageError for a file, a name or a value that we cannot take.
    """
    shipped = resources.files("analyzer").joinpath("claims", "thresholds.toml")
    table: Table = _parse("shipped", shipped.read_text(encoding="utf-8"))
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"thresholds {file}: {error}") from error
        for claim, values in _parse(file, text).items():
            if not isinstance(values, dict):
                raise UsageError(f"thresholds {file}: {claim} is no table")
            for name, value in values.items():
                _set(table, claim, name, value)
    for word in words:
        key, equals, text = word.partition("=")
        claim, dot, name = key.strip().lower().partition(".")
        try:
            value = float(text)
        except ValueError:
            dot = ""
        if not (equals and dot):
            raise UsageError(f"--threshold is {word!r}; allowed: c1.saving=0.002 and the like")
        _set(table, claim, name, value)
    return table
