"""A large output read some features at a time is the same as read at once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osml_tasks import large_output
from osml_tasks.errors import UnparsableOutputError
from osml_tasks.features import parse
from osml_tasks.large_output import parse_in_turns

FEATURE = {"type": "Feature", "geometry": None, "properties": {"name": "Schiff, ü ⛵ ]}"}}
WRONG: list[Any] = [1, "x", {"type": "Other"}, FEATURE | {"properties": 3}, FEATURE | {"geometry": {"type": "Blob"}}]
SHAPES = [
    b'{"type":"FeatureCollection","features":%b}',
    b' {\n "type" : "FeatureCollection" ,\n "features" : %b\n}\n ',
    b'{"features":%b,"type":"FeatureCollection"}',
    b'{"type":"FeatureCollection","features":%b,"name":"n","bbox":[0,0,1,1]}',
    b'{"type":"FeatureCollection","name":"n","features":%b}',
    b'{"type":"FeatureCollection","features":[],"features":%b}',
    b'{"type":"FeatureCollection","features":%b,"features":[]}',
    b'{"type":"FeatureCollection","features":%b,"features":[{"type":"Feature","geometry":null,"properties":{}}]}',
    b'{"type":"Other","features":%b}',
    b'{"features":%b}',
    b'\xef\xbb\xbf{"type":"FeatureCollection","features":%b}',
    b'{"type":"FeatureCollection","features":%b',
    b'{"type":"FeatureCollection","features":%b}}',
    b"%b",
]
ODD = [
    b"[]",
    b"[,]",
    b"[1,]",
    b"[{} {}]",
    b"[NaN]",
    b'["\xff"]',
    b'["\\ud800"]',
    b"[1e999]",
    b"[" * 3000,
    b"null",
    b"",
    b"[ ]",
]


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_output, "FEATURES_AT_A_TIME", 3)


def outcome(output: bytes, *, in_turns: bool) -> object:
    """The features, or the error; of two things that are wrong with the whole, either may be told."""
    try:
        return [one for turn in parse_in_turns(output) for one in turn] if in_turns else parse(output)
    except UnparsableOutputError as error:
        return str(error) if str(error).startswith("features[") else "something else"


def written(features: list[Any], *, indent: bool) -> bytes:
    return orjson.dumps(features, option=orjson.OPT_INDENT_2 if indent else None)


@given(
    number=st.integers(0, 10),
    wrong=st.lists(st.tuples(st.integers(0, 10), st.sampled_from(WRONG)), max_size=2),
    indent=st.booleans(),
    shape=st.sampled_from(SHAPES),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_it_gives_the_same_features_or_the_same_error(
    number: int, wrong: list[tuple[int, Any]], indent: bool, shape: bytes
) -> None:
    features: list[Any] = [FEATURE | {"id": place} for place in range(number)]
    for place, value in wrong:
        features.insert(place, value)
    output = shape % written(features, indent=indent)
    assert outcome(output, in_turns=True) == outcome(output, in_turns=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_comes_out_alike(shape: bytes, odd: bytes) -> None:
    output = shape % odd
    assert outcome(output, in_turns=True) == outcome(output, in_turns=False)


def test_the_features_come_some_at_a_time() -> None:
    output = SHAPES[1] % written([FEATURE] * 8, indent=True)
    assert [len(turn) for turn in parse_in_turns(output)] == [3, 3, 2]


def test_nothing_is_given_before_all_of_it_is_found_right() -> None:
    output = SHAPES[0] % written([FEATURE] * 8 + [1], indent=False)
    with pytest.raises(UnparsableOutputError, match=r"^features\[8\] is not a Feature"):
        next(parse_in_turns(output))
