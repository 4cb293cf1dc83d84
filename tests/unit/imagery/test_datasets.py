"""Open images: used again, bounded in number, one thread each, and none that may not be read."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import boto3
import numpy as np
import pytest
import rasterio
from rasterio.io import DatasetReader
from rasterio.windows import Window as Rectangle

from osml_tasks.errors import ImageReadError, ImageTooCostlyError, NotAllowedError
from osml_tasks.imagery.datasets import MOST_OPEN, Datasets
from osml_tasks.imagery.formats import RASTERS
from osml_tasks.imagery.gdal_s3 import gdal_path, location_of
from tests.unit.imagery.drawn_images import noise, write

ONE_BLOCK: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 304}
SESSION = boto3.Session("made-up", "made-up", region_name="us-east-1")


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(write(tmp_path / "a.tif", noise(1, 300, 400), tiled=True, blockxsize=64, blockysize=64))


def opened(datasets: Datasets, location: str) -> DatasetReader:
    with datasets.open(location) as dataset:
        return dataset


def under(root: Path) -> Datasets:
    """Those of somebody who may read one directory."""

    def check(location: str) -> None:
        if not Path(location).resolve().is_relative_to(root):
            raise NotAllowedError(f"may not read {location}")

    return Datasets(SESSION, check)


def test_an_open_image_is_used_again(image: str) -> None:
    datasets = Datasets(SESSION)
    assert opened(datasets, image) is opened(datasets, image)


def test_two_at_a_time_are_two(image: str) -> None:
    datasets = Datasets(SESSION)
    with datasets.open(image) as one, datasets.open(image) as other:
        assert one is not other
    assert opened(datasets, image) in (one, other)


def test_those_that_were_not_used_for_longest_are_closed(tmp_path: Path) -> None:
    datasets = Datasets(SESSION)
    paths = [str(write(tmp_path / f"{number}.tif", noise(1, 9, 9))) for number in range(MOST_OPEN + 3)]
    found = [opened(datasets, path) for path in paths]
    assert [dataset.closed for dataset in found] == [True] * 3 + [False] * MOST_OPEN
    for path, before in zip(paths, found, strict=True):
        with datasets.open(path) as dataset:
            assert not dataset.closed
            assert dataset.name == before.name


def test_as_many_as_are_read_at_once_are_open_and_the_surplus_is_closed(image: str) -> None:
    datasets = Datasets(SESSION)
    with ExitStack() as reading:
        found = [reading.enter_context(datasets.open(image)) for _ in range(MOST_OPEN + 5)]
        assert not any(dataset.closed for dataset in found)
    assert sum(not dataset.closed for dataset in found) == MOST_OPEN


@pytest.mark.parametrize(
    "error", [rasterio.errors.RasterioIOError("torn"), OSError("gone"), KeyError("a fault of ours")]
)
def test_one_that_was_read_in_vain_is_not_used_again(image: str, error: Exception) -> None:
    datasets = Datasets(SESSION)
    expected = KeyError if isinstance(error, KeyError) else ImageReadError
    with pytest.raises(expected), datasets.open(image) as dataset:
        raise error
    assert dataset.closed
    assert not opened(datasets, image).closed


def test_other_credentials_open_it_anew(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a role's do, every hour; the file stands for the object.
    monkeypatch.setattr("osml_tasks.imagery.datasets.gdal_path", lambda location: image)
    session = boto3.Session("first", "made-up", region_name="us-east-1")
    datasets = Datasets(session)
    first = opened(datasets, "s3://bucket/a.tif")
    assert opened(datasets, "s3://bucket/a.tif") is first
    credentials: Any = session.get_credentials()
    credentials.access_key = "second"
    second = opened(datasets, "s3://bucket/a.tif")
    assert second is not first
    assert opened(datasets, "s3://bucket/a.tif") is second


def test_many_threads_read_windows_of_one_image(image: str) -> None:
    datasets = Datasets(SESSION)
    expected = noise(1, 300, 400)[0]
    places = [(random.Random(seed).randrange(250), random.Random(-seed).randrange(350)) for seed in range(400)]

    def is_right(place: tuple[int, int]) -> bool:
        y, x = place
        with datasets.open(image) as dataset:
            return bool((dataset.read(1, window=Rectangle(x, y, 50, 50)) == expected[y : y + 50, x : x + 50]).all())

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(is_right, places))


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\0" + b"\0" * 50, b"<VRTDataset>"])
def test_what_is_no_image_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=r"^image '.*a\.tif' cannot be read: .+$") as refused:
        opened(Datasets(SESSION), str(path))
    assert str(refused.value).isprintable()


def test_what_is_not_there_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"cannot be read: .*No such file"):
        opened(Datasets(SESSION), str(tmp_path / "a.tif"))


def test_other_formats_of_gdals_are_not_read(tmp_path: Path) -> None:
    assert "AAIGrid" not in RASTERS
    path = tmp_path / "a.asc"
    path.write_text("ncols 1\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n1\n")
    with rasterio.open(path) as dataset:
        assert dataset.driver == "AAIGrid"
    with pytest.raises(ImageReadError):
        opened(Datasets(SESSION), str(path))


@pytest.mark.parametrize("location", ["s3://bucket/a b/c.tif", "/mnt/a.tif"])
def test_gdals_names_lead_back(location: str) -> None:
    assert location_of(gdal_path(location)) == location


def test_a_location_that_may_not_be_read_is_not_opened(tmp_path: Path, image: str) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(NotAllowedError, match="may not read"):
        opened(under(tmp_path / "mine"), image)


def vrt(path: Path, source: str) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="400" rasterYSize="300"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{escape(source)}</SourceFilename><SourceBand>1</SourceBand>'
        '<SourceProperties RasterXSize="400" RasterYSize="300" DataType="Byte" BlockXSize="64" BlockYSize="64"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_vrt_of_what_may_be_read_is_read(tmp_path: Path) -> None:
    pixels = noise(1, 300, 400)
    path = vrt(tmp_path / "a.vrt", str(write(tmp_path / "a.tif", pixels)))
    with under(tmp_path).open(str(path)) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels)


@pytest.mark.parametrize("way", ["plain", "through a link", "through another VRT", "in other words", "in itself"])
def test_a_vrt_does_not_lead_to_what_may_not_be_read(tmp_path: Path, image: str, way: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "link.tif").symlink_to(image)
    source = {
        "plain": image,
        "through a link": str(mine / "link.tif"),
        "through another VRT": str(vrt(mine / "inner.tif", image)),
        "in other words": f"GTIFF_DIR:1:{image}",
        "in itself": vrt(mine / "inner.tif", image).read_text(),
    }[way]
    path = vrt(mine / "a.vrt", source)
    with rasterio.open(path) as dataset:
        assert dataset.read().any()
    with (
        pytest.raises((NotAllowedError, ImageReadError), match=r"may not read|neither a path|recognized"),
        under(mine).open(str(path)) as dataset,
    ):
        dataset.read()


def test_a_vrt_of_a_format_that_is_not_read_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("ncols 1\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n1\n")
    path = vrt(tmp_path / "a.vrt", str(tmp_path / "a.tif"))
    with (
        pytest.raises(ImageReadError, match="not recognized as being in a supported file format"),
        under(tmp_path).open(str(path)) as dataset,
    ):
        dataset.read()


def test_vrts_that_refer_to_each_other_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one.vrt", tmp_path / "other.vrt"
    vrt(one, str(vrt(other, str(one))))
    with pytest.raises(NotAllowedError, match=r"one\.vrt' has the source '.*other\.vrt', another VRT"):
        opened(under(tmp_path), str(one))


def test_a_vrt_that_is_not_called_so_is_none(tmp_path: Path, image: str) -> None:
    path = vrt(tmp_path / "scene.tif", image)
    with rasterio.open(path) as dataset:
        assert dataset.driver == "VRT"
    with pytest.raises(ImageReadError, match="not recognized"):
        opened(under(tmp_path), str(path))


@pytest.mark.parametrize("location", ["/vsizip/a.zip/a.tif", "/vsicurl/http://127.0.0.1/a.tif", "/vsistdin/"])
def test_other_file_systems_of_gdals_are_not_read(location: str) -> None:
    with pytest.raises(NotAllowedError, match="is no file"):
        opened(Datasets(SESSION), location)


def test_a_name_is_a_path_and_no_word_of_gdals(tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # From a directory that may be read, what looks like a relative path.
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    with rasterio.open(f"GTIFF_DIR:1:{image}") as dataset:
        assert dataset.count
    with pytest.raises(ImageReadError, match="No such file"):
        opened(under(tmp_path / "mine"), f"GTIFF_DIR:1:{image}")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match="it is not a file"):
        opened(Datasets(SESSION), str(tmp_path / "a.tif"))


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_blocks_that_are_too_large_are_refused_before_they_are_read(tmp_path: Path, interleave: str) -> None:
    path = write(tmp_path / "a.tif", noise(4, 300, 500, "uint16"), interleave=interleave, **ONE_BLOCK)
    block = 304 * 512 * 2 * (4 if interleave == "pixel" else 1)
    opened(Datasets(SESSION, max_block_bytes=block), str(path))
    with pytest.raises(ImageTooCostlyError, match=rf"blocks of 512 x 304 px that take {block:,} bytes each.*COG"):
        opened(Datasets(SESSION, max_block_bytes=block - 1), str(path))


def test_blocks_of_what_a_vrt_names_are_looked_at_as_well(tmp_path: Path) -> None:
    path = vrt(tmp_path / "a.vrt", str(write(tmp_path / "a.tif", noise(1, 300, 400), **ONE_BLOCK)))
    datasets = Datasets(SESSION, max_block_bytes=100_000)
    with pytest.raises(ImageTooCostlyError, match=r"a\.tif"), datasets.open(str(path)) as dataset:
        dataset.read(1, window=Rectangle(0, 0, 1, 1))


def test_an_image_that_names_its_overviews_is_refused(tmp_path: Path, image: str) -> None:
    path = write(tmp_path / "b.tif", noise(1, 300, 400))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=image)
    with pytest.raises(NotAllowedError, match="names another file that has its overviews"):
        opened(under(tmp_path), str(path))


_HUGE = """
import resource, sys, time
import boto3
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.options import ImageOptions
from osml_tasks.imagery.plan import plan_images
from osml_tasks.imagery.reader import Reader
from osml_tasks.imagery.cut import cut_tile
from osml_tasks.imagery.window import Window
from osml_tasks.sources import find_tiles
datasets = Datasets(boto3.Session("a", "b", region_name="us-east-1"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = plan_images(find_tiles([sys.argv[1]]), ImageOptions(Cutting(tile_size=1024)), Reader(datasets))
image = plan.job.images[0]
for x, y in ((0, 0), (50_000, 50_000), (98_976, 98_976)):
    with datasets.open(sys.argv[1]) as dataset:
        assert cut_tile(dataset, image, Window(y, x, 1024, 1024), plan.job.cutting)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(plan.tiles), after - before)
"""


def test_an_image_of_ten_thousand_megapixels_is_planned_and_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=100_000,
        height=100_000,
        count=1,
        dtype="uint8",
        **{"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "bigtiff": "YES"},
    ) as huge:
        huge.write(noise(1, 1024, 1024), window=Rectangle(50_000, 50_000, 1024, 1024))
    assert path.stat().st_size < 20_000_000
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _HUGE, path], capture_output=True, text=True, check=True)
    tiles, kilobytes = map(int, done.stdout.split())
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used.ru_utime
    assert tiles == 103**2
    assert kilobytes < 100_000
    assert spent < 10
