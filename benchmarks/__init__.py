"""Benchmarks: what the work costs with osml-tasks, and what it costs otherwise."""
