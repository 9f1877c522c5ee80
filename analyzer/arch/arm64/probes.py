"""Which functions of arm64's kernel touch the PMU, and what does a probe's hit on one tell?

There are no msr events on arm64: what a recording shows of the PMU are probes that its user set on
KVM's and the PMU driver's functions. A hit is one call; which counter it concerns, and how many
registers it writes, no probe without arguments tells.

Sources: Linux 7.3.4 drivers/perf/arm_pmuv3.c and arm_pmu.c, arch/arm64/kvm/pmu.c and pmu-emul.c,
kernel/events/core.c; orders as seen in recordings of 6.12, 7.2 and 7.3 (traces/arm64, files -kp).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

# The words for what an access does are one set for all families: table host_episode holds them.
from analyzer.arch.x86.swaps import Token

__all__ = ["CALLED", "FILTER_GRAMMARS", "PROBES", "Meaning", "Probe"]


class Meaning(IntEnum):
    """What else a hit tells, beside that its function ran."""

    NOTHING = 0
    TICK = 1  # perf's part of the timer tick begins
    PMI = 2  # the handler of the PMU's own interrupt begins
    GUEST_OVERFLOW = 3  # in that handler: the counter that overflowed is a guest's
    SWITCH_OUT = 4  # perf's side of a context switch, thread that leaves
    SWITCH_IN = 5  # the same, thread that comes
    REMOTE = 6  # run on this CPU for a caller that may be on another
    EMULATION = 7  # KVM emulates the PMU of the vCPU of this thread
    GUEST_FILTER = 8  # KVM sets the filters of EL0 as the guest wants them
    HOST_FILTER = 9  # as the host wants them
    FILTER = 10  # one of the two calls by which it sets them
    KVM_PATH = 11  # the thread goes on in KVM: whatever was before is over
    VCPU_LOAD = 12  # the same, and the filters are still the host's


@dataclass(frozen=True, slots=True)
class Probe:
    """One function. `does`: what it does to registers by itself, null where it touches none;
    `by`: functions that do it for it, so it is an access only where none of them is probed."""

    function: str
    does: Token | None = None
    meaning: Meaning = Meaning.NOTHING
    by: frozenset[str] = frozenset()


_ON = frozenset({"armv8pmu_enable_event", "armv8pmu_write_counter"})
_OFF = frozenset({"armv8pmu_disable_event", "armv8pmu_read_counter"})
_FLIP = Token.SELECTOR_READ | Token.SELECTOR_WRITE
_REMOTE, _PATH, _EMULATION = Meaning.REMOTE, Meaning.KVM_PATH, Meaning.EMULATION

_DECLARED = (
    # arm_pmuv3.c. PMEVCNTRn_EL0 or PMCCNTR_EL0.
    Probe("armv8pmu_read_counter", Token.COUNTER_READ),
    Probe("armv8pmu_write_counter", Token.COUNTER_WRITE),
    # PMEVTYPERn_EL0, PMINTENSET_EL1, PMCNTENSET_EL0: what one write of a selector is on x86.
    Probe("armv8pmu_enable_event", Token.SELECTOR_WRITE),
    # PMCNTENCLR_EL0, PMINTENCLR_EL1: a selector written without its enable bit on x86.
    Probe("armv8pmu_disable_event", Token.SELECTOR_ZERO),
    # PMCR_EL0.E.
    Probe("armv8pmu_start", Token.GLOBAL_ON),
    Probe("armv8pmu_stop", Token.GLOBAL_OFF),
    # armv8pmu_getreset_flags: PMOVSCLR_EL0 is read and written back.
    Probe("armv8pmu_handle_irq", Token.STATUS_READ | Token.STATUS_CLEAR, Meaning.PMI),
    # arm_pmu.c: bookkeeping around the driver's functions.
    Probe("armpmu_dispatch_irq", meaning=Meaning.PMI),
    Probe("armpmu_add", Token.SELECTOR_WRITE, by=_ON | {"armpmu_start"}),
    Probe("armpmu_start", Token.SELECTOR_WRITE, by=_ON),
    Probe("armpmu_del", Token.SELECTOR_ZERO, by=_OFF | {"armpmu_stop"}),
    Probe("armpmu_stop", Token.SELECTOR_ZERO, by=_OFF),
    Probe("armpmu_read", Token.COUNTER_READ, by=frozenset({"armv8pmu_read_counter"})),
    # kernel/events/core.c.
    Probe("perf_event_task_tick", meaning=Meaning.TICK),
    Probe("__perf_event_task_sched_out", meaning=Meaning.SWITCH_OUT),
    Probe("__perf_event_task_sched_in", meaning=Meaning.SWITCH_IN),
    Probe("__perf_event_read", meaning=_REMOTE),
    Probe("event_function", meaning=_REMOTE),
    # kvm/pmu.c. Reads and writes PMEVTYPERn_EL0 or PMCCFILTR_EL0 of each event that counts only
    # the guest or only the host at EL0, so of none where nobody has such an event. nVHE never
    # gets here: restore_guest and restore_host return at once, and EL2 swaps out of sight.
    Probe("kvm_vcpu_pmu_enable_el0", _FLIP, Meaning.FILTER),
    Probe("kvm_vcpu_pmu_disable_el0", _FLIP, Meaning.FILTER),
    Probe("kvm_vcpu_pmu_restore_guest", meaning=Meaning.GUEST_FILTER),
    Probe("kvm_vcpu_pmu_restore_host", meaning=Meaning.HOST_FILTER),
    # kvm/pmu-emul.c: called for vCPUs that have a PMU and for no other.
    Probe("kvm_pmu_perf_overflow", meaning=Meaning.GUEST_OVERFLOW),
    Probe("kvm_pmu_flush_hwstate", meaning=_EMULATION),
    Probe("kvm_pmu_sync_hwstate", meaning=_EMULATION),
    Probe("kvm_pmu_handle_pmcr", meaning=_EMULATION),
    Probe("kvm_pmu_set_counter_event_type", meaning=_EMULATION),
    Probe("kvm_pmu_set_counter_value", meaning=_EMULATION),
    Probe("kvm_pmu_get_counter_value", meaning=_EMULATION),
    Probe("kvm_pmu_create_perf_event", meaning=_EMULATION),
    Probe("kvm_pmu_reprogram_counter_mask", meaning=_EMULATION),
    # The vCPU's own way through KVM; a switch is over when it gets there.
    Probe("kvm_sched_in", meaning=_PATH),
    Probe("kvm_sched_out", meaning=_PATH),
    Probe("kvm_arch_vcpu_load", meaning=Meaning.VCPU_LOAD),
    Probe("kvm_arch_vcpu_put", meaning=_PATH),
    Probe("kvm_arch_vcpu_ioctl_run", meaning=_PATH),
    Probe("handle_exit", meaning=_PATH),
)
PROBES: dict[str, Probe] = {probe.function: probe for probe in _DECLARED}

# kvm_pmu_perf_overflow stops its event and starts it again, by these calls, each once at most;
# what the handler does before it for the same event are the other two.
CALLED = (
    Token.SELECTOR_ZERO, Token.COUNTER_READ, Token.COUNTER_WRITE, Token.SELECTOR_WRITE,
)  # fmt: skip

# VHE sets EL0's filters at vcpu load and back at put, and once more in between where the driver
# has programmed an event meanwhile (kvm_vcpu_pmu_resync_el0) or the guest did by a trapped access
# (access_pmu_evtyper, access_pmcnten, access_pmcr). Kinds of recorded_swap, in their order.
FILTER_GRAMMARS = ("arm64_el0_filter_load", "arm64_el0_filter_put", "arm64_el0_filter_again")
