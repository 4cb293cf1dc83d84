"""Pixels of any depth to 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from osml_tasks.errors import SourceError
from osml_tasks.imagery.stretch import levels_of, stretch
from tests.unit.imagery.drawn_images import noise, write


def levels(path: Path, *bands: int, percentiles: tuple[float, float] = (2, 98)) -> list[tuple[float, float]]:
    with rasterio.open(path) as dataset:
        return list(levels_of(dataset, bands, percentiles))


def test_levels_are_percentiles_of_each_band(tmp_path: Path) -> None:
    pixels = noise(3, 200, 300, "uint16")
    pixels[1] //= 10
    found = levels(write(tmp_path / "a.tif", pixels), 2, 1)
    assert found == [tuple(np.percentile(pixels[band], (2, 98))) for band in (1, 0)]


def test_those_of_a_large_image_come_from_a_smaller_one(tmp_path: Path) -> None:
    pixels = np.arange(4_000_000, dtype="uint32").reshape(1, 1000, 4000)
    ((low, high),) = levels(write(tmp_path / "a.tif", pixels), 1, percentiles=(10, 90))
    assert (low, high) == pytest.approx((400_000, 3_600_000), rel=0.01)


def test_nodata_and_what_is_no_number_do_not_count(tmp_path: Path) -> None:
    pixels = np.full((1, 50, 50), -9999, dtype="float32")
    pixels[0, :10] = np.nan
    pixels[0, 10:20] = np.inf
    pixels[0, 20:30] = np.linspace(0, 100, 500).reshape(10, 50)
    found = levels(write(tmp_path / "a.tif", pixels, nodata=-9999), 1, percentiles=(0, 100))
    assert found == [(0, 100)]


@pytest.mark.parametrize("value", [0, 7])
def test_a_band_of_one_value_or_of_none_has_levels_all_the_same(tmp_path: Path, value: int) -> None:
    flat = write(tmp_path / "a.tif", np.full((1, 9, 9), value, dtype="uint16"), nodata=0)
    ((low, high),) = levels(flat, 1)
    assert low < high


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 9, 9, "complex64"))
    with pytest.raises(SourceError, match="complex numbers, which --stretch does not take"):
        levels(path, 1)


def test_levels_become_black_and_white_and_what_is_beyond_stays_there() -> None:
    pixels = np.array([[[0, 100, 150, 200, 65535]]], dtype="uint16")
    assert stretch(pixels, [(100, 200)]).tolist() == [[[0, 0, 128, 255, 255]]]


def test_what_is_no_number_becomes_black() -> None:
    pixels = np.array([[[np.nan, np.inf, -np.inf, 1.0]]], dtype="float32")
    assert stretch(pixels, [(0, 1)]).tolist() == [[[0, 255, 0, 255]]]
