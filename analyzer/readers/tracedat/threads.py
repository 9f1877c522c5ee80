"""What are the recording's threads called? The recorder's list, then names met in switches."""

from __future__ import annotations

from analyzer.readers.recording import ThreadName

__all__ = ["thread_names"]


def thread_names(cmdlines: str, met: dict[int, str]) -> list[ThreadName]:
    """Return the threads by tid. `cmdlines`: lines "pid name", where a name may hold blanks.

    The recorder's list is as of its end, so it wins over a name that a switch carried.
    """
    names = {tid: name for tid, name in met.items() if name and tid > 0}
    for line in cmdlines.splitlines():
        number, blank, name = line.partition(" ")
        if blank and name and number.isascii() and number.isdigit() and len(number) < 10:
            names[int(number)] = name
    return [ThreadName(tid, None, names[tid], None) for tid in sorted(names)]
