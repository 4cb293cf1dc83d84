"""A result's features, one at a time."""

from __future__ import annotations

from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.features import Feature, split_lines
from osml_tasks.result_files.lines import feature_lines, read_features
from tests.unit.result_files.collections import collection_of, feature, write_collection

FEATURES = [feature(name="a,\n]}"), feature(), feature(deep=[{"type": "FeatureCollection", "features": []}])]


@given(st.integers(0, 3), st.integers(1, 200))
def test_features_come_out_as_they_went_in(count: int, size: int) -> None:
    result = collection_of(FEATURES[:count])
    chunks = [result[start : start + size] for start in range(0, len(result), size)]
    lines = list(feature_lines(split_lines(chunks)))
    assert [orjson.loads(line) for line in lines] == FEATURES[:count]
    assert all(line.count(b"\n") == 1 for line in lines)


def test_a_file_is_read_in_the_same_way(tmp_path: Path) -> None:
    found: list[Feature] = [orjson.loads(line) for line in read_features(write_collection(tmp_path, FEATURES))]
    assert found == FEATURES
