"""What does an answer rest on? The one list of assumptions, and which hold for a placement."""

from __future__ import annotations

from typing import Any

from analyzer.pipeline.prices.pricing import PRICING_ASSUMPTIONS
from analyzer.replay import Placement

__all__ = ["ASSUMPTIONS", "assumptions_of"]

ASSUMPTIONS = {
    **PRICING_ASSUMPTIONS,
    "priced-not-measured": "swap times come from a cost file; nothing of them was measured here",
    "guest-work-fixed": "guest work and exits are held as recorded under every placement",
    "loop-range": "no mark of the inner loop is recorded: `loop` lies between joining every "
    "gap that its events allow and swapping at every exit",
    "loop-events": "inner loops are told by exit reasons and the interrupt flag of the events "
    "between exit and entry",
    "loop-marks": "inner loops are told by the DEBUGCTL read (MSR 1d9) that precedes each",
    "vcpu-marks": "a switch between the marks just outside vcpu_load..vcpu_put (KVM_RUN's "
    "ioctl) and those just inside (kvm_fpu, kvm_timer) can be on either side",
    "vcpu-one-mark": "only one kind of mark of vcpu_load..vcpu_put is recorded: a switch "
    "beside it is not seen",
    "conflicts-most": "conflicts are those of the longest stay that the marks allow",
    "hidden-reentries": "the hypervisor re-enters by itself: `exit` swaps at least as often",
    "midpoint": "typical overhead takes the middle of a range of swaps",
    "vendor-unknown": "no vendor is known: the interval is the hull of both vendors' costs",
    "real-machine": "nothing tells whether the machine was emulated: percentages take it for real",
    "off-architecture": "this architecture has no such swap today: its price is a what-if too",
}


def assumptions_of(
    placement: Placement, answer: dict[str, Any], recording: dict[str, Any], marks: dict[str, Any]
) -> list[str]:
    """Return the ids of what one placement's answer rests on."""
    used = ["priced-not-measured", "guest-work-fixed"]
    words = {*placement.load, *placement.put}
    if words & {"loop_begin", "loop_end"} and not marks["hidden_reentries"]:
        told = "loop-marks" if marks["loop_marks_trusted"] else "loop-range"
        exact = marks["loop_events_exact"] and not marks["loop_marks_trusted"]
        used.append("loop-events" if exact else told)
    if words & {"vcpu_load", "vcpu_put"}:
        inside = marks["kvm_fpu"] or marks["kvm_timer"]
        used.append("vcpu-marks" if inside and marks["kvm_run_ioctl"] else "vcpu-one-mark")
    if placement.name == "exit" and marks["hidden_reentries"]:
        used.append("hidden-reentries")
    if answer["loads_low"] != answer["loads_high"]:
        used.append("midpoint")
    if recording["vendor"] is None:
        used.append("vendor-unknown")
    if recording["emulated"] is None:
        used.append("real-machine")
    if recording["arch"] != "x86":
        used.append("off-architecture")
    return used
