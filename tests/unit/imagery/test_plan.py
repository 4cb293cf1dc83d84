"""A job over images, planned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from rasterio.transform import Affine

from osml_tasks.errors import ExtensionConfigurationError, ImageReadError, SourceError
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.options import image_options
from osml_tasks.imagery.plan import ImagePlan, plan_images
from osml_tasks.imagery.reader import Reader
from osml_tasks.sources import find_tiles
from tests.unit.imagery.drawn_images import noise, write

READER = Reader(Datasets(boto3.Session("made-up", "made-up", region_name="us-east-1"), sidecars=True))


def degrees(west: float, north: float) -> dict[str, Any]:
    """Where an image lies, with 0.01 degrees to a pixel."""
    return {"crs": "EPSG:4326", "transform": Affine(0.01, 0, west, 0, -0.01, north)}


def planned(*paths: Path, **options: Any) -> ImagePlan:
    asked = image_options(**{"tile_size": 40, "overlap": 10} | options)
    assert asked is not None
    return plan_images(find_tiles([str(path) for path in paths]), asked, READER)


def test_tiles_come_image_by_image_and_row_by_row(tmp_path: Path) -> None:
    one, other = write(tmp_path / "b.tif", noise(1, 100, 70)), write(tmp_path / "a.tif", noise(1, 30, 60))
    plan = planned(one, other)
    assert [tile.name for tile in plan.tiles] == [
        *(f"{one}#xywh={x},{y},40,40" for y in (0, 30, 60) for x in (0, 30)),
        *(f"{other}#xywh={x},0,40,30" for x in (0, 20)),
    ]
    assert [tile.image for tile in plan.tiles] == [0] * 6 + [1] * 2
    assert [image.tiles for image in plan.job.images] == [6, 2]
    assert list(plan.summary) == [
        f"{one} has 70 x 100 px, 1 bands of uint8: 6 tiles of 40 x 40 px",
        f"{other} has 60 x 30 px, 1 bands of uint8: 2 tiles of 40 x 30 px",
    ]


def test_images_without_georeference_get_one_warning(tmp_path: Path) -> None:
    placed = write(tmp_path / "placed.tif", noise(1, 9, 9), **degrees(0, 0))
    paths = [write(tmp_path / f"{number}.tif", noise(1, 9, 9)) for number in range(3)]
    assert planned(placed).warnings == []
    assert planned(placed, *paths).warnings == [
        f"{paths[0]} and 2 more has no georeference: detections have pixels, and no longitude and latitude"
    ]


def test_a_world_file_is_heeded(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", noise(1, 9, 9), crs="EPSG:4326")
    (tmp_path / "a.tfw").write_text("0.01\n0\n0\n-0.01\n10.005\n49.995\n")
    (known,) = planned(image).job.images
    assert known.georeference is not None
    assert known.georeference.affine == pytest.approx((0.01, 0, 10, 0, -0.01, 50))


def test_only_tiles_that_meet_a_region_are_cut(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", noise(1, 100, 100), **degrees(10, 50))
    plan = planned(image, roi="10.72,49.52,10.98,49.58")
    assert [tile.window.box for tile in plan.tiles if tile.window] == [(60, 30, 100, 70)]
    assert plan.job.images[0].tiles == 1


def test_images_beside_a_region_are_left_out_with_a_warning(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{west}.tif", noise(1, 50, 50), **degrees(west, 50)) for west in (10, 20, 30)]
    plan = planned(*paths, roi="20.1,49.6,20.2,49.7")
    assert [source.name for source in plan.sources] == [image.name for image in plan.job.images] == [str(paths[1])]
    assert {tile.image for tile in plan.tiles} == {0}
    assert len(plan.warnings) == 2
    assert str(paths[0]) in plan.warnings[0]


def test_a_region_beside_all_images_is_refused(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", noise(1, 50, 50), **degrees(10, 50))
    with pytest.raises(ExtensionConfigurationError, match=re.escape(str(image))):
        planned(image, roi="20.1,49.6,20.2,49.7")


def test_a_region_of_an_image_without_georeference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtensionConfigurationError, match="georeference"):
        planned(write(tmp_path / "a.tif", noise(1, 50, 50)), roi="20.1,49.6,20.2,49.7")


def test_the_image_that_is_none_is_named(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.tif", noise(1, 9, 9)), tmp_path / "b.tif"
    bad.write_text("no image")
    with pytest.raises(ImageReadError, match=re.escape(f"image '{bad}' cannot be read")):
        planned(good, bad)


def test_bytes_are_no_image() -> None:
    options = image_options(tile_size=512)
    assert options is not None
    with pytest.raises(SourceError, match=r"is bytes in memory: name an image as a path or an s3:// URI"):
        plan_images(find_tiles([b"II*"]), options, READER)
