"""Which PMU register is an address of the msr events? Columns out of the catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.arch.x86 import msrs
from analyzer.readers.columns import enum_column, number_column
from analyzer.tables import BY_NAME

__all__ = ["register_columns"]


def register_columns(
    op: np.ndarray[Any, Any], address: np.ndarray[Any, Any]
) -> dict[str, pa.Array]:
    """Return columns role, register and index for op int8[n] and address int64[n].

    All are null for an address that the catalogue of analyzer.arch.x86.msrs does not have.
    """
    role, register, index = msrs.classify(op, address)
    return {
        "role": enum_column(role, msrs.ROLES),
        "register": enum_column(register, msrs.REGISTER_NAMES),
        "index": number_column(BY_NAME["pmu_access"].column("index"), index, index >= 0),
    }
