"""What does it cost? Operations, latencies, and what the order of the placements rests on."""
