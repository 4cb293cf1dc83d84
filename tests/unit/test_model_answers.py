"""Answers of models, well and badly made: each gives the features that it has, or one clear line."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import geojson
import pytest
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from osml_tasks.errors import UnparsableOutputError
from osml_tasks.features import COLLECTION_HEAD, COLLECTION_TAIL, add_provenance, join_lines, parse, source_of, to_lines

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FAST = settings(deadline=None, max_examples=150, derandomize=True)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

POSITIONS = st.tuples(NUMBERS, NUMBERS).map(list) | st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list)
LINES = st.lists(POSITIONS, min_size=2, max_size=4)
RINGS = st.lists(POSITIONS, min_size=3, max_size=5).map(lambda ring: [*ring, ring[0]])
POLYGONS = st.lists(RINGS, min_size=1, max_size=2)
COORDINATES = {
    "Point": POSITIONS,
    "MultiPoint": st.lists(POSITIONS, max_size=3),
    "LineString": LINES,
    "MultiLineString": st.lists(LINES, max_size=2),
    "Polygon": POLYGONS,
    "MultiPolygon": st.lists(POLYGONS, max_size=2),
}
PLAIN_GEOMETRIES = st.sampled_from(sorted(COORDINATES)).flatmap(
    lambda kind: st.fixed_dictionaries({"type": st.just(kind), "coordinates": COORDINATES[kind] | st.just([])})
)
GEOMETRIES = st.recursive(
    PLAIN_GEOMETRIES,
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("GeometryCollection"), "geometries": st.lists(inner, max_size=2)}
    ),
    max_leaves=3,
)
FEATURES = st.fixed_dictionaries(
    {"type": st.just("Feature"), "geometry": st.none() | GEOMETRIES, "properties": st.dictionaries(st.text(), JSON)},
    optional={"id": st.text() | NUMBERS, "bbox": st.lists(NUMBERS, min_size=4, max_size=4), "foreign": JSON},
)
ODD_GEOMETRIES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*COORDINATES, "GeometryCollection", "Circle"]) | JSON,
        "coordinates": JSON | st.lists(JSON | POSITIONS | RINGS | POLYGONS, max_size=3),
        "geometries": JSON | st.lists(PLAIN_GEOMETRIES | JSON, max_size=2),
        "bbox": JSON | st.lists(NUMBERS | JSON, max_size=6),
    },
)
ODD_FEATURES = st.fixed_dictionaries(
    {"type": st.just("Feature")},
    optional={
        "geometry": ODD_GEOMETRIES | GEOMETRIES | JSON,
        "properties": st.none()
        | st.dictionaries(st.text(max_size=5), JSON, max_size=2)
        | st.fixed_dictionaries({}, optional={"inferenceMetadata": JSON, "sourceMetadata": JSON}),
        "id": JSON | st.integers(),
        "bbox": JSON,
        "crs": JSON,
    },
)
ANY_BYTES = st.binary(max_size=100) | st.text(max_size=100).map(str.encode) | JSON.map(json.dumps).map(str.encode)


def answer(*features: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def strictly(text: bytes) -> Any:
    """Read JSON as the standard has it, without Python's own extensions."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text.decode("utf-8", "strict"), parse_constant=refuse)


def result_of(body: bytes) -> list[dict[str, Any]]:
    """The features as a reader of the result finds them."""
    features = parse(body)
    add_provenance(features, job_id="job", source=source_of("a.png"), inferred=MOMENT)
    lines = to_lines(features)
    assert lines.count(b"\n") == len(features)
    collection = strictly(COLLECTION_HEAD + b"".join(join_lines([lines])) + COLLECTION_TAIL)
    assert geojson.loads(json.dumps(collection))["type"] == "FeatureCollection"
    return list(collection["features"])


def complaint(body: bytes) -> str:
    with pytest.raises(UnparsableOutputError) as caught:
        parse(body)
    text = str(caught.value)
    assert text.isprintable()
    assert 0 < len(text) <= 300
    return text


def shallow(geometry: Any) -> list[Any]:
    """A geometry, or those of a collection, to the bottom."""
    if geometry is None or geometry["type"] != "GeometryCollection":
        return [geometry]
    return [inner for one in geometry["geometries"] for inner in shallow(one)]


