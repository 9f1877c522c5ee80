"""What does each claim come to on this recording? Evidence gathered once, claims decided on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from analyzer.claims.evidence import Evidence, gather
from analyzer.claims.registry import CLAIMS
from analyzer.claims.thresholds import load_thresholds
from analyzer.claims.verdict import Claim, Limits, Verdict, unknown
from analyzer.errors import UsageError
from analyzer.store import Store

__all__ = ["choose_claims", "decide", "decide_all"]

# What a recording without a vCPU can still tell: that its VM was refused.
WITHOUT_VCPU = ("C14",)
# Claims that rest on another's test are decided with its thresholds, too.
RESTS_ON = {"c18": "c1"}
NOTE = "Thresholds are conventions of this program, not physics; --threshold moves one."


def choose_claims(only: list[str] | None) -> list[Claim]:
    """Return the claims named ("c5", "C8"), in the registry's order; None: all.

    UsageError for a name that is unknown.
    """
    if only is None:
        return list(CLAIMS)
    wanted = {name.upper() for name in only}
    unheard = wanted - {claim.id for claim in CLAIMS}
    if unheard or not wanted:
        there = ", ".join(claim.id for claim in CLAIMS)
        raise UsageError(f"--only names {', '.join(sorted(unheard)) or 'none'}; there are: {there}")
    return [claim for claim in CLAIMS if claim.id in wanted]


def decide_all(
    evidence: Evidence, claims: list[Claim], thresholds: Mapping[str, Limits]
) -> list[tuple[Claim, Verdict, Limits]]:
    """Return each claim with its verdict and the thresholds that it used."""
    found: list[tuple[Claim, Verdict, Limits]] = []
    for claim in claims:
        key = claim.id.lower()
        limits = {**thresholds.get(RESTS_ON.get(key, ""), {}), **thresholds[key]}
        if evidence.answer is None and claim.id not in WITHOUT_VCPU:
            verdict = unknown("no vCPU in the recording", "kvm_entry and kvm_exit of a running VM")
        else:
            verdict = claim.decide(evidence, limits)
        found.append((claim, verdict, limits))
    return found


def decide(
    store: Store, only: list[str] | None = None, thresholds: Mapping[str, Limits] | None = None,
    cost: str | None = None, emulated: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return `claims --json` (vpmu-analyzer/claims/1) of design.md section 10.

    UsageError for a claim that is unknown. Result tables of the what-if go to the store.
    """
    claims = choose_claims(only)
    evidence = gather(store, cost, emulated)
    decided = decide_all(evidence, claims, thresholds or load_thresholds())
    return {
        "schema": "vpmu-analyzer/claims/1",
        "recording": dict(evidence.recording),
        "note": NOTE,
        "claims": [_as_json(*one) for one in decided],
    }


def _as_json(claim: Claim, verdict: Verdict, limits: Limits) -> dict[str, Any]:
    deciding = verdict.deciding
    return {
        "id": claim.id,
        "text": claim.text,
        "source": claim.source,
        "verdict": verdict.verdict,
        "qualifier": verdict.qualifier,
        "because": verdict.because,
        "deciding": None if deciding is None else asdict(deciding),
        "margin": None if deciding is None else deciding.margin,
        "base": verdict.base,
        "numbers": dict(verdict.numbers),
        "thresholds": dict(limits),
        "parts": [asdict(part) for part in verdict.parts],
        "evidence": [asdict(rows) for rows in verdict.evidence],
        "needs": list(verdict.needs),
    }
