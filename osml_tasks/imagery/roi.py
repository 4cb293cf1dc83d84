"""A region of interest: read from what a user gives, in longitude and latitude, and which tiles it meets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import shape

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.geometry import check_geometry
from osml_tasks.imagery.georeference import Floats, Transformer
from osml_tasks.imagery.globe import area_of, unroll
from osml_tasks.imagery.window import Window

_BOX = re.compile(r"\s*[-+.\d][-+.\deE]*\s*(,\s*[-+.\d][-+.\deE]*\s*)+")
_WKT = re.compile(r"\s*(SRID\s*=|(MULTI)?(POINT|LINESTRING|POLYGON)\b|GEOMETRYCOLLECTION\b)", re.IGNORECASE)
_SRID = re.compile(r"\s*SRID\s*=\s*(\d+)\s*;", re.IGNORECASE)
_LONLAT = re.compile(r"(CRS:?:?84|EPSG:(.*:)?4326)$", re.IGNORECASE)
_ACCEPTED = 'a bounding box "min lon,min lat,max lon,max lat", WKT, GeoJSON, or the path of a GeoJSON file'

# Along each edge of a tile, which is seldom straight in longitude and latitude.
_STEPS = 8


def parse_roi(text: str) -> Any:
    """The region as a valid shapely geometry in longitude and latitude (WGS 84).

    :param text: ``min lon,min lat,max lon,max lat`` (the first greater than the third: over the date line),
        WKT, GeoJSON, or the path of a GeoJSON file.
    :raises ExtensionConfigurationError: it is none of them, empty, or in another coordinate system.
    """
    if not text.strip():
        raise ExtensionConfigurationError(f"the ROI is empty: give {_ACCEPTED}")
    if _BOX.fullmatch(text):
        region = _box(text)
    elif _WKT.match(text):
        region = _of_wkt(text)
    else:
        region = _of_file(text) if names_file(text) else _of_geojson(text)
    return _checked(shapely.force_2d(region), text)


def names_file(text: str) -> bool:
    """Whether a region is not in the text itself, but in the file that it names."""
    return not (_BOX.fullmatch(text) or _WKT.match(text) or text.lstrip().startswith("{"))


def intersecting(windows: Sequence[Window], roi: Any, transformer: Transformer) -> npt.NDArray[np.bool_]:
    """Which windows of an image meet a region; one that only touches the edge of an area does not.

    :param roi: as :func:`parse_roi` gives it.
    """
    if not windows:
        return np.zeros(0, dtype=bool)
    shapes = _footprints(windows, transformer)
    shapely.prepare(roi)
    met: npt.NDArray[np.bool_] = shapely.intersects(roi, shapes)
    if roi.area:
        met &= ~shapely.touches(roi, shapes)
    return met


def footprint(window: Window, transformer: Transformer) -> Any:
    """A window as a shapely geometry in longitude and latitude, cut at 180 degrees; empty where it has no place."""
    return _footprints([window], transformer)[0]


def roi_outside(roi: Any, name: str, image: Any) -> ExtensionConfigurationError:
    """The error for a region that meets no tile of an image.

    :param image: the image's footprint.
    """
    return ExtensionConfigurationError(
        f"the ROI {_bounds(roi)} is outside {name}, which covers {_bounds(image)} (min lon,min lat,max lon,max lat): "
        "give a region on the image, or leave out the ROI"
    )


def roi_without_georeference(name: str) -> ExtensionConfigurationError:
    """The error for a region of an image of which nobody knows where it lies."""
    return ExtensionConfigurationError(
        f"{name} has no georeference, so that a ROI in longitude and latitude has no place on it: leave out the ROI"
    )


def _bounds(geometry: Any) -> str:
    return "nothing" if geometry.is_empty else ",".join(f"{number:g}" for number in np.round(geometry.bounds, 4))


def _box(text: str) -> Any:
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        raise ExtensionConfigurationError(
            f"the ROI {_short(text)} is not the four numbers of a bounding box: give min lon,min lat,max lon,max lat"
        ) from None
    if south > north:
        raise ExtensionConfigurationError(
            f"the ROI {text.strip()} has its minimum latitude {south:g} above its maximum {north:g}: "
            "give min lon,min lat,max lon,max lat"
        )
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def _of_wkt(text: str) -> Any:
    srid = _SRID.match(text)
    if srid:
        if int(srid[1]) != 4326:
            raise _in_another_crs(f"SRID {srid[1]}")
        text = text[srid.end() :]
    try:
        return shapely.from_wkt(text)
    except shapely.errors.ShapelyError as error:
        reason = " ".join(str(error).split())
        raise ExtensionConfigurationError(f"the ROI {_short(text)} is no WKT: {reason}") from None


def _of_file(text: str) -> Any:
    try:
        content = Path(text).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ExtensionConfigurationError(
            f"the ROI {_short(text)} cannot be read ({reason}): give {_ACCEPTED}"
        ) from None
    return _of_geojson(content, f"the ROI in {text}")


def _of_geojson(text: str, name: str = "the ROI") -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExtensionConfigurationError(f"{name} is not GeoJSON: {error}") from None
    try:
        return shapely.union_all([shape(one) for one in _geometries(found)])
    except (ValueError, TypeError, RecursionError, shapely.errors.ShapelyError) as error:
        raise ExtensionConfigurationError(f"{name} is not GeoJSON: {error}") from None


def _geometries(found: Any) -> list[Any]:
    """Of a geometry, a feature or a collection of them.

    :raises ValueError: it is none of them.
    """
    if isinstance(found, dict) and found.get("crs") is not None:
        _check_crs(found["crs"])
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "FeatureCollection" and isinstance(found.get("features"), list):
        return [one for feature in found["features"] for one in _geometries(feature)]
    geometry = found.get("geometry") if kind == "Feature" else found
    if geometry is None:
        return []
    check_geometry(geometry)
    return [geometry]


def _check_crs(crs: Any) -> None:
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if not (isinstance(name, str) and _LONLAT.search(name)):
        raise _in_another_crs(str(name or crs))


def _in_another_crs(name: str) -> ExtensionConfigurationError:
    return ExtensionConfigurationError(
        f"the ROI is in another CRS, {name[:80]}: give it in longitude and latitude (EPSG:4326)"
    )


def _checked(region: Any, text: str) -> Any:
    """The region made valid.

    :raises ExtensionConfigurationError: it is empty, or not in degrees.
    """
    if region.is_empty:
        raise ExtensionConfigurationError(f"the ROI {_short(text)} is empty: give a region with an area")
    bounds = west, south, east, north = region.bounds
    if not np.isfinite(bounds).all():
        raise ExtensionConfigurationError(f"the ROI {_short(text)} has a coordinate that is no number")
    if min(west, east) < -180 or max(west, east) > 180 or south < -90 or north > 90:
        raise ExtensionConfigurationError(
            f"the ROI reaches from {west:g},{south:g} to {east:g},{north:g}, beyond 180 degrees of longitude or 90 of "
            "latitude: it is probably in another CRS; give it in longitude and latitude (EPSG:4326)"
        )
    return region if region.is_valid else shapely.make_valid(region)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _footprints(windows: Sequence[Window], transformer: Transformer) -> npt.NDArray[Any]:
    outlines = _outlines(windows)
    longitude, latitude = transformer.to_lonlat(outlines[..., 0].ravel(), outlines[..., 1].ravel())
    rings = np.column_stack([longitude, latitude]).reshape(outlines.shape)
    east, west = rings[..., 0].max(axis=1), rings[..., 0].min(axis=1)
    placed = np.isfinite(rings).all(axis=(1, 2))
    plain = placed & (east - west <= 180) & (west >= -180) & (east <= 180)
    shapes = np.full(len(windows), shapely.Polygon(), dtype=object)
    shapes[plain] = shapely.make_valid(shapely.polygons(rings[plain]))
    for index in np.flatnonzero(~plain):
        shapes[index] = _footprint(outlines[index], rings[index], transformer)
    return shapes


def _outlines(windows: Sequence[Window]) -> Floats:
    """Of each window its edge in pixels, closed: windows by positions by x and y."""
    left, top, right, bottom = np.array([window.box for window in windows], dtype=np.float64).T[:, :, None]
    along = np.arange(_STEPS) / _STEPS
    across, down = left + (right - left) * along, top + (bottom - top) * along
    rest = np.zeros_like(along)
    x = np.hstack([across, right + rest, across[:, :1] + right - across, left + rest, left])
    y = np.hstack([top + rest, down, bottom + rest, down[:, :1] + bottom - down, top])
    return np.stack([x, y], axis=-1)


def _footprint(outline: Floats, ring: Floats, transformer: Transformer) -> Any:
    """Of a window over the date line, around a pole, or partly without a place."""
    placed = np.isfinite(ring).all(axis=1)
    if placed.sum() < 3:
        return shapely.Polygon()
    return area_of(unroll(outline, transformer)) if placed.all() else shapely.MultiPoint(ring[placed]).convex_hull
