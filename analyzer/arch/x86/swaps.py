"""In which order does KVM swap the guest's PMU state? One grammar a vendor and direction, as data.

Words are tokens: one PMU register access each, classed by role, operation and value, whatever its
vendor's address is. Accesses of other registers are no tokens, and an NMI's accesses are kept
apart before anything is matched, so a grammar needs to tolerate neither. Source: facts/x86.md 1.3
and 3.2, which have it from Linux 7.3.4 arch/x86/kvm/pmu.c, vmx/pmu_intel.c and svm/pmu.c.

`shown` says whether a recording in this project's hands holds the grammar's words as written; what
rests on a grammar that none shows is marked so in the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

__all__ = ["GRAMMARS", "Grammar", "Step", "Times", "Token"]


class Token(IntFlag):
    """Classes of an access; a step of a grammar takes a union of them."""

    GLOBAL_OFF = 1 << 0  # global control written 0
    GLOBAL_ON = 1 << 1  # written anything else
    GLOBAL_READ = 1 << 2
    STATUS_READ = 1 << 3
    STATUS_CLEAR = 1 << 4
    STATUS_SET = 1 << 5
    COUNTER_ZERO = 1 << 6  # general counter written 0
    COUNTER_WRITE = 1 << 7
    COUNTER_READ = 1 << 8  # by RDPMC or RDMSR
    SELECTOR_ZERO = 1 << 9
    SELECTOR_WRITE = 1 << 10
    SELECTOR_READ = 1 << 11
    FIXED_ZERO = 1 << 12
    FIXED_WRITE = 1 << 13
    FIXED_READ = 1 << 14
    FIXED_CTRL_ZERO = 1 << 15
    FIXED_CTRL_WRITE = 1 << 16
    LVTPC_GUEST = 1 << 17  # vector 0xf5: guest state is on
    LVTPC_HOST = 1 << 18  # anything else
    OTHER = 1 << 19  # a PMU register that no swap of 7.3 touches: PEBS, LBR, offcore


_GLOBAL = Token.GLOBAL_OFF | Token.GLOBAL_ON
_COUNTER = Token.COUNTER_ZERO | Token.COUNTER_WRITE
_SELECTOR = Token.SELECTOR_ZERO | Token.SELECTOR_WRITE
_FIXED = Token.FIXED_ZERO | Token.FIXED_WRITE
_FIXED_CTRL = Token.FIXED_CTRL_ZERO | Token.FIXED_CTRL_WRITE


class Times(IntEnum):
    """How often a step stands; steps of a walk stand once a counter, with its index."""

    ONCE = 0
    MAYBE = 1
    WALK_ONCE = 2  # begins a walk of the counters, in order of their index from 0
    WALKED_ONCE = 3  # goes on in it
    WALKED_MAYBE = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One place in a grammar: which tokens fit, and how often they stand there."""

    tokens: Token
    times: Times = Times.ONCE


@dataclass(frozen=True, slots=True)
class Grammar:
    """One direction of KVM's half of a swap. `vendor` as CPUID names it.

    direction: load or put. `told` False: what a KVM adds that moves registers behind perf's back,
    directly before its load (`direction` save) or after its put (restore).
    """

    name: str
    vendor: str
    direction: str
    steps: tuple[Step, ...]
    shown: bool = True


_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"

