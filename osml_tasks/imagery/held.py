"""Features that wait until all tiles which may have seen them too are there, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osml_tasks.imagery.seen import Box, Seen

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Objects = NDArray[np.object_]
Places = NDArray[np.int64]
"""Where in the columns a feature is."""

EDGE_PX = 1.0
"""A box that comes so near to its tile's edge is taken for cut off there."""
THIN_PX = 3.0
"""The least side of the box that stands for a point or a line: at an IoU of 0.5 two points within 1 px are one."""

_NOWHERE: Box = (np.nan, np.nan, np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class Held:
    """Features of one image, a row of each column for each. Boxes have four columns, in px of the image.

    :ivar lines: their JSON.
    :ivar tiles: the window that each was seen in.
    :ivar boxes: as given, but that a box without area has at least 3 px a side; NaN where there is none.
    :ivar within: the part of its box that lies in its own tile: only there can another tile see the same.
    :ivar cut: whether it reaches an edge of its tile that is no edge of the image.
    :ivar names: their best classes.
    :ivar scores: of these.
    """

    lines: Objects
    tiles: Floats
    boxes: Floats
    within: Floats
    cut: Mask
    names: Objects
    scores: Floats

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, chosen: Mask) -> Held:
        """Some of them, in the same order."""
        return Held(*(getattr(self, column.name)[chosen] for column in fields(self)))

    def followed_by(self, others: Held) -> Held:
        """These, and then the others."""
        return Held(
            *(np.concatenate((getattr(self, column.name), getattr(others, column.name))) for column in fields(self))
        )


@np.errstate(over="ignore", invalid="ignore")  # numbers may be as large as JSON has them
def hold(row: Sequence[Seen], size: tuple[int, int] | None) -> Held:
    """Make columns of features, from left to right by their tiles.

    :param size: width and height of their image, px; None where they are not known, and then no right or
        bottom edge of a tile is taken for one of the image.
    """
    row = sorted(row, key=_column)
    tiles = _boxes([one.tile for one in row])
    given = _boxes([one.box or _NOWHERE for one in row])
    boxes = _thickened(given)
    return Held(
        lines=_objects([one.line for one in row]),
        tiles=tiles,
        boxes=boxes,
        within=np.hstack((np.maximum(boxes[:, :2], tiles[:, :2]), np.minimum(boxes[:, 2:], tiles[:, 2:]))),
        cut=_cut(given, tiles, size or (np.inf, np.inf)),
        names=_objects([one.name for one in row]),
        scores=np.fromiter((one.score for one in row), np.float64, len(row)),
    )


def _column(seen: Seen) -> float:
    return seen.tile[0]


def _boxes(boxes: Sequence[Box]) -> Floats:
    return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)


def _objects(values: Sequence[Any]) -> Objects:
    column = np.empty(len(values), np.object_)
    column[:] = values
    return column


def _thickened(boxes: Floats) -> Floats:
    """Boxes that have an area: those of points and lines get one."""
    sides = boxes[:, 2:] - boxes[:, :2]
    missing = np.where((sides == 0).any(axis=1, keepdims=True), np.maximum(THIN_PX - sides, 0) / 2, 0)
    thickened: Floats = boxes + np.hstack((-missing, missing))
    return thickened


def _cut(boxes: Floats, tiles: Floats, size: tuple[float, float]) -> Mask:
    before = (boxes[:, :2] <= tiles[:, :2] + EDGE_PX) & (tiles[:, :2] > 0)
    after = (boxes[:, 2:] >= tiles[:, 2:] - EDGE_PX) & (tiles[:, 2:] < np.array(size))
    edges: Mask = before | after
    return edges[:, 0] | edges[:, 1]
