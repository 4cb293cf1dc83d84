"""Merging as its definition reads: everything compared with everything, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import shapely
from shapely.geometry import shape

from osml_tasks.imagery.merge_options import MergeOptions

Box = tuple[float, float, float, float]


@dataclass
class Thing:
    """A feature and what is made of it."""

    line: bytes
    tile: Box
    box: Box
    thick: Box
    polygon: Any
    name: str
    score: float
    cut: bool

    @property
    def order(self) -> Any:
        return (self.cut, -self.score, self.thick, self.tile)


def naive_nms(lines: Iterable[bytes], options: MergeOptions, size: tuple[int, int] | None = None) -> set[bytes]:
    """What stays of one image's features."""
    things = [thing for line in lines if (thing := _thing(line, size)).score >= options.score_threshold]
    stays: list[Thing] = []
    for thing in sorted(things, key=lambda thing: thing.order):
        if all(_overlap(thing, other, options) < options.iou for other in stays):
            stays.append(thing)
    return {thing.line for thing in stays}


def naive_soft_nms(lines: Iterable[bytes], options: MergeOptions) -> dict[int, float]:
    """The scores of what stays, by the features' numbers."""
    left = [thing for line in lines if (thing := _thing(line, None)).score >= options.score_threshold]
    stays: dict[int, float] = {}
    while left:
        best = min(left, key=lambda thing: thing.order)
        left.remove(best)
        stays[orjson.loads(best.line)["properties"]["number"]] = best.score
        for thing in [*left]:
            if (overlap := _overlap(best, thing, options)) >= options.iou:
                thing.score *= max(0.0, 1 - overlap)
                if thing.score < (options.score_threshold or 0.001):
                    left.remove(thing)
    return stays


def _thing(line: bytes, size: tuple[int, int] | None) -> Thing:
    properties = orjson.loads(line)["properties"]
    tile, box = tuple(properties["sourceMetadata"][-1]["tileBBox"]), tuple(properties["imageBBox"])
    best = properties["featureClasses"][0]
    return Thing(line, tile, box, _thick(box), _polygon(properties), best["iri"], best["score"], _cut(box, tile, size))


def _thick(box: Box) -> Box:
    left, top, right, bottom = box
    if right > left and bottom > top:
        return box
    across, down = max(3 - (right - left), 0) / 2, max(3 - (bottom - top), 0) / 2
    return (left - across, top - down, right + across, bottom + down)


def _polygon(properties: dict[str, Any]) -> Any:
    geometry = properties["imageGeometry"]
    try:
        found = shape(geometry) if geometry["type"] in ("Polygon", "MultiPolygon") else None
    except (TypeError, ValueError):
        return None
    if found is not None and not found.is_valid:
        found = shapely.make_valid(found, method="structure", keep_collapsed=False)
    return found if found is not None and found.area else None


def _cut(box: Box, tile: Box, size: tuple[int, int] | None) -> bool:
    width, height = size or (float("inf"), float("inf"))
    return (
        (box[0] <= tile[0] + 1 and tile[0] > 0)
        or (box[1] <= tile[1] + 1 and tile[1] > 0)
        or (box[2] >= tile[2] - 1 and tile[2] < width)
        or (box[3] >= tile[3] - 1 and tile[3] < height)
    )


def _overlap(one: Thing, other: Thing, options: MergeOptions) -> float:
    if one.name != other.name or one.tile == other.tile or not _area(one.thick, other.thick, one.tile, other.tile):
        return 0.0
    # As the tiles come: what two polygons share may differ in its last digit when it is asked the other way round.
    one, other = sorted((one, other), key=lambda thing: (thing.tile[1], thing.tile[0]))
    if options.on == "polygon" and one.polygon and other.polygon:
        shared = one.polygon.intersection(other.polygon).area
        areas = (one.polygon.area, other.polygon.area)
    else:
        shared = _area(one.thick, other.thick)
        areas = (_area(one.thick), _area(other.thick))
    share: float = shared / (areas[0] + areas[1] - shared)
    for thing, area in zip((one, other), areas, strict=True):
        if thing.cut:
            share = max(share, shared / area)
    return float(np.round(share, 9))


def _area(*boxes: Box) -> float:
    left, top = max(box[0] for box in boxes), max(box[1] for box in boxes)
    right, bottom = min(box[2] for box in boxes), min(box[3] for box in boxes)
    return max(right - left, 0) * max(bottom - top, 0)
