"""The features of a result, one at a time: they stand in it one a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from osml_tasks.features import COLLECTION_TAIL


def feature_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The features among a result's lines, each as JSON with a line end.

    :param lines: from the first, with or without their ends.
    """
    rest = iter(lines)
    next(rest, None)  # the collection's head
    for line in rest:
        feature = line.rstrip(b",\n")
        if feature and feature != COLLECTION_TAIL.strip():
            yield feature + b"\n"


def read_features(collection: Path) -> Iterator[bytes]:
    """The features in a result's file, as :func:`feature_lines`."""
    with collection.open("rb") as file:
        yield from feature_lines(file)
