"""Which features of overlapping tiles are one and the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from osml_tasks.imagery.held import Floats, Held, Mask, Places
from osml_tasks.imagery.merge_options import MergeOn, MergeOptions
from osml_tasks.imagery.polygons import polygons, shared_areas

_AT_ONCE = 8192
"""Features whose neighbours are looked up in one go: where they lie densely, these are many."""
_SLACK = 1 - 1e-6  # more than what rounding may take from an upper bound
_DIGITS = 9
"""An overlap has so many: in which way it was computed is to make no difference."""


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Pairs that are one and the same, a row of each column for each.

    :ivar first: where in what is held its one feature is; so is ``second``, which comes after it.
    :ivar overlap: of the two, from the ``iou`` of the options to 1.
    """

    first: Places
    second: Places
    overlap: Floats

    def take(self, chosen: Mask) -> Conflicts:
        """Some of them, in the same order."""
        return Conflicts(self.first[chosen], self.second[chosen], self.overlap[chosen])

    def among(self, features: Mask) -> Conflicts:
        """Those between two of these features, with places as they are when only these are held."""
        places = np.cumsum(features) - 1
        both = self.take(features[self.first] & features[self.second])
        return Conflicts(places[both.first], places[both.second], both.overlap)

    def followed_by(self, others: Conflicts) -> Conflicts:
        """These, and then the others."""
        return Conflicts(
            np.concatenate((self.first, others.first)),
            np.concatenate((self.second, others.second)),
            np.concatenate((self.overlap, others.overlap)),
        )


_NONE = Conflicts(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


@np.errstate(all="ignore")  # numbers may be as large as JSON has them
def find_conflicts(held: Held, since: int, options: MergeOptions) -> Conflicts:
    """Find pairs of which the second is a new feature.

    Two features are one where different tiles saw the same class, their boxes meet inside both tiles, and they
    overlap by ``options.iou``: their intersection over their union. A feature that is cut off at its tile's edge
    is one with what covers it by as much: there it is their intersection over its own area. It is measured on
    polygons where both have one, else on boxes; points and lines have boxes of at least 3 px a side.

    :param since: how many of what is held is not new.
    """
    found = _NONE
    least = max(round(options.iou, _DIGITS), 10**-_DIGITS)
    for first, second in _neighbours(held, since):
        overlap = _overlap(held, first, second, options)
        pairs = Conflicts(first, second, overlap)
        found = found.followed_by(pairs.take(overlap >= least))
    return found


def _neighbours(held: Held, since: int) -> Iterator[tuple[Places, Places]]:
    """Pairs of one class whose boxes meet where both of their tiles are."""
    placed = np.flatnonzero((held.within[:, 2:] > held.within[:, :2]).all(axis=1))
    if not len(placed):
        return
    boxes = shapely.box(*held.within[placed].T)
    tree = shapely.STRtree(boxes)
    for start in range(int(np.searchsorted(placed, since)), len(placed), _AT_ONCE):
        asked, found = tree.query(boxes[start : start + _AT_ONCE])
        first, second = placed[found], placed[asked + start]
        earlier = first < second
        first, second = first[earlier], second[earlier]
        same = (held.tiles[first] != held.tiles[second]).any(axis=1) & (held.names[first] == held.names[second])
        first, second = first[same], second[same]
        meet = _area(_shared(held.within, first, second)) > 0
        yield first[meet], second[meet]


def _overlap(held: Held, first: Places, second: Places, options: MergeOptions) -> Floats:
    areas = _area(held.boxes)
    shared = _area(_shared(held.boxes, first, second))
    overlap = _share(shared, areas[first], areas[second], held.cut[first], held.cut[second])
    if options.on is MergeOn.POLYGON:
        _measure_polygons(held, first, second, options.iou, overlap)
    return np.round(overlap, _DIGITS)


def _measure_polygons(held: Held, first: Places, second: Places, iou: float, overlap: Floats) -> None:
    """Replace the overlap of pairs that both have a polygon."""
    used, places = np.unique(np.concatenate((first, second)), return_inverse=True)
    shapes = polygons(held.lines[used].tolist())
    one, other = places[: len(first)], places[len(first) :]
    pairs = np.flatnonzero(~(shapely.is_missing(shapes[one]) | shapely.is_missing(shapes[other])))
    one, other = one[pairs], other[pairs]
    cut_one, cut_other = held.cut[first[pairs]], held.cut[second[pairs]]
    areas, boxes = shapely.area(shapes), shapely.bounds(shapes)
    shared = np.minimum(_area(_shared(boxes, one, other)), np.minimum(areas[one], areas[other]))
    # It cannot be more than this.
    most = _share(shared, areas[one], areas[other], cut_one, cut_other)
    near = most >= iou * _SLACK
    shared[near] = shared_areas(shapes[one[near]], shapes[other[near]])
    measured = _share(shared, areas[one], areas[other], cut_one, cut_other)
    overlap[pairs] = np.where(np.isnan(measured), overlap[pairs], measured)


def _share(shared: Floats, one: Floats, other: Floats, cut_one: Mask, cut_other: Mask) -> Floats:
    """How much of them two features have in common, from areas in px²."""
    share = shared / (one + other - shared)
    share = np.where(cut_one, np.maximum(share, shared / one), share)
    return np.where(cut_other, np.maximum(share, shared / other), share)


def _shared(boxes: Floats, first: Places, second: Places) -> Floats:
    ones, others = boxes[first], boxes[second]
    return np.hstack((np.maximum(ones[:, :2], others[:, :2]), np.minimum(ones[:, 2:], others[:, 2:])))


def _area(boxes: Floats) -> Floats:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area: Floats = sides[:, 0] * sides[:, 1]
    return area
