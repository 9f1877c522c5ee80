"""What does each event do to the vCPU it belongs to? Three passes over the stream, in numba.

`learn` (forward) finds the vCPU threads and which marks the recording has; `look_ahead`
(backward) tells for every exit whether the next entry may belong to the same inner loop and for
every timer save whether an edge follows; kernel_forward.advance then makes points and slices.
Arrays of tids are indexed by tid + 1, so that "unknown" (-1) has a place.
"""

from __future__ import annotations

import numpy as np

from analyzer.arch.x86 import marks
from analyzer.jit import helper, kernel
from analyzer.timeline.marks import KVM_RUN, Code, Property

ENTRY, EXIT, USER_EXIT, FPU = int(Code.ENTRY), int(Code.EXIT), int(Code.USER_EXIT), int(Code.FPU)
IOCTL_IN, IOCTL_OUT, SWITCH = int(Code.IOCTL_IN), int(Code.IOCTL_OUT), int(Code.SWITCH)
IRQ_IN, IRQ_OUT, NMI, NMI_IN = int(Code.IRQ_IN), int(Code.IRQ_OUT), int(Code.NMI), int(Code.NMI_IN)
RESTORE, SAVE = int(Code.TIMER_RESTORE), int(Code.TIMER_SAVE)
WAKEUP, MSR_READ, MSR_WRITE = int(Code.WAKEUP_IN_KVM), int(Code.MSR_READ), int(Code.MSR_WRITE)
THREAD_END, OTHER = int(Code.THREAD_END), int(Code.OTHER)
WINDOW_BEGIN, WINDOW_END = int(Code.WINDOW_BEGIN), int(Code.WINDOW_END)
LOSS_BEGIN, LOSS_END = int(Code.LOSS_BEGIN), int(Code.LOSS_END)
RDPMC, FUNCTION_IN, FUNCTION_OUT = int(Code.RDPMC), int(Code.FUNCTION_IN), int(Code.FUNCTION_OUT)
TIMER_IN, TIMER_OUT = int(Code.TIMER_IN), int(Code.TIMER_OUT)
TIMER_START = int(Code.TIMER_START)
GAP, WAY_IN = int(Property.GAP), int(Property.WAY_IN)
WAY_IN_ONCE = int(Property.WAY_IN_ONCE)
KVM_RUN_CMD = KVM_RUN
# EXIT_DEAD, EXIT_ZOMBIE and TASK_DEAD of prev_state; linux:include/linux/sched.h.
DEAD_STATES = 0x10 | 0x20 | 0x80

# common_flags: interrupts are off; NO_FLAGS has the bit too, since nothing is known there.
INTERRUPTS_OFF = 1

# Rows of `found`, what `learn` counts.
(
    F_IOCTL, F_FPU, F_USER_EXIT, F_TIMER, F_LATE, F_ENTRIES, F_LOOP_MARKS, F_AMD_LOADS,
    F_INTEL_LOADS, F_VCPUS,
) = range(10)  # fmt: skip
# Rows of `vcpus`, one column a vCPU: its tid, the code of its first evidence, index of the first
# event of this life of the tid, ts of the last end of a KVM_RUN, whether it is still inside.
V_TID, V_FIRST, V_BORN, V_LAST_END, V_INSIDE = range(5)
VCPU_ROWS = 5
# Tags that look_ahead leaves.
TAG_JOIN_EVENTS, TAG_JOIN_MARKS, TAG_LAST_SAVE, TAG_CANCELLED = 1, 2, 4, 8
# Registers that mark KVM's loop and loads; arch.x86.marks says what each means.
DEBUGCTL, AMD_STATUS_SET, LVTPC = marks.LOOP_MARK_MSR, marks.AMD_STATUS_SET, marks.LVTPC_MSR
GUEST_VECTOR, AMD_GLOBAL_CTL = marks.GUEST_VECTOR, marks.AMD_GLOBAL_CTL
INTEL_STATUS = marks.INTEL_GLOBAL_STATUS


@helper
def is_evidence(code, first):  # type: ignore[no-untyped-def]
    """Say whether an event proves that its thread runs a vCPU."""
    if code == IOCTL_IN:
        return first == KVM_RUN_CMD
    return code == ENTRY or code == EXIT or code == USER_EXIT or code == FPU or code == WAKEUP


