"""A feature as one tile saw it: its line, and what merging has to know of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from osml_tasks.geometry import is_number
from osml_tasks.imagery.classes import top_class

Box = tuple[float, float, float, float]
"""``(min x, min y, max x, max y)`` in pixels of the image."""


class Seen(NamedTuple):
    """A placed feature: a tuple, because a job makes millions of them, and without its geometry, which few need.

    :ivar line: its JSON, without line end.
    :ivar location: the image's name.
    :ivar tile: the window that it was seen in.
    :ivar box: its ``imageBBox``, None where that is no box.
    :ivar name: its best class.
    :ivar score: of that class.
    """

    line: bytes
    location: str
    tile: Box
    box: Box | None
    name: str
    score: float

    @classmethod
    def from_line(cls, line: bytes) -> Seen:
        """Read a placed feature: one with ``location`` and ``tileBBox`` in its last ``sourceMetadata``.

        :raises KeyError: it was not placed.
        """
        properties = orjson.loads(line)["properties"]
        source = properties["sourceMetadata"][-1]
        box = _box(properties.get("imageBBox"))
        return cls(line, source["location"], tuple(source["tileBBox"]), box, *top_class(properties))


def in_order(streams: Iterable[Iterable[Seen]], places: Mapping[str, int]) -> Iterator[Seen]:
    """Several ordered streams as one, such as a job's parts and those of its retry.

    :param streams: each by image, then by rows of tiles, each from left to right.
    :param places: by the image's name: which one of the job's it is.
    """

    def place(seen: Seen) -> tuple[int, float, float]:
        return places[seen.location], seen.tile[1], seen.tile[0]

    return heapq.merge(*streams, key=place)


def _box(box: Any) -> Box | None:
    if type(box) is not list or len(box) != 4:
        return None
    left, top, right, bottom = box
    if not (is_number(left) and is_number(top) and is_number(right) and is_number(bottom)):
        return None
    if left <= right and top <= bottom:
        return left, top, right, bottom
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)
