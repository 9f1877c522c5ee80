"""Which PMU register did the guest's trapped MSR or MRS name, and what is it for?

Source: facts/other-arch.md 3.6; linux:arch/arm64/include/asm/sysreg.h for the encodings and
arch/arm64/kvm/sys_regs.h, esr_sys64_to_params, for the bits of an hsr. All these accesses trap in
7.3 (MDCR_EL2.TPM), so kvm_handle_sys_reg shows each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CYCLE_INDEX",
    "INSTRUCTION_INDEX",
    "REGISTERS",
    "ROLES",
    "SYS64",
    "SysReg",
    "Trap",
    "decode_hsr",
    "encode_key",
    "lookup",
]

# ESR_ELx_EC_SYS64: the exception class of a trapped MSR, MRS or system instruction.
SYS64 = 0x18
# Bits of struct kvm_pmu_events: 0 to 30 are the event counters.
CYCLE_INDEX = 31
INSTRUCTION_INDEX = 32

# The words of the x86 catalogue where the meaning is the same.
ROLES = (
    "counter",
    "selector",
    "fixed_counter",
    "global_ctrl",
    "global_status",
    "capability",
    "enable",
    "index_select",
    "interrupt_enable",
    "partition",
    "software_increment",
    "user_access",
)


def encode_key(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Return the ISS of a trapped access without its Rt and direction."""
    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1


@dataclass(frozen=True, slots=True)
class SysReg:
    """One register; `index` is null where it isn't one of several, or is PMSELR_EL0's to say."""

    name: str
    op0: int
    op1: int
    crn: int
    crm: int
    op2: int
    role: str
    index: int | None = None

    @property
    def key(self) -> int:
        """The register's number as `encode_key` makes it."""
        return encode_key(self.op0, self.op1, self.crn, self.crm, self.op2)


@dataclass(frozen=True, slots=True)
class Trap:
    """The fields of kvm_handle_sys_reg.hsr; the register fields mean something for SYS64 only."""

    exception_class: int
    op0: int
    op1: int
    crn: int
    crm: int
    op2: int
    rt: int
    is_write: bool

    @property
    def key(self) -> int:
        """The register's number as `encode_key` makes it."""
        return encode_key(self.op0, self.op1, self.crn, self.crm, self.op2)


_SINGLE = (
    SysReg("PMCR_EL0", 3, 3, 9, 12, 0, "global_ctrl"),
    SysReg("PMCNTENSET_EL0", 3, 3, 9, 12, 1, "enable"),
    SysReg("PMCNTENCLR_EL0", 3, 3, 9, 12, 2, "enable"),
    SysReg("PMOVSCLR_EL0", 3, 3, 9, 12, 3, "global_status"),
    SysReg("PMSWINC_EL0", 3, 3, 9, 12, 4, "software_increment"),
    SysReg("PMSELR_EL0", 3, 3, 9, 12, 5, "index_select"),
    SysReg("PMCEID0_EL0", 3, 3, 9, 12, 6, "capability"),
    SysReg("PMCEID1_EL0", 3, 3, 9, 12, 7, "capability"),
    SysReg("PMCCNTR_EL0", 3, 3, 9, 13, 0, "fixed_counter", CYCLE_INDEX),
    SysReg("PMXEVTYPER_EL0", 3, 3, 9, 13, 1, "selector"),
    SysReg("PMXEVCNTR_EL0", 3, 3, 9, 13, 2, "counter"),
    SysReg("PMUSERENR_EL0", 3, 3, 9, 14, 0, "user_access"),
    SysReg("PMOVSSET_EL0", 3, 3, 9, 14, 3, "global_status"),
    SysReg("PMINTENSET_EL1", 3, 0, 9, 14, 1, "interrupt_enable"),
    SysReg("PMINTENCLR_EL1", 3, 0, 9, 14, 2, "interrupt_enable"),
    SysReg("PMUACR_EL1", 3, 0, 9, 14, 4, "user_access"),
    SysReg("PMMIR_EL1", 3, 0, 9, 14, 6, "capability"),
    SysReg("PMCCFILTR_EL0", 3, 3, 14, 15, 7, "selector", CYCLE_INDEX),
    SysReg("PMICNTR_EL0", 3, 3, 9, 4, 0, "fixed_counter", INSTRUCTION_INDEX),
    SysReg("PMICFILTR_EL0", 3, 3, 9, 6, 0, "selector", INSTRUCTION_INDEX),
    SysReg("MDCR_EL2", 3, 4, 1, 1, 1, "partition"),
)
_COUNTERS = tuple(
    SysReg(f"PMEVCNTR{n}_EL0", 3, 3, 14, 8 + (n >> 3), n & 7, "counter", n) for n in range(31)
)
_SELECTORS = tuple(
    SysReg(f"PMEVTYPER{n}_EL0", 3, 3, 14, 12 + (n >> 3), n & 7, "selector", n) for n in range(31)
)

REGISTERS: dict[int, SysReg] = {one.key: one for one in (*_SINGLE, *_COUNTERS, *_SELECTORS)}


def lookup(op0: int, op1: int, crn: int, crm: int, op2: int) -> SysReg | None:
    """Return the PMU register of an encoding, None where it isn't one."""
    return REGISTERS.get(encode_key(op0, op1, crn, crm, op2))


def decode_hsr(hsr: int) -> Trap:
    """Return the fields of an hsr (ESR_EL2).

    >>> trap = decode_hsr(0x6230E419)
    >>> REGISTERS[trap.key].name, trap.is_write
    ('PMCR_EL0', False)
    """
    return Trap(
        exception_class=hsr >> 26 & 0x3F,
        op0=hsr >> 20 & 0x3,
        op1=hsr >> 14 & 0x7,
        crn=hsr >> 10 & 0xF,
        crm=hsr >> 1 & 0xF,
        op2=hsr >> 17 & 0x7,
        rt=hsr >> 5 & 0x1F,
        is_write=not hsr & 1,
    )
