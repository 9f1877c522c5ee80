"""Which claims of the argument hold on this host? Rules over result tables, one file a claim."""

from analyzer.claims.deciding import choose_claims, decide, decide_all
from analyzer.claims.evidence import Evidence, gather
from analyzer.claims.registry import CLAIMS
from analyzer.claims.thresholds import load_thresholds
from analyzer.claims.verdict import VERDICTS, Claim, Verdict

__all__ = [
    "CLAIMS",
    "VERDICTS",
    "Claim",
    "Evidence",
    "Verdict",
    "choose_claims",
    "decide",
    "decide_all",
    "gather",
    "load_thresholds",
]
