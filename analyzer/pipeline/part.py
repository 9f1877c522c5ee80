"""Which part of a recording is asked for? The user's words, checked, as times and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from analyzer.errors import UsageError
from analyzer.replay import Part
from analyzer.store import Store

__all__ = ["Asked", "part_of", "recorded_ns", "rows_of"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for; None or empty: no limit. Seconds count from the recording's begin,
    `vcpus` are tids: a tid that was used twice means both vCPUs."""

    from_s: float | None = None
    to_s: float | None = None
    cpus: tuple[int, ...] = ()
    vcpus: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any] | None:
        """Return what stands in an answer; None where all was asked for."""
        if self == Asked():
            return None
        return {
            "from_s": self.from_s, "to_s": self.to_s, "cpus": list(self.cpus) or None,
            "vcpus": list(self.vcpus) or None,
        }  # fmt: skip


def part_of(store: Store, asked: Asked) -> Part:
    """Return the part in the store's own numbers; UsageError for what the recording hasn't."""
    for name, value in (("--from", asked.from_s), ("--to", asked.to_s)):
        if value is not None and not 0 <= value < 2**32:
            raise UsageError(f"{name} is {value}; allowed: 0 s up to {2**32} s")
    if asked.from_s is not None and asked.to_s is not None and asked.from_s >= asked.to_s:
        raise UsageError(f"--from is {asked.from_s}; allowed: less than --to, {asked.to_s}")
    vcpus = store.read("vcpu", ["vcpu", "tid"]).to_pylist()
    known = {"--cpu": set(store.read("window", ["cpu"])["cpu"].to_pylist())}
    known["--vcpu"] = {row["tid"] for row in vcpus}
    for name, chosen in (("--cpu", asked.cpus), ("--vcpu", asked.vcpus)):
        for number in chosen:
            if number not in known[name]:
                there = ", ".join(map(str, sorted(known[name]))) or "none"
                raise UsageError(f"{name} {number} is not in this recording; there are: {there}")
    begin = int(store.manifest["recording"]["begin_ns"])

    def at(seconds: float | None) -> int | None:
        return None if seconds is None else begin + round(seconds * 1e9)

    rows = tuple(row["vcpu"] for row in vcpus if row["tid"] in asked.vcpus)
    return Part(at(asked.from_s), at(asked.to_s), asked.cpus or None, rows or None)


def rows_of(table: pa.Table, part: Part) -> pa.Table:
    """Return the rows of a table with ts, cpu and vcpu that are in the part."""
    ts, cpu = (table[name].to_numpy() for name in ("ts", "cpu"))
    return table.filter(pa.array(part.holds(ts, cpu, table["vcpu"].fill_null(-1).to_numpy())))


def recorded_ns(store: Store, part: Part) -> int:
    """Return how long any CPU of the part was recorded in it: the union of their windows."""
    total, reached = 0, None
    for window in sorted(store.read("window").to_pylist(), key=lambda row: int(row["ts"])):
        begin, end = int(window["ts"]), int(window["end"])
        if part.cpus is not None and window["cpu"] not in part.cpus:
            continue
        begin = max(begin, begin if part.begin is None else part.begin)
        end = min(end, end if part.end is None else part.end)
        start = begin if reached is None else max(begin, reached)
        total += max(0, end - start)
        reached = end if reached is None else max(reached, end)
    return total
