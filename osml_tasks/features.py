"""What a model answers, and how it becomes GeoJSON: parse one output, write one feature a line.

The convention is that of the OversightML Model Runner: a FeatureCollection whose features may have
``geometry: null`` and carry pixels in ``properties.imageGeometry`` or ``properties.imageBBox``.
Whatever else a model puts into ``properties`` passes through untouched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import orjson

from osml_tasks.errors import UnparsableOutputError
from osml_tasks.geometry import check_bbox, check_geometry, is_number, shown

Feature = dict[str, Any]

COLLECTION_HEAD = b'{"type":"FeatureCollection","features":[\n'
COLLECTION_TAIL = b"\n]}\n"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some writers begin UTF-8 with, and JSON does not have."""
_SHALLOW_BRACKETS = 200  # with no more of them nothing is too deep to be written
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


def parse(output: bytes, *, first: int = 0) -> list[Feature]:
    """The features in one output of a model, each with ``geometry`` and ``properties`` present.

    :raises UnparsableOutputError: if it is not a GeoJSON FeatureCollection (RFC 7946); NaN and
        infinity are no JSON, and so are refused too.
    """
    output = output.removeprefix(BYTE_ORDER_MARK)
    try:
        collection = orjson.loads(output)
    except orjson.JSONDecodeError as error:
        begins = f"; it begins with {output[:20]!r}" if output else ""
        raise UnparsableOutputError(f"the output is not JSON: {error}{begins}") from None
    if not isinstance(collection, dict) or collection.get("type") != "FeatureCollection":
        raise UnparsableOutputError(f"the output is not a FeatureCollection but {shown(collection)}")
    features = collection.get("features")
    if not isinstance(features, list):
        raise UnparsableOutputError(f"the FeatureCollection's 'features' is not a list but {shown(features)}")
    shallow = output.count(b"]") + output.count(b"}") <= _SHALLOW_BRACKETS
    for place, feature in enumerate(features, first):
        try:
            _check(feature)
            if not shallow:
                _check_depth(feature)
        except ValueError as error:
            raise UnparsableOutputError(f"features[{place}] {error}") from None
    return features


def _check(feature: Any) -> None:
    """Refuse what is not a Feature (RFC 7946, section 3.2), and fill in what it may lack.

    :raises ValueError: in words that follow the feature's name.
    """
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise ValueError(f"is not a Feature but {shown(feature)}")
    if feature.get("properties") is None:
        feature["properties"] = {}
    if not isinstance(feature["properties"], dict):
        raise ValueError(f"has the properties {shown(feature['properties'])}, not an object")
    if "id" in feature:
        _check_id(feature)
    check_geometry(feature.setdefault("geometry", None))
    if "bbox" in feature:
        check_bbox(feature)


def _check_id(feature: Feature) -> None:
    if feature["id"] is None:
        # RFC 7946 knows no such id, yet many a writer gives it to every feature.
        del feature["id"]
    elif not (isinstance(feature["id"], str) or is_number(feature["id"])):
        raise ValueError(f"has the id {shown(feature['id'])}, not a string or a number")


def _check_depth(feature: Feature) -> None:
    """Refuse what could not be written down again. To write it is the quickest way to know."""
    try:
        orjson.dumps([[feature]])  # as deep as provenance can make it
    except orjson.JSONEncodeError:
        raise ValueError("is nested more than 250 levels deep") from None


def source_of(tile: str) -> dict[str, Any]:
    """What there is to say of a tile that goes as it is: its name, and the format that this tells of."""
    source = {"location": tile}
    if image_format := _FORMATS.get(PurePosixPath(tile).suffix.lower()):
        source["format"] = image_format
    return source


def add_provenance(
    features: Iterable[Feature],
    *,
    job_id: str,
    source: Mapping[str, Any],
    inferred: datetime,
    properties: Mapping[str, Any] | None = None,
) -> None:
    """Say in each feature which job and source it came from, and when the model answered.

    A ``sourceMetadata`` that the model gave itself is kept in front.

    :param properties: what the caller wants every feature to have; a model's of the same names give way.
    """
    inference = {"jobId": job_id, "inferenceDT": timestamp(inferred)}
    extra = dict(properties or {})
    for feature in features:
        said = feature["properties"]
        said |= extra
        said["inferenceMetadata"] = inference
        given = said.get("sourceMetadata", [])
        said["sourceMetadata"] = [*(given if isinstance(given, list) else [given]), source]


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


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in chunks of any size, without their ends: what :func:`join_lines` joins."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