@kernel
def learn(at, ts, cpu, tid, code, first, second, slot, born, open_tid, open_host, vcpus, found):  # type: ignore[no-untyped-def]
    """Forward pass over one chunk that begins at event number `at`.

    slot: int32[tids], vCPU of a tid or -1; born: int64[tids], event number after which the tid's
    present life began; open_tid, open_host: int64[cpus], thread of the entry that is open on a CPU
    (-2: none) and whether an interrupt or switch came since. Fills vcpus int64[VCPU_ROWS, n] and
    found int64[10]; returns False where vcpus is full.
    """
    for n in range(ts.size):
        c, t, k = cpu[n], tid[n] + 1, np.int64(code[n])
        if is_evidence(k, first[n]) and 0 < t < slot.size and slot[t] < 0:
            v = found[F_VCPUS]
            if v >= vcpus.shape[1]:
                return False
            slot[t] = v
            vcpus[V_TID, v], vcpus[V_FIRST, v], vcpus[V_BORN, v] = t - 1, k, born[t]
            vcpus[V_LAST_END, v] = -1
            vcpus[V_INSIDE, v] = 0 if k == IOCTL_IN or k == FPU else 1
            found[F_VCPUS] += 1
        v = slot[t] if 0 <= t < slot.size else -1
        if k == ENTRY:
            found[F_ENTRIES] += 1
            open_tid[c], open_host[c] = t, 0
        elif k == EXIT:
            if open_tid[c] == t and open_host[c] == 1:
                found[F_LATE] += 1
            open_tid[c] = -2
        elif k == IRQ_IN:
            open_host[c] = 1
        elif k == LOSS_BEGIN or k == WINDOW_BEGIN:
            open_tid[c] = -2
        elif k == IOCTL_IN:
            found[F_IOCTL] += first[n] == KVM_RUN_CMD
        elif k == FPU:
            found[F_FPU] += 1
        elif k == USER_EXIT:
            found[F_USER_EXIT] += 1
        elif k == RESTORE:
            found[F_TIMER] += 1
        elif k == MSR_READ:
            found[F_LOOP_MARKS] += first[n] == DEBUGCTL
        elif k == MSR_WRITE:
            found[F_AMD_LOADS] += first[n] == AMD_STATUS_SET
            found[F_INTEL_LOADS] += first[n] == LVTPC and second[n] & 0xFF == GUEST_VECTOR
        if v >= 0:
            if k == ENTRY or k == EXIT or (k == IOCTL_IN and first[n] == KVM_RUN_CMD):
                vcpus[V_INSIDE, v] = 1
            elif k == USER_EXIT or (k == IOCTL_OUT and vcpus[V_INSIDE, v] == 1):
                vcpus[V_LAST_END, v], vcpus[V_INSIDE, v] = ts[n], 0
            elif k == IOCTL_OUT and vcpus[V_LAST_END, v] >= 0 and vcpus[V_INSIDE, v] == 0:
                vcpus[V_LAST_END, v] = max(vcpus[V_LAST_END, v], ts[n])
            elif k == FPU:
                vcpus[V_INSIDE, v] = 1 if first[n] != 0 else 0
                if first[n] == 0:
                    vcpus[V_LAST_END, v] = ts[n]
        if k == SWITCH:
            open_host[c] = 1
        if (k == THREAD_END or (k == SWITCH and second[n] & DEAD_STATES and second[n] > 0)) and (
            0 < t < slot.size
        ):
            slot[t], born[t] = -1, at + n + 1
    return True


@kernel
def look_ahead(  # type: ignore[no-untyped-def]
    cpu,
    tid,
    code,
    property,
    flags,
    first,
    second,
    fast,
    join,
    joined,
    next_own,
    next_edge,
    tags,
    found,
):
    """Backward pass over one chunk; state is carried from the chunk behind it.

    fast: uint8[reasons + 1], by an exit's reason, the last for an unknown one: 1 where KVM can
    re-enter in its inner loop. An event in a gap that was recorded with interrupts on lies between
    two loops, whatever it is.

    join, joined: int64[cpus], thread of the next entry on a CPU that only events allowed in a gap
    stand before, or that no mark of a new inner loop, switch or return to user space stands before
    (-2: none). next_own: int64[cpus, 2], thread and code of the next event that decides about an
    open entry. next_edge: int8[tids], 1 where a switch or ioctl edge comes next, 2 where KVM is
    active first. Writes tags uint8[n]; found: int64[2], gaps that an event breaks with and without
    a mark of a new inner loop in them.
    """
    for n in range(cpu.size - 1, -1, -1):
        c, t, k = cpu[n], tid[n] + 1, code[n]
        tags[n] = 0
        if k == ENTRY:
            if next_own[c, 0] == t and next_own[c, 1] != EXIT and next_own[c, 1] != LOSS_BEGIN:
                tags[n] |= TAG_CANCELLED
            join[c], joined[c] = t, t
        elif k == EXIT:
            if join[c] == t and fast[first[n] if first[n] >= 0 else fast.size - 1] == 0:
                join[c] = -3
            if join[c] == t:
                tags[n] |= TAG_JOIN_EVENTS
            elif join[c] == -3:
                found[1 if joined[c] == t else 0] += joined[c] == t or joined[c] == -3 - t
            if joined[c] == t:
                tags[n] |= TAG_JOIN_MARKS
            join[c], joined[c] = -2, -2
        elif k == MSR_READ and first[n] == DEBUGCTL:
            if joined[c] >= 0:
                joined[c] = -3 - joined[c]
        elif property[n] & GAP == 0 or flags[n] & INTERRUPTS_OFF == 0:
            join[c] = -3
        if k == SWITCH or k == USER_EXIT or k == IOCTL_IN or (k >= WINDOW_BEGIN and k != NMI_IN):
            join[c], joined[c] = -2, -2
        decides = k == ENTRY or k == EXIT or k == SWITCH or k == USER_EXIT or k == FPU
        if decides or k == IOCTL_OUT:
            next_own[c, 0], next_own[c, 1] = t, k
        elif k == LOSS_BEGIN or k == WINDOW_END:
            next_own[c, 0], next_own[c, 1] = -2, LOSS_BEGIN
        if 0 <= t < next_edge.size:
            if k == SAVE and next_edge[t] == 1:
                tags[n] |= TAG_LAST_SAVE
            if k == SWITCH or k == IOCTL_IN or k == IOCTL_OUT or k == USER_EXIT:
                next_edge[t] = 1
            elif k == SAVE or k == RESTORE or k == ENTRY or k == EXIT or k == WAKEUP:
                next_edge[t] = 2