def is_sound(geometry: Any) -> bool:
    """Whether every coordinate is a number in the nesting of its type, as said here once more and slowly."""
    depths = {"Point": 1, "MultiPoint": 2, "LineString": 2, "MultiLineString": 3, "Polygon": 3, "MultiPolygon": 4}

    def nested(value: Any, depth: int) -> bool:
        if depth == 0:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return isinstance(value, list) and bool(value) and all(nested(inner, depth - 1) for inner in value)

    coordinates = geometry["coordinates"]
    return coordinates == [] or nested(coordinates, depths[geometry["type"]])


@FAST
@given(st.lists(FEATURES, max_size=3))
def test_what_geojson_allows_passes_through_as_it_was(features: list[dict[str, Any]]) -> None:
    body = answer(*features)
    for given_one, found in zip(strictly(body)["features"], result_of(body), strict=True):
        expected = given_one["properties"]
        assert {**found, "properties": None} == {**given_one, "properties": None}
        added = {"inferenceMetadata", "sourceMetadata"}
        assert {name: value for name, value in found["properties"].items() if name not in added} == {
            name: value for name, value in expected.items() if name not in added
        }


@FAST
@given(st.lists(ODD_FEATURES | FEATURES | JSON, max_size=3))
def test_odd_features_give_a_sound_result_or_one_line_that_names_the_feature(features: list[Any]) -> None:
    try:
        result = result_of(answer(*features))
    except UnparsableOutputError as error:
        assert str(error).startswith("features[")
        assert str(error).isprintable()
        return
    for feature in result:
        assert isinstance(feature["properties"], dict)
        assert isinstance(feature.get("id", ""), str | int | float)
        assert all(geometry is None or is_sound(geometry) for geometry in shallow(feature["geometry"]))


@FAST
@given(ANY_BYTES)
def test_any_bytes_give_features_or_one_short_line(body: bytes) -> None:
    try:
        result_of(body)
    except UnparsableOutputError as error:
        assert str(error).isprintable()
        assert len(str(error)) <= 300


@settings(FAST, max_examples=60)
@given(GEOMETRIES)
def test_what_passes_is_a_geometry_to_other_programs_too(geometry: dict[str, Any]) -> None:
    (feature,) = result_of(answer({"type": "Feature", "geometry": geometry}))
    for one in shallow(feature["geometry"]):
        assert geojson.GeoJSON.to_instance(one).is_valid or one["coordinates"] == []


def test_geometries_of_every_type_are_read_by_shapely() -> None:
    ring = [[0, 0], [4, 0], [4, 4], [0, 0]]
    shapes = {
        "Point": [1, 2.5],
        "MultiPoint": [[1, 2], [3, 4]],
        "LineString": [[1, 2], [3, 4]],
        "MultiLineString": [[[1, 2], [3, 4]]],
        "Polygon": [ring, ring],
        "MultiPolygon": [[ring], [ring]],
    }
    geometries: list[dict[str, Any]] = [{"type": kind, "coordinates": value} for kind, value in shapes.items()]
    geometries += [{"type": kind, "coordinates": []} for kind in shapes]
    geometries.append({"type": "GeometryCollection", "geometries": geometries.copy()})
    found = result_of(answer(*({"type": "Feature", "geometry": geometry} for geometry in geometries)))
    assert [shapely.geometry.shape(feature["geometry"]).geom_type for feature in found] == [
        geometry["type"] for geometry in geometries
    ]


RING = [[0, 0], [4, 0], [4, 4], [0, 0]]


