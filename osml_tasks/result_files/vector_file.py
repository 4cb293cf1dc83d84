"""Features as FlatGeobuf, GeoPackage or GeoParquet: read twice from a result's lines, some thousand in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet
import shapely

from osml_tasks.errors import VectorFileError
from osml_tasks.features import Feature
from osml_tasks.one_line import in_one_line
from osml_tasks.result_files.columns import Column, Layout, Storage, row_of, survey
from osml_tasks.result_files.lines import read_features
from osml_tasks.result_files.target import FileFormat

_GEOMETRY = "geometry"
_MOST_FEATURES = 1_000
_MOST_BYTES = 16 * 1024 * 1024
"""How much is made into columns at a time, B of lines."""
_ROW_GROUP_BYTES = 64 * 1024 * 1024
"""From which size on columns are written to GeoParquet as a group, B in memory."""
_TYPES = {
    Storage.BOOLEAN: pa.bool_(),
    Storage.INTEGER: pa.int64(),
    Storage.REAL: pa.float64(),
    Storage.TEXT: pa.string(),
    Storage.JSON: pa.string(),
}
_DRIVERS = {FileFormat.FLATGEOBUF: "FlatGeobuf", FileFormat.GEOPACKAGE: "GPKG"}
_NO_LAYER = re.compile(r"gpkg|sqlite_|[^\w ]", re.IGNORECASE)
"""How no layer's name may begin in a GeoPackage."""


def write_vector_file(collection: Path, file: Path, file_format: FileFormat, layer: str) -> None:
    """Write the features of a result in one of the formats that are no text.

    Coordinates are WGS 84 longitudes and latitudes. Each property is a column; lists, objects and values of several
    kinds are JSON text in it. Where no property is called so, ``class`` and ``score`` are those of the best class.

    :param collection: GeoJSON with one feature a line.
    :param layer: what the table is called in the file.
    :raises VectorFileError: the format cannot hold them, or the file cannot be written.
    :raises OSError: the collection cannot be read, or the file not be written.
    """
    layout = survey(read_features(collection))
    write = _write_parquet if file_format is FileFormat.GEOPARQUET else _write_by_gdal
    write(collection, file, file_format, layer, layout)


def _write_parquet(collection: Path, file: Path, _: FileFormat, __: str, layout: Layout) -> None:
    schema = _schema(layout)
    extent = _Extent()
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        group: list[pa.RecordBatch] = []
        for features in _batches(read_features(collection)):
            shapes = _shapes(features)
            extent.add(shapes)
            group.append(_table(features, shapely.to_wkb(shapes, flavor="iso"), layout.columns, schema))
            if sum(batch.nbytes for batch in group) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group, schema))
                group = []
        writer.write_table(pa.Table.from_batches(group, schema))
        # No CRS is written: that is OGC:CRS84, which GeoJSON has.
        column = {"encoding": "WKB", **extent.said}
        head = {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}
        writer.add_key_value_metadata({"geo": orjson.dumps(head).decode()})


class _Extent:
    """Which types of geometries GeoParquet is told of, and the box around them."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._box = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def add(self, shapes: Any) -> None:
        some = shapes[~shapely.is_missing(shapes)]
        self._kinds |= {f"{shape.geom_type} Z" if shape.has_z else shape.geom_type for shape in some}
        if not len(some):
            return
        bounds = shapely.total_bounds(some)
        self._box = np.concatenate((np.fmin(self._box[:2], bounds[:2]), np.fmax(self._box[2:], bounds[2:])))

    @property
    def said(self) -> dict[str, Any]:
        """Types and box; no box around nothing."""
        box = {"bbox": self._box.tolist()} if np.isfinite(self._box).all() else {}
        return {"geometry_types": sorted(self._kinds), **box}


def _write_by_gdal(collection: Path, file: Path, file_format: FileFormat, layer: str, layout: Layout) -> None:
    import pyogrio

    kind = _layer_type(layout)
    keeps_heights = file_format is FileFormat.GEOPACKAGE or kind.endswith(" Z")
    schema = _schema(layout)
    raised: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for features in _batches(read_features(collection)):
                wkb = shapely.to_wkb(_shapes(features), output_dimension=3 if keeps_heights else 2, flavor="iso")
                yield _table(features, wkb, layout.columns, schema)
        except (Exception, KeyboardInterrupt) as error:
            raised.append(error)  # GDAL says no more than that there was one
            raise

    options = {"SPATIAL_INDEX": "NO"} if file_format is FileFormat.FLATGEOBUF and layout.has_blanks else {}
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches()),
            file,
            layer=f"_{layer}" if _NO_LAYER.match(layer) else layer,
            driver=_DRIVERS[file_format],
            geometry_name=_GEOMETRY,
            geometry_type=kind,
            crs="EPSG:4326",
            layer_options=options,
        )
        written = pyogrio.read_info(file, force_feature_count=True)["features"]
    except RuntimeError as error:
        if raised:
            raise raised[0] from None
        raise VectorFileError(f"GDAL cannot write them: {in_one_line(str(error))}") from error
    if written != layout.features:
        raise VectorFileError(f"GDAL has written {written:,} of {layout.features:,} features")


def _layer_type(layout: Layout) -> str:
    """The one type that all geometries have; ``Unknown`` is GDAL's word for any."""
    if len(layout.geometries) != 1:
        return "Unknown"
    ((kind, has_heights),) = layout.geometries
    return f"{kind} Z" if has_heights else kind


def _schema(layout: Layout) -> pa.Schema:
    fields = [pa.field(column.name, _TYPES[column.storage]) for column in layout.columns]
    return pa.schema([pa.field(_GEOMETRY, pa.binary()), *fields])


def _table(features: list[Feature], wkb: Any, columns: Iterable[Column], schema: pa.Schema) -> pa.RecordBatch:
    rows = [row_of(feature) for feature in features]
    arrays = [pa.array([column.value(row) for row in rows], _TYPES[column.storage]) for column in columns]
    return pa.record_batch([pa.array(wkb, pa.binary()), *arrays], schema=schema)


def _batches(lines: Iterable[bytes]) -> Iterator[list[Feature]]:
    features: list[Feature] = []
    size = 0
    for line in lines:
        features.append(orjson.loads(line))
        size += len(line)
        if len(features) >= _MOST_FEATURES or size >= _MOST_BYTES:
            yield features
            features, size = [], 0
    if features:
        yield features


def _shapes(features: list[Feature]) -> Any:
    """The geometries of some features; None for one that is empty, which not every format takes."""
    texts = np.array([_text(feature["geometry"]) for feature in features], dtype=object)
    try:
        shapes = shapely.from_geojson(texts)
    except shapely.errors.GEOSException:
        shapes = np.array([_shape(feature["geometry"]) for feature in features], dtype=object)
    shapes[shapely.is_empty(shapes)] = None
    return shapes


def _text(geometry: dict[str, Any] | None) -> str | None:
    return None if geometry is None else orjson.dumps(geometry).decode()


def _shape(geometry: dict[str, Any] | None) -> Any:
    """The same of one geometry whose positions may have more than three numbers, of which no format takes the rest."""
    try:
        return shapely.from_geojson(_text(_in_three(geometry)))
    except shapely.errors.GEOSException as error:
        raise VectorFileError(f"a geometry cannot be written: {in_one_line(str(error))}") from error


def _in_three(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_three(member) for key, member in value.items()}
    if isinstance(value, list):
        nested = not value or isinstance(value[0], list | dict)
        return [_in_three(member) for member in value] if nested else value[:3]
    return value
