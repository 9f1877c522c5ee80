"""Which thread did a compact switch leave, and who woke? What Perfetto's compact forms drop.

One CPU's bundles follow each other in time; each gives up to three runs that are in order by
themselves: its compact wake-ups, its events, its compact switches. readers.merge puts them in one
order; this walks along it.
"""

from __future__ import annotations

import numpy as np

from analyzer.jit import typed_kernel

NOBODY = np.int32(-1)


@typed_kernel(
    "int64(int64[::1], int32[::1], int32[::1], int8[::1], int64[::1], int32[::1], int32[::1], "
    "int8[::1], int64[::1], int32[::1], int32[::1], int8[::1])"
)
def rebuild_threads(  # type: ignore[no-untyped-def]
    order, cpu, kind, role_of_kind, next_pid, bundle, tid, origin, lost_before, switched_to, seen,
    fresh,
):  # fmt: skip
    """Give compact switches their previous thread and compact wake-ups their waker.

    order: int64[n], rows in order of time. Per row: cpu int32; kind int32, of which role_of_kind
    int8[kinds] says the role (0 any event, its tid is known; 1 a switch that carries its previous
    thread; 2 a compact switch; 3 a compact wake-up); next_pid int64; bundle int32; tid int32
    (written for roles 2 and 3, NOBODY where nothing tells); origin int8 (written for role 2: 0 the
    switch before, 1 the current thread of the event before, 2 nothing). lost_before:
    int64[bundles], 1 where events of that CPU were lost before that bundle. State per CPU, carried
    from call to call: switched_to and seen int32 (thread of the last switch, thread of the last
    event since; NOBODY), fresh int8 per bundle, 1 until its first row was met.

    The switch before wins over the event before: between the sched_switch event and the switch of
    stacks the kernel still emits events (perf's hooks) under the thread that leaves.
    Returns how many switches leave another thread than the one that the switch before brought.
    """
    contradictions = 0
    for at in range(order.size):
        row = order[at]
        c, b = cpu[row], bundle[row]
        role = role_of_kind[kind[row]]
        if fresh[b] == 1:
            fresh[b] = 0
            if lost_before[b] == 1:
                switched_to[c] = NOBODY
                seen[c] = NOBODY
        if role == 0:
            seen[c] = tid[row]
            continue
        known = switched_to[c] if switched_to[c] != NOBODY else seen[c]
        if role == 3:
            tid[row] = known
            continue
        if role == 2:
            tid[row] = known
            origin[row] = 0 if switched_to[c] != NOBODY else (1 if known != NOBODY else 2)
        elif switched_to[c] != NOBODY and switched_to[c] != tid[row]:
            contradictions += 1
        switched_to[c] = np.int32(next_pid[row])
        seen[c] = NOBODY
    return contradictions
