"""What does a claim come to? Its verdict with the number that decided, its base and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from analyzer.claims.evidence import Evidence

__all__ = [
    "FAILS", "HOLDS", "IMMATERIAL", "INFERRED", "NO_EVIDENCE", "VERDICTS", "Claim", "Deciding",
    "Limits", "Part", "Rows", "Verdict", "overall", "unknown",
]  # fmt: skip

HOLDS, INFERRED, FAILS = "holds", "holds (inferred)", "fails"
IMMATERIAL, NO_EVIDENCE = "true but immaterial", "no evidence"
VERDICTS = (HOLDS, INFERRED, FAILS, IMMATERIAL, NO_EVIDENCE)
# One claim's thresholds by name, its id left off.
Limits = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table behind a verdict: how many, which (in words), and when the first is."""

    table: str
    rows: int
    which: str = ""
    first_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Deciding:
    """The number that decided, and the threshold that it was held against."""

    name: str
    value: float
    threshold: float

    @property
    def margin(self) -> float | None:
        """By what factor value and threshold differ, 1 or more; None where one of them is 0.

        >>> Deciding("share", 0.25, 0.5).margin
        2.0
        """
        low, high = sorted((abs(self.value), abs(self.threshold)))
        return high / low if low else None


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a claim that splits, with a verdict of its own."""

    name: str
    verdict: str
    because: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a claim comes to. verdict: one of VERDICTS; qualifier: what has to be said with it.

    base: what the deciding number is a share or a count of. needs: what to record, or to build,
    where there is no evidence.
    """

    verdict: str
    because: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    deciding: Deciding | None = None
    evidence: tuple[Rows, ...] = ()
    needs: tuple[str, ...] = ()
    qualifier: str | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r} is not one of {VERDICTS}")


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the argument, in our words. decide: a pure function of evidence and limits."""

    id: str
    text: str
    source: str
    decide: Callable[[Evidence, Limits], Verdict]


def unknown(
    because: str, *needs: str, numbers: Mapping[str, Any] | None = None, base: str = "",
    evidence: tuple[Rows, ...] = (), deciding: Deciding | None = None,
    parts: tuple[Part, ...] = (),
) -> Verdict:  # fmt: skip
    """Return "no evidence", with what is missing."""
    return Verdict(
        NO_EVIDENCE, because, numbers or {}, base, deciding, evidence, tuple(needs), None, parts
    )


def overall(observed: bool, inferred: bool) -> str:
    """Return which "holds" it is: what was observed decides alone, and first."""
    return HOLDS if observed else INFERRED if inferred else FAILS
