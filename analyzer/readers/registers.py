"""Which PMU register is an address of the msr events? Columns out of the catalogue.

A reader names rows before the recording has told its vendor, and only a few indexes of rdpmc mean
something else to the other one. So rows are named as Intel's first, whose host perf reads those
indexes all the time, and named again at the end where that was wrong for one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.arch.x86 import msrs
from analyzer.readers.columns import enum_column, number_column
from analyzer.readers.register_hash import SHIFT_OF_OP, classify, register_hash
from analyzer.tables import BY_NAME

__all__ = ["OPS", "name_again", "names_differ", "register_columns"]

Array = np.ndarray[Any, Any]
OPS = ("read", "write", "rdpmc")  # by msrs.READ, WRITE, RDPMC
ASSUMED_VENDOR = "GenuineIntel"


def register_columns(
    op: Array, group: Array, address: Array, vendor: str | None = ASSUMED_VENDOR
) -> dict[str, pa.Array]:
    """Return columns role, register and index for address int64[n]; op int8[g] by group int32[n].

    All are null for an address that the catalogue of analyzer.arch.x86.msrs does not have, and
    without a vendor for one that two vendors have.
    """
    known = register_hash(vendor)
    role, register, index = (np.empty(address.size, np.int16) for _ in range(3))
    classify(
        op, group, address, SHIFT_OF_OP, known.key, known.role, known.register, known.index, role,
        register, index,
    )  # fmt: skip
    return {
        "role": enum_column(role, msrs.ROLES),
        "register": enum_column(register, msrs.REGISTER_NAMES),
        "index": number_column(BY_NAME["pmu_access"].column("index"), index, index >= 0),
    }


def names_differ(indexes: set[int], vendor: str | None) -> bool:
    """Say whether one of these rdpmc indexes has another name than register_columns gave it."""
    address = np.array(sorted(indexes), np.int64)
    op = np.full(address.size, msrs.RDPMC, np.int8)
    assumed = msrs.classify(op, address, ASSUMED_VENDOR)
    return any(
        not np.array_equal(a, b)
        for a, b in zip(assumed, msrs.classify(op, address, vendor), strict=True)
    )


def name_again(rows: pa.Table, vendor: str | None) -> pa.Table:
    """Return rows of pmu_access with their registers named as that vendor's."""
    ops = rows.column("op").combine_chunks()
    code_of = np.array([OPS.index(name) for name in ops.dictionary.to_pylist()], np.int8)
    group = np.ascontiguousarray(ops.indices.to_numpy(), np.int32)
    address = rows.column("address").to_numpy().astype(np.int64)
    for name, column in register_columns(code_of, group, address, vendor).items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(
            place, rows.schema.field(place), column.cast(rows.schema.types[place])
        )
    return rows
