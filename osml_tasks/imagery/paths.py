"""The positions of GeoJSON geometries as paths (points, lines, rings), and the geometries made of paths again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

Geometry = dict[str, Any]
Path = list[list[float]]

SHELL, HOLE, NO_RING = 1, -1, 0
"""What a path is: a polygon's outer ring, one of its inner rings, or anything else."""


def paths_of(geometry: Geometry) -> tuple[list[Path], list[int]]:
    """The paths of a geometry that ``check_geometry`` has passed, and what each of them is.

    Empty ones are left out.
    """
    if geometry["type"] == "Polygon":
        rings = geometry["coordinates"]
        return rings, [SHELL] if len(rings) == 1 else _ring_roles(rings)
    if geometry["type"] == "MultiPolygon":
        polygons = geometry["coordinates"]
        return list(chain.from_iterable(polygons)), list(chain.from_iterable(map(_ring_roles, polygons)))
    if geometry["type"] == "GeometryCollection":
        members = [paths_of(one) for one in geometry["geometries"]]
        return [path for paths, _ in members for path in paths], [role for _, roles in members for role in roles]
    coordinates = geometry["coordinates"]
    if not coordinates:
        return [], []
    paths = _OPEN_PATHS[geometry["type"]](coordinates)
    return paths, [NO_RING] * len(paths)


def _ring_roles(rings: list[Path]) -> list[int]:
    return [SHELL, *[HOLE] * (len(rings) - 1)] if rings else []


_OPEN_PATHS: dict[str, Callable[[Any], list[Path]]] = {
    "Point": lambda position: [[position]],
    "MultiPoint": lambda positions: [positions],
    "LineString": lambda positions: [positions],
    "MultiLineString": lambda lines: lines,
}


def positions_of(paths: list[Path]) -> npt.NDArray[np.float64]:
    """All positions of paths, one after the other, as an array of two columns; a third number is left out."""
    numbers = list(chain.from_iterable(chain.from_iterable(paths)))
    if len(numbers) != 2 * sum(map(len, paths)):
        numbers = [number for path in paths for position in path for number in position[:2]]
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def with_paths(geometry: Geometry, paths: Iterator[Path]) -> Geometry:
    """The same geometry on other paths, as many as it has itself; without its bounding box, which no longer holds."""
    kind = geometry["type"]
    if kind == "Polygon" and len(geometry) == 2:  # nearly all are that
        return {"type": kind, "coordinates": [next(paths) for _ in geometry["coordinates"]]}
    if kind == "GeometryCollection":
        changed = {"geometries": [with_paths(one, paths) for one in geometry["geometries"]]}
    else:
        changed = {"coordinates": _coordinates(kind, geometry["coordinates"], paths)}
    if len(geometry) == 2:
        return {"type": kind, **changed}
    return {name: value for name, value in geometry.items() if name != "bbox"} | changed


def _coordinates(kind: str, coordinates: list[Any], paths: Iterator[Path]) -> list[Any]:
    if kind in {"Polygon", "MultiLineString"}:
        return [next(paths) for _ in coordinates]
    if kind == "MultiPolygon":
        return [[next(paths) for _ in rings] for rings in coordinates]
    if not coordinates:
        return []
    return next(paths)[0] if kind == "Point" else next(paths)
