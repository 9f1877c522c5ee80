"""What does a recording itself show? Its swaps, host perf's work, and how far to trust both."""
