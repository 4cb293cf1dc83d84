"""What a model answers, and the GeoJSON that it becomes."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.errors import UnparsableOutputError
from osml_tasks.features import (
    COLLECTION_HEAD,
    COLLECTION_TAIL,
    add_properties,
    add_provenance,
    join_lines,
    parse,
    to_lines,
)
from osml_tasks.jobs import Reason
from osml_tasks.report import TileFailure, report_lines

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
FEATURES = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("Feature"),
            "geometry": st.none(),
            "properties": st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(-9, 9), max_size=3),
        }
    ),
    max_size=12,
)


def collection(*features: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


@given(JSON, JSON)
def test_any_answer_gives_features_or_one_clear_error(answer: Any, feature: Any) -> None:
    for body in (
        json.dumps(answer).encode(),
        collection(feature),
        collection({"type": "Feature", "properties": feature}),
    ):
        try:
            assert all(found["type"] == "Feature" for found in parse(body))
        except UnparsableOutputError as error:
            assert len(str(error).splitlines()) == 1


@given(st.binary(max_size=200))
def test_any_bytes_give_features_or_an_error(body: bytes) -> None:
    try:
        parse(body)
    except UnparsableOutputError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b'{"type": "Feature"}', "an object of type 'Feature'"),
        (b'{"type": "FeatureCollection"}', "'features' is not a list but None"),
        (collection({"type": "Feature", "geometry": {"type": "Circle"}}), "geometry"),
        (collection({"type": "Feature"}, 7), "features[1] is not a Feature but 7"),
        (b'{"type": "FeatureCollection", "features": [NaN]}', "not JSON"),
    ],
)
def test_an_error_says_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(UnparsableOutputError) as error:
        parse(body)
    assert said in str(error.value)


def test_missing_members_are_filled_in_and_others_pass_through() -> None:
    (feature,) = parse(collection({"type": "Feature", "id": 3, "bbox": [0, 0, 1, 1]}))
    assert feature == {"type": "Feature", "id": 3, "bbox": [0, 0, 1, 1], "geometry": None, "properties": {}}


def test_provenance_is_added_behind_what_the_model_said() -> None:
    features = parse(collection({"type": "Feature", "properties": {"sourceMetadata": [{"location": "orbit"}]}}))
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    add_provenance(features, job_id="job", tile="dir/a.TIF", inferred=moment)
    assert features[0]["properties"] == {
        "inferenceMetadata": {"jobId": "job", "inferenceDT": "2026-01-02T03:04:05Z"},
        "sourceMetadata": [{"location": "orbit"}, {"location": "dir/a.TIF", "format": "GTIFF"}],
    }


def test_a_window_of_an_image_is_named_by_its_box() -> None:
    features = parse(collection({"type": "Feature"}))
    add_provenance(
        features, job_id="job", tile="scene.tif", inferred=datetime(2026, 1, 1, tzinfo=UTC), box=(512, 0, 1024, 512)
    )
    assert features[0]["properties"]["sourceMetadata"] == [
        {"location": "scene.tif", "format": "GTIFF", "tileBBox": [512, 0, 1024, 512]}
    ]


def test_a_property_of_the_user_replaces_one_of_the_model() -> None:
    features = parse(collection({"type": "Feature", "properties": {"mission": "model's", "score": 1}}))
    add_properties(features, {"mission": "mine"})
    assert features[0]["properties"] == {"mission": "mine", "score": 1}


@given(st.lists(FEATURES, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_lines_cut_anywhere_join_to_the_same_features(parts: list[list[dict[str, Any]]], cuts: list[int]) -> None:
    text = b"".join(to_lines(part) for part in parts)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[start:end] for start, end in itertools.pairwise(edges)]
    joined = COLLECTION_HEAD + b"".join(join_lines(chunks)) + COLLECTION_TAIL
    assert json.loads(joined)["features"] == [feature for part in parts for feature in part]


@given(st.lists(st.text(max_size=20), max_size=5))
def test_a_report_holds_any_tile_name_and_error(texts: list[str]) -> None:
    failures = [TileFailure(place, text, Reason.MODEL, text, 1) for place, text in enumerate(texts)]
    report = json.loads(b"".join(report_lines({"job_id": "job", "failures": []}, failures)))
    assert [failure["tile"] for failure in report["failures"]] == texts
    assert report["job_id"] == "job"
