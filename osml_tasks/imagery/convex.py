"""The area that two convex shapes of four corners share, for many pairs at once: what leaning boxes mostly are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.complex128]
"""A row of corners for each shape, x + iy; the last is joined to the first."""

_AT_ONCE = 512  # so few stay in the processor's cache: half the time of 4096


def are_convex(shapes: Corners) -> NDArray[np.bool_]:
    """Whether shapes turn the same way at each of their corners."""
    sides = _next(shapes) - shapes
    turns = _cross(sides, _next(sides))
    return np.asarray((turns > 0).all(axis=1) | (turns < 0).all(axis=1), np.bool_)


def shared_areas(ones: Corners, others: Corners) -> NDArray[np.float64]:
    """The area that each two share.

    One is cut along each side of the other, as by I. E. Sutherland, G. W. Hodgman, "Reentrant Polygon Clipping",
    Communications of the ACM 17(1), 1974. What lies outside is moved onto the line rather than left out: that
    has the same area, and leaves every shape with as many corners as the next.

    :param others: convex.
    """
    areas = np.empty(len(ones))
    for start in range(0, len(ones), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        # Near their own origin, so that no digits are lost far away from the image's.
        areas[part] = _shared(ones[part] - others[part, :1], others[part] - others[part, :1])
    return areas


def _shared(ones: Corners, others: Corners) -> NDArray[np.float64]:
    left_turning = (_twice_area(others) > 0)[:, None]
    sides = _next(others) - others
    for corner in range(others.shape[1]):
        side = sides[:, corner, None]
        ones = _cut(ones, others[:, corner, None], np.where(left_turning, 1j, -1j) * side)
    return np.abs(_twice_area(ones)) / 2


def _cut(shapes: Corners, begin: Corners, inwards: Corners) -> Corners:
    """Shapes of twice the corners, without what lies outside of a line through a point."""
    inwards = inwards / np.abs(inwards)
    height = ((shapes - begin) * inwards.conj()).real
    outside = height < 0
    kept = shapes - np.minimum(height, 0) * inwards
    crosses = outside != _next(outside)
    share = height / np.where(crosses, height - _next(height), 1)
    cut = np.empty((len(shapes), 2 * shapes.shape[1]), np.complex128)
    cut[:, ::2] = kept
    cut[:, 1::2] = np.where(crosses, shapes + share * (_next(shapes) - shapes), kept)
    return cut


def _next(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((values[:, 1:], values[:, :1]), axis=1)


def _twice_area(shapes: Corners) -> NDArray[np.float64]:
    total: NDArray[np.float64] = _cross(shapes, _next(shapes)).sum(axis=1)
    return total


def _cross(ones: Corners, others: Corners) -> NDArray[np.float64]:
    product: NDArray[np.float64] = (ones.conj() * others).imag
    return product
