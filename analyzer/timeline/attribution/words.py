"""Which actors and contexts are there, and how are they packed beside an event? Words and bits."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["ACTORS", "CONTEXTS", "Actor", "Context", "Mark"]


class Actor(IntEnum):
    """Who made an access; design.md section 3."""

    NONE = 0  # no access, or of a register that is no core PMU's
    KVM_LOAD = 1
    KVM_PUT = 2
    PERF_LOAD = 3
    PERF_PUT = 4
    KVM_EXIT_READ = 5
    VPMU_EMULATION = 6
    VPMU_SCHED = 7
    HOST_PERF = 8
    UNKNOWN = 9


class Context(IntEnum):
    """In which context host perf acted; design.md section 3."""

    NONE = 0
    TICK = 1
    MUX_TIMER = 2
    IPI = 3
    NMI = 4
    SWITCH_OUT = 5
    SWITCH_IN = 6
    RDPMC = 7
    OTHER = 8
    GUEST_PMI = 9  # no access of the host's: a guest's counter overflowed before this exit


class Mark(IntFlag):
    """Bits beside an event: actor in the low four, context in the next four, then these."""

    LOAD_DONE = 1 << 8
    PUT_BEGINS = 1 << 9
    EPISODE_BEGINS = 1 << 10
    GUEST_PMI = 1 << 11  # at a VM exit
    HOST_CHANGES = 1 << 12  # which host events are on changes; the next two tell what is on now
    HOST_ANY = 1 << 13
    HOST_KERNEL = 1 << 14  # one of them counts the kernel's own code
    GUEST_ON = 1 << 15  # at LOAD_DONE: the guest's PMU is in use
    PERF_CORE = 1 << 15  # at a called function, which is no access: perf core is about to act


ACTORS = tuple(actor.name.lower() for actor in Actor)
# Both ends of a switch are one context to the reader; table host_episode tells them apart.
CONTEXTS = (
    "none", "tick", "mux_timer", "ipi", "nmi", "context_switch", "context_switch", "rdpmc", "other",
    "guest_pmi",
)  # fmt: skip
