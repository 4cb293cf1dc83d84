"""GeoJSON polygons as shapes that have an area, whatever a model has drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from osml_tasks.geometry import is_number

Shapes = NDArray[np.object_]


def polygons(drawn: Sequence[dict[str, Any] | None]) -> Shapes:
    """Make a valid Polygon or MultiPolygon of each, or None where nothing with an area comes of it.

    Polygons that cross themselves are repaired (the areas that their rings enclose stay).

    :param drawn: GeoJSON geometries of these two types as ``orjson`` reads them, not checked; None stays None.
    """
    shapes = _all_at_once(drawn)
    for wrong in np.flatnonzero(~shapely.is_valid(shapes)):
        shapes[wrong] = _repaired(shapes[wrong])
    areas = shapely.area(shapes)
    shapes[~(np.isfinite(areas) & (areas > 0))] = None
    return shapes


def _repaired(wrong: Any) -> Any:
    try:
        return shapely.make_valid(wrong, method="structure", keep_collapsed=False)
    except shapely.errors.GEOSException:
        return None


def _all_at_once(drawn: Sequence[dict[str, Any] | None]) -> Shapes:
    """Those of one ring, which nearly all are, are made together: that takes a tenth of the time."""
    shapes = np.full(len(drawn), None, np.object_)
    rings: list[list[Any]] = []
    places: list[int] = []
    for place, one in enumerate(drawn):
        ring = _single_ring(one)
        if ring is not None:
            rings.append(ring)
            places.append(place)
        elif one is not None:
            shapes[place] = _by_itself(one)
    if rings:
        shapes[places] = _from_rings(rings)
    return shapes


def _single_ring(drawn: dict[str, Any] | None) -> list[Any] | None:
    """The only ring of a polygon, where it is one of pairs of numbers."""
    if drawn is None or drawn["type"] != "Polygon":
        return None
    try:
        [ring] = drawn["coordinates"]
        pairs = len(ring) >= 4 and all(is_number(x) and is_number(y) for x, y in ring)
    except (KeyError, TypeError, ValueError):
        return None
    return ring if pairs else None


def _from_rings(rings: list[list[Any]]) -> Shapes:
    corners = np.fromiter(map(len, rings), np.int64, len(rings))
    flat = chain.from_iterable(chain.from_iterable(rings))
    coordinates = np.fromiter(flat, np.float64, 2 * int(corners.sum())).reshape(-1, 2)
    made: Shapes = shapely.polygons(shapely.linearrings(coordinates, indices=np.repeat(np.arange(len(rings)), corners)))
    return made


def _by_itself(drawn: dict[str, Any]) -> Any:
    try:
        return shapely.force_2d(shape(drawn))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, shapely.errors.ShapelyError):
        # What a model has drawn there is no polygon at all.
        return None
