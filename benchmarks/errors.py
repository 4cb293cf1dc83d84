"""What can go wrong with a benchmark itself."""


class BenchmarkError(Exception):
    """A run did not do its work, so its figures mean nothing."""