@pytest.mark.parametrize(
    ("kind", "coordinates", "said"),
    [
        ("Point", ["a", 1], "the position ['a', 1], not two or more numbers"),
        ("Point", [1], "the position [1]"),
        ("Point", [True, 1], "the position [True, 1]"),
        ("Point", [[1, 2]], "the position [[1, 2]]"),
        ("Point", {"x": 1}, "whose coordinates are {'x': 1}, not a list"),
        ("Point", None, "whose coordinates are None"),
        ("MultiPoint", [[1, 2], 3], "the position 3"),
        ("MultiPoint", [[1, 2], []], "the position []"),
        ("LineString", [[1, 2]], "less than two positions"),
        ("LineString", [[1, 2], [1, False]], "the position [1, False]"),
        ("LineString", [[1, 2], {"x": 1, "y": 2}], "the position {'x': 1, 'y': 2}"),
        ("MultiLineString", [[[1, 2], [3, 4]], []], "less than two positions"),
        ("MultiLineString", [[1, 2], [3, 4]], "the position 1"),
        ("Polygon", ["abcd"], "'abcd' where a list of positions should be"),
        ("Polygon", RING, "the position 0"),
        ("Polygon", [RING[:3]], "less than four positions"),
        ("Polygon", [[*RING[:3], [0, 1]]], "begins at [0, 0] and ends at [0, 1]: it is not closed"),
        ("Polygon", [RING, []], "less than four positions"),
        ("MultiPolygon", [[RING], []], "[] where a list of coordinates should be"),
        ("MultiPolygon", [RING], "the position 0"),
        ("MultiPolygon", [[[*RING[:2], [4, None], RING[3]]]], "the position [4, None]"),
    ],
)
def test_wrong_coordinates_are_named_with_the_feature_and_the_geometry(kind: str, coordinates: Any, said: str) -> None:
    good = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    bad = {"type": kind, "coordinates": coordinates}
    collected = {"type": "GeometryCollection", "geometries": [good["geometry"], bad]}
    for geometry in (bad, collected):
        text = complaint(answer(good, good, {"type": "Feature", "geometry": geometry}))
        assert text.startswith(f"features[2] has a {kind} ")
        assert said in text


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ({"geometry": {"type": "Circle", "coordinates": []}}, "the geometry an object of type 'Circle', which is none"),
        ({"geometry": "POINT (1 2)"}, "the geometry 'POINT (1 2)', which is none"),
        ({"geometry": {"type": "GeometryCollection"}}, "whose geometries are None"),
        ({"geometry": {"type": "GeometryCollection", "geometries": [None]}}, "the geometry None"),
        ({"geometry": {"type": "Feature", "geometry": None}}, "the geometry an object of type 'Feature'"),
        ({"properties": []}, "has the properties [], not an object"),
        ({"properties": "x\ny"}, r"has the properties 'x\ny', not an object"),
        ({"id": True}, "has the id True, not a string or a number"),
        ({"id": {"$oid": "1"}}, "has the id {'$oid': '1'}"),
        ({"bbox": [1, 2, 3]}, "has the bbox [1, 2, 3], not four numbers, or six"),
        ({"bbox": [1, 2, "3", 4]}, "has the bbox [1, 2, '3', 4]"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2], "bbox": "all"}}, "has the bbox 'all'"),
    ],
)
def test_a_wrong_member_is_named_with_the_feature(feature: dict[str, Any], said: str) -> None:
    text = complaint(answer({"type": "Feature"}, {"type": "Feature"} | feature))
    assert text.startswith("features[1] has ")
    assert said in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the output is not JSON: "),
        (b"<html><body>502 Bad Gateway</body></html>", "begins with b'<html><body>502 Bad '"),
        (gzip.compress(answer(), mtime=0), r"begins with b'\x1f\x8b"),
        (answer()[:-3], "not JSON"),
        (answer() + answer(), "not JSON"),
        (answer().decode().encode("utf-16"), "not JSON"),
        (answer({"type": "Feature", "id": "x"}).replace(b"x", b"\xff"), "not valid UTF-8"),
        (answer({"type": "Feature", "id": "x"}).replace(b"x", b"\\ud800"), "surrogate"),
        (answer({"type": "Feature", "id": 1}).replace(b"1", b"1e400"), "infinity"),
        (answer({"type": "Feature", "id": 1}).replace(b"1", b"1" * 400), "infinity"),
        (answer({"type": "Feature", "id": 1}).replace(b"1", b"-Infinity"), "not JSON"),
        (b'{"type":"FeatureCollection","features":[{1:2}]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"type":"GeometryCollection","geometries":[]}', "an object of type 'GeometryCollection'"),
        (b'{"type":"Feature","geometry":null,"properties":null}', "an object of type 'Feature'"),
        (b'{"type":"FeatureCollection","features":null}', "'features' is not a list but None"),
        (b'{"type":"FeatureCollection","features":{}}', "'features' is not a list but {}"),
        (b'"FeatureCollection"', "not a FeatureCollection but 'FeatureCollection'"),
        (b"null", "not a FeatureCollection but None"),
    ],
)
def test_what_is_no_feature_collection_is_refused_by_what_it_is(body: bytes, said: str) -> None:
    assert said in complaint(body)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert len(result_of(b"\xef\xbb\xbf" + answer({"type": "Feature"}))) == 1


