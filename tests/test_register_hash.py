"""Does the hash table say of every address what the catalogue says?"""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.arch.x86 import msrs
from analyzer.readers.register_hash import SHIFT_OF_OP, classify, find_ref, register_hash

# Addresses that a damaged recording may hold: ends of int64, and where RDPMC's keys stand.
ODD = (-(2**63), 2**63 - 1, -1, 2**34, 2**34 + 5, -(2**34))


def addresses() -> np.ndarray:
    known = [e.first + e.step * n for e in msrs.CATALOGUE for n in range(-1, e.count + 1)]
    counters = [e.first + n for e in msrs.RDPMC_CATALOGUE for n in range(-1, e.count + 1)]
    random = np.random.default_rng(5).integers(-(2**63), 2**63 - 1, 2000)
    return np.concatenate((np.array([*known, *counters, *ODD], np.int64), random))


@pytest.mark.parametrize("vendor", [None, "GenuineIntel", "AuthenticAMD"])
@pytest.mark.parametrize("op", [msrs.READ, msrs.WRITE, msrs.RDPMC])
def test_registers_are_those_of_the_catalogue(vendor: str | None, op: int) -> None:
    table, address = register_hash(vendor), addresses()
    found = [np.empty(address.size, np.int16) for _ in range(3)]
    classify(
        np.array([op], np.int8), np.zeros(address.size, np.int32), address, SHIFT_OF_OP, table.key,
        table.role, table.register, table.index, *found,
    )  # fmt: skip
    expected = msrs.classify(np.full(address.size, op, np.int8), address, vendor)
    for got, wanted in zip(found, expected, strict=True):
        assert np.array_equal(got, wanted)


def test_a_key_is_found_where_the_plain_search_finds_it() -> None:
    table = register_hash(None)
    address = addresses()
    address = address[(address > -(2**62)) & (address < 2**62)]
    places = np.array([find_ref(table.key, key) for key in address.tolist()])
    register = np.empty(address.size, np.int16)
    classify(
        np.zeros(1, np.int8), np.zeros(address.size, np.int32), address, SHIFT_OF_OP, table.key,
        table.role, np.arange(table.key.size).astype(np.int16), table.index,
        np.empty_like(register), register, np.empty_like(register),
    )  # fmt: skip
    assert np.array_equal(register, places)