GRAMMARS: tuple[Grammar, ...] = (
    Grammar(
        "amd_load",
        _AMD,
        "load",
        (
            Step(Token.GLOBAL_OFF),
            Step(Token.LVTPC_GUEST, Times.MAYBE),
            Step(Token.COUNTER_READ, Times.WALK_ONCE),
            Step(_COUNTER, Times.WALKED_MAYBE),
            Step(_SELECTOR, Times.WALKED_ONCE),
            Step(Token.STATUS_READ),
            Step(Token.STATUS_CLEAR, Times.MAYBE),
            Step(Token.STATUS_SET),
            Step(_GLOBAL),
        ),
    ),
    Grammar(
        "amd_put",
        _AMD,
        "put",
        (
            Step(Token.GLOBAL_OFF),
            Step(Token.STATUS_READ),
            Step(Token.STATUS_CLEAR, Times.MAYBE),
            Step(Token.COUNTER_READ, Times.WALK_ONCE),
            Step(Token.COUNTER_ZERO, Times.WALKED_MAYBE),
            Step(Token.SELECTOR_ZERO, Times.WALKED_MAYBE),
            Step(Token.LVTPC_HOST, Times.MAYBE),
        ),
    ),
    # The laboratory's kernels of ../traces/x86-moved, "untold": no kernel that is shipped does it.
    Grammar(
        "amd_save_host",
        _AMD,
        "save",
        (
            Step(Token.GLOBAL_READ),
            Step(Token.GLOBAL_OFF),
            Step(Token.SELECTOR_READ, Times.WALK_ONCE),
            Step(Token.COUNTER_READ, Times.WALKED_ONCE),
        ),
    ),
    Grammar(
        "amd_restore_host",
        _AMD,
        "restore",
        (
            Step(_COUNTER, Times.WALK_ONCE),
            Step(_SELECTOR, Times.WALKED_ONCE),
            Step(_GLOBAL),
        ),
    ),
    Grammar(
        "intel_load",
        _INTEL,
        "load",
        (
            Step(Token.GLOBAL_OFF),
            Step(Token.LVTPC_GUEST, Times.MAYBE),
            Step(Token.COUNTER_READ, Times.WALK_ONCE),
            Step(_COUNTER, Times.WALKED_MAYBE),
            Step(_SELECTOR, Times.WALKED_ONCE),
            Step(Token.FIXED_READ, Times.WALK_ONCE),
            Step(_FIXED, Times.WALKED_MAYBE),
            Step(Token.STATUS_READ),
            Step(Token.STATUS_CLEAR, Times.MAYBE),
            Step(Token.STATUS_SET, Times.MAYBE),
            Step(_FIXED_CTRL),
        ),
    ),
    Grammar(
        "intel_put",
        _INTEL,
        "put",
        (
            Step(Token.STATUS_READ),
            Step(Token.STATUS_CLEAR, Times.MAYBE),
            Step(Token.FIXED_CTRL_ZERO, Times.MAYBE),
            Step(Token.COUNTER_READ, Times.WALK_ONCE),
            Step(Token.COUNTER_ZERO, Times.WALKED_MAYBE),
            Step(Token.SELECTOR_ZERO, Times.WALKED_MAYBE),
            Step(Token.FIXED_READ, Times.WALK_ONCE),
            Step(Token.FIXED_ZERO, Times.WALKED_MAYBE),
            Step(Token.LVTPC_HOST, Times.MAYBE),
        ),
    ),
    # A guest without fixed counters (a PMU of version 1) walks only the general ones.
    Grammar(
        "intel_load_without_fixed",
        _INTEL,
        "load",
        (
            Step(Token.GLOBAL_OFF),
            Step(Token.LVTPC_GUEST, Times.MAYBE),
            Step(Token.COUNTER_READ, Times.WALK_ONCE),
            Step(_COUNTER, Times.WALKED_MAYBE),
            Step(_SELECTOR, Times.WALKED_ONCE),
            Step(Token.STATUS_READ),
            Step(Token.STATUS_CLEAR, Times.MAYBE),
            Step(Token.STATUS_SET, Times.MAYBE),
            Step(_FIXED_CTRL),
        ),
        shown=False,
    ),
    Grammar(
        "intel_put_without_fixed",
        _INTEL,
        "put",
        (
            Step(Token.STATUS_READ),
            Step(Token.STATUS_CLEAR, Times.MAYBE),
            Step(Token.FIXED_CTRL_ZERO, Times.MAYBE),
            Step(Token.COUNTER_READ, Times.WALK_ONCE),
            Step(Token.COUNTER_ZERO, Times.WALKED_MAYBE),
            Step(Token.SELECTOR_ZERO, Times.WALKED_MAYBE),
            Step(Token.LVTPC_HOST, Times.MAYBE),
        ),
        shown=False,
    ),
)