def test_null_members_that_geojson_does_not_know_are_left_out() -> None:
    point = {"type": "Point", "coordinates": [1, 2]}
    (feature,) = parse(answer({"type": "Feature", "id": None, "bbox": None, "geometry": point | {"bbox": None}}))
    assert feature == {"type": "Feature", "geometry": point, "properties": {}}


def test_ids_that_are_there_twice_stay_and_of_a_member_that_is_the_last_counts() -> None:
    twice = [{"type": "Feature", "id": 7}] * 2
    assert [feature["id"] for feature in result_of(answer(*twice))] == [7, 7]
    body = b'{"type":"FeatureCollection","features":0,"features":[{"type":"Feature","id":1,"id":2}]}'
    assert [feature["id"] for feature in result_of(body)] == [2]


def test_members_of_the_collection_are_of_one_tile_and_end_with_it() -> None:
    body = json.loads(answer({"type": "Feature"})) | {"crs": {"type": "name"}, "bbox": "?", "name": [1]}
    assert len(result_of(json.dumps(body).encode())) == 1


@pytest.mark.parametrize("text", ["a\nb", "\r\n", "\u2028\u2029\x85", "\x00\x1b[31m", "\U0001f6a2", "\ufeff", "\u202e"])
def test_no_text_of_a_model_breaks_a_line_of_the_part(text: str) -> None:
    feature = {"type": "Feature", "id": text, "properties": {text: text}}
    (found,) = result_of(answer(feature))
    assert (found["id"], found["properties"][text]) == (text, text)


@pytest.mark.parametrize(("number", "read"), [(b"18446744073709551615", 2**64 - 1), (b"18446744073709551616", 2.0**64)])
def test_integers_beyond_64_bits_keep_the_precision_of_a_double(number: bytes, read: float) -> None:
    (found,) = result_of(answer({"type": "Feature", "properties": {"n": 1}}).replace(b": 1", b": " + number))
    assert found["properties"]["n"] == read


@pytest.mark.parametrize(
    "pixels",
    [
        None,
        "x",
        [],
        ["a", 1],
        {"type": "Circle"},
        {"type": "Polygon", "coordinates": [[[0, 0]]]},
        [1, 2],
        {"a": [None]},
    ],
)
def test_pixels_are_the_models_own_whatever_they_are(pixels: Any) -> None:
    properties = {"imageGeometry": pixels, "imageBBox": pixels, "bounds_imcoords": pixels}
    (found,) = result_of(answer({"type": "Feature", "geometry": None, "properties": properties}))
    assert found["properties"].items() >= properties.items()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", range(240, 260))
@pytest.mark.parametrize("member", ["deep", "sourceMetadata", "inferenceMetadata", "imageGeometry"])
def test_what_is_parsed_can_be_written_at_every_depth(depth: int, member: str) -> None:
    for value in (nested(depth), {"a": nested(depth - 1)}):
        body = answer({"type": "Feature"}, {"type": "Feature", "properties": {member: value}})
        try:
            assert len(result_of(body)) == 2
        except UnparsableOutputError as error:
            assert depth > 245
            assert str(error) == "features[1] is nested more than 250 levels deep"


@pytest.mark.parametrize("depth", [100, 300, 500])
def test_collections_of_collections_end_somewhere(depth: int) -> None:
    opened = '{"type":"GeometryCollection","geometries":[' * depth
    features = '{"type":"Feature","geometry":' + opened + "]}" * depth + "}"
    body = ('{"type":"FeatureCollection","features":[' + features + "]}").encode()
    if depth < 120:
        assert len(result_of(body)) == 1
    else:
        assert "deep" in complaint(body)
