"""A tile's features put on their image and on the globe: all of them together, because an image may have millions.

What a feature's ``properties`` say of it afterwards:

- ``imageGeometry`` and ``imageBBox``: in pixels of the image, where its shape is known;
- ``placementError``: what is wrong with the shape or the box that the model gave, or that the shape has no
  place on the globe;
- ``outsideTile``: true where it reaches beyond its tile by more than a pixel;
- ``geometryRepaired``: true where the polygon crossed itself, and ``geometry`` is a valid one made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import shape

from osml_tasks.features import Feature
from osml_tasks.imagery.georeference import Floats, Transformer
from osml_tasks.imagery.globe import DECIMALS, place_with_care, repair
from osml_tasks.imagery.model_shape import Box, shape_of
from osml_tasks.imagery.paths import Geometry, Path, paths_of, positions_of, with_paths
from osml_tasks.imagery.tangle import Effort
from osml_tasks.imagery.window import Window

PIXEL_DECIMALS = 4
"""Of pixels in the result."""

Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_OF_POLYGONS = {"MultiPolygon", "GeometryCollection"}
_TOLERANCE = 1.0  # px beyond its tile, before a feature counts as outside


def place(tiles: Iterable[tuple[Window, Sequence[Feature]]], transformer: Transformer | None) -> None:
    """Put features on the image and on the globe, in place; nothing that a model says is an error here.

    ``geometry`` and ``bbox`` become longitude and latitude (WGS 84, RFC 7946), unless the model gave a
    geometry itself. Without a transformer, as for an image that has no georeference, they stay as they are.

    :param tiles: of one image: each one's window, and its features as ``features.parse`` gives them. A few
        hundred features at a time take least time; so do calls inside one ``rasterio.Env``.
    :param transformer: the image's way to the globe.
    """
    placed = _Placed.of(tiles)
    if placed is None:
        return
    placed.put_on_image()
    if transformer is not None:
        placed.put_on_globe(transformer)


@dataclass(slots=True)
class _Placed:
    """The features that have a shape, and their positions one after the other.

    :ivar windows: of each feature's tile.
    :ivar shapes: of each feature.
    :ivar boxes: of each feature, where the model gave one in pixels.
    :ivar path_counts: how many paths each feature has.
    :ivar roles: what each path is.
    :ivar lengths: of each path, in positions.
    :ivar path_starts: of each path, among the positions.
    :ivar starts: of each feature, among the positions.
    :ivar positions: two columns, x and y in pixels: of the tile, then of the image.
    """

    features: list[Feature]
    windows: list[Window]
    shapes: list[Geometry]
    boxes: list[Box | None]
    path_counts: Indices
    roles: Indices
    lengths: Indices
    path_starts: Indices
    starts: Indices
    positions: Floats

    @classmethod
    def of(cls, tiles: Iterable[tuple[Window, Sequence[Feature]]]) -> _Placed | None:
        """What can be placed of them; the others are told what is wrong."""
        kept: list[Feature] = []
        windows: list[Window] = []
        shapes: list[Geometry] = []
        boxes: list[Box | None] = []
        path_counts: list[int] = []
        paths: list[Path] = []
        roles: list[int] = []
        for window, feature in ((window, feature) for window, features in tiles for feature in features):
            properties = feature["properties"]
            found, box, wrong = shape_of(properties)
            if wrong:
                properties["placementError"] = wrong
            if found is None:
                continue
            its_paths, its_roles = paths_of(found)
            if its_paths:
                kept.append(feature)
                windows.append(window)
                shapes.append(found)
                boxes.append(box)
                path_counts.append(len(its_paths))
                paths += its_paths
                roles += its_roles
        if not kept:
            return None
        counts, lengths = np.array(path_counts), np.array(list(map(len, paths)))
        path_starts = lengths.cumsum() - lengths
        starts = path_starts if len(paths) == len(kept) else path_starts[counts.cumsum() - counts]
        return cls(
            kept, windows, shapes, boxes, counts, np.array(roles), lengths, path_starts, starts, positions_of(paths)
        )

    def put_on_image(self) -> None:
        lowest, highest = self._bounds(self.positions)
        sides = np.array([(window.x, window.y, window.width, window.height) for window in self.windows])
        self._mark_outside(lowest, highest, sides[:, 2:])
        corners = sides[:, :2]
        bounds = np.hstack([lowest + corners, highest + corners]).round(PIXEL_DECIMALS).tolist()
        counts = np.diff(self.starts, append=len(self.positions))
        self.positions = (self.positions + corners.repeat(counts, axis=0)).round(PIXEL_DECIMALS)
        paths = iter(self._split(self.positions))
        for index, feature in enumerate(self.features):
            properties, box = feature["properties"], self.boxes[index]
            self.shapes[index] = properties["imageGeometry"] = with_paths(self.shapes[index], paths)
            properties["imageBBox"] = bounds[index] if box is None else _shifted(box, self.windows[index])

    def _mark_outside(self, lowest: Floats, highest: Floats, sizes: Indices) -> None:
        outside = (lowest < -_TOLERANCE) | (highest > sizes + _TOLERANCE)
        if outside.any():
            for index in np.flatnonzero(outside.any(axis=1)):
                self.features[index]["properties"]["outsideTile"] = True

    def put_on_globe(self, transformer: Transformer) -> None:
        lonlat = np.column_stack(transformer.to_lonlat(self.positions[:, 0], self.positions[:, 1])).round(DECIMALS)
        lowest, highest = self._bounds(lonlat)
        west, east = lowest[:, 0], highest[:, 0]
        # Not so: what crosses the date line or lies around a pole, and (NaN) what has no place.
        ordinary = (east - west <= 180) & (west >= -180) & (east <= 180)
        paths = iter(self._wound(lonlat))
        geometries = [with_paths(one, paths) for one in self.shapes]
        valid = self._valid(lonlat, geometries, ordinary).tolist()
        bounds, effort = np.hstack([lowest, highest]).tolist(), Effort()
        for index, (feature, is_ordinary) in enumerate(zip(self.features, ordinary.tolist(), strict=True)):
            if feature["geometry"] is not None:
                continue
            if not is_ordinary:
                _place_alone(feature, self.shapes[index], transformer, effort)
            elif valid[index]:
                feature["geometry"], feature["bbox"] = geometries[index], bounds[index]
            else:
                _place_repaired(feature, geometries[index], bounds[index], effort)

    def _bounds(self, positions: Floats) -> tuple[Floats, Floats]:
        """The least and the greatest of each feature's coordinates."""
        return np.minimum.reduceat(positions, self.starts), np.maximum.reduceat(positions, self.starts)

    def _split(self, positions: Floats) -> list[Path]:
        listed, starts = positions.tolist(), self.path_starts.tolist()
        return [listed[start:end] for start, end in zip(starts, [*starts[1:], len(listed)], strict=True)]

    def _wound(self, lonlat: Floats) -> list[Path]:
        """The paths, outer rings counter-clockwise and inner ones clockwise."""
        # From each ring's first position, because the area of a small shape far from 0 drowns in rounding.
        x, y = (lonlat - lonlat[self.path_starts].repeat(self.lengths, axis=0)).T
        turns = np.zeros(len(x))
        # The step from one path to the next adds nothing: it ends where the next counts from.
        turns[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
        paths = self._split(lonlat)
        for index in np.flatnonzero(np.add.reduceat(turns, self.path_starts) * self.roles < 0):
            paths[index].reverse()
        return paths

    def _valid(self, lonlat: Floats, geometries: list[Geometry], asked: Mask) -> Mask:
        """Which of the features that are asked for have no polygon that crosses itself."""
        valid = np.ones(len(geometries), dtype=bool)
        kinds = [one["type"] for one in geometries]
        polygons = np.array([kind == "Polygon" for kind in kinds]) & asked
        if polygons.any():
            rings = polygons.repeat(self.path_counts)
            ring_ends = np.append(0, self.lengths[rings].cumsum())
            polygon_ends = np.append(0, self.path_counts[polygons].cumsum())
            shapes = shapely.from_ragged_array(
                shapely.GeometryType.POLYGON, lonlat[rings.repeat(self.lengths)], (ring_ends, polygon_ends)
            )
            valid[polygons] = shapely.is_valid(shapes)
        for index, kind in enumerate(kinds):
            if kind in _OF_POLYGONS and asked[index]:
                valid[index] = shape(geometries[index]).is_valid
        return valid


def _place_repaired(feature: Feature, geometry: Geometry, bbox: list[float], effort: Effort) -> None:
    try:
        feature["geometry"] = repair(geometry, effort)
    except (ValueError, shapely.errors.ShapelyError) as error:
        _add_error(feature, f"the shape {error}")
        return
    feature["bbox"] = bbox
    feature["properties"]["geometryRepaired"] = True


def _place_alone(feature: Feature, pixels: Geometry, transformer: Transformer, effort: Effort) -> None:
    try:
        geometry, bbox, repaired = place_with_care(pixels, transformer, effort)
    except (ValueError, shapely.errors.ShapelyError) as error:
        _add_error(feature, f"the shape {error}")
        return
    feature["geometry"], feature["bbox"] = geometry, bbox
    if repaired:
        feature["properties"]["geometryRepaired"] = True


def _add_error(feature: Feature, wrong: str) -> None:
    properties: dict[str, Any] = feature["properties"]
    before = properties.get("placementError")
    properties["placementError"] = f"{before}; {wrong}" if before else wrong


def _shifted(box: Box, window: Window) -> list[float]:
    left, top, right, bottom = box
    x, y = window.x, window.y
    return [round(float(number), PIXEL_DECIMALS) for number in (left + x, top + y, right + x, bottom + y)]
