"""Images of any kind, made small and visible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from osml_tasks.imagery.overview import encode, read_overview, web_driver

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@contextmanager
def image(pixels: Any, *, meanings: Any = None, colours: Any = None, **profile: Any) -> Iterator[Any]:
    """A GeoTIFF in memory with these bands, rows and columns, open."""
    bands, rows, columns = pixels.shape
    with rasterio.MemoryFile() as file:
        profile |= {"width": columns, "height": rows, "count": bands, "dtype": pixels.dtype}
        with file.open(driver="GTiff", **profile) as made:
            if meanings:
                made.colorinterp = meanings
            if colours:
                made.write_colormap(1, colours)
            made.write(pixels)
        with file.open() as dataset:
            yield dataset


def ramp(bands: int, dtype: str, most: float) -> Any:
    return np.tile(np.linspace(0, most, 100).astype(dtype), (bands, 50, 1))


def test_a_large_image_becomes_small_and_keeps_its_shape() -> None:
    with image(np.full((3, 100, 400), 7, np.uint8)) as dataset:
        overview = read_overview(dataset, longest=40)
    assert overview.pixels.shape == (10, 40, 4)
    assert (overview.width, overview.height, overview.scale) == (400, 100, (0.1, 0.1))
    assert (overview.pixels == (7, 7, 7, 255)).all()


def test_a_small_image_stays_as_it_is() -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    with image(pixels) as dataset:
        overview = read_overview(dataset)
    assert (np.moveaxis(overview.pixels[..., :3], -1, 0) == pixels).all()


def test_an_image_of_any_shape_has_an_overview() -> None:
    with image(np.ones((1, 1, 9000), np.uint8)) as dataset:
        assert read_overview(dataset, longest=10).pixels.shape == (1, 10, 4)


@pytest.mark.parametrize(("bands", "grey"), [(1, True), (2, True), (3, False), (4, False), (8, False)], ids=str)
def test_one_band_is_grey_and_three_are_colours(bands: int, grey: bool) -> None:
    pixels = np.stack([np.full((4, 4), 10 * band, np.uint8) for band in range(1, bands + 1)])
    with image(pixels, photometric="MINISBLACK") as dataset:
        shown = read_overview(dataset).pixels[0, 0].tolist()
    assert shown == ([10, 10, 10, 255] if grey else [10, 20, 30, 255])


def test_the_image_says_which_bands_are_its_colours_and_the_caller_may_choose_others() -> None:
    pixels = np.stack([np.full((4, 4), value, np.uint8) for value in (10, 20, 30, 40)])
    meanings = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    with image(pixels, meanings=meanings, photometric="MINISBLACK") as dataset:
        assert read_overview(dataset).pixels[0, 0].tolist() == [40, 30, 20, 255]
        assert read_overview(dataset, bands=[1, 2, 4]).pixels[0, 0].tolist() == [10, 20, 40, 255]


def test_a_palette_gives_its_colours() -> None:
    pixels = np.array([[[0, 1], [1, 2]]], np.uint8)
    with image(pixels, colours={0: (1, 2, 3, 255), 1: (200, 100, 50, 255), 2: (9, 9, 9, 255)}) as dataset:
        overview = read_overview(dataset)
    assert overview.pixels[0].tolist() == [[1, 2, 3, 255], [200, 100, 50, 255]]


@pytest.mark.parametrize(
    ("dtype", "most"), [("uint16", 4000), ("int16", 900), ("uint32", 1e6), ("float32", 0.4), ("complex64", 30)]
)
def test_other_depths_are_stretched_from_dark_to_bright(dtype: str, most: float) -> None:
    with image(ramp(1, dtype, most)) as dataset:
        row = read_overview(dataset).pixels[0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) >= 0).all()
    assert len(set(row.tolist())) > 90


def test_a_few_extremes_do_not_darken_the_rest() -> None:
    pixels = ramp(1, "uint16", 1000)
    pixels[0, 0, 50] = 65535
    with image(pixels) as dataset:
        assert read_overview(dataset).pixels[10, -1, 0] == 255


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_an_image_of_one_value_is_no_error(dtype: str) -> None:
    with image(np.full((1, 4, 4), 500, dtype)) as dataset:
        assert read_overview(dataset).pixels[..., 3].all()


def test_what_has_no_data_is_transparent() -> None:
    pixels = ramp(3, "uint8", 250)
    with image(pixels, nodata=0) as dataset:
        opacity = read_overview(dataset).pixels[..., 3]
    assert (opacity[:, 0] == 0).all()
    assert (opacity[:, 5:] == 255).all()


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_what_is_no_number_is_transparent_and_does_not_spoil_the_stretch(missing: float) -> None:
    pixels = ramp(1, "float32", 1.0)
    pixels[0, :10] = missing
    with image(pixels) as dataset:
        shown = read_overview(dataset).pixels
    assert (shown[:10, :, 3] == 0).all()
    assert shown[20, -1].tolist() == [255, 255, 255, 255]


def test_an_image_without_any_data_is_transparent() -> None:
    with image(np.full((1, 4, 4), np.nan, "float32")) as dataset:
        assert not read_overview(dataset).pixels[..., 3].any()


def test_an_image_with_opacity_of_its_own_keeps_it() -> None:
    pixels = np.full((4, 6, 6), 200, np.uint8)
    pixels[3, :3] = 0
    with image(pixels, photometric="RGB", alpha="YES") as dataset:
        opacity = read_overview(dataset).pixels[..., 3]
    assert (opacity[:3] == 0).all() and (opacity[3:] == 255).all()


@pytest.mark.parametrize("driver", ["PNG", web_driver()])
def test_an_overview_becomes_a_file_that_looks_the_same(driver: str) -> None:
    with image(ramp(3, "uint8", 250), nodata=0) as dataset:
        pixels = read_overview(dataset).pixels
    with rasterio.MemoryFile(encode(pixels, driver)) as file, file.open() as dataset:
        again = np.moveaxis(dataset.read(), 0, -1)
    assert (again[..., 3] == pixels[..., 3]).all()
    assert np.abs(again[..., :3].astype(int) - pixels[..., :3]).max() < (1 if driver == "PNG" else 12)
