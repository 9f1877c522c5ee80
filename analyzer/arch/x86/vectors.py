"""What is an interrupt vector for? Names of the kernel's system vectors and of their events.

Source: Linux 7.x, arch/x86/include/asm/irq_vectors.h (numbers; the guest PMI's and the posted MSI's
are newer than 5.10) and arch/x86/include/asm/trace/irq_vectors.h (events; facts/x86.md section 8).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_EVENT", "BY_NUMBER", "NMI_VECTOR", "VECTORS", "Vector", "vector_name"]

NMI_VECTOR = 2


@dataclass(frozen=True, slots=True)
class Vector:
    """One system vector; `event` is what irq_vectors' events call it, null where it has none."""

    number: int
    name: str
    kind: str
    event: str | None


VECTORS = (
    Vector(0xFF, "spurious_apic", "fault", "spurious_apic"),
    Vector(0xFE, "error_apic", "fault", "error_apic"),
    Vector(0xFD, "reschedule", "reschedule", "reschedule"),
    Vector(0xFC, "call_function", "function_call", "call_function"),
    Vector(0xFB, "call_function_single", "function_call", "call_function_single"),
    Vector(0xFA, "thermal_apic", "machine", "thermal_apic"),
    Vector(0xF9, "threshold_apic", "machine", "threshold_apic"),
    Vector(0xF8, "reboot", "machine", None),
    Vector(0xF7, "x86_platform_ipi", "machine", "x86_platform_ipi"),
    Vector(0xF6, "irq_work", "irq_work", "irq_work"),
    # PERF_GUEST_MEDIATED_PMI_VECTOR, since 7.0; the number was unused before. On VMX it shows as
    # kvm_exit EXTERNAL_INTERRUPT with intr_info 0x800000f5, on SVM not at all.
    Vector(0xF5, "guest_mediated_pmi", "guest_pmi", None),
    Vector(0xF4, "deferred_error_apic", "machine", "deferred_error_apic"),
    Vector(0xF3, "hypervisor_callback", "guest_side", None),
    Vector(0xF2, "posted_intr", "posted_interrupt", None),
    Vector(0xF1, "posted_intr_wakeup", "posted_interrupt", None),
    Vector(0xF0, "posted_intr_nested", "posted_interrupt", None),
    Vector(0xEF, "managed_irq_shutdown", "machine", None),
    Vector(0xEE, "hyperv_reenlightenment", "guest_side", None),
    Vector(0xED, "hyperv_stimer0", "guest_side", None),
    Vector(0xEC, "local_timer", "timer", "local_timer"),
    # Since 6.10; an ordinary device vector before.
    Vector(0xEB, "posted_msi_notification", "posted_interrupt", None),
    Vector(NMI_VECTOR, "nmi", "nmi", None),
)
BY_NUMBER = {vector.number: vector for vector in VECTORS}
# Keys as the events' names without _entry and _exit.
BY_EVENT = {vector.event: vector for vector in VECTORS if vector.event is not None}


def vector_name(number: int) -> str:
    """Return the name of a vector; a device's or unknown one prints as 0x…."""
    vector = BY_NUMBER.get(number)
    return f"{number:#x}" if vector is None else vector.name
