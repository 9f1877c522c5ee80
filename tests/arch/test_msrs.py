"""The catalogue gives every register of msrs.toml, by number and in columns, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.arch.x86 import msrs

TOML = tomllib.loads(Path(msrs.__file__).with_name("msrs.toml").read_text("utf-8"))
VENDORS = {"intel": "GenuineIntel", "amd": "AuthenticAMD", "both": None}
INTEL, AMD = "GenuineIntel", "AuthenticAMD"


def elements(entry: dict[str, Any]) -> list[tuple[int, str, int]]:
    """Address, name and index (-1: none) of each element, read out of the TOML a second way."""
    at, name = entry["at"], entry["name"]
    found = []
    for i in range(at.get("count", 1)):
        index = entry.get("index", 0) + i if "{}" in name else -1
        address = at["first"] + at.get("step", 1) * i
        found.append((address, name.replace("_{}", "").replace("{}", ""), index))
    return found


MSRS = [
    (address, name, index, role, VENDORS[vendor])
    for vendor in VENDORS
    for role, entries in TOML[vendor].items()
    for entry in entries
    for address, name, index in elements(entry)
]
RDPMCS = [
    (ecx, name, index, entry["role"], VENDORS[entry["vendor"]])
    for entry in TOML["rdpmc"]
    for ecx, name, index in elements(entry)
]


@pytest.mark.parametrize("op", ["read", "write"])
def test_every_msr_of_the_toml_is_found(op: str) -> None:
    for address, name, index, role, vendor in MSRS:
        wanted = msrs.Register(name, role, None if index < 0 else index, vendor)
        assert msrs.lookup(op, address) == wanted
        assert msrs.lookup(op, address, vendor) == wanted


def test_every_rdpmc_of_the_toml_is_found_by_its_vendor() -> None:
    for ecx, name, index, role, vendor in RDPMCS:
        wanted = msrs.Register(name, role, None if index < 0 else index, vendor)
        assert msrs.lookup("rdpmc", ecx, vendor) == wanted


def test_no_number_belongs_to_two_msrs() -> None:
    addresses = [row[0] for row in MSRS]
    assert len(addresses) == len(set(addresses))


def test_columns_agree_with_single_lookups() -> None:
    addresses = [row[0] for row in MSRS] + [0, 0x10, 0x830, 0xC1 + 8, 2**31, 0xFFFFFFFF]
    ecx = [row[0] for row in RDPMCS] + [99, 0x4000_0007]
    ops = [msrs.READ] * len(addresses) + [msrs.WRITE] * len(addresses) + [msrs.RDPMC] * len(ecx)
    where = np.array(addresses + addresses + ecx, np.int64)
    names = {msrs.READ: "read", msrs.WRITE: "write", msrs.RDPMC: "rdpmc"}
    for vendor in (None, INTEL, AMD):
        role, register, index = msrs.classify(np.array(ops, np.int8), where, vendor)
        assert (role.dtype, register.dtype, index.dtype) == (np.int16, np.int16, np.int16)
        for row, (op, address) in enumerate(zip(ops, where.tolist(), strict=True)):
            # An MSR number has one owner: columns don't doubt it, whatever the vendor.
            one = msrs.lookup(names[op], address, vendor if op == msrs.RDPMC else None)
            if one is None:
                assert (role[row], register[row], index[row]) == (-1, -1, -1)
                continue
            assert msrs.ROLES[role[row]] == one.role
            assert msrs.REGISTER_NAMES[register[row]] == one.name
            assert index[row] == (-1 if one.index is None else one.index)


def test_empty_columns_give_empty_columns() -> None:
    empty = np.array([], np.int64)
    assert [len(column) for column in msrs.classify(empty.astype(np.int8), empty)] == [0, 0, 0]


def test_unknown_op_is_in_no_catalogue() -> None:
    role, register, index = msrs.classify(np.array([-1], np.int8), np.array([0x38F], np.int64))
    assert (role[0], register[0], index[0]) == (-1, -1, -1)


def test_register_name_and_index_say_which_address_it_is() -> None:
    indexed = [(name, index) for _, name, index, _, _ in MSRS if index >= 0]
    assert len(indexed) == len(set(indexed))
    roles = {(name, role) for _, name, _, role, _ in MSRS}
    assert len(roles) == len({name for name, _ in roles})


def test_register_names_are_unique_and_fit_their_column() -> None:
    assert len(set(msrs.REGISTER_NAMES)) == len(msrs.REGISTER_NAMES) < 2**15
    assert {row.role for row in (*msrs.CATALOGUE, *msrs.RDPMC_CATALOGUE)} <= set(msrs.ROLES)


def test_alias_has_role_and_index_of_what_it_stands_for() -> None:
    seen = 0
    for entry in msrs.CATALOGUE:
        if entry.alias_of is None:
            continue
        seen += 1
        target = msrs.lookup("write", entry.alias_of)
        assert target is not None
        assert (target.role, target.index) == (entry.role, 0)
    assert seen == 6


# RDPMC reads the same counter as the MSR that msrs.toml gives an rdpmc_base.
def test_rdpmc_joins_its_msr_by_role_and_index() -> None:
    for entry in msrs.CATALOGUE:
        if entry.rdpmc_base is None:
            continue
        for element in range(entry.count):
            by_msr = entry.register(element)
            by_ecx = msrs.lookup("rdpmc", entry.rdpmc_base + element, entry.vendor)
            assert by_ecx is not None
            assert (by_ecx.role, by_ecx.index) == (by_msr.role, by_msr.index)


def test_rdpmc_above_five_depends_on_the_vendor() -> None:
    assert msrs.lookup("rdpmc", 3) == msrs.Register("PMC", "counter", 3, None)
    assert msrs.lookup("rdpmc", 7, INTEL) == msrs.Register("PMC", "counter", 7, INTEL)
    assert msrs.lookup("rdpmc", 7) is None
    uncore = msrs.lookup("rdpmc", 7, AMD)
    assert uncore is not None
    assert uncore.role == "uncore_or_other"
    assert msrs.lookup("rdpmc", 0x4000_0001) == msrs.Register(
        "FIXED_CTR", "fixed_counter", 1, INTEL
    )
    assert msrs.lookup("rdpmc", 0x4000_0001, AMD) is None


def test_other_vendors_msr_is_not_found() -> None:
    assert msrs.lookup("read", 0x38F, AMD) is None
    assert msrs.lookup("read", 0xC0000301, INTEL) is None


@pytest.mark.parametrize(
    ("addresses", "vendor"),
    [
        ([0x38D, 0x834, 0x1D9], INTEL),
        ([0x186], INTEL),
        ([0x4C1 + 7], INTEL),
        ([0xC0010200, 0xC0000102], AMD),
        ([0xC0000303], AMD),
        ([0x834, 0x1D9, 0xC0000102, 0xE7], None),
        ([0x1A6, 0x345], None),
        ([0x38F, 0xC0000301], AMD),
        ([], None),
    ],
)
def test_vendor_is_told_by_its_core_registers_alone(
    addresses: list[int], vendor: str | None
) -> None:
    assert msrs.vendor_of_addresses(addresses) == vendor
    assert msrs.vendor_of_addresses(np.array(addresses, np.int64)) == vendor
