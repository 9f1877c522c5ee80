"""What does an x86 host mean by its events? Exit codes, PMU registers, vectors, marks of order."""
