"""Regions of interest: what users give, and which tiles they meet."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.georeference import Georeference, Transformer
from osml_tasks.imagery.roi import footprint, intersecting, parse_roi, roi_outside, roi_without_georeference
from osml_tasks.imagery.window import Window

SQUARE = shapely.box(10, 49, 11, 50)
POLYGON = {"type": "Polygon", "coordinates": [[[10, 49], [11, 49], [11, 50], [10, 50], [10, 49]]]}
FEATURE = {"type": "Feature", "properties": {}, "geometry": POLYGON}
COLLECTION = {"type": "FeatureCollection", "features": [FEATURE, {**FEATURE, "geometry": None}]}
DEGREES = Georeference("EPSG:4326", affine=(0.01, 0, 10, 0, -0.01, 50)).transformer()
DATE_LINE = Georeference("EPSG:4326", affine=(0.1, 0, 175, 0, -0.1, 20)).transformer()
NORTH_POLE = Georeference("EPSG:3413", affine=(1000, 0, -50_000, 0, -1000, 50_000)).transformer()


def grid(columns: int, rows: int, size: int = 10) -> list[Window]:
    return [Window(row * size, column * size, size, size) for row in range(rows) for column in range(columns)]


def met(roi: str, transformer: Transformer = DEGREES, columns: int = 10, rows: int = 10) -> set[tuple[int, int]]:
    windows = grid(columns, rows)
    found = intersecting(windows, parse_roi(roi), transformer)
    return {(window.x // 10, window.y // 10) for window, is_met in zip(windows, found, strict=True) if is_met}


@pytest.mark.parametrize(
    "text",
    [
        "10,49,11,50",
        " 1e1, 49.0 ,11,+50 ",
        "POLYGON ((10 49, 11 49, 11 50, 10 50, 10 49))",
        "polygon z((10 49 5, 11 49 5, 11 50 5, 10 50 5, 10 49 5))",
        "SRID=4326;POLYGON ((10 49, 11 49, 11 50, 10 50, 10 49))",
        json.dumps(POLYGON),
        json.dumps(FEATURE),
        json.dumps(COLLECTION, indent=2),
        json.dumps({**POLYGON, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}),
        json.dumps({**POLYGON, "crs": {"type": "name", "properties": {"name": "EPSG:4326"}}}),
        json.dumps({**POLYGON, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::4326"}}}),
    ],
)
def test_a_region_in_every_way_to_write_it(text: str) -> None:
    region = parse_roi(text)
    assert region.equals(SQUARE)
    assert not region.has_z


def test_a_region_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text("\ufeff" + json.dumps(COLLECTION))
    assert parse_roi(str(path)).equals(SQUARE)


def test_a_box_over_the_date_line() -> None:
    assert parse_roi("170,-5,-175,5").equals(
        shapely.union(shapely.box(170, -5, 180, 5), shapely.box(-180, -5, -175, 5))
    )


def test_a_region_that_crosses_itself_is_made_valid() -> None:
    region = parse_roi("POLYGON ((0 0, 2 2, 2 0, 0 2, 0 0))")
    assert region.is_valid
    assert region.area == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the ROI is empty"),
        ("  ", "the ROI is empty"),
        ("1,2,3", "is not the four numbers of a bounding box"),
        ("1,2,3,4,5", "is not the four numbers of a bounding box"),
        ("1,2,3,--4", "is not the four numbers of a bounding box"),
        ("10,50,11,49", "its minimum latitude 50 above its maximum 49"),
        ("500000,4000000,501000,4001000", "probably in another CRS"),
        ("POLYGON ((500000 4000000, 501000 4000000, 501000 4001000, 500000 4000000))", "probably in another CRS"),
        ("SRID=32618;POLYGON ((0 0, 1 0, 1 1, 0 0))", "in another CRS, SRID 32618"),
        ("POLYGON ((0 0, 1 0", "is no WKT"),
        ("POLYGON EMPTY", "is empty"),
        ("POINT (nan 4)", "no number|is empty"),
        ("{", "is not GeoJSON"),
        ('{"type": "Circle"}', "is not GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "is empty"),
        ('{"type": "FeatureCollection", "features": 5}', "is not GeoJSON"),
        ('{"type": "Feature", "geometry": null}', "is empty"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "is not GeoJSON"),
        (
            json.dumps({**COLLECTION, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}}),
            "in another CRS, urn:ogc:def:crs:EPSG::32618",
        ),
        ("nowhere.geojson", "cannot be read"),
        ("[1,2,3,4]", "cannot be read"),
    ],
)
def test_what_is_no_region_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ExtensionConfigurationError, match=complaint) as raised:
        parse_roi(text)
    assert len(str(raised.value).splitlines()) == 1


@given(st.text(max_size=30) | st.text("0123456789.,-+eE() POINT", max_size=20))
def test_any_text_is_a_region_or_one_clear_error(text: str) -> None:
    try:
        assert parse_roi(text).is_valid
    except ExtensionConfigurationError as error:
        assert len(str(error).splitlines()) == 1


def test_tiles_that_a_region_meets() -> None:
    assert met("10.15,49.55,10.35,49.65") == {(1, 3), (2, 3), (3, 3), (1, 4), (2, 4), (3, 4)}
    assert met("10.151,49.651,10.152,49.652") == {(1, 3)}
    assert met("20,20,21,21") == set()
    assert len(met("0,40,20,60")) == 100


def test_a_tile_that_only_touches_the_edge_of_an_area_is_not_met() -> None:
    assert met("10.25,49.65,10.3,49.7") == {(2, 3)}


def test_a_point_and_a_line_meet_the_tiles_that_they_lie_on() -> None:
    assert met("POINT (10.15 49.65)") == {(1, 3)}
    assert met("LINESTRING (10.15 49.65, 10.35 49.65)") == {(1, 3), (2, 3), (3, 3)}


def test_a_region_within_a_tile_and_one_with_a_hole() -> None:
    ring = shapely.box(10, 49, 11, 50) - shapely.box(10.05, 49.05, 10.95, 49.95)
    assert met(ring.wkt) == {(x, y) for x in range(10) for y in range(10) if {x, y} & {0, 9}}


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        ("179.5,15.1,-179.5,15.9", {(4, 4), (5, 4)}),
        ("-179.5,15.1,-179.4,15.9", {(5, 4)}),
        ("179.4,15.1,179.5,15.9", {(4, 4)}),
    ],
)
def test_tiles_over_the_date_line(roi: str, expected: set[tuple[int, int]]) -> None:
    assert met(roi, DATE_LINE) == expected


def test_one_tile_over_the_date_line_is_met_on_either_side() -> None:
    window = [Window(0, 0, 100, 100)]
    for roi, expected in (("179,11,179.1,12", True), ("-179.1,11,-179,12", True), ("0,11,1,12", False)):
        assert intersecting(window, parse_roi(roi), DATE_LINE).tolist() == [expected]


def test_a_tile_around_the_pole_is_met_from_every_side() -> None:
    window = [Window(40, 40, 20, 20)]
    assert all(
        intersecting(window, parse_roi(f"{west},89.95,{west + 20},90"), NORTH_POLE)[0] for west in (-180, -10, 150)
    )
    assert not intersecting(window, parse_roi("0,80,20,81"), NORTH_POLE)[0]


def test_what_has_no_place_is_not_met() -> None:
    half = Georeference("+proj=ortho +lat_0=0 +lon_0=0", affine=(10_000, 0, -10_000_000, 0, -10_000, 1_000_000))
    windows = [Window(0, 0, 100, 100), Window(0, 950, 100, 100), Window(0, 350, 20, 100)]
    world = parse_roi("-180,-90,180,90")
    assert intersecting(windows, world, half.transformer()).tolist() == [False, True, True]
    assert intersecting([], world, DEGREES).tolist() == []


@given(st.floats(9.8, 11), st.floats(48.8, 50), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_tiles_are_met_as_plain_arithmetic_says(west: float, south: float, width: float, height: float) -> None:
    found = met(f"{west!r},{south!r},{west + width!r},{south + height!r}")
    for x in range(10):
        for y in range(10):
            left, top = 10 + x / 10, 50 - y / 10
            overlap = min(
                min(left + 0.1, west + width) - max(left, west), min(top, south + height) - max(top - 0.1, south)
            )
            if abs(overlap) > 1e-9:
                assert ((x, y) in found) is (overlap > 0)


def test_ten_thousand_tiles_cost_little_more_than_their_outlines() -> None:
    utm = Georeference("EPSG:32618", affine=(0.5, 0, 400_000, 0, -0.5, 4_000_000)).transformer()
    windows = grid(100, 100, 512)
    roi = parse_roi("-75.9,36.0,-75.8,36.1")
    outlines = np.random.default_rng(1).uniform(0, 51_200, (2, 33 * len(windows)))
    began = time.process_time()
    utm.to_lonlat(*outlines)
    bare = time.process_time() - began
    began = time.process_time()
    found = intersecting(windows, roi, utm)
    assert 0 < found.sum() < len(windows)
    assert time.process_time() - began < 20 * bare + 0.5


def test_a_footprint_is_what_the_image_covers() -> None:
    window = Window(0, 0, 100, 100)
    assert footprint(window, DEGREES).symmetric_difference(SQUARE).area == pytest.approx(0, abs=1e-9)
    assert len(footprint(window, DATE_LINE).geoms) == 2


def test_the_errors_name_the_region_the_image_and_what_to_change() -> None:
    error: Any = roi_outside(parse_roi("1,2,3,4"), "scene.tif", SQUARE)
    assert str(error) == (
        "the ROI 1,2,3,4 is outside scene.tif, which covers 10,49,11,50 (min lon,min lat,max lon,max lat): "
        "give a region on the image, or leave out the ROI"
    )
    assert "scene.tif has no georeference" in str(roi_without_georeference("scene.tif"))
