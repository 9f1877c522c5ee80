"""Which claims are there? The one list, in the order of the argument's text."""

from __future__ import annotations

from analyzer.claims import (
    c01,
    c02,
    c03,
    c04,
    c05,
    c06,
    c07,
    c08,
    c09,
    c10,
    c11,
    c12,
    c13,
    c14,
    c15,
    c16,
    c17,
    c18,
)
from analyzer.claims.verdict import Claim

__all__ = ["CLAIMS"]

CLAIMS: tuple[Claim, ...] = (
    c01.CLAIM,
    c02.CLAIM,
    c03.CLAIM,
    c04.CLAIM,
    c05.CLAIM,
    c06.CLAIM,
    c07.CLAIM,
    c08.CLAIM,
    c09.CLAIM,
    c10.CLAIM,
    c11.CLAIM,
    c12.CLAIM,
    c13.CLAIM,
    c14.CLAIM,
    c15.CLAIM,
    c16.CLAIM,
    c17.CLAIM,
    c18.CLAIM,
)
