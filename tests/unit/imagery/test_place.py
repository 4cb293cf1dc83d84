"""Features of tiles on their image and on the globe."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import antimeridian
import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry import shape

from osml_tasks.features import parse, to_lines
from osml_tasks.geometry import check_bbox, check_geometry
from osml_tasks.imagery.georeference import Georeference
from osml_tasks.imagery.place import place
from osml_tasks.imagery.window import Window

WINDOW = Window(y=2000, x=1000, width=100, height=80)
FIRST = Window(0, 0, 100, 100)
UTM = Georeference("EPSG:32618", affine=(0.5, 0, 500_000, 0, -0.5, 4_000_000)).transformer()
DEGREES = Georeference("EPSG:4326", affine=(0.01, 0, 10, 0, -0.01, 50)).transformer()
DATE_LINE = Georeference("EPSG:4326", affine=(0.1, 0, 175, 0, -0.1, 20)).transformer()
MERCATOR = Georeference("EPSG:3832", affine=(10_000, 0, 2_900_000, 0, -10_000, 500_000)).transformer()
NORTH_POLE = Georeference("EPSG:3413", affine=(1000, 0, -50_000, 0, -1000, 50_000)).transformer()
SOUTH_POLE = Georeference("EPSG:3031", affine=(1000, 0, -50_000, 0, -1000, 50_000)).transformer()
TRANSFORMERS = {
    "utm": UTM,
    "degrees": DEGREES,
    "flipped": Georeference("EPSG:32618", affine=(0.5, 0, 500_000, 0, 0.5, 4_000_000)).transformer(),
    "date line": DATE_LINE,
    "mercator over the date line": MERCATOR,
    "north pole": NORTH_POLE,
    "south pole": SOUTH_POLE,
}


def feature(**properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": None, "properties": properties}


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def ring(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def placed(given: dict[str, Any], transformer: Any = UTM, window: Window = WINDOW) -> dict[str, Any]:
    place([(window, [given])], transformer)
    return given


def placed_shape(geometry: dict[str, Any], transformer: Any, window: Window = FIRST) -> dict[str, Any]:
    return placed(feature(imageGeometry=geometry), transformer, window)


def flat(geometry: dict[str, Any]) -> np.ndarray[Any, Any]:
    return shapely.get_coordinates(shape(geometry))


GEOMETRIES = {
    "Point": {"type": "Point", "coordinates": [5, 6.5]},
    "MultiPoint": {"type": "MultiPoint", "coordinates": [[5, 6], [7, 8]]},
    "LineString": {"type": "LineString", "coordinates": [[5, 6], [7, 8], [9, 3]]},
    "MultiLineString": {"type": "MultiLineString", "coordinates": [[[5, 6], [7, 8]], [[1, 2], [3, 4], [5, 5]]]},
    "Polygon": polygon(ring(10, 10, 20, 30), ring(12, 12, 3, 3), ring(20, 20, 3, 3)),
    "MultiPolygon": {
        "type": "MultiPolygon",
        "coordinates": [[ring(1, 1, 5, 5)], [ring(9, 9, 9, 9), ring(10, 10, 1, 1)]],
    },
}
GEOMETRIES["GeometryCollection"] = {"type": "GeometryCollection", "geometries": list(GEOMETRIES.values())}


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_every_kind_of_geometry_moves_to_the_image_and_the_globe(kind: str) -> None:
    given = placed_shape(copy.deepcopy(GEOMETRIES[kind]), DEGREES, WINDOW)
    before, on_image, on_globe = flat(GEOMETRIES[kind]), flat(given["properties"]["imageGeometry"]), given["geometry"]
    np.testing.assert_allclose(on_image, before + np.array([1000, 2000]))
    expected = np.column_stack([10 + on_image[:, 0] / 100, 50 - on_image[:, 1] / 100])
    np.testing.assert_allclose(np.sort(flat(on_globe), axis=0), np.sort(expected, axis=0), atol=1e-8)
    assert on_globe["type"] == kind
    assert given["properties"]["imageBBox"] == [*on_image.min(axis=0), *on_image.max(axis=0)]
    np.testing.assert_allclose(given["bbox"], shape(on_globe).bounds, atol=1e-8)
    assert set(given["properties"]) == {"imageGeometry", "imageBBox"}


def test_features_of_several_tiles_at_a_time_are_placed_as_each_tile_alone() -> None:
    shapes = [feature(imageGeometry=one) for one in GEOMETRIES.values()] + [feature(imageBBox=[1, 2, 3, 4]), feature()]
    windows = [Window(0, 0, 50, 50), WINDOW]
    together = [(window, copy.deepcopy(shapes)) for window in windows]
    place(together, UTM)
    for window, features in together:
        assert features == [placed(copy.deepcopy(one), UTM, window) for one in shapes]


def test_a_box_alone_is_a_shape() -> None:
    given = placed(feature(imageBBox=[10, 20, 30, 50], score=1), DEGREES)
    assert given["properties"] == {
        "score": 1,
        "imageBBox": [1010, 2020, 1030, 2050],
        "imageGeometry": polygon(ring(1010, 2020, 20, 30)),
    }
    assert given["bbox"] == pytest.approx([20.1, 29.5, 20.3, 29.8])


def test_older_models_write_their_boxes_under_another_name() -> None:
    given = placed(feature(bounds_imcoords=[10, 20, 30, 50]))
    assert given["properties"]["bounds_imcoords"] == [10, 20, 30, 50]
    assert given["properties"]["imageBBox"] == [1010, 2020, 1030, 2050]


@pytest.mark.parametrize(
    ("box", "kind"),
    [([1, 2, 1, 2], "Point"), ([1, 2, 1, 5], "LineString"), ([3, 4, 1, 2], "Polygon")],
)
def test_a_box_may_have_no_area_or_begin_at_any_corner(box: list[float], kind: str) -> None:
    given = placed(feature(imageBBox=box))
    assert given["geometry"]["type"] == given["properties"]["imageGeometry"]["type"] == kind
    assert given["properties"]["imageBBox"][0] <= given["properties"]["imageBBox"][2]
    assert "placementError" not in given["properties"]


def test_both_a_shape_and_a_box_keep_what_the_model_gave() -> None:
    given = placed(feature(imageGeometry={"type": "Point", "coordinates": [5, 5]}, imageBBox=[1, 2, 9, 9]))
    assert given["properties"]["imageGeometry"]["coordinates"] == [1005, 2005]
    assert given["properties"]["imageBBox"] == [1001, 2002, 1009, 2009]


def test_without_a_georeference_the_pixels_are_kept_and_geometry_stays_null() -> None:
    given = placed(feature(imageBBox=[1, 2, 3, 4]), None)
    assert given["geometry"] is None
    assert "bbox" not in given
    assert given["properties"]["imageBBox"] == [1001, 2002, 1003, 2004]


def test_a_geometry_of_the_model_itself_stays() -> None:
    own = {"type": "Point", "coordinates": [1.5, 2.5]}
    given = placed(feature(imageBBox=[1, 2, 3, 4]) | {"geometry": own})
    assert given["geometry"] is own
    assert "bbox" not in given
    assert given["properties"]["imageBBox"] == [1001, 2002, 1003, 2004]


@pytest.mark.parametrize(
    ("box", "outside"),
    [([0, 0, 100, 80], False), ([-1, -1, 101, 81], False), ([-1.5, 0, 9, 9], True), ([0, 0, 9, 81.5], True)],
)
def test_what_lies_outside_its_tile_by_more_than_a_pixel_is_flagged(box: list[float], outside: bool) -> None:
    assert placed(feature(imageBBox=box))["properties"].get("outsideTile", False) is outside


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"imageBBox": [1, 2, 3]}, "imageBBox is [1, 2, 3], not four numbers"),
        ({"imageBBox": ["1", 2, 3, 4]}, "imageBBox is ['1', 2, 3, 4], not four numbers"),
        ({"imageBBox": [math.nan, 2, 3, 4]}, "imageBBox is [nan, 2, 3, 4], not four numbers"),
        ({"imageBBox": {"x": 1}}, "imageBBox is {'x': 1}, not four numbers"),
        ({"imageGeometry": "POINT (1 2)"}, "imageGeometry has the geometry 'POINT (1 2)', which is none"),
        ({"imageGeometry": {"type": "Circle"}}, "imageGeometry has the geometry an object of type 'Circle', which is"),
        ({"imageGeometry": polygon([[0, 0], [1, 1], [0, 0]])}, "less than four positions"),
        ({"imageGeometry": polygon([[0, 0], [1, 0], [1, 1], [0, 1]])}, "it is not closed"),
        ({"bounds_imcoords": "1,2,3,4"}, "bounds_imcoords is '1,2,3,4', not four numbers"),
    ],
)
def test_a_malformed_shape_is_kept_and_flagged(properties: dict[str, Any], complaint: str) -> None:
    given = placed(feature(**copy.deepcopy(properties)))
    assert complaint in given["properties"].pop("placementError")
    assert given["geometry"] is None
    assert to_lines([given["properties"]]) == to_lines([properties])


def test_a_sound_box_stands_in_for_a_malformed_shape() -> None:
    given = placed(feature(imageGeometry={"type": "Circle"}, imageBBox=[1, 2, 3, 4]))
    assert given["geometry"]["type"] == "Polygon"
    assert "Circle" in given["properties"]["placementError"]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_what_is_not_on_the_globe_is_flagged_and_the_others_are_placed(name: str) -> None:
    lost, found = feature(imageBBox=[1e300, 2, 1e300, 3]), feature(imageBBox=[1, 2, 3, 4])
    place([(FIRST, [lost, found])], TRANSFORMERS[name])
    assert lost["geometry"] is None
    assert lost["properties"]["placementError"] == "the shape has no place on the globe"
    assert "placementError" not in found["properties"]


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon", "GeometryCollection"])
@pytest.mark.parametrize("transformer", [DEGREES, DATE_LINE], ids=["plain", "over the date line"])
def test_a_polygon_that_crosses_itself_is_repaired_on_the_globe_alone(kind: str, transformer: Any) -> None:
    bow = [[45, 40], [55, 50], [55, 40], [45, 50], [45, 40]]
    crossed = {
        "Polygon": polygon(bow),
        "MultiPolygon": {"type": "MultiPolygon", "coordinates": [[bow]]},
        "GeometryCollection": {"type": "GeometryCollection", "geometries": [polygon(bow)]},
    }[kind]
    given = placed_shape(copy.deepcopy(crossed), transformer)
    assert given["properties"]["geometryRepaired"] is True
    assert given["properties"]["imageGeometry"] == crossed
    assert shape(given["geometry"]).is_valid
    scale = 0.01 if transformer is DEGREES else 0.1
    assert shape(given["geometry"]).area == pytest.approx(50 * scale**2)


def test_a_polygon_without_area_leaves_what_it_falls_on() -> None:
    given = placed_shape(polygon([[1, 1], [5, 1], [3, 1], [1, 1]]), DEGREES)
    assert shape(given["geometry"]).equals(shapely.LineString([[10.01, 49.99], [10.05, 49.99]]))
    assert given["properties"]["geometryRepaired"] is True


@pytest.mark.parametrize("transformer", [DATE_LINE, MERCATOR], ids=["degrees", "mercator"])
def test_a_shape_over_the_date_line_is_cut_there(transformer: Any) -> None:
    given = placed_shape(polygon(ring(40, 40, 40, 10)), transformer)
    west, south, east, north = given["bbox"]
    assert west > 0 > east
    assert south < north
    whole = shape(given["geometry"])
    assert (whole.geom_type, len(whole.geoms), whole.is_valid) == ("MultiPolygon", 2, True)
    assert sorted(part.bounds[0] for part in whole.geoms) == pytest.approx([-180, west])
    assert sorted(part.bounds[2] for part in whole.geoms) == pytest.approx([east, 180])


@pytest.mark.parametrize(
    ("geometry", "kind"),
    [
        ({"type": "LineString", "coordinates": [[40, 5], [60, 5]]}, "MultiLineString"),
        ({"type": "MultiPoint", "coordinates": [[40, 5], [60, 5]]}, "MultiPoint"),
        ({"type": "Point", "coordinates": [60, 5]}, "Point"),
        ({"type": "MultiPolygon", "coordinates": [[ring(30, 1, 5, 5)], [ring(60, 1, 5, 5)]]}, "MultiPolygon"),
        (polygon(ring(60, 5, 5, 5)), "Polygon"),
        (polygon(ring(50, 5, 5, 5)), "Polygon"),
    ],
)
def test_nothing_lies_beyond_180_degrees(geometry: dict[str, Any], kind: str) -> None:
    given = placed_shape(geometry, DATE_LINE)
    assert given["geometry"]["type"] == kind
    assert np.abs(flat(given["geometry"])[:, 0]).max() <= 180
    assert np.abs([given["bbox"][0], given["bbox"][2]]).max() <= 180


def test_a_shape_with_a_hole_over_the_date_line_keeps_its_hole() -> None:
    given = placed_shape(polygon(ring(40, 40, 20, 20), ring(45, 45, 10, 10)), DATE_LINE)
    assert shape(given["geometry"]).area == pytest.approx((400 - 100) * 0.01)


def test_a_shape_as_wide_as_the_world_does_not_cross_the_date_line() -> None:
    world = Georeference("EPSG:3857", affine=(400_000, 0, -20_000_000, 0, -400_000, 20_000_000)).transformer()
    given = placed_shape(polygon(ring(2, 40, 96, 10)), world)
    assert given["geometry"]["type"] == "Polygon"
    assert given["bbox"][0] < -170
    assert given["bbox"][2] > 170


def test_the_date_line_is_cut_as_the_package_antimeridian_cuts_it() -> None:
    given = placed_shape(polygon([[40, 40], [70, 45], [60, 60], [45, 70], [40, 40]]), DATE_LINE)
    corners = [[179, 16], [-178, 15.5], [-179, 14], [179.5, 13], [179, 16]]
    expected = antimeridian.fix_polygon(shapely.Polygon(corners), fix_winding=True, great_circle=False)
    assert shape(given["geometry"]).symmetric_difference(expected).area < 1e-5
    assert given["bbox"] == pytest.approx(antimeridian.bbox(expected))


@pytest.mark.parametrize(("transformer", "pole"), [(NORTH_POLE, 90), (SOUTH_POLE, -90)])
def test_a_shape_around_a_pole_contains_it(transformer: Any, pole: int) -> None:
    given = placed_shape(polygon(ring(40, 40, 20, 20)), transformer)
    whole = shape(given["geometry"])
    west, south, east, north = given["bbox"]
    assert (west, east) == (-180, 180)
    assert pole in (south, north)
    assert whole.is_valid
    assert all(whole.distance(shapely.Point(longitude, pole)) == 0 for longitude in (-180, -7, 100, 180))
    assert whole.bounds[2] - whole.bounds[0] == 360


def test_a_third_number_has_no_place_in_an_image() -> None:
    given = placed_shape({"type": "LineString", "coordinates": [[1, 2, 3], [4, 5]]}, DEGREES)
    assert given["properties"]["imageGeometry"]["coordinates"] == [[1, 2], [4, 5]]


@pytest.mark.parametrize(
    "empty",
    [
        {"type": "Point", "coordinates": []},
        {"type": "Polygon", "coordinates": []},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": []}]},
    ],
)
def test_an_empty_shape_has_no_place_and_is_no_error(empty: dict[str, Any]) -> None:
    given = placed_shape(copy.deepcopy(empty), UTM)
    assert given["geometry"] is None
    assert given["properties"] == {"imageGeometry": empty}


def test_empty_members_of_a_collection_stay_empty() -> None:
    members = [{"type": "Point", "coordinates": []}, {"type": "Point", "coordinates": [1, 2]}]
    given = placed_shape({"type": "GeometryCollection", "geometries": members}, DEGREES, WINDOW)
    assert given["properties"]["imageGeometry"]["geometries"][1]["coordinates"] == [1001, 2002]
    assert given["geometry"]["geometries"][0]["coordinates"] == []


def test_members_that_are_none_of_a_geometry_stay_and_its_bounding_box_goes() -> None:
    given = placed_shape({"type": "Point", "coordinates": [1, 2], "bbox": [1, 2, 1, 2], "angle": 3}, UTM, WINDOW)
    assert given["properties"]["imageGeometry"] == {"type": "Point", "coordinates": [1001, 2002], "angle": 3}


NUMBERS = st.floats(-20, 120).map(lambda number: round(number, 2))
POSITIONS = st.tuples(NUMBERS, NUMBERS).map(list)
RINGS = st.lists(POSITIONS, min_size=3, max_size=7).map(lambda positions: [*positions, positions[0]])
SHAPES = st.recursive(
    st.one_of(
        st.builds(lambda c: {"type": "Point", "coordinates": c}, POSITIONS),
        st.builds(lambda c: {"type": "MultiPoint", "coordinates": c}, st.lists(POSITIONS, max_size=4)),
        st.builds(lambda c: {"type": "LineString", "coordinates": c}, st.lists(POSITIONS, min_size=2, max_size=5)),
        st.builds(lambda c: {"type": "Polygon", "coordinates": c}, st.lists(RINGS, min_size=1, max_size=3)),
        st.builds(
            lambda c: {"type": "MultiPolygon", "coordinates": c},
            st.lists(st.lists(RINGS, min_size=1, max_size=2), min_size=1, max_size=3),
        ),
    ),
    lambda inner: st.builds(lambda g: {"type": "GeometryCollection", "geometries": g}, st.lists(inner, max_size=3)),
    max_leaves=4,
)


def polygons_of(geometry: dict[str, Any]) -> list[Any]:
    if geometry["type"] == "GeometryCollection":
        return [one for member in geometry["geometries"] for one in polygons_of(member)]
    parts = shapely.get_parts(shape(geometry))
    return [part for part in parts if part.geom_type == "Polygon"]


@given(st.lists(SHAPES, max_size=5), st.sampled_from(sorted(TRANSFORMERS)))
@example([polygon([[0, 0], [0, 0], [0, 0], [0, 0]])], "date line")
@example([polygon(ring(50, 0, 0, 10))], "date line")
def test_whatever_the_shapes_are_the_result_is_sound(shapes: list[dict[str, Any]], name: str) -> None:
    features = [feature(imageGeometry=copy.deepcopy(one)) for one in shapes]
    place([(FIRST, features)], TRANSFORMERS[name])
    body = json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)
    for one in parse(body.encode()):
        if one["geometry"] is None:
            continue
        check_geometry(one["geometry"])
        check_bbox(one)
        assert_within(one["geometry"], one["bbox"])
        for found in polygons_of(one["geometry"]):
            assert found.is_valid
            assert found.is_empty or found.exterior.is_ccw
            assert not any(hole.is_ccw for hole in found.interiors)


def assert_within(geometry: dict[str, Any], bbox: list[float]) -> None:
    west, south, east, north = bbox
    longitude, latitude = flat(geometry).T
    within = (longitude >= west - 2e-8) & (longitude <= east + 2e-8)
    if west > east:
        within = (longitude >= west - 2e-8) | (longitude <= east + 2e-8)
    assert within.all()
    assert ((latitude >= south - 2e-8) & (latitude <= north + 2e-8)).all()
    assert np.abs(longitude).max(initial=0) <= 180
    assert np.abs(latitude).max(initial=0) <= 90


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["Point", "Polygon", "MultiPolygon", "GeometryCollection", "LineString"])},
            optional={"coordinates": inner, "geometries": inner, "bbox": inner},
        )
    ),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING, ANYTHING, st.sampled_from([None, *TRANSFORMERS.values()]))
def test_no_answer_of_a_model_is_an_error(image_geometry: Any, box: Any, older: Any, transformer: Any) -> None:
    given = feature(imageGeometry=image_geometry, imageBBox=box, bounds_imcoords=older)
    place([(WINDOW, [given])], transformer)
    to_lines([given])
