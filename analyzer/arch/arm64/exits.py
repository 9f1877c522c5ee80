"""Why did the guest exit? Names for ret and esr_ec of arm64's kvm_exit.

Sources: the kernel's own print format in a recording of 7.2.13 (traces/arm64, event kvm_exit);
linux:arch/arm64/include/asm/kvm_asm.h, esr.h, kvm_arm.h; facts/other-arch.md 3.7 and 3.8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "EXCEPTION_CLASSES",
    "RET_NAMES",
    "TRAP",
    "exit_reason_codes",
    "exit_reason_name",
    "name_of_code",
]

Array = np.ndarray[Any, Any]
TRAP = 2

# ARM_EXCEPTION_*. The kernel prints 1 as SERROR, which is an exception class too: with the
# constant's own name the two stay apart. It has no word for 3. The last is HVC_STUB_ERR.
RET_NAMES: dict[int, str] = {
    0: "IRQ",
    1: "EL1_SERROR",
    TRAP: "TRAP",
    3: "IL",
    0xBADCA11: "HYP_GONE",
}

# ESR_ELx_EC_*, all of them. kvm_arm_exception_class lacks 0a, 0d, 0e, 11 to 13, 1c, 1d, 27 and 2d:
# kvm_exit prints those as numbers; newer perf has these names.
EXCEPTION_CLASSES: dict[int, str] = {
    0x00: "UNKNOWN",
    0x01: "WFx",
    0x03: "CP15_32",
    0x04: "CP15_64",
    0x05: "CP14_MR",
    0x06: "CP14_LS",
    0x07: "FP_ASIMD",
    0x08: "CP10_ID",
    0x09: "PAC",
    0x0A: "OTHER",
    0x0C: "CP14_64",
    0x0D: "BTI",
    0x0E: "ILL",
    0x11: "SVC32",
    0x12: "HVC32",
    0x13: "SMC32",
    0x15: "SVC64",
    0x16: "HVC64",
    0x17: "SMC64",
    0x18: "SYS64",
    0x19: "SVE",
    0x1A: "ERET",
    0x1C: "FPAC",
    0x1D: "SME",
    0x1F: "IMP_DEF",
    0x20: "IABT_LOW",
    0x21: "IABT_CUR",
    0x22: "PC_ALIGN",
    0x24: "DABT_LOW",
    0x25: "DABT_CUR",
    0x26: "SP_ALIGN",
    0x27: "MOPS",
    0x28: "FP_EXC32",
    0x2C: "FP_EXC64",
    0x2D: "GCS",
    0x2F: "SERROR",
    0x30: "BREAKPT_LOW",
    0x31: "BREAKPT_CUR",
    0x32: "SOFTSTP_LOW",
    0x33: "SOFTSTP_CUR",
    0x34: "WATCHPT_LOW",
    0x35: "WATCHPT_CUR",
    0x38: "BKPT32",
    0x3A: "VECTOR32",
    0x3C: "BRK64",
}


def exit_reason_name(ret: int, esr_ec: int) -> str:
    """Return the exception class's name for a trap, else ret's; unknown ones print as 0x….

    >>> exit_reason_name(2, 0x18), exit_reason_name(0, 0)
    ('SYS64', 'IRQ')
    """
    if ret == TRAP:
        return EXCEPTION_CLASSES.get(esr_ec, f"{esr_ec:#x}")
    return RET_NAMES.get(ret, f"ret {ret:#x}")


def exit_reason_codes(ret: Array, esr_ec: Array) -> Array:
    """Return one number for each exit, int64[n]: ret << 16, plus esr_ec where ret is TRAP.

    esr_ec counts for traps only, as in the kernel, which records 0 for the others: an interrupt
    must not read as class UNKNOWN.
    """
    base = ret.astype(np.int64) << 16
    return np.where(ret == TRAP, base | (esr_ec.astype(np.int64) & 0xFFFF), base)


def name_of_code(code: int) -> str:
    """Return the name of one number of `exit_reason_codes`."""
    return exit_reason_name(code >> 16, code & 0xFFFF)
