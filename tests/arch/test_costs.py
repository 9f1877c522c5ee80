"""Every cost file is well formed, sourced, and reproduces the published wholes that it names."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import analyzer
from analyzer.errors import UsageError
from analyzer.replay import load_cost

FOLDER = Path(analyzer.__file__).with_name("costs")
COSTS = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.toml")}
BOUNDS = ("low", "typical", "high")


def chain(name: str) -> list[dict[str, Any]]:
    """The file and its parents, nearest first."""
    found = [COSTS[name]]
    while "inherits" in found[-1]:
        found.append(COSTS[found[-1]["inherits"]])
    return found


def operations(name: str) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for one in reversed(chain(name)):
        merged.update(one.get("op", {}))
    return merged


def swap_operations(swap: dict[str, Any], gp: int, fixed: int) -> Counter[str]:
    total = Counter(swap["const"])
    for part, times in (("per_gp", gp), ("per_fixed", fixed)):
        for op, count in swap.get(part, {}).items():
            total[op] += count * times
    return total


def test_the_files_are_the_ones_that_we_have_sources_for() -> None:
    assert sorted(COSTS) == [
        "amd-zen4",
        "amd-zen5",
        "arm64",
        "intel-sapphire-rapids",
        "intel-skylake-sp",
        "loongarch",
        "power9",
        "powerpc",
        "riscv",
        "x86-amd",
        "x86-intel",
    ]
    assert [path.name for path in FOLDER.iterdir() if path.suffix not in {".toml", ""}] == []


@pytest.mark.parametrize("name", COSTS)
def test_file_declares_its_format_and_finds_its_parents(name: str) -> None:
    one = COSTS[name]
    assert (one["schema"], one["unit"], one["name"]) == ("vpmu-analyzer/cost/1", "ns", name)
    assert "arch" in chain(name)[-1]
    # Off x86 no CPUID tells the part: such a file is chosen by its name alone.
    is_x86 = chain(name)[-1]["arch"] == "x86"
    assert ("match" in one) == ("inherits" in one and is_x86)


@pytest.mark.parametrize("name", COSTS)
def test_ranges_are_in_order_and_say_what_they_are(name: str) -> None:
    for op, cost in COSTS[name]["op"].items():
        assert 0 <= cost["low"] <= cost["typical"] <= cost["high"], op
        assert cost["kind"] in {"measured", "derived", "assumed"}, op
        # Free is only what can't occur.
        assert cost["low"] > 0 or (name, op) == ("x86-amd", "fixed_ctrl_write")


@pytest.mark.parametrize("name", COSTS)
def test_every_source_resolves_and_is_used(name: str) -> None:
    known = {source["id"] for one in chain(name) for source in one["source"]}
    used = {source for cost in COSTS[name]["op"].values() for source in cost["source"]} | {
        anchor["source"] for anchor in COSTS[name].get("anchor", [])
    }
    used |= set(COSTS[name].get("context", []))
    assert used
    assert used <= known
    assert {source["id"] for source in COSTS[name]["source"]} <= used
    for source in COSTS[name]["source"]:
        assert source["title"]
        assert source["where"]
        assert source["says"]


@pytest.mark.parametrize("name", COSTS)
def test_every_operation_of_a_swap_has_a_price(name: str) -> None:
    priced = operations(name)
    for one in chain(name):
        for direction in ("load", "put"):
            for swap in one.get("swap", {}).get(direction, {}).values():
                assert set(swap_operations(swap, 1, 1)) <= set(priced)
        extra = one.get("swap", {}).get("exit", {}).get("extra", {"const": {}})
        assert set(extra["const"]) <= set(priced)
    # The program takes it as it is, whatever it inherits.
    assert set(load_cost(name).operations) == set(priced)


# facts/costs.md 1: the typical total within 10 % of the anchor's, which the model's range contains.
@pytest.mark.parametrize(
    ("name", "anchor"),
    [(name, anchor) for name, one in COSTS.items() for anchor in one.get("anchor", [])],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_published_total_is_reproduced(name: str, anchor: dict[str, Any]) -> None:
    priced, ghz = operations(name), COSTS[name]["tsc_ghz"]
    low, typical, high = (
        ghz[bound] * sum(count * priced[op][bound] for op, count in anchor["ops"].items())
        for bound in BOUNDS
    )
    published = anchor["tsc_cycles"]
    assert abs(typical - published["typical"]) <= 0.10 * published["typical"]
    assert low <= published["low"]
    assert published["high"] <= high


def test_there_are_anchors_for_both_vendors() -> None:
    assert len(COSTS["intel-sapphire-rapids"]["anchor"]) == 3
    assert len(COSTS["amd-zen5"]["anchor"]) == 3


# facts/x86.md 3.3, counted in the kernel's source: WRMSR, RDMSR and RDPMC of one swap, x2APIC.
@pytest.mark.parametrize(
    ("name", "counters", "direction", "use", "counts"),
    [
        ("x86-intel", (4, 3), "load", "idle", (7, 1, 7)),
        ("x86-intel", (4, 3), "put", "idle", (1, 1, 7)),
        ("x86-intel", (4, 3), "load", "busy", (14, 1, 7)),
        ("x86-intel", (4, 3), "put", "busy", (13, 1, 7)),
        ("x86-intel", (8, 3), "load", "idle", (11, 1, 11)),
        ("x86-intel", (8, 3), "put", "busy", (21, 1, 11)),
        ("x86-amd", (6, 0), "load", "idle", (10, 1, 6)),
        ("x86-amd", (6, 0), "put", "idle", (2, 1, 6)),
        ("x86-amd", (6, 0), "load", "busy", (16, 1, 6)),
        ("x86-amd", (6, 0), "put", "busy", (14, 1, 6)),
    ],
)
def test_swap_has_the_operations_of_the_kernel(
    name: str, counters: tuple[int, int], direction: str, use: str, counts: tuple[int, int, int]
) -> None:
    swap = swap_operations(COSTS[name]["swap"][direction][use], *counters)
    writes = sum(count for op, count in swap.items() if "_write" in op)
    assert (writes, swap["status_read"], swap["counter_read"]) == counts


# What a user writes is held to the same: a number without its kind and source is refused by name.
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[op.x]\nlow = 1\ntypical = 2\nhigh = 3\nkind = 'measured'", "'source'"),
        ("[op.x]\nlow = 1\ntypical = 2\nhigh = 3\nsource = ['a']", "'kind'"),
        ("[op.x]\nlow = 3\ntypical = 2\nhigh = 3\nkind = 'assumed'\nsource = ['a']", "low <="),
        ("[op.x]\nlow = nan\ntypical = 2\nhigh = 3\nkind = 'assumed'\nsource = ['a']", "'low'"),
        ("[swap.load.idle]\nconst = { nothing = 1 }", "'nothing'"),
        ("op = 3", "op"),
    ],
)
def test_cost_file_of_a_user_is_checked(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(f"schema = 'vpmu-analyzer/cost/1'\nname = 'my'\n{text}\n")
    with pytest.raises(UsageError, match=complaint):
        load_cost(str(path))


def test_cost_file_that_inherits_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(f"schema = 'vpmu-analyzer/cost/1'\nname = 'my'\ninherits = {str(path)!r}\n")
    with pytest.raises(UsageError, match="inherits itself"):
        load_cost(str(path))
