"""One tile of an image: its pixels, where it says it lies, and when there is nothing in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from osml_tasks.errors import ImageReadError
from osml_tasks.imagery.cut import cut_tile
from osml_tasks.imagery.cutting import Cutting, TileFormat
from osml_tasks.imagery.georeference import Georeference
from osml_tasks.imagery.window import Window
from tests.unit.imagery.drawn_images import Pixels, described, noise, rpcs, write

UTM = Affine(0.5, 0.1, 500_000, 0.1, -0.5, 4_000_000)
GTIFF = Cutting(tile_size=32, overlap=0, tile_format=TileFormat.GTIFF)
PNG = Cutting(tile_size=32, overlap=0)
WINDOW = Window(y=40, x=20, width=32, height=32)
FIRST = Window(0, 0, 32, 32)
RPCS = rpcs(50.0)
POINTS = [
    GroundControlPoint(row, column, 10 + column / 1000, 50 - row / 1000)
    for row in (0, 50, 100)
    for column in (0, 50, 100)
]


def cut(path: Path, cutting: Cutting, window: Window = WINDOW) -> bytes | None:
    image = described(path, cutting)
    with rasterio.open(path) as dataset:
        return cut_tile(dataset, image, window, cutting)


def pixels_of(tile: bytes | None) -> Pixels:
    assert tile is not None
    with MemoryFile(tile) as file, file.open() as dataset:
        pixels: Pixels = dataset.read()
    return pixels


def inside(pixels: Pixels, window: Window = WINDOW) -> Pixels:
    return pixels[:, window.y : window.y + window.height, window.x : window.x + window.width]


@pytest.mark.parametrize(
    ("tile_format", "bands", "dtype"),
    [("GTIFF", 8, "uint8"), ("GTIFF", 2, "float32"), ("NITF", 8, "uint16"), ("NITF", 3, "int16"), ("PNG", 3, "uint16")],
)
def test_a_tile_has_the_pixels_of_its_window(tmp_path: Path, tile_format: str, bands: int, dtype: str) -> None:
    pixels = noise(bands, 100, 100, dtype)
    tile = cut(write(tmp_path / "a.tif", pixels), Cutting(tile_size=32, overlap=0, tile_format=TileFormat(tile_format)))
    np.testing.assert_array_equal(pixels_of(tile), inside(pixels))


def test_bands_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    pixels = noise(8, 100, 100, "uint16")
    path = write(tmp_path / "a.tif", pixels)
    cutting = Cutting(tile_size=32, overlap=0, bands=(7, 3, 1))
    np.testing.assert_array_equal(pixels_of(cut(path, cutting)), inside(pixels[[6, 2, 0]]))
    assert described(path, cutting).conversion == {"bands": [7, 3, 1]}


def test_all_tiles_are_stretched_alike_and_say_how(tmp_path: Path) -> None:
    pixels = noise(2, 100, 100, "uint16")
    pixels[:, :50] //= 16
    path = write(tmp_path / "a.tif", pixels)
    cutting = Cutting(tile_size=32, overlap=0, stretch=(5, 90), bands=(2,))
    image = described(path, cutting)
    low, high = np.percentile(pixels[1], (5, 90))
    assert image.source["conversion"] == {"bands": [2], "stretch": [[low, high]]}
    for window in (FIRST, Window(68, 68, 32, 32)):
        expected = np.clip(np.rint((inside(pixels, window)[1] - low) * 255 / (high - low)), 0, 255)
        difference = pixels_of(cut(path, cutting, window))[0] - expected
        assert np.abs(difference).max() <= 1
        assert np.abs(difference).mean() < 0.01


def corners(path: str, window: Window, **options: Any) -> Pixels:
    """Where corners and middle of a part of an image are, as GDAL has it."""
    georeference = None
    with rasterio.open(path) as dataset:
        georeference = Georeference.of_dataset(dataset)
    assert georeference is not None
    x, y = np.array([0.0, 0.0, 32.0, 32.0, 16.0]), np.array([0.0, 32.0, 0.0, 32.0, 16.0])
    return np.array(georeference.transformer().to_lonlat(x + window.x, y + window.y))


@pytest.mark.parametrize(
    "place",
    [
        {"crs": "EPSG:32618", "transform": UTM},
        {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 10, 0, -0.01, 50)},
        {"crs": CRS.from_wkt(CRS.from_epsg(27700).to_wkt()), "transform": Affine(1, 0, 4e5, 0, -1, 3e5)},
        {"gcps": POINTS, "crs": "EPSG:4326"},
        {"rpcs": RPCS},
    ],
    ids=["utm", "degrees", "wkt", "gcps", "rpcs"],
)
def test_a_geotiff_tile_lies_where_the_image_does(tmp_path: Path, place: dict[str, Any]) -> None:
    path = write(tmp_path / "a.tif", noise(1, 100, 100), **place)
    tile = tmp_path / "tile.tif"
    tile.write_bytes(cut(path, GTIFF) or b"")
    expected = corners(str(path), WINDOW)
    np.testing.assert_allclose(corners(str(tile), FIRST), expected, atol=1e-7)
    assert not (corners(str(tile), FIRST) == corners(str(path), FIRST)).any()


EMPTY = {
    "a value": {"nodata": 7},
    "no number": {"nodata": np.nan},
    "the least float": {"nodata": float(np.finfo("float32").min)},
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("cutting", [GTIFF, Cutting(tile_size=32, overlap=0, stretch=(2, 98))])
def test_a_tile_of_nodata_alone_is_none(tmp_path: Path, kind: str, cutting: Cutting) -> None:
    nodata = EMPTY[kind]["nodata"]
    pixels = noise(2, 100, 100, "float32")
    inside(pixels)[...] = nodata
    path = write(tmp_path / "a.tif", pixels, nodata=nodata)
    assert cut(path, cutting) is None
    inside(pixels)[1, 31, 31] = 8
    assert cut(write(path, pixels, nodata=nodata), cutting) is not None


@pytest.mark.parametrize("kind", ["alpha", "internal mask", "mask beside"])
def test_a_tile_that_is_masked_wholly_is_none(tmp_path: Path, kind: str) -> None:
    mask = np.full((100, 100), 255, dtype="uint8")
    inside(mask[None])[...] = 0
    path = tmp_path / "a.tif"

    def draw() -> None:
        if kind == "alpha":
            write(path, np.concatenate([noise(3, 100, 100), mask[None]]), photometric="RGB", alpha="YES")
            return
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal mask"),
            rasterio.open(path, "w", driver="GTiff", count=3, height=100, width=100, dtype="uint8") as image,
        ):
            image.write(noise(3, 100, 100))
            image.write_mask(mask)

    draw()
    assert cut(path, PNG) is None
    assert cut(path, PNG, FIRST) is not None
    inside(mask[None])[0, 31, 31] = 255
    draw()
    assert cut(path, PNG) is not None


def test_without_nodata_black_is_a_colour(tmp_path: Path) -> None:
    assert cut(write(tmp_path / "a.tif", np.zeros((1, 100, 100), "uint8")), PNG) is not None


def test_another_image_than_when_the_job_began_is_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 100, 100))
    image = described(path, PNG)
    with (
        rasterio.open(write(path, noise(1, 100, 90))) as dataset,
        pytest.raises(ImageReadError, match="is another by now than when the job began: start the job again"),
    ):
        cut_tile(dataset, image, WINDOW, PNG)
