"""What is known of an image once it has been opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from osml_tasks.errors import NotAllowedError, SourceError
from osml_tasks.imagery.cut import cut_tile
from osml_tasks.imagery.cutting import Cutting, TileFormat
from osml_tasks.imagery.image import Image, describe
from osml_tasks.imagery.image_job import ImageJob
from osml_tasks.imagery.merge_options import MergeOptions
from osml_tasks.imagery.tile_file import HAVE_COLOURS
from osml_tasks.imagery.window import Window
from tests.unit.imagery.drawn_images import described, noise, write

UTM = {"crs": "EPSG:32618", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)}


def test_an_image_says_what_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(3, 40, 60, "uint16"), **UTM)
    image = described(path, Cutting())
    assert (image.width, image.height, image.bands, image.dtype) == (60, 40, 3, "uint16")
    assert (image.format, image.crs, image.taken, image.levels) == ("GTIFF", "EPSG:32618", (1, 2, 3), None)
    assert image.source == {"location": str(path), "format": "GTIFF"}
    assert image.georeference is not None


@pytest.mark.parametrize(
    ("driver", "name"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("NITF", "NITF"), ("JP2OpenJPEG", "JP2"), ("COG", "GTIFF")]
)
def test_formats_have_the_names_that_users_know(tmp_path: Path, driver: str, name: str) -> None:
    from rasterio.shutil import copy

    source = write(tmp_path / "source.tif", noise(1, 64, 64))
    copy(source, tmp_path / "image", driver=driver)
    image = described(tmp_path / "image", Cutting())
    assert (image.format, image.crs, image.georeference) == (name, None, None)


@pytest.mark.parametrize("cutting", [Cutting(), Cutting(bands=(2, 1), stretch=(2, 98))])
@pytest.mark.parametrize("place", [{}, UTM])
def test_it_travels_as_json(tmp_path: Path, cutting: Cutting, place: dict[str, Any]) -> None:
    image = described(write(tmp_path / "a.tif", noise(2, 40, 60, "uint16"), **place), cutting)
    assert Image.from_dict(orjson.loads(orjson.dumps(image.to_dict()))) == image
    job = ImageJob((image, image), cutting, MergeOptions(), {"mission": "x"})
    assert ImageJob.from_json(job.to_json()) == job


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"images": [1]}', b'{"images": {"a": 1}, "cutting": {}}'])
def test_what_is_no_record_of_images_is_refused(text: bytes) -> None:
    with pytest.raises(NotAllowedError, match="is no record of them"):
        ImageJob.from_json(text)


def test_a_band_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(2, 9, 9))
    with pytest.raises(SourceError, match=re.escape(f"image '{path}' has 2 bands and no band 3: correct --bands")):
        described(path, Cutting(bands=(1, 3)))


def test_a_truncated_image_is_found_out_before_the_work(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(3, 300, 300), compress="DEFLATE")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RasterioError):
        described(path, Cutting())


def test_bands_of_several_types_are_refused_where_a_tile_would_have_them(tmp_path: Path) -> None:
    for name, dtype in (("one", "uint8"), ("two", "uint16")):
        write(tmp_path / f"{name}.tif", noise(1, 9, 9, dtype))
    path = tmp_path / "both.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{name}.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for band, (kind, name) in enumerate((("Byte", "one"), ("UInt16", "two")), start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{bands}</VRTDataset>')
    with pytest.raises(SourceError, match="bands of several types, uint16 and uint8: choose one of them with --bands"):
        described(path, Cutting(tile_format=TileFormat.GTIFF))
    assert described(path, Cutting(bands=(2,))).dtype == "uint16"


def test_the_levels_of_an_image_without_data_can_be_written_down(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((1, 9, 9), np.nan, dtype="float32"), nodata=np.nan)
    image = described(path, Cutting(stretch=(2, 98)))
    assert Image.from_dict(orjson.loads(orjson.dumps(image.to_dict()))).levels == ((0, 1),)


@pytest.mark.parametrize("tile_format", HAVE_COLOURS)
def test_a_colour_table_goes_into_every_tile(tmp_path: Path, tile_format: TileFormat) -> None:
    path, colours = tmp_path / "classes.tif", {value: (value, 255 - value, 7, 255) for value in range(256)}
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8") as dataset:
        dataset.write(np.arange(64 * 64, dtype=np.uint32).reshape(1, 64, 64).astype(np.uint8))
        dataset.write_colormap(1, colours)
    cutting = Cutting(32, 0, tile_format)
    with rasterio.open(path) as dataset:
        image = Image.from_dict(orjson.loads(orjson.dumps(describe(dataset, "classes.tif", cutting).to_dict())))
        tile = cut_tile(dataset, image, Window(32, 0, 32, 32), cutting)
    assert tile is not None
    with MemoryFile(tile) as file, file.open() as written:
        assert (written.count, written.colormap(1)) == (1, colours)
    with rasterio.open(path) as dataset, pytest.raises(SourceError, match="colour table"):
        describe(dataset, "classes.tif", Cutting(32, 0, TileFormat.JPEG))
