"""A large output read some features at a time is the same as read at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
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
        told = str(error).startswith("features[") and "levels deep" not in str(error)
        return str(error) if told else "something else"


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
    in_turns, at_once = outcome(output, in_turns=True), outcome(output, in_turns=False)
    assert in_turns == at_once or (isinstance(in_turns, str) and at_once == "something else")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_comes_out_alike(shape: bytes, odd: bytes) -> None:
    output = shape % odd
    assert outcome(output, in_turns=True) == outcome(output, in_turns=False)


def test_of_two_lists_the_last_counts() -> None:
    two = b'{"features":%b,"type":"FeatureCollection","features":%b}'
    assert outcome(two % (written([FEATURE], indent=False), b"[]"), in_turns=True) == []
    assert outcome(two % (b"[]", written([FEATURE], indent=False)), in_turns=True) == [FEATURE]


_MEASURED = """
import resource, sys
from osml_tasks.errors import UnparsableOutputError
from osml_tasks.large_output import parse_in_turns
with open(sys.argv[1], "rb") as file:
    output = file.read()
before = resource.getrusage(resource.RUSAGE_SELF)
try:
    print(sum(map(len, parse_in_turns(output))), end=" ")
except UnparsableOutputError as error:
    print(str(error).replace(" ", "_"), end=" ")
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime)
"""
SMALL = b'{"type":"Feature","geometry":null,"properties":{}}'
LARGE = {
    "small features behind another member": (b'"name":"n","features":[%b]', b",".join([SMALL] * 600_000), "600000"),
    "empty objects": (b'"name":"n","features":[%b]', b",".join([b"{}"] * 10_000_000), "is_not_a_Feature"),
    "one feature": (b'"features":[{"type":"Feature","a":[%b]}]', b",".join([b"[]"] * 10_000_000), "has_more_than"),
    "something else": (b'"a":[%b],"features":[]', b",".join([b"[]"] * 10_000_000), "'a'_has_more_than"),
    "a deep list": (b'"features":[%b]', b"[" * 30_000_000, "levels_deep"),
    "members": (b"%b", b",".join(b'"%d":1' % number for number in range(3_000_000)), "for_members"),
    "a string without an end": (b'"features":["%b]', b'\\"' * 15_000_000, "has_more_than"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_memory_and_time_do_not_hang_on_what_is_in_it(tmp_path: Path, kind: str) -> None:
    around, content, expected = LARGE[kind]
    (tmp_path / "output").write_bytes(b'{"type":"FeatureCollection",' + around % content + b"}")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, tmp_path / "output"], capture_output=True, text=True, check=True
    )
    said, kilobytes, seconds = done.stdout.split()
    assert expected in said
    assert int(kilobytes) < 150_000
    assert float(seconds) < 60


def test_the_features_come_some_at_a_time() -> None:
    output = SHAPES[1] % written([FEATURE] * 8, indent=True)
    assert [len(turn) for turn in parse_in_turns(output)] == [3, 3, 2]


def test_nothing_is_given_before_all_of_it_is_found_right() -> None:
    output = SHAPES[0] % written([FEATURE] * 8 + [1], indent=False)
    with pytest.raises(UnparsableOutputError, match=r"^features\[8\] is not a Feature"):
        next(parse_in_turns(output))
