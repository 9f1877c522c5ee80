"""What can happen to the ownership of a CPU's PMU, and at which depth? The words of table `point`.

Five depths nest; a thread that is on a CPU has some prefix of them on:

    SCHED  the thread is on the CPU, from its first KVM_RUN to its last
      OUTER  inside KVM_RUN, by the marks just outside vcpu_load..vcpu_put
        INNER  inside vcpu_load..vcpu_put, by the marks just inside it
          LOOP   from the first entry of an inner loop to its last exit
            GUEST  in guest mode

LOOP joins re-entries by the kernel's own marker where the recording has one that can be trusted,
else wherever the events between exit and entry allow it. EVENTS is LOOP by events alone: the
prediction that is held against recorded swaps, so it never sees a register access.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["REASON_SHIFT", "Kind", "Level"]


class Kind(IntEnum):
    """Kinds of point. The first seven turn levels on, the next five turn them off."""

    STATE = 0  # on from here as far as we know: the window began, or a loss ended
    SWITCH_IN = 1
    RUN_ENTER = 2
    VCPU_LOAD = 3
    ENTRY = 4
    GUEST_END = 5  # the guest stopped before its exit event
    EXIT = 6
    VCPU_PUT = 7
    RUN_EXIT = 8
    SWITCH_OUT = 9
    LOST = 10  # from here on nothing is known of this CPU: a loss, or the window's end
    IRQ_IN = 11
    IRQ_OUT = 12
    EPISODE = 13  # host perf touches the PMU: detail is its number and context
    GUEST_PMI = 14  # a guest's counter overflowed before the exit that follows
    HOST_EVENTS = 15  # which host events are on changes: detail 1: some, 2: some count the kernel
    GUEST_PMU = 16  # detail 1: the guest uses its PMU, 0: it does not
    PERF_CORE = 17  # perf core is about to act here, be it that it touches a register or not
    INFERRED = 18  # as EPISODE, but by a rule only: it may meet a guest's state and moves nothing


class Level(IntFlag):
    """Depths, see the module's docstring."""

    GUEST = 1
    LOOP = 2
    INNER = 4
    OUTER = 8
    SCHED = 16
    EVENTS = 32


# Above the context (attribution.words.Context) in `detail` of EPISODE: the episode's number.
# Above the levels in `detail` of EXIT: the number of the exit's reason plus one.
REASON_SHIFT = 8
