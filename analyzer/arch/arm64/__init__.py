"""What does an arm64 host mean by its events? Exit codes, PMU registers, marks of order."""
