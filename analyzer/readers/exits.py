"""Why did the guest exit? Names and numbers of reasons out of kvm_exit's fields, for any CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.arch.arm64 import exits as arm64
from analyzer.arch.x86 import exits as x86
from analyzer.readers.columns import TextPool, enum_column, text_column

__all__ = ["ISAS", "exit_columns"]

Array = np.ndarray[Any, Any]
ISAS = ("VMX", "SVM", "arm64")


def exit_columns(
    slot_of: dict[str, int], values: Array, sizes: Array, reasons: TextPool
) -> tuple[dict[str, pa.Array], Array]:
    """Return columns isa and reason of vm_exit, and the reasons' numbers in the pool.

    values, sizes: as readers.perfetto.payload fills them, rows by `slot_of`. A number is -1 (and
    the columns null) where the event carries neither x86's nor arm64's fields.
    """
    rows = values.shape[1]
    isa = np.full(rows, -1, np.int16)
    codes = np.full(rows, -1, np.int64)
    on_arm = sizes[slot_of["ret"]] >= 0
    on_x86 = sizes[slot_of["exit_reason"]] >= 0
    isa[on_arm] = ISAS.index("arm64")
    if on_arm.any():
        ec = np.where(sizes[slot_of["esr_ec"]] >= 0, values[slot_of["esr_ec"]], 0)[on_arm]
        packed = arm64.exit_reason_codes(values[slot_of["ret"]][on_arm], ec)
        found, where = np.unique(packed, return_inverse=True)
        named = [reasons.code(arm64.name_of_code(int(code))) for code in found]
        codes[on_arm] = np.array(named, np.int64)[where]
    if on_x86.any():
        known = sizes[slot_of["isa"]] >= 0
        recorded = np.where(known, values[slot_of["isa"]], 0)
        isa[on_x86 & (recorded == 1)] = ISAS.index("VMX")
        isa[on_x86 & (recorded == 2)] = ISAS.index("SVM")
        # isa is 1 or 2, so it fits above a 64-bit reason's low 61 bits (SVM's -1 is cut to those).
        packed = (recorded[on_x86] << 61) | (values[slot_of["exit_reason"]][on_x86] & (2**61 - 1))
        found, where = np.unique(packed, return_inverse=True)
        named = []
        for code in found.tolist():
            reason = code & (2**61 - 1)
            named.append(reasons.code(x86.exit_reason_name((code >> 61) or None, reason)))
        codes[on_x86] = np.array(named, np.int64)[where]
    return {
        "isa": enum_column(isa, ISAS),
        "reason": text_column(codes.astype(np.int32), reasons.names),
    }, codes
