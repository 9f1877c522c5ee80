"""C18: is switching with the vCPU thread better, unless KVM itself is profiled?"""

from __future__ import annotations

from analyzer.claims import c01
from analyzer.claims.common import EMULATED, activity_of
from analyzer.claims.evidence import Evidence
from analyzer.claims.verdict import (
    FAILS,
    HOLDS,
    IMMATERIAL,
    NO_EVIDENCE,
    Claim,
    Deciding,
    Limits,
    Part,
    Rows,
    Verdict,
    unknown,
)

__all__ = ["CLAIM"]


def _decide(e: Evidence, limits: Limits) -> Verdict:
    first = c01.CLAIM.decide(e, limits)  # deciding.RESTS_ON adds C1's thresholds
    part = Part("C1", first.verdict, first.because)
    on = activity_of(e)
    base = "C1, and CPU time with a host event on that counts the kernel"
    if first.verdict in (FAILS, IMMATERIAL):
        return Verdict(FAILS, f"C1: {first.because}", first.numbers, base, first.deciding,
                       first.evidence, parts=(part,))  # fmt: skip
    if on is None:
        return unknown(
            "when which host events were on is not recorded",
            "the host_event table, or msr:write_msr, whose selectors tell",
            base=base, parts=(part,),
        )  # fmt: skip
    rows = (*first.evidence, Rows("point", on["changes"], "kind = HOST_EVENTS", on["first_ns"]))
    if e.emulated:
        return unknown(EMULATED, "the same load on a real machine",
                       numbers={"host_event_changes": on["changes"]}, base=base, evidence=rows,
                       parts=(part,))  # fmt: skip
    numbers = {"active_share_kernel": on["kernel"], "host_event_changes": on["changes"]}
    deciding = Deciding("KVM profiled, share of time", on["kernel"], limits["active_share"])
    if on["kernel"] > limits["active_share"]:
        return Verdict(FAILS, "KVM could be profiled for too much of the time", numbers, base,
                       deciding, rows, parts=(part,))  # fmt: skip
    if first.verdict == NO_EVIDENCE:
        return unknown(f"C1: {first.because}", *first.needs, numbers=numbers, base=base,
                       evidence=rows, deciding=deciding, parts=(part,))  # fmt: skip
    return Verdict(HOLDS, "vcpu is far cheaper, and KVM is rarely profiled", numbers, base,
                   deciding, rows, parts=(part,))  # fmt: skip


CLAIM = Claim("C18", "Switching with the vCPU thread is better, unless KVM itself is profiled",
              "maobibo, Apr 2024", _decide)  # fmt: skip
