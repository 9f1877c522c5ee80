"""Where does the guest end, and what marks vcpu load and put? Rules of arm64's order, as data.

Sources: facts/other-arch.md 0.1, 3.7; linux:arch/arm64/kvm/arm.c, kvm_arch_vcpu_ioctl_run. On VHE:

    vcpu_load > kvm_timer_restore_state > kvm_entry > [way in] > guest > [sync, host interrupts] >
    kvm_exit > ... > kvm_timer_save_state > vcpu_put
"""

from __future__ import annotations

__all__ = [
    "GAP_EVENTS",
    "KVM_EXIT_IS_LATE",
    "TELLING_EVENTS",
    "TIMER_RESTORE_EVENTS",
    "TIMER_SAVE_EVENTS",
    "WAY_IN_EVENTS",
    "WAY_IN_ONCE_EVENTS",
]

# kvm_exit is traced after interrupts were on: what ended the guest stands in front of it. So the
# guest ends at the first host-side event after kvm_entry that isn't one of WAY_IN_EVENTS. Until
# guest mode interrupts are off, so the host can have put nothing else there.
KVM_EXIT_IS_LATE = "always"

# __kvm_vcpu_run: a probe; nVHE runs it at EL2, out of sight. kvm_get_timer_map: on CPUs with an
# offset for the physical counter (ECV), vhe/switch.c traces it in __activate_traps, and once more
# on the way out in __deactivate_traps.
WAY_IN_EVENTS = frozenset({"__kvm_vcpu_run", "kvm_get_timer_map"})
# Stands on the way in at most once: a second one of the same entry is the way out already (seen in
# traces/arm64, G-arm64-k72-cpumax).
WAY_IN_ONCE_EVENTS = frozenset({"kvm_get_timer_map"})

# A re-entry that leaves interrupts off happens at EL2 and leaves no event at all; between an exit
# and an entry that are recorded, interrupts were always on, whatever the gap holds.
GAP_EVENTS: frozenset[str] = frozenset()

# Emitted by vcpu load and put, just inside them, for each timer that the guest has on the CPU.
TIMER_RESTORE_EVENTS = frozenset({"kvm_timer_restore_state"})
TIMER_SAVE_EVENTS = frozenset({"kvm_timer_save_state"})

# Of arch/arm64/kvm and virt's timer and vgic: no other family has events of these names.
TELLING_EVENTS = frozenset(
    {
        "kvm_get_timer_map",
        "kvm_sys_access",
        "kvm_timer_restore_state",
        "kvm_timer_save_state",
        "kvm_timer_update_irq",
        "kvm_wfx_arm64",
        "vgic_update_irq_pending",
    }
)
