"""What a model answers, and how it becomes GeoJSON: parse one output, write one feature a line.

The convention is that of the OversightML Model Runner: a FeatureCollection whose features may have
``geometry: null`` and carry pixels in ``properties.imageGeometry`` or ``properties.imageBBox``.
Whatever else a model puts into ``properties`` passes through untouched.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import orjson

from osml_tasks.errors import UnparsableOutputError

Feature = dict[str, Any]

COLLECTION_HEAD = b'{"type":"FeatureCollection","features":[\n'
COLLECTION_TAIL = b"\n]}\n"

MAX_DEPTH = 200
"""How deep a model's answer may be nested; orjson writes 254 levels."""

# RFC 7946, section 1.4.
_GEOMETRY_TYPES = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection"}
)
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "GTIFF",
    ".tiff": "GTIFF",
    ".ntf": "NITF",
    ".nitf": "NITF",
    ".jp2": "JP2",
}


def check_size(size: int, limit: int) -> None:
    """Refuse an output by its size, before it is read; both in bytes.

    :raises UnparsableOutputError: it has more than the limit.
    """
    if size > limit:
        raise UnparsableOutputError(
            f"the output has {size:,} bytes, more than the {limit:,} that are read: "
            "have the model answer less, or raise ASYNC_SM_MAX_OUTPUT_BYTES"
        )


def parse(output: bytes) -> list[Feature]:
    """The features in one output of a model, each with ``geometry`` and ``properties`` present.

    :raises UnparsableOutputError: if it is not a GeoJSON FeatureCollection (RFC 7946); NaN and
        infinity are no JSON, and so are refused too.
    """
    try:
        collection = orjson.loads(output)
    except orjson.JSONDecodeError as error:
        raise UnparsableOutputError(f"the output is not JSON: {error}") from None
    if not isinstance(collection, dict) or collection.get("type") != "FeatureCollection":
        raise UnparsableOutputError(f"the output is not a FeatureCollection but {_shown(collection)}")
    features = collection.get("features")
    if not isinstance(features, list):
        raise UnparsableOutputError(f"the FeatureCollection's 'features' is not a list but {_shown(features)}")
    if output.count(b"]") + output.count(b"}") > MAX_DEPTH and _is_deep(features):
        raise UnparsableOutputError(f"the FeatureCollection is nested more than {MAX_DEPTH} levels deep")
    return [_feature(place, feature) for place, feature in enumerate(features)]


def _feature(place: int, feature: Any) -> Feature:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise UnparsableOutputError(f"features[{place}] is not a Feature but {_shown(feature)}")
    if feature.get("properties") is None:
        feature["properties"] = {}
    if not isinstance(feature["properties"], dict):
        raise UnparsableOutputError(f"features[{place}].properties is {_shown(feature['properties'])}")
    if not _is_geometry(feature.setdefault("geometry", None)):
        raise UnparsableOutputError(f"features[{place}].geometry is {_shown(feature['geometry'])}")
    return feature


def _is_deep(value: list[Any]) -> bool:
    """Whether lists and objects are nested too deep to be written down again."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _is_geometry(geometry: Any) -> bool:
    if geometry is None:
        return True
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(kind, str) or kind not in _GEOMETRY_TYPES:
        return False
    members = "geometries" if kind == "GeometryCollection" else "coordinates"
    return isinstance(geometry.get(members), list)


def _shown(value: object) -> str:
    """Enough of a value to recognise it by, in one line."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return f"an object of type {value['type'][:40]!r}"
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def add_provenance(features: Iterable[Feature], *, job_id: str, tile: str, inferred: datetime) -> None:
    """Say in each feature which job and tile it came from, and when the model answered.

    A ``sourceMetadata`` that the model gave itself is kept in front.
    """
    inference = {"jobId": job_id, "inferenceDT": timestamp(inferred)}
    source: dict[str, str] = {"location": tile}
    image_format = _FORMATS.get(PurePosixPath(tile).suffix.lower())
    if image_format:
        source["format"] = image_format
    for feature in features:
        properties = feature["properties"]
        properties["inferenceMetadata"] = inference
        given = properties.get("sourceMetadata", [])
        properties["sourceMetadata"] = [*(given if isinstance(given, list) else [given]), source]


def to_lines(features: Iterable[Feature]) -> bytes:
    """Features as they stand in a part: one JSON object a line."""
    return b"".join(orjson.dumps(feature, option=orjson.OPT_APPEND_NEWLINE) for feature in features)


def join_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Turn lines, in chunks of any size, into the elements of a JSON array.

    Every line end becomes a comma and a line end, except the last: it is held back until another
    line follows.
    """
    held = b""
    for chunk in chunks:
        if not chunk:
            continue
        body = held + chunk
        ended = body.endswith(b"\n")
        yield (body[:-1] if ended else body).replace(b"\n", b",\n")
        held = b"\n" if ended else b""


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
