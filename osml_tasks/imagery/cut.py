"""One tile of an image: its pixels read, and written as what the model takes."""

from __future__ import annotations

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window as Rectangle

from osml_tasks.errors import ImageReadError
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.image import Image
from osml_tasks.imagery.stretch import Pixels, stretch
from osml_tasks.imagery.tile_file import encode
from osml_tasks.imagery.tile_place import place_of
from osml_tasks.imagery.window import Window


def cut_tile(dataset: DatasetReader, image: Image, window: Window, cutting: Cutting) -> bytes | None:
    """The bytes of a tile, or None where all of it is nodata.

    :raises ImageReadError: the image is another than it was when the job began.
    :raises RasterioError: its pixels cannot be read.
    """
    taken = {dataset.dtypes[band - 1] for band in image.taken if band <= dataset.count}
    size = (dataset.width, dataset.height, dataset.count)
    if size != (image.width, image.height, image.bands) or taken != {image.dtype}:
        raise ImageReadError(f"image {image.name!r} is another by now than when the job began: start the job again")
    rectangle = Rectangle(window.x, window.y, window.width, window.height)
    pixels = dataset.read(image.taken, window=rectangle)
    if _is_empty(dataset, pixels, rectangle, image.taken):
        return None
    if image.levels is not None:
        pixels = stretch(pixels, image.levels)
    return encode(pixels, cutting, place_of(image.georeference, window), image.colours)


def _is_empty(dataset: DatasetReader, pixels: Pixels, rectangle: Rectangle, taken: tuple[int, ...]) -> bool:
    """Whether nothing of a tile is data: by its bands' nodata, else by the mask or alpha band of the image."""
    flags = dataset.mask_flag_enums[taken[0] - 1]
    if MaskFlags.all_valid in flags:
        return False
    if MaskFlags.nodata in flags:
        return all(_is_all(band, dataset.nodatavals[number - 1]) for band, number in zip(pixels, taken, strict=True))
    return not dataset.dataset_mask(window=rectangle).any()


def _is_all(band: Pixels, nodata: float | None) -> bool:
    if nodata is None:
        return False
    if np.isnan(nodata):
        return bool(np.isnan(band).all())
    # Nearly every tile has data, and nearly always it begins with some.
    return bool(band[0, 0] == nodata) and bool((band == nodata).all())
