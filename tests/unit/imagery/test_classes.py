"""The best class of a feature, in what models of either age write, and in what is neither."""

from __future__ import annotations

from typing import Any

import pytest

from osml_tasks.imagery.classes import top_class, with_top_score


@pytest.mark.parametrize(
    ("properties", "best"),
    [
        ({"featureClasses": [{"iri": "ship", "score": 0.4}, {"iri": "boat", "score": 0.5}]}, ("boat", 0.5)),
        ({"featureClasses": [{"iri": "ship", "score": 0.5}, {"iri": "boat", "score": 0.5}]}, ("ship", 0.5)),
        ({"feature_types": {"ship": 0.4, "boat": 0.5}}, ("boat", 0.5)),
        ({"featureClasses": [{"iri": "new", "score": 0}], "feature_types": {"old": 1}}, ("new", 0.0)),
        ({"featureClasses": [], "feature_types": {"old": 1}}, ("old", 1.0)),
        ({"featureClasses": [{"iri": "ship"}]}, ("ship", 1.0)),
        ({"featureClasses": [{"iri": "ship", "score": "high"}]}, ("ship", 1.0)),
        ({"featureClasses": [None, {"score": 3}, {"iri": 7}, {"iri": "ship", "score": 0.1}]}, ("ship", 0.1)),
        ({"featureClasses": "ship"}, ("", 1.0)),
        ({"feature_types": ["ship"]}, ("", 1.0)),
        ({}, ("", 1.0)),
    ],
)
def test_the_best_class_is_the_first_of_the_highest_score(properties: dict[str, Any], best: tuple[str, float]) -> None:
    assert top_class(properties) == best


@pytest.mark.parametrize(
    ("properties", "changed"),
    [
        (
            {"featureClasses": [None, {"iri": "ship", "score": 0.4}, {"iri": "boat", "score": 0.5, "id": 7}], "a": 1},
            {"featureClasses": [None, {"iri": "ship", "score": 0.2}, {"iri": "boat", "score": 0.25, "id": 7}], "a": 1},
        ),
        ({"feature_types": {"ship": 0.25, "boat": 0.5}}, {"feature_types": {"ship": 0.125, "boat": 0.25}}),
        ({"featureClasses": [{"iri": "ship"}]}, {"featureClasses": [{"iri": "ship", "score": 0.25}]}),
        ({"featureClasses": 3}, {"featureClasses": 3}),
        ({}, {}),
    ],
)
def test_a_lowered_score_leaves_the_best_class_the_best(properties: dict[str, Any], changed: dict[str, Any]) -> None:
    before = repr(properties)
    assert with_top_score(properties, 0.25) == changed
    assert repr(properties) == before
