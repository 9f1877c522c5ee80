"""What does host perf meet of a guest's state? Conflicts, what would leak, what was hidden."""
