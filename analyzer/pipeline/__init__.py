"""What can the program do? Its verbs as plain functions, for the command line and for code."""

from analyzer.pipeline.contents.answers import info_of
from analyzer.pipeline.designs import check_placement, list_placements, show_placement
from analyzer.pipeline.ingest import IngestOptions, ingest
from analyzer.pipeline.meetings.listing import conflicts_of
from analyzer.pipeline.part import Asked
from analyzer.pipeline.prices.calibrate import calibrate, write_cost_file
from analyzer.pipeline.replays import choose_designs
from analyzer.pipeline.stated import host_events_of
from analyzer.pipeline.whatif import whatif

__all__ = [
    "Asked",
    "IngestOptions",
    "calibrate",
    "check_placement",
    "choose_designs",
    "conflicts_of",
    "host_events_of",
    "info_of",
    "ingest",
    "list_placements",
    "show_placement",
    "whatif",
    "write_cost_file",
]
