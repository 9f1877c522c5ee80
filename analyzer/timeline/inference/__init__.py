"""What did host perf probably do, where no access of a register was recorded? Stated rules only."""

from __future__ import annotations

from analyzer.timeline.inference.rules import RULES, Rule

__all__ = ["RULES", "Rule"]
