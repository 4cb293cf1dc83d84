"""What is drawn of a detection: its shape's points, lines and rings, in pixels of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

_FARTHEST = 1e8  # px: what lies beyond is on no image
_MANY_POINTS = 64
_TOLERANCE = 0.5  # px by which a line of many points may be straightened

# The positions of each stroke, of a geometry's coordinates.
_POSITIONS: dict[str, Callable[[Any], Iterable[Any]]] = {
    "Point": lambda point: [[point]],
    "MultiPoint": lambda points: [[point] for point in points],
    "LineString": lambda line: [line],
    "MultiLineString": lambda lines: lines,
    "Polygon": lambda rings: rings,
    "MultiPolygon": chain.from_iterable,
}


class Stroke(NamedTuple):
    """A line to draw; one point is a dot.

    :ivar points: ``(n, 2)``, x right and y down, px.
    :ivar closed: whether it ends where it begins; the first point is not repeated.
    """

    points: npt.NDArray[np.float64]
    closed: bool


def outline_of(properties: dict[str, Any]) -> list[Stroke]:
    """The strokes of ``imageGeometry``, else of ``imageBBox``; none where there is neither, or what is no shape."""
    try:
        return list(_strokes_of(properties.get("imageGeometry"))) or list(_box(properties.get("imageBBox")))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return []


def _strokes_of(geometry: Any) -> Iterator[Stroke]:
    if not geometry:
        return
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for one in geometry["geometries"]:
            yield from _strokes_of(one)
    elif geometry["coordinates"]:
        for positions in _POSITIONS[kind](geometry["coordinates"]):
            yield from _stroke(positions, closed=kind.endswith("Polygon"))


def _box(box: Any) -> Iterator[Stroke]:
    if box:
        left, top, right, bottom = box
        yield from _stroke([[left, top], [right, top], [right, bottom], [left, bottom]], closed=True)


def _stroke(positions: Any, *, closed: bool) -> Iterator[Stroke]:
    points = np.array(positions, dtype=np.float64)[:, :2]
    if points.shape[1] != 2 or not (np.abs(points) <= _FARTHEST).all():
        raise ValueError("not a place on an image")
    if len(points) > _MANY_POINTS:
        points = shapely.get_coordinates(shapely.simplify(shapely.linestrings(points), _TOLERANCE))
    if closed and len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    if len(points):
        yield Stroke(points, closed and len(points) > 2)
