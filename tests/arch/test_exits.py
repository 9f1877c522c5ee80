"""Exit codes print as the kernel prints them, and unknown ones are never dropped."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.arch.arm64 import exits as arm64
from analyzer.arch.x86 import exits as x86


@pytest.mark.parametrize(
    ("isa", "code", "name"),
    [
        (1, 1, "EXTERNAL_INTERRUPT"),
        (1, 52, "PREEMPTION_TIMER"),
        (1, 84, "MSR_READ_IMM"),
        (1, 85, "MSR_WRITE_IMM"),
        (1, 0x8000_0021, "INVALID_STATE FAILED_VMENTRY"),
        (1, 0x0800_0030, "EPT_VIOLATION SGX_ENCLAVE_MODE"),
        (1, 0x8001_0001, "EXTERNAL_INTERRUPT FAILED_VMENTRY 0x10000"),
        (1, 0x4C, "0x4c"),
        (2, 0x60, "interrupt"),
        (2, 0x4E, "PF excp"),
        (2, 0x7C, "msr"),
        (2, 0x400, "npf"),
        (2, 0x401, "avic_incomplete_ipi"),
        (2, 0x403, "vmgexit"),
        (2, 0x8000_0013, "vmgexit_ap_creation"),
        (2, 0x999, "0x999"),
        (None, 0x7C, "0x7c"),
        (3, 0x7C, "0x7c"),
    ],
)
def test_x86_exit_has_the_kernels_name(isa: int | None, code: int, name: str) -> None:
    assert x86.exit_reason_name(isa, code) == name


# SVM_EXIT_ERR is -1; which width of it a reader hands over must not matter.
@pytest.mark.parametrize("code", [-1, 2**32 - 1, 2**61 - 1, 2**64 - 1])
def test_svm_error_exit_is_known_in_every_width(code: int) -> None:
    assert x86.exit_reason_name(x86.SVM, code) == "invalid_guest_state"


@pytest.mark.parametrize(
    ("ret", "esr_ec", "name"),
    [
        (0, 0, "IRQ"),
        (1, 0, "EL1_SERROR"),
        (2, 0x18, "SYS64"),
        (2, 0x24, "DABT_LOW"),
        (2, 0x01, "WFx"),
        (2, 0, "UNKNOWN"),
        (2, 0x2D, "GCS"),
        (2, 0x3F, "0x3f"),
        (3, 0, "IL"),
        (0xBADCA11, 0, "HYP_GONE"),
        (7, 0, "ret 0x7"),
    ],
)
def test_arm64_exit_is_named_by_class_only_for_traps(ret: int, esr_ec: int, name: str) -> None:
    assert arm64.exit_reason_name(ret, esr_ec) == name
    codes = arm64.exit_reason_codes(np.array([ret], np.int64), np.array([esr_ec], np.int64))
    assert codes.dtype == np.int64
    assert arm64.name_of_code(int(codes[0])) == name


def test_arm64_interrupt_is_one_code_whatever_esr_ec_holds() -> None:
    codes = arm64.exit_reason_codes(np.array([0, 0]), np.array([0, 0x18]))
    assert codes[0] == codes[1]


def test_two_arm64_reasons_never_share_a_name() -> None:
    names = [*arm64.EXCEPTION_CLASSES.values(), *arm64.RET_NAMES.values()]
    assert len(names) == len(set(names))
