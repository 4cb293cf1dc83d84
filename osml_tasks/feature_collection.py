"""Features as the ``geojson`` package has them, for callers from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import geojson

_DIGITS = 15  # of coordinates: the package keeps 6, which are 0.1 m


def feature_collection(features: Iterable[Mapping[str, Any]]) -> geojson.FeatureCollection:
    """Some features as one, with their coordinates as they are."""
    return geojson.FeatureCollection([{**one, "geometry": _exact(one.get("geometry"))} for one in features])


def _exact(geometry: Mapping[str, Any] | None) -> Any:
    if not geometry:
        return None
    if "geometries" in geometry:
        return geojson.GeoJSON.to_instance({**geometry, "geometries": [*map(_exact, geometry["geometries"])]})
    return geojson.GeoJSON.to_instance({**geometry, "precision": _DIGITS})
