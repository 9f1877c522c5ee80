"""Which PMU register is an MSR number or an RDPMC index, and what is it for? The x86 catalogue.

The facts stand in msrs.toml beside this file. A register that is another window onto one (a legacy
or perfmon 6 number) has its own name but the same role and index, so role and index join aliases;
no number belongs to registers of two vendors, but for RDPMC's above 5.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "CATALOGUE",
    "RDPMC",
    "RDPMC_CATALOGUE",
    "READ",
    "REGISTER_NAMES",
    "ROLES",
    "WRITE",
    "Range",
    "Register",
    "classify",
    "lookup",
    "vendor_of_addresses",
]

READ, WRITE, RDPMC = 0, 1, 2
_OPS = {"read": READ, "write": WRITE, "rdpmc": RDPMC}
_VENDORS = {"intel": "GenuineIntel", "amd": "AuthenticAMD", "both": None}
# Added to RDPMC's indexes, so that no MSR has the same number; any other op has none.
_SHIFT_OF_OP = np.array([0, 0, 2**34, -(2**62)])
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Register:
    """One register; `name` is its range's, `index` says which of several, `vendor` null: both."""

    name: str
    role: str
    index: int | None
    vendor: str | None


@dataclass(frozen=True, slots=True)
class Range:
    """One entry of msrs.toml; its head comment says what the fields mean."""

    name: str
    first: int
    count: int
    step: int
    index: int
    vendor: str | None
    role: str
    swap: str
    guest: str
    host_perf: bool
    alias_of: int | None
    rdpmc_base: int | None
    notes: str

    def register(self, element: int) -> Register:
        """Return element 0 <= element < count."""
        if "{}" not in self.name:
            return Register(self.name, self.role, None, self.vendor)
        index = self.index + element
        name = self.name.replace("_{}", "").replace("{}", "")
        return Register(name, self.role, index, self.vendor)

    def element_at(self, address: int) -> int | None:
        """Return which element has that address."""
        element, rest = divmod(address - self.first, self.step)
        return element if rest == 0 and 0 <= element < self.count else None


def _range(vendor: str, role: str, entry: dict[str, Any]) -> Range:
    if role not in ROLES:
        raise ValueError(f"msrs.toml: {entry['name']}: role {role} is not declared")
    return Range(
        name=entry["name"],
        first=entry["at"]["first"],
        count=entry["at"].get("count", 1),
        step=entry["at"].get("step", 1),
        index=entry.get("index", 0),
        vendor=_VENDORS[vendor],
        role=role,
        swap=entry.get("swap", "no"),
        guest=entry.get("guest", "intercepted"),
        host_perf=entry.get("host_perf", True),
        alias_of=entry.get("alias_of"),
        rdpmc_base=entry.get("rdpmc_base"),
        notes=" ".join(entry.get("notes", "").split()),
    )


_FACTS = tomllib.loads(Path(__file__).with_name("msrs.toml").read_text("utf-8"))

ROLES: tuple[str, ...] = tuple(_FACTS["meta"]["roles"])
CATALOGUE: tuple[Range, ...] = tuple(
    _range(vendor, role, entry)
    for vendor in _VENDORS
    for role, entries in _FACTS[vendor].items()
    for entry in entries
)
# Two vendors' ranges may share indexes: 6 to 9 are core counters to Intel and uncore ones to AMD.
RDPMC_CATALOGUE: tuple[Range, ...] = tuple(
    _range(entry["vendor"], entry["role"], entry) for entry in _FACTS["rdpmc"]
)
# One name a range ("MSR_F15H_PERF_CTR", "PMC"): which element it is, the index says.
REGISTER_NAMES: tuple[str, ...] = tuple(
    dict.fromkeys(
        entry.register(element).name
        for entry in (*CATALOGUE, *RDPMC_CATALOGUE)
        for element in range(entry.count)
    )
)


@dataclass(frozen=True, slots=True)
class _Elements:
    """Columns of registers: number int64, role, register and index int16; one row each.

    One more row at the end, of -1, stands for "no such register". slot: intp[m], which row to look
    at for a number, by number modulo m.
    """

    number: Array
    role: Array
    register: Array
    index: Array
    slot: Array

    def find(self, number: Array) -> Array:
        """Return the row of each number."""
        row = self.slot[number % self.slot.size]
        return np.where(self.number[row] == number, row, len(self.number) - 1)


