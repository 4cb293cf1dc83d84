"""Faults injected on purpose into a fleet of real processes, and what they cost: ``python -m tests.chaos``."""
