"""How often a polygon crosses itself: to repair one takes GEOS a time that grows with the square of that, and more."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

MOST_CROSSINGS = 1000
"""A polygon with more is not repaired: these take half a second, twice as many three times as long."""
_MOST_EFFORT = 100 * MOST_CROSSINGS**2
"""What is repaired at a time has so many crossings in all, each polygon's squared."""
_LOOKED_AT = 500_000  # pairs of edges
_NEAR = 10  # times as many pairs of edges are close together in a shape that is all bends


class Effort:
    """What may be spent on polygons that are repaired together; counted, not timed, so that it is always the same."""

    def __init__(self) -> None:
        self._left = _MOST_EFFORT

    def spend_on(self, geometry: Any) -> None:
        """Count the repair of a geometry in.

        :raises ValueError: it takes more than there is, in words that follow the shape's name.
        """
        crossings = crossings_of(geometry)
        if crossings > MOST_CROSSINGS:
            raise ValueError(f"crosses itself at more than {MOST_CROSSINGS:,} places")
        if crossings**2 > self._left:
            raise ValueError("crosses itself, and so do too many others of its tile")
        self._left -= crossings**2


def crossings_of(geometry: Any) -> int:
    """How many pairs of a geometry's edges meet that are not neighbours; one more than the most if there are more."""
    coordinates, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(geometry)), return_index=True)
    inside = ring[1:] == ring[:-1]
    edges = shapely.linestrings(np.stack((coordinates[:-1][inside], coordinates[1:][inside]), axis=1))
    # Each edge meets itself and two neighbours; that of pairs both are counted.
    expected, most = 3 * len(edges), 2 * MOST_CROSSINGS
    tree, near, meeting = shapely.STRtree(edges), 0, 0
    at_once = max(1, _LOOKED_AT // max(1, len(edges)))
    for start in range(0, len(edges), at_once):
        some = edges[start : start + at_once]
        first, second = tree.query(some)
        near += len(first)
        if near > _NEAR * expected + _LOOKED_AT:
            return MOST_CROSSINGS + 1
        meeting += int(shapely.intersects(some[first], edges[second]).sum())
        if meeting > expected + most:
            return MOST_CROSSINGS + 1
    return max(0, meeting - expected) // 2
