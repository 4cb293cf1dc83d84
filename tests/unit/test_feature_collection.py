"""Features as Python callers get them."""

from __future__ import annotations

import geojson
import pytest

from osml_tasks.feature_collection import feature_collection

EXACT = [-74.99915184123456, 36.14472971234567]
GEOMETRIES = [
    {"type": "Point", "coordinates": EXACT},
    {"type": "Polygon", "coordinates": [[EXACT, [1e-9, 2.0], [3.0, 4.5], EXACT]]},
    {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": EXACT}]},
    None,
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_coordinates_stay_as_they_are(geometry: dict[str, object] | None) -> None:
    given = {"type": "Feature", "id": 7, "bbox": [*EXACT, *EXACT], "geometry": geometry, "properties": {"a": EXACT}}
    made = feature_collection([given])
    assert made["features"] == [given]
    assert isinstance(made["features"][0], geojson.Feature)
    assert made.is_valid
