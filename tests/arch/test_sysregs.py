"""A trapped arm64 access is decoded as the kernel decodes it."""

from __future__ import annotations

import pytest

from analyzer.arch.arm64 import sysregs


# hsr values as kvm_handle_sys_reg has them in traces/arm64 (G-arm64-k72-cpumax, H-arm64-k72-pkvm).
@pytest.mark.parametrize(
    ("hsr", "name", "rt", "is_write"),
    [
        (0x6230E419, "PMCR_EL0", 0, False),
        (0x6230E418, "PMCR_EL0", 0, True),
        (0x6230E45A, "PMCCNTR_EL0", 2, True),
        (0x6234E678, "PMCNTENCLR_EL0", 19, True),
    ],
)
def test_hsr_of_a_recording_names_its_register(
    hsr: int, name: str, rt: int, is_write: bool
) -> None:
    trap = sysregs.decode_hsr(hsr)
    assert trap.exception_class == sysregs.SYS64
    assert (trap.rt, trap.is_write) == (rt, is_write)
    assert sysregs.REGISTERS[trap.key].name == name
    found = sysregs.lookup(trap.op0, trap.op1, trap.crn, trap.crm, trap.op2)
    assert found is sysregs.REGISTERS[trap.key]


# The keys that facts/other-arch.md 3.6 lists.
@pytest.mark.parametrize(
    ("key", "name"),
    [
        (0x30E418, "PMCR_EL0"),
        (0x36E41C, "PMOVSSET_EL0"),
        (0x38E418, "PMSWINC_EL0"),
        (0x34E41A, "PMXEVCNTR_EL0"),
        (0x30E41C, "PMUSERENR_EL0"),
        (0x32241C, "PMINTENSET_EL1"),
        (0x38241C, "PMUACR_EL1"),
        (0x30F810, "PMEVCNTR0_EL0"),
        (0x30F812, "PMEVCNTR8_EL0"),
        (0x32F818, "PMEVTYPER1_EL0"),
        (0x3CF81E, "PMEVTYPER30_EL0"),
        (0x3EF81E, "PMCCFILTR_EL0"),
        (0x30E40C, "PMICFILTR_EL0"),
        (0x330402, "MDCR_EL2"),
    ],
)
def test_register_has_its_key(key: int, name: str) -> None:
    assert sysregs.REGISTERS[key].name == name


def test_no_two_registers_share_an_encoding() -> None:
    assert len(sysregs.REGISTERS) == 21 + 31 + 31
    assert {one.role for one in sysregs.REGISTERS.values()} == set(sysregs.ROLES)


def test_other_system_register_is_no_pmu_register() -> None:
    # SCTLR_EL1
    assert sysregs.lookup(3, 0, 1, 0, 0) is None
