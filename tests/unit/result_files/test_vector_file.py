"""Results as FlatGeobuf, GeoPackage and GeoParquet: the same features, as other programs read them."""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas
import orjson
import pyarrow.parquet
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from osml_tasks.errors import VectorFileError
from osml_tasks.features import Feature
from osml_tasks.result_files import vector_file
from osml_tasks.result_files.target import FileFormat
from osml_tasks.result_files.vector_file import write_vector_file
from tests.unit.result_files.collections import feature, point, write_collection

FORMATS = [FileFormat.FLATGEOBUF, FileFormat.GEOPACKAGE, FileFormat.GEOPARQUET]
SQUARE = {"type": "Polygon", "coordinates": [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]]}
SHAPES: list[dict[str, Any] | None] = [
    point(-179.5, 89.25),
    {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]},
    {"type": "LineString", "coordinates": [[1, 2], [3, 4]]},
    {"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]},
    SQUARE,
    {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
    {"type": "GeometryCollection", "geometries": [point(1, 2), SQUARE]},
]
every_format = pytest.mark.parametrize("file_format", FORMATS)


def written(directory: Path, file_format: FileFormat, features: Sequence[Feature], layer: str = "ships") -> Path:
    file = directory / f"out.{file_format}"
    write_vector_file(write_collection(directory, features), file, file_format, layer)
    return file


def read(file: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(file) if file.suffix == ".parquet" else pyogrio.read_dataframe(file)


def table(directory: Path, file_format: FileFormat, features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The columns of each feature as Python's own values, but for its geometry; in the features' order."""
    read_back = read(written(directory, file_format, features))
    rows = [dict(zip(read_back.columns, row, strict=True)) for row in read_back.itertuples(index=False, name=None)]
    return [{name: plain(value) for name, value in row.items() if name != "geometry"} for row in rows]


def plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


@every_format
def test_features_of_all_types_are_where_they_were(tmp_path: Path, file_format: FileFormat) -> None:
    found = read(written(tmp_path, file_format, [feature(shape, n=n) for n, shape in enumerate(SHAPES)]))
    found = found.sort_values("n")
    assert [shape.__geo_interface__["type"] for shape in found.geometry] == [shape["type"] for shape in SHAPES if shape]
    assert all(a.equals(shapely.geometry.shape(b)) for a, b in zip(found.geometry, SHAPES, strict=True))
    assert found.crs.to_authority() in (("EPSG", "4326"), ("OGC", "CRS84"))
    assert found.total_bounds.tolist() == [-179.5, 0.0, 3.0, 89.25]


@every_format
def test_geometries_that_are_null_or_empty_keep_their_features(tmp_path: Path, file_format: FileFormat) -> None:
    empty = [{"type": kind, "coordinates": []} for kind in ("Point", "Polygon", "MultiPolygon")]
    empty.append({"type": "GeometryCollection", "geometries": [empty[0]]})
    for shapes in ([None, point(1, 2), *empty], [None, None], [empty[0]]):
        found = read(written(tmp_path, file_format, [feature(shape, n=n) for n, shape in enumerate(shapes)]))
        places = [None if shape is None or shape.is_empty else shape.wkt for shape in found.sort_values("n").geometry]
        assert places == [None if shape != point(1, 2) else "POINT (1 2)" for shape in shapes]


@every_format
def test_no_features_are_a_file_with_none(tmp_path: Path, file_format: FileFormat) -> None:
    found = read(written(tmp_path, file_format, []))
    assert len(found) == 0
    assert [*found.columns] == ["class", "score", "geometry"] or [*found.columns] == ["geometry", "class", "score"]


@every_format
def test_heights_stay_where_all_have_them_and_other_ordinates_go(tmp_path: Path, file_format: FileFormat) -> None:
    high = [{"type": "Point", "coordinates": [1.0, 2.0, height, *rest]} for height, rest in ((3.0, ()), (4.0, (5.0,)))]
    found = read(written(tmp_path, file_format, [feature(shape) for shape in high]))
    assert sorted(shape.z for shape in found.geometry) == [3.0, 4.0]
    mixed = read(written(tmp_path, file_format, [feature(high[0]), feature(SQUARE), feature(point(5, 6))]))
    # FlatGeobuf has heights for all of a file or for none.
    assert mixed.geometry.has_z.sum() == (0 if file_format is FileFormat.FLATGEOBUF else 1)


@every_format
def test_the_best_class_is_in_columns_of_its_own(tmp_path: Path, file_format: FileFormat) -> None:
    classes = [{"iri": "boat", "score": 0.25}, {"iri": "ship", "score": 0.75}]
    features = [feature(point(0, 0), featureClasses=classes), feature(point(0, 0), feature_types={"buoy": 0.5})]
    rows = table(tmp_path, file_format, [*features, feature(point(0, 0))])
    found = {(row["class"], row["score"]) for row in rows}
    assert found == {("ship", 0.75), ("buoy", 0.5), (None, None)}
    (texts,) = {row["featureClasses"] for row in rows} - {None}
    assert orjson.loads(texts) == classes


@every_format
def test_a_class_that_the_model_gave_itself_stays(tmp_path: Path, file_format: FileFormat) -> None:
    one = feature(point(0, 0), featureClasses=[{"iri": "ship", "score": 1}], Class=7)
    (row,) = table(tmp_path, file_format, [one])
    assert (row["Class"], row["score"], "class" in row) == (7, 1.0, False)


@every_format
def test_ids_are_kept_beside_a_property_of_that_name(tmp_path: Path, file_format: FileFormat) -> None:
    (row,) = table(tmp_path, file_format, [feature(point(0, 0), ID="mine") | {"id": 7}])
    assert (row["ID"], row["id_2"]) == ("mine", 7)
    (row,) = table(tmp_path, file_format, [feature(point(0, 0)) | {"id": "seven"}])
    assert row["id"] == "seven"


@every_format
def test_columns_are_of_the_kind_that_all_values_are(tmp_path: Path, file_format: FileFormat) -> None:
    values: dict[str, list[Any]] = {
        "truths": [True, None],
        "whole": [1, -(2**63)],
        "real": [1, 0.1],
        "text": ["ä\n\u2028", ""],
        "lists": [[1, {"a": None}], {"b": []}],
        "mixed": [1, "1"],
        "true and 1": [True, 1],
        "beyond": [2**64 - 1, 1],
        "large and real": [2**53 + 1, 0.5],
        "ends": ["a\0b", "c"],
        "nothing": [None, None],
    }
    as_text = {"lists", "mixed", "true and 1", "beyond", "large and real", "ends"}
    features = [feature(point(0, 0), n=n, **{name: pair[n] for name, pair in values.items()}) for n in (0, 1)]
    rows = sorted(table(tmp_path, file_format, features), key=lambda row: row["n"])
    for name, pair in values.items():
        found = [row[name] for row in rows]
        assert [orjson.loads(text) for text in found] == pair if name in as_text else found == pair, name


@every_format
def test_properties_that_some_features_lack_are_null_there(tmp_path: Path, file_format: FileFormat) -> None:
    rows = table(tmp_path, file_format, [feature(point(0, 0), a=1), feature(point(0, 0), b="x")])
    assert sorted(((row["a"], row["b"]) for row in rows), key=str) == [(1, None), (None, "x")]


NAMES = ("fid", "FID", "geom", "Geometry", "geometry_2", "ogc_fid", "wkb_geometry", "a", "A", "a_2", "", " ", "id")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=5,
)
PROPERTIES = st.dictionaries(
    st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES, max_size=6
)


@every_format
@settings(max_examples=60)
@given(given_properties=st.lists(PROPERTIES, min_size=1, max_size=3))
def test_whatever_properties_there_are_each_is_in_a_column(
    file_format: FileFormat, given_properties: list[dict[str, Any]]
) -> None:
    features = [
        {"type": "Feature", "geometry": None, "properties": properties | {"place in the list": n}}
        for n, properties in enumerate(given_properties)
    ]
    with TemporaryDirectory() as directory:
        rows = table(Path(directory), file_format, features)
    rows.sort(key=lambda row: row["place in the list"])
    for row, properties in zip(rows, given_properties, strict=True):
        found = sorted((text(value) for value in row.values() if value is not None), key=repr)
        # Numbers of a column that has both kinds are all of one.
        expected = [text(value) for value in [*properties.values(), row["place in the list"]] if value is not None]
        added = [text(row[name]) for name in ("class", "score") if name in row and row[name] is not None]
        assert len(found) == len(expected) + (0 if _names_class(given_properties) else len(added))
        assert set(expected) <= set(found)


def _names_class(all_properties: list[dict[str, Any]]) -> bool:
    return any(name.casefold() in ("class", "score") for properties in all_properties for name in properties)


def text(value: Any) -> object:
    """A value as it compares, whether or not its column had to keep it as JSON."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    if isinstance(value, str):
        return value
    # Pandas has truth values as numbers where some are missing.
    return float(value) if isinstance(value, int | float) else orjson.dumps(value)


def test_geoparquet_says_what_it_is(tmp_path: Path) -> None:
    high = {"type": "Point", "coordinates": [5.0, 6.0, 7.0]}
    file = written(tmp_path, FileFormat.GEOPARQUET, [feature(SQUARE), feature(None), feature(high)])
    said = orjson.loads(pyarrow.parquet.read_metadata(file).metadata[b"geo"])
    assert said == {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {"encoding": "WKB", "geometry_types": ["Point Z", "Polygon"], "bbox": [0.0, 0.0, 5.0, 6.0]}
        },
    }


@pytest.mark.parametrize("layer", ["ships", "ä b.c", 'a"b', "gpkg_a", "SQLite_a", "rtree_a", "-"])
@pytest.mark.parametrize("file_format", FORMATS[:2])
def test_the_layer_is_called_as_the_file(tmp_path: Path, file_format: FileFormat, layer: str) -> None:
    file = written(tmp_path, file_format, [feature(point(1, 2))], layer)
    assert pyogrio.list_layers(file)[0][0] in (layer, f"_{layer}")
    assert len(read(file)) == 1


@every_format
def test_more_than_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: FileFormat) -> None:
    monkeypatch.setattr(vector_file, "_MOST_FEATURES", 10)
    rows = table(tmp_path, file_format, [feature(point(n, n), n=n) for n in range(35)])
    assert sorted(row["n"] for row in rows) == [*range(35)]
    if file_format is not FileFormat.FLATGEOBUF:  # which puts near what is near
        assert [row["n"] for row in rows] == [*range(35)]


@every_format
def test_what_fails_in_between_is_what_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: FileFormat
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vector_file, "_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, file_format, [feature(point(0, 0))])


@every_format
def test_a_full_disk_is_said_not_taken_for_the_end(tmp_path: Path, file_format: FileFormat) -> None:
    features = [feature(point(n, n), text=str(n) * 100) for n in range(3_000)]
    collection = write_collection(tmp_path, features)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises((VectorFileError, OSError)):
            write_vector_file(collection, tmp_path / f"out.{file_format}", file_format, "ships")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@every_format
def test_more_names_than_a_table_has_columns_are_refused(tmp_path: Path, file_format: FileFormat) -> None:
    features = [feature(None, **{f"p{n}": n for n in range(first, first + 1_000)}) for first in (0, 1_000)]
    with pytest.raises(VectorFileError, match="more than 1,900 names"):
        written(tmp_path, file_format, features)
