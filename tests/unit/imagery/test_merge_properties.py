"""Merging in rows of tiles is what comparing everything with everything would be, in any order of arrival."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import groupby
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.imagery.merge_options import MergeMethod, MergeOptions
from tests.unit.imagery.detections import OPTIONS, merged, scenes
from tests.unit.imagery.naive_merge import naive_nms, naive_soft_nms

SIZES = st.none() | st.tuples(st.integers(12, 50), st.integers(12, 50))


@given(scenes(), OPTIONS, SIZES)
def test_it_is_what_comparing_all_with_all_gives(
    lines: list[bytes], options: MergeOptions, size: tuple[int, int] | None
) -> None:
    stays = merged(lines, options, {"port.tif": size} if size else None)
    assert len(stays) == len(set(stays))
    assert set(stays) == naive_nms(lines, options, size)


@given(scenes(), OPTIONS)
def test_lowered_scores_are_what_comparing_all_with_all_gives(lines: list[bytes], options: MergeOptions) -> None:
    soft = MergeOptions(MergeMethod.SOFT_NMS, options.iou, options.score_threshold, options.on)
    stays = [orjson.loads(line)["properties"] for line in merged(lines, soft)]
    scores = {one["number"]: one["featureClasses"][0]["score"] for one in stays}
    assert scores == naive_soft_nms(lines, soft)


@given(scenes(), OPTIONS, st.sampled_from(["nms", "soft-nms"]), st.randoms(use_true_random=False))
def test_the_order_of_arrival_in_a_row_makes_no_difference(
    lines: list[bytes], options: MergeOptions, method: str, chance: random.Random
) -> None:
    options = MergeOptions(MergeMethod(method), options.iou, options.score_threshold, options.on)
    assert merged(_mixed(lines, _tile_of, chance), options) == merged(lines, options)
    assert sorted(merged(_mixed(lines, None, chance), options)) == sorted(merged(lines, options))


@given(scenes(), OPTIONS)
def test_what_stays_stays_when_merged_again(lines: list[bytes], options: MergeOptions) -> None:
    stays = sorted(merged(lines, options), key=_row_of)
    assert sorted(merged(stays, options)) == sorted(stays)


@given(scenes(), OPTIONS)
def test_features_of_one_tile_never_take_each_other_out(lines: list[bytes], options: MergeOptions) -> None:
    tile = [line for line in lines if _tile_of(line) == _tile_of(lines[0])]
    unscored = MergeOptions(iou=options.iou, on=options.on)
    assert merged(tile, unscored) == tile


@given(scenes(), scenes(), OPTIONS)
def test_images_have_nothing_to_do_with_each_other(
    lines: list[bytes], others: list[bytes], options: MergeOptions
) -> None:
    others = [line.replace(b"port.tif", b"quay.tif") for line in others]
    assert merged([*lines, *others], options) == merged(lines, options) + merged(others, options)


@given(scenes(), st.sampled_from([0.0, 0.3]))
def test_nothing_but_the_threshold_takes_out_without_a_method(lines: list[bytes], threshold: float) -> None:
    stays = merged(lines, MergeOptions(MergeMethod.NONE, score_threshold=threshold))
    assert stays == [line for line in lines if _score_of(line) >= threshold]


def _mixed(lines: list[bytes], together: Callable[[bytes], Any] | None, chance: random.Random) -> list[bytes]:
    """The same rows, each with its tiles, or features, in another order."""
    mixed = []
    for _, row in groupby(lines, key=_row_of):
        parts = [list(part) for _, part in groupby(row, key=together)]
        chance.shuffle(parts)
        mixed += [line for part in parts for line in part]
    return mixed


def _tile_of(line: bytes) -> Any:
    return orjson.loads(line)["properties"]["sourceMetadata"][-1]["tileBBox"]


def _row_of(line: bytes) -> Any:
    return _tile_of(line)[1]


def _score_of(line: bytes) -> Any:
    return orjson.loads(line)["properties"]["featureClasses"][0]["score"]
