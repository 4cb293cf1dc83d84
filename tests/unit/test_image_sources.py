"""Whether sources are images to be cut, or tiles that go as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from osml_tasks.errors import ExtensionConfigurationError, SourceError
from osml_tasks.image_sources import client_images, plan_sources
from osml_tasks.imagery.options import ImageOptions
from osml_tasks.imagery.plan import ImagePlan
from osml_tasks.sources import Source, find_tiles
from tests.unit.imagery.drawn_images import noise, write

SESSION = boto3.Session("made-up", "made-up", region_name="us-east-1")


def plan(*sources: Source, options: ImageOptions | None = None, **more: Any) -> ImagePlan | None:
    return plan_sources(sources, find_tiles(sources), options, lambda: client_images(SESSION), **more)


@pytest.fixture
def large(tmp_path: Path) -> str:
    return str(write(tmp_path / "large.tif", noise(1, 10, 1025)))


@pytest.fixture
def small(tmp_path: Path) -> str:
    return str(write(tmp_path / "small.tif", noise(1, 1024, 1024)))


def test_a_file_that_is_larger_than_a_tile_is_an_image(large: str) -> None:
    found = plan(large)
    assert found is not None
    assert len(found.tiles) == 2


def test_one_that_is_not_is_a_tile_unless_something_is_asked_for_with_images(small: str) -> None:
    assert plan(small) is None
    assert plan(small, cut=True) is not None
    assert plan(small, options=ImageOptions()) is not None


def test_sources_are_all_images_or_none(large: str, small: str) -> None:
    assert plan(large, small) is None
    assert plan(large, small, cut=True) is not None


def test_what_was_searched_for_is_tiles(large: str, tmp_path: Path) -> None:
    assert plan(str(tmp_path)) is None
    assert plan(f"{tmp_path}/*.tif") is None
    found = plan(str(tmp_path), cut=True)
    assert found is not None
    assert [source.name for source in found.sources] == [large]


def test_formats_that_tiles_mostly_have_are_not_even_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "large.png", noise(1, 10, 1025), driver="PNG")

    def refuse() -> Any:
        raise AssertionError("opened")

    assert plan_sources([str(path)], find_tiles([str(path)]), None, refuse) is None


def test_what_cannot_be_opened_is_a_tile_that_the_model_may_know(tmp_path: Path) -> None:
    path = tmp_path / "odd.tif"
    path.write_text("no image")
    assert plan(str(path)) is None
    with pytest.raises(Exception, match="cannot be read"):
        plan(str(path), cut=True)


def test_nothing_cut_and_options_of_cutting_do_not_go_together(large: str) -> None:
    assert plan(large, cut=False) is None
    with pytest.raises(ExtensionConfigurationError, match="nothing is cut, yet options of images are given"):
        plan(large, options=ImageOptions(), cut=False)


def test_a_vrt_cannot_be_staged(large: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="1025" rasterYSize="10"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">large.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    with pytest.raises(SourceError, match="add --no-stage if workers can read them, or name what is in S3"):
        plan(str(path))
    assert plan(str(path), stage=False) is not None


def test_without_rasterio_images_are_refused_and_tiles_are_not(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "osml_tasks.imagery.plan", None)
    assert plan(large) is None
    for more in ({"cut": True}, {"options": ImageOptions()}):
        with pytest.raises(ExtensionConfigurationError, match=r"pip install 'osml-tasks\[imagery\]'"):
            plan(large, **more)
