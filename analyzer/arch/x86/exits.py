"""Why did the guest exit? The kernel's names for x86's exit codes, as kvm_exit prints them.

Source: Linux 7.3.4, arch/x86/include/uapi/asm/vmx.h and svm.h, read out of the print format that
the kernel itself left in a recording (traces/x86-moved, event kvm_exit).
"""

from __future__ import annotations

__all__ = [
    "ISA_NAMES",
    "SVM_EXIT_REASONS",
    "VMX_EXIT_FLAGS",
    "VMX_EXIT_REASONS",
    "exit_reason_name",
]

VMX, SVM = 1, 2
# kvm_exit.isa: KVM_ISA_VMX, KVM_ISA_SVM; linux:arch/x86/kvm/trace.h
ISA_NAMES = {VMX: "VMX", SVM: "SVM"}

# The basic reason, bits 0 to 15 of kvm_exit.exit_reason.
VMX_EXIT_REASONS: dict[int, str] = {
    0: "EXCEPTION_NMI",
    1: "EXTERNAL_INTERRUPT",
    2: "TRIPLE_FAULT",
    3: "INIT_SIGNAL",
    4: "SIPI_SIGNAL",
    7: "INTERRUPT_WINDOW",
    8: "NMI_WINDOW",
    9: "TASK_SWITCH",
    10: "CPUID",
    12: "HLT",
    13: "INVD",
    14: "INVLPG",
    15: "RDPMC",
    16: "RDTSC",
    18: "VMCALL",
    19: "VMCLEAR",
    20: "VMLAUNCH",
    21: "VMPTRLD",
    22: "VMPTRST",
    23: "VMREAD",
    24: "VMRESUME",
    25: "VMWRITE",
    26: "VMOFF",
    27: "VMON",
    28: "CR_ACCESS",
    29: "DR_ACCESS",
    30: "IO_INSTRUCTION",
    31: "MSR_READ",
    32: "MSR_WRITE",
    33: "INVALID_STATE",
    34: "MSR_LOAD_FAIL",
    36: "MWAIT_INSTRUCTION",
    37: "MONITOR_TRAP_FLAG",
    39: "MONITOR_INSTRUCTION",
    40: "PAUSE_INSTRUCTION",
    41: "MCE_DURING_VMENTRY",
    43: "TPR_BELOW_THRESHOLD",
    44: "APIC_ACCESS",
    45: "EOI_INDUCED",
    46: "GDTR_IDTR",
    47: "LDTR_TR",
    48: "EPT_VIOLATION",
    49: "EPT_MISCONFIG",
    50: "INVEPT",
    51: "RDTSCP",
    52: "PREEMPTION_TIMER",
    53: "INVVPID",
    54: "WBINVD",
    55: "XSETBV",
    56: "APIC_WRITE",
    57: "RDRAND",
    58: "INVPCID",
    59: "VMFUNC",
    60: "ENCLS",
    61: "RDSEED",
    62: "PML_FULL",
    63: "XSAVES",
    64: "XRSTORS",
    67: "UMWAIT",
    68: "TPAUSE",
    74: "BUS_LOCK",
    75: "NOTIFY",
    77: "TDCALL",
    84: "MSR_READ_IMM",
    85: "MSR_WRITE_IMM",
}
# Bits 16 and up. 7.3 prints the enclave bit as a number, since its list of flags lacks it.
VMX_EXIT_FLAGS: dict[int, str] = {
    1 << 31: "FAILED_VMENTRY",
    1 << 27: "SGX_ENCLAVE_MODE",
}
# 0x40 + n is exception n; 0x80000000 and up are the exits that an SEV-ES guest asks for.
SVM_EXIT_REASONS: dict[int, str] = {
    0x0: "read_cr0",
    0x2: "read_cr2",
    0x3: "read_cr3",
    0x4: "read_cr4",
    0x8: "read_cr8",
    0x10: "write_cr0",
    0x12: "write_cr2",
    0x13: "write_cr3",
    0x14: "write_cr4",
    0x18: "write_cr8",
    0x20: "read_dr0",
    0x21: "read_dr1",
    0x22: "read_dr2",
    0x23: "read_dr3",
    0x24: "read_dr4",
    0x25: "read_dr5",
    0x26: "read_dr6",
    0x27: "read_dr7",
    0x30: "write_dr0",
    0x31: "write_dr1",
    0x32: "write_dr2",
    0x33: "write_dr3",
    0x34: "write_dr4",
    0x35: "write_dr5",
    0x36: "write_dr6",
    0x37: "write_dr7",
    0x40: "DE excp",
    0x41: "DB excp",
    0x43: "BP excp",
    0x44: "OF excp",
    0x45: "BR excp",
    0x46: "UD excp",
    0x47: "NM excp",
    0x48: "DF excp",
    0x4A: "TS excp",
    0x4B: "NP excp",
    0x4C: "SS excp",
    0x4D: "GP excp",
    0x4E: "PF excp",
    0x50: "MF excp",
    0x51: "AC excp",
    0x52: "MC excp",
    0x53: "XF excp",
    0x60: "interrupt",
    0x61: "nmi",
    0x62: "smi",
    0x63: "init",
    0x64: "vintr",
    0x65: "cr0_sel_write",
    0x66: "read_idtr",
    0x67: "read_gdtr",
    0x68: "read_ldtr",
    0x69: "read_rt",
    0x6A: "write_idtr",
    0x6B: "write_gdtr",
    0x6C: "write_ldtr",
    0x6D: "write_rt",
    0x6E: "rdtsc",
    0x6F: "rdpmc",
    0x70: "pushf",
    0x71: "popf",
    0x72: "cpuid",
    0x73: "rsm",
    0x74: "iret",
    0x75: "swint",
    0x76: "invd",
    0x77: "pause",
    0x78: "hlt",
    0x79: "invlpg",
    0x7A: "invlpga",
    0x7B: "io",
    0x7C: "msr",
    0x7D: "task_switch",
    0x7E: "ferr_freeze",
    0x7F: "shutdown",
    0x80: "vmrun",
    0x81: "hypercall",
    0x82: "vmload",
    0x83: "vmsave",
    0x84: "stgi",
    0x85: "clgi",
    0x86: "skinit",
    0x87: "rdtscp",
    0x88: "icebp",
    0x89: "wbinvd",
    0x8A: "monitor",
    0x8B: "mwait",
    0x8D: "xsetbv",
    0x8F: "write_efer_trap",
    0x90: "write_cr0_trap",
    0x94: "write_cr4_trap",
    0x98: "write_cr8_trap",
    0xA2: "invpcid",
    0xA5: "buslock",
    0xA6: "idle-halt",
    0x400: "npf",
    0x401: "avic_incomplete_ipi",
    0x402: "avic_unaccelerated_access",
    0x403: "vmgexit",
    0x80000001: "vmgexit_mmio_read",
    0x80000002: "vmgexit_mmio_write",
    0x80000003: "vmgexit_nmi_complete",
    0x80000004: "vmgexit_ap_hlt_loop",
    0x80000005: "vmgexit_ap_jump_table",
    0x80000010: "vmgexit_page_state_change",
    0x80000011: "vmgexit_guest_request",
    0x80000012: "vmgexit_ext_guest_request",
    0x80000013: "vmgexit_ap_creation",
    0x8000FFFD: "vmgexit_hypervisor_feature",
    -1: "invalid_guest_state",
}


def exit_reason_name(isa: int | None, code: int) -> str:
    """Return the name of kvm_exit's exit_reason under its isa.

    A VMX reason is followed by its flags; a code, flag or isa that we don't know prints as 0x….

    >>> exit_reason_name(1, 0x80000021)
    'INVALID_STATE FAILED_VMENTRY'
    """
    if isa == VMX:
        return _vmx_name(code)
    if isa == SVM:
        # SVM_EXIT_ERR is -1; the event's field has 32 bits, so the kernel prints it as a number.
        is_error = code & 0xFFFF_FFFF == 0xFFFF_FFFF
        return SVM_EXIT_REASONS.get(-1 if is_error else code, _hex(code))
    return _hex(code)


def _vmx_name(code: int) -> str:
    basic, flags = code & 0xFFFF, code & 0xFFFF_0000
    words = [VMX_EXIT_REASONS.get(basic, _hex(basic))]
    words += [name for bit, name in VMX_EXIT_FLAGS.items() if flags & bit]
    unknown = flags & ~sum(VMX_EXIT_FLAGS)
    return " ".join([*words, _hex(unknown)] if unknown else words)


def _hex(code: int) -> str:
    return f"{code & 0xFFFF_FFFF_FFFF_FFFF:#x}"
