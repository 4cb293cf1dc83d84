"""What can be asked for with images, from keywords."""

from __future__ import annotations

import inspect

import pytest

from osml_tasks.detection import detect
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.cutting import Compression, Cutting, TileFormat
from osml_tasks.imagery.merge_options import MergeMethod, MergeOn, MergeOptions
from osml_tasks.imagery.options import IMAGE_OPTIONS, ImageOptions, image_options


def test_nothing_asked_for_is_no_options() -> None:
    assert image_options() is None


@pytest.mark.parametrize("name", ["overlap", "score_threshold", "height"])
def test_nought_is_asked_for(name: str) -> None:
    assert image_options(**{name: 0}) is not None


def test_each_keyword_gets_to_its_place() -> None:
    assert image_options(
        tile_size=512,
        overlap=8,
        tile_format="gtiff",
        tile_compression="zstd",
        bands=[2, 1],
        stretch=(1, 99),
        roi="0,0,1,1",
        height=3.0,
        dem="dem.tif",
        merge="soft-nms",
        iou=0.3,
        merge_on="box",
        score_threshold=0.2,
        properties={"a": 1},
    ) == ImageOptions(
        Cutting(512, 8, TileFormat.GTIFF, Compression.ZSTD, (2, 1), (1, 99)),
        MergeOptions(method=MergeMethod.SOFT_NMS, iou=0.3, score_threshold=0.2, on=MergeOn.BOX),
        "0,0,1,1",
        3.0,
        "dem.tif",
        {"a": 1},
    )


def test_python_has_all_of_them() -> None:
    assert set(inspect.signature(detect).parameters) >= IMAGE_OPTIONS


def test_what_is_wrong_is_said_before_anything_is_opened() -> None:
    with pytest.raises(ExtensionConfigurationError, match="overlap of 64 px"):
        image_options(tile_size=64, overlap=64)


def test_a_property_that_the_program_writes_is_refused() -> None:
    with pytest.raises(ExtensionConfigurationError, match="imageBBox is written by osml-tasks"):
        image_options(properties={"imageBBox": [0, 0, 1, 1], "mission": "m"})
