"""Which register is an address? The catalogue as a hash table that kernels can look into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from analyzer.arch.x86 import msrs
from analyzer.jit import helper, kernel

__all__ = ["SHIFT_OF_OP", "RegisterHash", "classify", "find", "find_ref", "register_hash"]

Array = np.ndarray[Any, Any]
# Added to an address by its operation: RDPMC counts its registers anew, so its are put beside the
# 32 bits of an MSR's number.
SHIFT_OF_OP = np.zeros(3, np.int64)
SHIFT_OF_OP[msrs.RDPMC] = 1 << 34
EMPTY = -(2**63)
# Fibonacci hashing: 2^64 over the golden ratio, of which the top bits are taken. Twice as many
# places as there are registers (some 1,500) and more, so that a search ends soon.
FACTOR = np.uint64(0x9E3779B97F4A7C15)
BITS = 13
DROPPED = np.uint64(64 - BITS)


@dataclass(frozen=True, slots=True)
class RegisterHash:
    """Columns of 2^BITS places: key int64 (address + SHIFT_OF_OP, EMPTY), and as msrs.classify
    returns them role, register and index int16, -1 in an empty place."""

    key: Array
    role: Array
    register: Array
    index: Array


def find_ref(key: Array, wanted: int) -> int:
    """Return the place of a key, or the empty place where it would go."""
    at = (wanted * int(FACTOR) % 2**64) >> int(DROPPED)
    while key[at] not in (wanted, EMPTY):
        at = (at + 1) % key.size
    return at


@helper
def find(key, wanted):  # type: ignore[no-untyped-def]
    """Return what find_ref returns."""
    at = np.int64(np.uint64(wanted) * FACTOR >> DROPPED)
    while key[at] != wanted and key[at] != EMPTY:
        at = (at + 1) & (key.size - 1)
    return at


@kernel
def classify(  # type: ignore[no-untyped-def]
    op, group, address, shift_of_op, key, role, register, index, roles, registers, indexes
):
    """Write roles, registers and indexes int16[n] for address int64[n].

    op int8[g]: by group int32[n]. shift_of_op: SHIFT_OF_OP; key, role, register, index: of a
    RegisterHash.
    """
    for n in range(address.size):
        at = find(key, address[n] + shift_of_op[op[group[n]]])
        roles[n], registers[n], indexes[n] = role[at], register[at], index[at]


@lru_cache
def register_hash(vendor: str | None) -> RegisterHash:
    """Return the registers that a vendor's CPU has, by msrs.classify."""
    size = 1 << BITS
    columns = [np.full(size, -1, np.int16) for _ in range(3)]
    key = np.full(size, EMPTY, np.int64)
    for op, catalogue in ((msrs.WRITE, msrs.CATALOGUE), (msrs.RDPMC, msrs.RDPMC_CATALOGUE)):
        spans = [entry.first + entry.step * np.arange(entry.count) for entry in catalogue]
        address = np.unique(np.concatenate(spans).astype(np.int64))
        found = msrs.classify(np.full(address.size, op, np.int8), address, vendor)
        known = found[0] >= 0
        places = []
        for wanted in (address[known] + SHIFT_OF_OP[op]).tolist():
            places.append(find_ref(key, wanted))
            key[places[-1]] = wanted
        for column, values in zip(columns, found, strict=True):
            column[places] = values[known]
    return RegisterHash(key, *columns)
