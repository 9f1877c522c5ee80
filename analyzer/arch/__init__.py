"""What does a CPU family mean by its events? The families that we know, and their rules of order.

Exit codes, PMU registers and the sources of the rules are in the packages x86 and arm64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from analyzer.arch.arm64 import marks as arm64
from analyzer.arch.arm64.probes import PROBES, Probe
from analyzer.arch.x86 import marks as x86

__all__ = ["FAMILIES", "Family", "family_of_events", "family_of_machine"]


@dataclass(frozen=True, slots=True)
class Family:
    """Rules of order of one CPU family.

    gap_events: what a gap between kvm_exit and kvm_entry may hold inside one inner loop; an empty
    set says that no recorded gap lies inside one, not even an empty gap.
    way_in_events: what may stand between kvm_entry and guest mode.
    way_in_once_events: those of them that stand there once at most; a second is the way out.
    exit_is_late: whether kvm_exit comes after the host's interrupts that ended the guest: "always",
    or "if_seen", if an interrupt, softirq or sched_switch stands between an entry and its exit.
    hidden_reentries: the hypervisor re-enters by itself without an event, so recorded exits are a
    lower bound of the hardware's.
    reentry_reasons: after which exits KVM can re-enter inside its inner loop; empty: no rule.
    telling_events: events that kernels of this family alone have.
    probes: functions whose probes show accesses of the PMU, by name; empty where msr events do.
    timer_marks: timer_restore_events and timer_save_events mark vcpu load and put.
    """

    name: str
    gap_events: frozenset[str]
    way_in_events: frozenset[str]
    exit_is_late: str
    hidden_reentries: bool
    timer_marks: bool
    telling_events: frozenset[str] = frozenset()
    way_in_once_events: frozenset[str] = frozenset()
    timer_restore_events: frozenset[str] = frozenset()
    timer_save_events: frozenset[str] = frozenset()
    reentry_reasons: frozenset[str] = frozenset()
    probes: Mapping[str, Probe] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "x86": Family(
        name="x86",
        gap_events=x86.GAP_EVENTS,
        way_in_events=x86.WAY_IN_EVENTS,
        telling_events=x86.TELLING_EVENTS,
        exit_is_late=x86.KVM_EXIT_IS_LATE,
        reentry_reasons=x86.REENTRY_REASONS,
        hidden_reentries=False,
        timer_marks=False,
    ),
    "arm64": Family(
        name="arm64",
        gap_events=arm64.GAP_EVENTS,
        way_in_events=arm64.WAY_IN_EVENTS,
        telling_events=arm64.TELLING_EVENTS,
        way_in_once_events=arm64.WAY_IN_ONCE_EVENTS,
        exit_is_late=arm64.KVM_EXIT_IS_LATE,
        hidden_reentries=True,
        timer_marks=True,
        timer_restore_events=arm64.TIMER_RESTORE_EVENTS,
        timer_save_events=arm64.TIMER_SAVE_EVENTS,
        probes=PROBES,
    ),
}

# uname -m. A 32-bit personality on an arm64 kernel says armv8l.
_MACHINES = {
    "x86": ("x86_64", "amd64", "i386", "i486", "i586", "i686"),
    "arm64": ("aarch64", "aarch64_be", "arm64", "armv8l", "armv8b"),
}
_FAMILY_OF = {
    machine: FAMILIES[name] for name, machines in _MACHINES.items() for machine in machines
}


def family_of_machine(machine: str | None) -> Family | None:
    """Return the family of a machine name as uname prints it; None where we have no rules for it.

    A recording that does not name its machine gives None too.

    >>> family_of_machine("i686").name
    'x86'
    """
    return None if machine is None else _FAMILY_OF.get(machine.strip().lower())


def family_of_events(names: Collection[str]) -> Family | None:
    """Return the one family whose kernels alone have some of these events; None where none does, or
    more than one.

    >>> family_of_events({"kvm_entry", "rdpmc"}).name
    'x86'
    """
    told = [family for family in FAMILIES.values() if not family.telling_events.isdisjoint(names)]
    return told[0] if len(told) == 1 else None
