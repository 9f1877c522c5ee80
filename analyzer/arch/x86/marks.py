"""What marks KVM's inner loop, and what may stand inside it? Rules of x86's order, as data.

Sources: facts/x86.md 1.2 (order), 3.2 (marks), 8 (events), 9 (gaps). Linux 7.3.4 unless said
otherwise:

    read 1d9 > [perf's half] > load > kvm_entry > guest > kvm_exit > [gap > kvm_entry ...] > put
    |<--------------------------- interrupts off, one inner loop ---------------------------->|
"""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.arch.x86.msrs import READ, WRITE

__all__ = [
    "AMD_GLOBAL_CTL",
    "AMD_LOAD",
    "AMD_STATUS_SET",
    "GAP_EVENTS",
    "GUEST_LVTPC",
    "GUEST_VECTOR",
    "HOST_LVTPC",
    "INNER_LOOP_BEGIN",
    "INTEL_GLOBAL_STATUS",
    "INTEL_LOAD",
    "KVM_EXIT_IS_LATE",
    "LOOP_MARK_MSR",
    "LVTPC_MSR",
    "MARKS",
    "REENTRY_REASONS",
    "TELLING_EVENTS",
    "WAY_IN_EVENTS",
    "Mark",
]

# Read in front of each load, also for VMs without a vPMU: MSR_IA32_DEBUGCTLMSR. facts/x86.md 3.2
LOOP_MARK_MSR = 0x1D9
# APIC_LVTPC as x2APIC has it, 0x800 + (0x340 >> 4); xAPIC's is MMIO: no event. facts/x86.md 3
LVTPC_MSR = 0x834
# PERF_GUEST_MEDIATED_PMI_VECTOR, LVTPC's low byte while guest state is on. facts/x86.md 3.2
GUEST_VECTOR = 0xF5
# MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_SET: each load of KVM's writes it, nobody else. facts/x86.md 3.2
AMD_STATUS_SET = 0xC0000303
# MSR_AMD64_PERF_CNTR_GLOBAL_CTL: a put begins by writing 0; host perf does too. facts/x86.md 3.2
AMD_GLOBAL_CTL = 0xC0000301
# MSR_CORE_PERF_GLOBAL_STATUS: a put of KVM's begins by reading it. facts/x86.md 3.2
INTEL_GLOBAL_STATUS = 0x38E


@dataclass(frozen=True, slots=True)
class Mark:
    """A register access that says where KVM is: op at address with value & mask == expected.

    `vendor` is null where both have it. `is_only_kvms`: nothing else in the kernel makes this
    access. `is_every_time`: KVM makes it each time that it passes that place.
    """

    name: str
    op: int
    address: int
    vendor: str | None
    meaning: str
    is_only_kvms: bool
    is_every_time: bool
    mask: int = 0
    expected: int = 0

    def fits(self, op: int, address: int, value: int) -> bool:
        """Return whether an access is this mark (its vendor is the caller's to know)."""
        return op == self.op and address == self.address and value & self.mask == self.expected


# Stands in this place in 6.1.y, 6.12.y and 7.3, for VMs without a vPMU too. In 5.10 it is in
# vmx_vcpu_load and marks that. LBR code reads it as well, inside perf's bursts. So whoever uses it
# first checks on the recording that such reads come in front of entries, one a loop.
INNER_LOOP_BEGIN = Mark(
    "inner_loop_begin",
    READ,
    LOOP_MARK_MSR,
    None,
    "get_debugctlmsr() of vcpu_enter_guest: an inner loop begins, interrupts are off",
    is_only_kvms=False,
    is_every_time=True,
)
# Bit 16 may be set beside the vector: the guest has masked its own LVTPC.
GUEST_LVTPC = Mark(
    "guest_lvtpc",
    WRITE,
    LVTPC_MSR,
    None,
    "perf_load_guest_lvtpc: the guest's state goes on from here (x2APIC only)",
    is_only_kvms=True,
    is_every_time=True,
    mask=0xFF,
    expected=GUEST_VECTOR,
)
# perf writes the same value whenever it starts events or ends a PMI, so this alone proves no put.
HOST_LVTPC = Mark(
    "host_lvtpc",
    WRITE,
    LVTPC_MSR,
    None,
    "perf_put_guest_lvtpc: PMIs are the host's NMIs again (x2APIC only)",
    is_only_kvms=False,
    is_every_time=True,
    mask=0xFFFF_FFFF,
    expected=0x400,
)
AMD_LOAD = Mark(
    "amd_load",
    WRITE,
    AMD_STATUS_SET,
    "AuthenticAMD",
    "amd_mediated_pmu_load sets the guest's global status",
    is_only_kvms=True,
    is_every_time=True,
)
# Only if the guest has status bits that the hardware lacks.
INTEL_LOAD = Mark(
    "intel_load",
    WRITE,
    0x391,
    "GenuineIntel",
    "intel_mediated_pmu_load sets the guest's pending status",
    is_only_kvms=True,
    is_every_time=False,
)
MARKS = (INNER_LOOP_BEGIN, GUEST_LVTPC, HOST_LVTPC, AMD_LOAD, INTEL_LOAD)

_PMU_EVENTS = frozenset({"read_msr", "write_msr", "rdpmc"})

# What a gap between kvm_exit and kvm_entry may hold and still lie inside one inner loop (fast
# path): the handlers of x2APIC ICR and TSC deadline writes, HLT, INVD and the preemption timer
# emit these, and NMIs come anywhere. Anything else proves that interrupts were on.
GAP_EVENTS = _PMU_EVENTS | {
    "csd_queue_cpu",
    "hrtimer_cancel",
    "hrtimer_start",
    "ipi_send_cpu",
    "kvm_apic",
    "kvm_apic_accept_irq",
    "kvm_apic_ipi",
    "kvm_apicv_accept_irq",
    "kvm_hv_timer_state",
    "kvm_msr",
    "kvm_wait_lapic_expire",
    "nmi_handler",
    "sched_waking",
    "sched_wakeup",
}

# Exits whose fast path may re-enter at once: writes of x2APIC's ICR and of the TSC deadline, HLT
# that is runnable, INVD, VMX's preemption timer; facts/x86.md 1.2 step 8. VMX's names, then SVM's.
REENTRY_REASONS = frozenset({"MSR_WRITE", "HLT", "INVD", "PREEMPTION_TIMER", "msr", "hlt", "invd"})

# What may stand between kvm_entry and guest mode, where the guest's end is to be told from events:
# Intel's vmx_vcpu_run and AMD's svm_vcpu_run trace the entry first and prepare it after. Only NMIs
# can interrupt that.
WAY_IN_EVENTS = _PMU_EVENTS | {"ipi_send_cpu", "kvm_wait_lapic_expire", "nmi_handler"}

# VMX emits kvm_exit before interrupts are on, SVM since 6.12; on AMD up to 6.1 it comes late. The
# recording tells: late if an interrupt, softirq or sched_switch stands between an entry and its
# exit anywhere in it.
KVM_EXIT_IS_LATE = "if_seen"

# Of arch/x86/include/asm/trace and arch/x86/kvm/trace.h: no other family has events of these names.
TELLING_EVENTS = _PMU_EVENTS | {
    "call_function_single_entry",
    "kvm_apic",
    "kvm_cpuid",
    "kvm_msr",
    "kvm_pio",
    "local_timer_entry",
    "reschedule_entry",
}
