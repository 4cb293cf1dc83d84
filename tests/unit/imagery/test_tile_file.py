"""Tiles as files: every format and compression gives back the pixels that went in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rasterio.io import MemoryFile

from osml_tasks.errors import SourceError
from osml_tasks.imagery.cutting import COMPRESSIONS, Compression, Cutting, TileFormat
from osml_tasks.imagery.tile_file import check_format, encode
from tests.unit.imagery.drawn_images import Pixels, noise, smooth

ALL = [(form, compression) for form in TileFormat for compression in COMPRESSIONS[form]]
LOSSY = {Compression.JPEG, Compression.J2K}
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64")


def read(tile: bytes) -> tuple[str, Pixels]:
    with MemoryFile(tile) as file, file.open() as dataset:
        return dataset.driver, dataset.read()


def is_taken(bands: int, dtype: str, cutting: Cutting, size: tuple[int, int] = (70, 50)) -> bool:
    try:
        check_format("scene.tif", bands, dtype, size, cutting)
    except SourceError as error:
        assert "\n" not in str(error)
        assert "scene.tif" in str(error)
        return False
    return True


TAKEN = [
    pytest.param(cutting, dtype, bands, id=f"{form}-{compression}-{dtype}-{bands}")
    for form, compression in ALL
    for cutting in [Cutting(tile_format=form, compression=compression)]
    for dtype in DTYPES
    for bands in (1, 2, 3, 4, 8)
    if is_taken(bands, dtype, cutting)
]


@pytest.mark.parametrize(("cutting", "dtype", "bands"), TAKEN)
def test_what_is_taken_comes_back(cutting: Cutting, dtype: str, bands: int) -> None:
    is_lossy = cutting.compression_in_force in LOSSY
    given = (smooth if is_lossy else noise)(bands, 50, 70, dtype)
    driver, pixels = read(encode(given, cutting, {}))
    assert driver == {"GTIFF": "GTiff"}.get(cutting.tile_format, cutting.tile_format)
    assert (pixels.dtype, pixels.shape) == (given.dtype, given.shape)
    if is_lossy:
        assert np.abs(pixels.astype(float) - given).mean() < np.ptp(given) / 50
    else:
        np.testing.assert_array_equal(pixels, given)


@pytest.mark.parametrize(
    ("tile_format", "bands", "dtype"),
    [
        *[("PNG", bands, dtype) for bands in (1, 2, 3, 4) for dtype in ("uint8", "uint16")],
        *[("GTIFF", bands, dtype) for bands in (1, 3, 8, 300) for dtype in DTYPES],
        *[("NITF", bands, dtype) for bands in (1, 3, 8) for dtype in ("uint8", "uint16", "int16", "float32")],
        *[("JPEG", bands, "uint8") for bands in (1, 3)],
    ],
)
def test_what_each_format_takes(tile_format: str, bands: int, dtype: str) -> None:
    assert is_taken(bands, dtype, Cutting(tile_format=TileFormat(tile_format)))


@pytest.mark.parametrize(
    ("options", "bands", "dtype", "complaint"),
    [
        ({}, 8, "uint8", "have 8 bands of uint8, and PNG takes 1 or 2 or 3 or 4 bands of uint8 or uint16"),
        ({}, 1, "float32", "have 1 bands of float32, and PNG takes 1 or 2 or 3 or 4 bands of uint8 or uint16"),
        ({}, 3, "int16", "have 3 bands of int16, and PNG takes"),
        ({"tile_format": "JPEG"}, 3, "uint16", "have 3 bands of uint16, and JPEG takes 1 or 3 bands of uint8"),
        ({"tile_format": "JPEG"}, 4, "uint8", "have 4 bands of uint8, and JPEG takes"),
        ({"tile_format": "GTIFF", "compression": "JPEG"}, 3, "uint16", "JPEG in GTIFF takes 1 or 3 bands of uint8"),
        ({"tile_format": "NITF", "compression": "JPEG"}, 8, "uint8", "JPEG in NITF takes 1 or 3 bands of uint8"),
        ({"tile_format": "NITF", "compression": "J2K"}, 3, "float32", "J2K in NITF takes"),
        ({"tile_format": "NITF"}, 1, "complex64", "have 1 bands of complex64, and NITF takes"),
    ],
)
def test_what_does_not_go_says_what_would(options: dict[str, Any], bands: int, dtype: str, complaint: str) -> None:
    with pytest.raises(SourceError) as refused:
        check_format("scene.tif", bands, dtype, (512, 512), Cutting(**options))
    assert complaint in str(refused.value)
    assert str(refused.value).endswith(
        "choose bands with --bands, stretch pixels to 8 bits with --stretch 2,98, or keep them as they are with "
        "--tile-format GTIFF"
    )


def test_a_tile_larger_than_its_format_can_hold() -> None:
    with pytest.raises(SourceError, match=r"70000 x 9 px are larger than JPEG can hold, 65500 px: lower --tile-size"):
        check_format("a.tif", 1, "uint8", (70_000, 9), Cutting(tile_format=TileFormat.JPEG))


@pytest.mark.parametrize(("dtype", "side"), [("uint8", 31_623), ("uint16", 22_361), ("complex128", 7906)])
def test_a_tile_larger_than_an_endpoint_takes(dtype: str, side: int) -> None:
    cutting = Cutting(tile_format=TileFormat.GTIFF)
    with pytest.raises(SourceError, match="1,000,000,000 at most: lower --tile-size"):
        check_format("a.tif", 1, dtype, (side, side), cutting)
    assert is_taken(1, dtype, cutting, (side - 1, side - 1))


def test_a_georeference_is_not_asked_of_formats_that_have_none() -> None:
    place = {"crs": "EPSG:32618"}
    assert read(encode(noise(1, 9, 9), Cutting(), place))[0] == "PNG"
