"""What did every vCPU do, and when? Recorded events to slices, residencies and replay points."""

from analyzer.timeline.build import Timeline, TimelineResult
from analyzer.timeline.points import REASON_SHIFT, Kind, Level

__all__ = ["REASON_SHIFT", "Kind", "Level", "Timeline", "TimelineResult"]
