"""Polygons that models have drawn, as shapes that have an area, and how much of it two of them share."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from osml_tasks.geometry import check_geometry
from osml_tasks.imagery import convex
from osml_tasks.imagery.tangle import MOST_CROSSINGS, crossings_of

Shapes = NDArray[np.object_]
Floats = NDArray[np.float64]

_POLYGON = 3  # as GEOS numbers kinds of shapes
_MOST_CORNERS = 4_000_000  # of two polygons, multiplied
_CLOSED_RING = 5  # four corners, and the first of them once more


def polygons(lines: Sequence[bytes]) -> Shapes:
    """For each feature the Polygon or MultiPolygon of its ``imageGeometry``, or None where nothing with an area is.

    Polygons that cross themselves are repaired (the areas that their rings enclose stay).

    :param lines: features as JSON, whatever their properties are.
    """
    shapes = _all_at_once(lines)
    for wrong in np.flatnonzero(~shapely.is_valid(shapes)):
        shapes[wrong] = _repaired(shapes[wrong])
    areas = shapely.area(shapes)
    shapes[~(np.isfinite(areas) & (areas > 0))] = None
    return shapes


def shared_areas(ones: Shapes, others: Shapes) -> Floats:
    """The areas that pairs of valid polygons share, px²; NaN where that cannot be computed."""
    areas = np.empty(len(ones))
    simple = _four_cornered(ones) & _four_cornered(others)
    areas[simple] = convex.shared_areas(_corners(ones[simple]), _corners(others[simple]))
    # Two that are all teeth meet as often as the product of their corners.
    corners = shapely.get_num_coordinates(ones) * shapely.get_num_coordinates(others)
    usual = ~simple & (corners <= _MOST_CORNERS)
    areas[~simple] = np.nan
    areas[usual] = _intersections(ones[usual], others[usual])
    return areas


def _four_cornered(shapes: Shapes) -> NDArray[np.bool_]:
    """Whether they are convex, and have four corners."""
    found = (shapely.get_num_coordinates(shapes) == _CLOSED_RING) & (shapely.get_type_id(shapes) == _POLYGON)
    found[found] = convex.are_convex(_corners(shapes[found]))
    return np.asarray(found, np.bool_)


def _corners(shapes: Shapes) -> convex.Corners:
    corners: convex.Corners = shapely.get_coordinates(shapes).view(np.complex128).reshape(-1, _CLOSED_RING)[:, :-1]
    return corners


def _intersections(ones: Shapes, others: Shapes) -> Floats:
    try:
        areas: Floats = shapely.area(shapely.intersection(ones, others))
    except shapely.errors.GEOSException:
        if len(ones) == 1:
            return np.array([np.nan])
        areas = np.concatenate([_intersections(ones[[place]], others[[place]]) for place in range(len(ones))])
    return areas


def _repaired(wrong: Any) -> Any:
    if crossings_of(wrong) > MOST_CROSSINGS:
        return None  # its box will do
    try:
        return shapely.make_valid(wrong, method="structure", keep_collapsed=False)
    except shapely.errors.GEOSException:
        return None


def _all_at_once(lines: Sequence[bytes]) -> Shapes:
    """Those of one ring, which nearly all are, are made together: that takes a tenth of the time."""
    shapes = np.full(len(lines), None, np.object_)
    rings: list[array[float]] = []
    places: list[int] = []
    for place, line in enumerate(lines):
        drawn = orjson.loads(line)["properties"].get("imageGeometry")
        ring = _single_ring(drawn)
        if ring is not None:
            rings.append(ring)
            places.append(place)
        elif type(drawn) is dict and drawn.get("type") in ("Polygon", "MultiPolygon"):
            shapes[place] = _by_itself(drawn)
    if rings:
        shapes[places] = _from_rings(rings)
    return shapes


def _single_ring(drawn: Any) -> array[float] | None:
    """The coordinates of a polygon's only ring, where it is one of pairs of numbers."""
    try:
        if drawn["type"] != "Polygon" or len(drawn["coordinates"]) != 1:
            return None
        ring = drawn["coordinates"][0]
        flat = array("d", chain.from_iterable(ring))
    except (KeyError, TypeError):
        return None
    return flat if len(flat) == 2 * len(ring) >= 8 else None


def _from_rings(rings: list[array[float]]) -> Shapes:
    corners = np.fromiter(map(len, rings), np.int64, len(rings)) // 2
    coordinates = np.frombuffer(b"".join(rings), np.float64).reshape(-1, 2)
    made: Shapes = shapely.polygons(shapely.linearrings(coordinates, indices=np.repeat(np.arange(len(rings)), corners)))
    return made


def _by_itself(drawn: dict[str, Any]) -> Any:
    try:
        check_geometry(drawn)
        return shapely.force_2d(shape(drawn))
    except (ValueError, shapely.errors.ShapelyError):
        return None
