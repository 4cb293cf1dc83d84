"""Shapes that need care on the globe: over the date line, around a pole, or crossing themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import shapely
from shapely.affinity import translate
from shapely.geometry import Polygon, shape

from osml_tasks.imagery.georeference import Floats, Transformer
from osml_tasks.imagery.paths import Geometry, paths_of, positions_of, with_paths
from osml_tasks.imagery.tangle import Effort

DECIMALS = 8
"""Of longitudes and latitudes: a millimetre."""

# An edge as long as the world is wide has no step of 180 degrees then.
_STEPS = 16


def place_with_care(geometry: Geometry, transformer: Transformer, effort: Effort) -> tuple[Geometry, list[float], bool]:
    """Put a geometry in pixels of the image on the globe, cut at 180 degrees (RFC 7946, section 3.1.9).

    :param effort: what may be spent on its repair.
    :returns: the geometry, its bounding box (west is greater than east where it crosses the date line),
        and whether it crossed itself and was repaired.
    :raises ValueError: it has no place on the globe, or takes more than may be spent.
    """
    paths, _ = paths_of(geometry)
    unrolled = unroll(positions_of(paths), transformer)
    if not np.isfinite(unrolled).all():
        raise ValueError("has no place on the globe")
    unrolled[:, 0] -= 360 * math.floor((unrolled[:, 0].min().round(DECIMALS) + 180) / 360)
    unrolled = unrolled.round(DECIMALS)
    positions = iter(unrolled.tolist())
    whole = with_paths(geometry, iter([[next(positions) for _ in path] for path in paths]))
    cut, repaired = _cut(whole, effort)
    return cut, _bbox(whole, cut, unrolled), repaired


def unroll(pixels: Floats, transformer: Transformer) -> Floats:
    """Longitude and latitude of a path of pixels; longitudes do not jump, and so go beyond 180 degrees."""
    steps = np.linspace(0, 1, _STEPS, endpoint=False)[:, None]
    edges = pixels[:-1, None] + np.diff(pixels, axis=0)[:, None] * steps
    dense = np.concatenate([edges.reshape(-1, 2), pixels[-1:]])
    longitude, latitude = transformer.to_lonlat(dense[:, 0], dense[:, 1])
    if not np.isfinite(longitude).all():
        longitude, latitude = longitude[::_STEPS], latitude[::_STEPS]
        return np.column_stack([np.unwrap(longitude, period=360), latitude])
    return np.column_stack([np.unwrap(longitude, period=360)[::_STEPS], latitude[::_STEPS]])


def on_sheet(geometry: Any) -> Any:
    """A shapely geometry with longitudes beyond 180 degrees, cut there, and all of it between -180 and 180."""
    west, _, east, _ = geometry.bounds
    if west >= -180 and east <= 180:
        return geometry
    first = math.floor((west + 180) / 360)
    last = max(first, math.ceil((east + 180) / 360) - 1)
    pieces = [
        translate(geometry.intersection(shapely.box(turn - 180, -90, turn + 180, 90)), -turn)
        for turn in range(360 * first, 360 * last + 1, 360)
    ]
    return _joined(pieces, shapely.get_dimensions(geometry))


def area_of(ring: Floats) -> Any:
    """What a ring of unrolled longitudes and latitudes encloses: a shapely geometry between -180 and 180 degrees.

    A ring that ends a round away from its beginning lies around the pole that is nearer.
    """
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        pole = math.copysign(90, ring[:, 1].mean())
        ring = np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole], ring[0]]])
    return on_sheet(_polygonal(Polygon(ring)))


def repair(geometry: Geometry, effort: Effort) -> Geometry:
    """A geometry whose polygons do not cross themselves.

    Of a polygon without any area the line or point that it falls on is left.

    :param effort: what may be spent on it.
    :raises ValueError: it takes more.
    """
    if geometry["type"] == "GeometryCollection":
        return geometry | {"geometries": [repair(one, effort) for one in geometry["geometries"]]}
    if geometry["type"] not in {"Polygon", "MultiPolygon"}:
        return geometry
    drawn = shape(geometry)
    effort.spend_on(drawn)
    return _in_json(_polygonal(drawn))


def _cut(geometry: Geometry, effort: Effort) -> tuple[Geometry, bool]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        members = [_cut(one, effort) for one in geometry["geometries"]]
        return {"type": kind, "geometries": [one for one, _ in members]}, any(repaired for _, repaired in members)
    if kind not in {"Polygon", "MultiPolygon"}:
        return _in_json(on_sheet(shape(geometry))), False
    polygons = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
    polygons = [[np.array(ring) for ring in rings] for rings in polygons]
    effort.spend_on(shapely.polygons([ring for rings in polygons for ring in map(shapely.linearrings, rings)]))
    repaired = not all(_is_simple(ring) for rings in polygons for ring in rings)
    whole = _joined([_enclosed(rings) for rings in polygons], 2)
    if not whole.area:
        return _in_json(on_sheet(shapely.linestrings(polygons[0][0]))), True
    return _in_json(whole), repaired


def _enclosed(rings: list[Floats]) -> Any:
    """As ``make_valid`` has it: what an odd number of rings goes around."""
    outer = area_of(rings[0])
    holes = [area_of(ring) for ring in rings[1:]]
    return outer.symmetric_difference(shapely.union_all(holes)) if holes else outer


def _is_simple(ring: Floats) -> bool:
    return bool(shapely.is_simple(shapely.linestrings(ring)))


def _polygonal(geometry: Any) -> Any:
    """Made valid: the polygons of it, or what is left where there are none."""
    valid = shapely.make_valid(geometry)
    return _joined([valid], 2) if valid.area else valid


def _joined(geometries: list[Any], dimensions: int) -> Any:
    """The parts of geometries that have so many dimensions, as one geometry."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    parts = parts[shapely.get_dimensions(parts) == dimensions]
    if dimensions == 2:
        return shapely.union_all(parts)
    gathered = shapely.multilinestrings(parts) if dimensions == 1 else shapely.multipoints(parts)
    return parts[0] if len(parts) == 1 else gathered


def _in_json(geometry: Any) -> Geometry:
    if geometry.area:
        # To round each position by itself may have a thin polygon cross itself.
        geometry = shapely.set_precision(geometry, 10.0**-DECIMALS)
    rounded = shapely.transform(shapely.orient_polygons(geometry), lambda positions: positions.round(DECIMALS))
    made: Geometry = orjson.loads(shapely.to_geojson(rounded))
    return made


def _bbox(whole: Geometry, cut: Geometry, unrolled: Floats) -> list[float]:
    (west, south), (east, north) = unrolled.min(axis=0), unrolled.max(axis=0)
    around_pole = positions_of(paths_of(cut)[0])
    south, north = min(south, around_pole[:, 1].min()), max(north, around_pole[:, 1].max())
    if east - west >= 360 or _ends_a_round_away(whole):
        return [-180.0, float(south), 180.0, float(north)]
    if east > 180:
        east -= 360
    return [round(float(number), DECIMALS) for number in (west, south, east, north)]


def _ends_a_round_away(whole: Geometry) -> bool:
    paths, roles = paths_of(whole)
    return any(role and abs(path[-1][0] - path[0][0]) > 180 for path, role in zip(paths, roles, strict=True))
