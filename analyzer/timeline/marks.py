"""What does an event mean for the timeline? Event names to codes and properties, per CPU family."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np

from analyzer.arch import Family

__all__ = ["KVM_RUN", "Code", "Property", "codes_of_names"]

# _IO(KVMIO, 0x80); linux:include/uapi/linux/kvm.h
KVM_RUN = 0xAE80


class Code(IntEnum):
    """What the timeline's kernels tell apart."""

    OTHER = 0
    ENTRY = 1
    EXIT = 2
    USER_EXIT = 3
    FPU = 4
    IOCTL_IN = 5
    IOCTL_OUT = 6
    SWITCH = 7
    IRQ_IN = 8
    IRQ_OUT = 9
    TIMER_RESTORE = 10
    TIMER_SAVE = 11
    WAKEUP_IN_KVM = 12
    MSR_READ = 13
    MSR_WRITE = 14
    THREAD_END = 15
    NMI = 16
    RDPMC = 17
    FUNCTION_IN = 18  # a function called on this CPU: csd_function_entry
    FUNCTION_OUT = 19
    TIMER_IN = 20  # hrtimer_expire_entry
    TIMER_OUT = 21
    TIMER_START = 22  # hrtimer_start
    # Made by us, not recorded: they frame the windows and losses, and where NMI handlers began.
    WINDOW_BEGIN = 23
    WINDOW_END = 24
    LOSS_BEGIN = 25
    LOSS_END = 26
    NMI_IN = 27


class Property(IntFlag):
    """What else is true of an event's kind."""

    GAP = 1  # may stand between an exit and the next entry of one inner loop
    WAY_IN = 2  # may stand between kvm_entry and guest mode
    WAY_IN_ONCE = 4  # but only once: the second after one entry is the way out


_BY_NAME = {
    "kvm_entry": Code.ENTRY,
    "kvm_exit": Code.EXIT,
    "kvm_userspace_exit": Code.USER_EXIT,
    "kvm_fpu": Code.FPU,
    "sys_enter_ioctl": Code.IOCTL_IN,
    "sys_exit_ioctl": Code.IOCTL_OUT,
    "sched_switch": Code.SWITCH,
    # Emitted by kvm_vcpu_halt inside KVM_RUN only; linux:virt/kvm/kvm_main.c.
    "kvm_vcpu_wakeup": Code.WAKEUP_IN_KVM,
    "read_msr": Code.MSR_READ,
    "write_msr": Code.MSR_WRITE,
    "rdpmc": Code.RDPMC,
    "csd_function_entry": Code.FUNCTION_IN,
    "csd_function_exit": Code.FUNCTION_OUT,
    "hrtimer_expire_entry": Code.TIMER_IN,
    "hrtimer_expire_exit": Code.TIMER_OUT,
    "hrtimer_start": Code.TIMER_START,
    "sched_process_exit": Code.THREAD_END,
    "nmi_handler": Code.NMI,
    "kvm_timer_restore_state": Code.TIMER_RESTORE,
    "kvm_timer_save_state": Code.TIMER_SAVE,
}


@dataclass(frozen=True, slots=True)
class KindCodes:
    """Code and properties of every kind of the stream: uint8[kinds] each."""

    code: np.ndarray[Any, np.dtype[np.uint8]]
    property: np.ndarray[Any, np.dtype[np.uint8]]


def codes_of_names(names: list[str], tables: list[str | None], family: Family | None) -> KindCodes:
    """Return codes and properties of kinds by their event names and tables.

    Without a known family no event may stand in a gap or on the way in: every gap breaks a loop.
    """
    code = np.zeros(len(names), np.uint8)
    properties = np.zeros(len(names), np.uint8)
    for kind, (name, table) in enumerate(zip(names, tables, strict=True)):
        if table != "function_span":
            code[kind] = _BY_NAME.get(name, Code.OTHER)
            if table == "interrupt" and name.endswith("_entry"):
                code[kind] = Code.IRQ_IN
            elif table == "interrupt" and name.endswith("_exit"):
                code[kind] = Code.IRQ_OUT
        # That a function is traced or probed changes nothing about where it may be called: only
        # what the kernel records of itself proves that a loop was left.
        if family is not None and (
            name in family.gap_events or (table == "function_span" and family.gap_events)
        ):
            properties[kind] |= Property.GAP
        if family is not None and name in family.way_in_events:
            properties[kind] |= Property.WAY_IN
        if family is not None and name in family.way_in_once_events:
            properties[kind] |= Property.WAY_IN_ONCE
    return KindCodes(code, properties)
