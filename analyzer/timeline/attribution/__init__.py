"""Whose access is it? Every PMU register access gets an actor and a context."""

from __future__ import annotations

from analyzer.timeline.attribution.words import ACTORS, CONTEXTS, Actor, Context

__all__ = ["ACTORS", "CONTEXTS", "Actor", "Context"]
