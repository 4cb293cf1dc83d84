"""The area that two convex shapes of four corners share, for many pairs at once: what leaning boxes mostly are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
"""Pairs of coordinates: one row of corners for each shape, the last of which is joined to the first."""

_AT_ONCE = 4096


def are_convex(shapes: Corners) -> NDArray[np.bool_]:
    """Whether shapes turn the same way at each of their corners."""
    sides = np.roll(shapes, -1, axis=1) - shapes
    turns = _cross(sides, np.roll(sides, -1, axis=1))
    return np.asarray((turns > 0).all(axis=1) | (turns < 0).all(axis=1), np.bool_)


def shared_areas(ones: Corners, others: Corners) -> NDArray[np.float64]:
    """The area that each two share.

    One is cut along each side of the other, as by I. E. Sutherland, G. W. Hodgman, "Reentrant Polygon Clipping",
    Communications of the ACM 17(1), 1974. What lies outside is moved onto the line rather than left out: that
    has the same area, and leaves every shape with as many corners as the next. A twentieth of GEOS's time.

    :param others: convex.
    """
    areas = np.empty(len(ones))
    for start in range(0, len(ones), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        # Near their own origin, so that no digits are lost far away from the image's.
        areas[part] = _shared(ones[part] - others[part, :1], others[part] - others[part, :1])
    return areas


def _shared(ones: Corners, others: Corners) -> NDArray[np.float64]:
    way_round = np.sign(_twice_area(others))[:, None, None]
    for corner in range(others.shape[1]):
        begin, end = others[:, corner, None], others[:, (corner + 1) % others.shape[1], None]
        inwards = way_round * np.stack((begin[..., 1] - end[..., 1], end[..., 0] - begin[..., 0]), axis=2)
        ones = _cut(ones, begin, inwards)
    return np.abs(_twice_area(ones)) / 2


def _cut(shapes: Corners, begin: Corners, inwards: Corners) -> Corners:
    """Shapes of twice the corners, without what lies outside of a line through a point."""
    height = ((shapes - begin) * inwards).sum(axis=2)
    length = (inwards * inwards).sum(axis=2)
    inside = shapes - (np.minimum(height, 0) / length)[..., None] * inwards
    next_height, following = np.roll(height, -1, axis=1), np.roll(shapes, -1, axis=1)
    crosses = (height < 0) != (next_height < 0)
    share = np.where(crosses, height, 0) / np.where(crosses, height - next_height, 1)
    crossings = np.where(crosses[..., None], shapes + share[..., None] * (following - shapes), inside)
    return np.stack((inside, crossings), axis=2).reshape(len(shapes), -1, 2)


def _twice_area(shapes: Corners) -> NDArray[np.float64]:
    total: NDArray[np.float64] = _cross(shapes, np.roll(shapes, -1, axis=1)).sum(axis=1)
    return total


def _cross(ones: Corners, others: Corners) -> NDArray[np.float64]:
    product: NDArray[np.float64] = ones[..., 0] * others[..., 1] - ones[..., 1] * others[..., 0]
    return product