Rows = dict[int, tuple[int, int, int]]


def _rows(ranges: Iterable[Range], shift: int) -> Rows:
    # Role, register and index of every number that only one register claims.
    codes = {name: code for code, name in enumerate(REGISTER_NAMES)}
    rows: Rows = {}
    claimed_twice: set[int] = set()
    for entry in ranges:
        for element in range(entry.count):
            one = entry.register(element)
            index = -1 if one.index is None else one.index
            row = (ROLES.index(entry.role), codes[one.name], index)
            number = shift + entry.first + entry.step * element
            if rows.setdefault(number, row) != row:
                claimed_twice.add(number)
    return {number: row for number, row in rows.items() if number not in claimed_twice}


def _elements(rows: Rows, modulus: int) -> _Elements:
    number = np.array([*rows, -1], np.int64)
    role, register, index = np.array([*rows.values(), (-1, -1, -1)], np.int16).T.copy()
    # The smallest modulus from the given one on under which no two numbers meet.
    while np.bincount(number[:-1] % modulus).max() > 1:
        modulus += 1
    slot = np.full(modulus, len(rows), np.intp)
    slot[number[:-1] % modulus] = np.arange(len(rows))
    return _Elements(number, role, register, index, slot)


def _has(entry: Range, vendor: str | None) -> bool:
    return vendor is None or entry.vendor is None or entry.vendor == vendor


_MSR_ROWS = _rows(CATALOGUE, 0)
# Where the search for a modulus ends with the catalogue as it is: it would take long from below.
_MODULUS = 4503
_ELEMENTS = {
    vendor: _elements(
        _MSR_ROWS
        | _rows((e for e in RDPMC_CATALOGUE if _has(e, vendor)), int(_SHIFT_OF_OP[RDPMC])),
        _MODULUS,
    )
    for vendor in _VENDORS.values()
}
# Only what makes a vendor's core PMU proves the vendor: other numbers are probed on foreign CPUs.
# AMD first: its numbers lie far off, Intel's low ones are what a probe hits.
_CORE_ROLES = {"counter", "selector"} | {
    role for role in ROLES if role.startswith(("fixed_", "global_"))
}


def _core_addresses(vendor: str) -> Array:
    core = (e for e in CATALOGUE if e.vendor == vendor and e.role in _CORE_ROLES)
    return np.array([*_rows(core, 0)], np.int64)


_CORE = {vendor: _core_addresses(vendor) for vendor in ("AuthenticAMD", "GenuineIntel")}


def lookup(op: str, address: int, vendor: str | None = None) -> Register | None:
    """Return the register of an MSR number (op read or write) or of rdpmc's ECX.

    None where the catalogue has none for that vendor; without a vendor also where the vendors
    disagree, since a wrong name is worse than none.
    """
    ranges = RDPMC_CATALOGUE if _OPS[op] == RDPMC else CATALOGUE
    found = [
        entry.register(element)
        for entry in ranges
        if _has(entry, vendor) and (element := entry.element_at(address)) is not None
    ]
    return found[0] if len(found) == 1 else None


def classify(op: Array, address: Array, vendor: str | None = None) -> tuple[Array, Array, Array]:
    """Return role int16[n] (of ROLES), register int16[n] (of REGISTER_NAMES) and index int16[n].

    -1 where the catalogue has no such register, and in index where the register isn't one of
    several. op: int8[n], READ, WRITE or RDPMC. address: int64[n]. The vendor matters to RDPMC
    indexes above 5 only, which are core counters to Intel and uncore ones to AMD: without one
    those that both have stay unnamed.
    """
    elements = _ELEMENTS.get(vendor, _ELEMENTS[None])
    where = elements.find(address + _SHIFT_OF_OP[op])
    return elements.role[where], elements.register[where], elements.index[where]


def vendor_of_addresses(addresses: Iterable[int] | Array) -> str | None:
    """Return AuthenticAMD if AMD's core PMU has some of the MSRs, else GenuineIntel if Intel's has.

    None if neither's is there. addresses: MSR numbers without RDPMC's and without
    accesses that failed, any order.
    """
    wanted = np.fromiter((int(number) for number in addresses), np.int64)
    for vendor, core in _CORE.items():
        if np.isin(wanted, core).any():
            return vendor
    return None
