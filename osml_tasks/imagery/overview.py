"""An image made small enough to look at: a few thousand pixels at most, whatever its size, bands and type."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.drivers import raster_driver_extensions
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning

LONGEST = 2048
"""The longer side of an overview, px."""

_DARKEST, _BRIGHTEST = 2.0, 98.0  # percentiles of an image that is not 8-bit
_OPAQUE = 255
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Overview:
    """A small picture of an image.

    :ivar pixels: red, green, blue and opacity, ``(rows, columns, 4)``; opacity is 0 where the image has no data.
    :ivar width: of the image itself, px; so is ``height``.
    """

    pixels: Pixels
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the overview for one of the image, ``(x, y)``."""
        rows, columns, _ = self.pixels.shape
        return columns / self.width, rows / self.height


def read_overview(
    dataset: rasterio.DatasetReader, longest: int = LONGEST, bands: Sequence[int] | None = None
) -> Overview:
    """Make an open image small, by its own overviews where it has them; else all of it is read.

    8-bit bands stay as they are; others are stretched, each from its 2nd to its 98th percentile.

    :param longest: the longer side of the overview at most, px.
    :param bands: which to show, from 1: one is grey, three are red, green and blue. By default the image says.
    :raises rasterio.errors.RasterioIOError: the image cannot be read.
    """
    shown = list(bands) if bands else _bands_to_show(dataset)
    shrink = max(1.0, max(dataset.width, dataset.height) / longest)
    shape = (max(1, round(dataset.height / shrink)), max(1, round(dataset.width / shrink)))
    palette = _palette(dataset, shown)
    how = Resampling.nearest if palette is not None else Resampling.average
    values = dataset.read(shown, out_shape=(len(shown), *shape), resampling=how)
    valid = _valid(dataset, shown, values)
    if palette is not None:
        colours = palette[values[0]]
        return Overview(np.dstack([colours[..., :3], np.where(valid, colours[..., 3], 0)]), *_size(dataset))
    values, valid = _real_and_finite(values, valid)
    visible = [_visible(band, valid) for band in values]
    opacity = np.where(valid, _OPAQUE, 0).astype(np.uint8)
    return Overview(np.dstack([*_three(visible), opacity]), *_size(dataset))


def encode(pixels: Pixels, driver: str) -> bytes:
    """A picture as a file.

    :param pixels: red, green, blue and, where it has any, opacity, ``(rows, columns, 3 or 4)``.
    :param driver: GDAL's name of the format: ``PNG``, ``WEBP``.
    """
    rows, columns, bands = pixels.shape
    with warnings.catch_warnings(), rasterio.MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver=driver, width=columns, height=rows, count=bands, dtype="uint8") as picture:
            picture.write(np.moveaxis(pixels, -1, 0))
        return bytes(file.read())


def web_driver() -> str:
    """The format that is smallest on a page: WebP where GDAL has it, else PNG."""
    return "WEBP" if "webp" in raster_driver_extensions() else "PNG"


def _size(dataset: rasterio.DatasetReader) -> tuple[int, int]:
    return dataset.width, dataset.height


def _bands_to_show(dataset: rasterio.DatasetReader) -> list[int]:
    meanings = dict(zip(dataset.colorinterp, dataset.indexes, strict=True))
    if all(colour in meanings for colour in _RGB):
        return [meanings[colour] for colour in _RGB]
    data = [
        band for band, is_for in zip(dataset.indexes, dataset.colorinterp, strict=True) if is_for != ColorInterp.alpha
    ]
    return data[:3] if len(data) >= 3 else data[:1]


def _valid(dataset: rasterio.DatasetReader, bands: Sequence[int], values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where the image has data, for values of bands that were read.

    Where a value stands for no data, the values tell: GDAL's mask would be made of all pixels once more for each band.
    """
    if all(dataset.mask_flag_enums[band - 1] == [MaskFlags.nodata] for band in bands):
        missing = np.array([dataset.nodatavals[band - 1] for band in bands])[:, None, None]
        return np.asarray((values != missing).any(axis=0))
    return np.asarray(dataset.dataset_mask(out_shape=values.shape[1:]) > 0)


def _palette(dataset: rasterio.DatasetReader, shown: Sequence[int]) -> Pixels | None:
    """The colours of an image of numbered colours; None of any other."""
    if len(shown) != 1 or dataset.colorinterp[shown[0] - 1] != ColorInterp.palette:
        return None
    colours = np.zeros((65536, 4), np.uint8)
    for number, colour in dataset.colormap(shown[0]).items():
        colours[number] = colour
    return colours


def _real_and_finite(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], Any]:
    """Magnitudes of complex values; and no data where a value is no number."""
    if np.iscomplexobj(values):
        values = np.abs(values)
    return values, valid & np.isfinite(values).all(axis=0)


def _visible(band: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Pixels:
    if band.dtype == np.uint8:
        return band
    if not valid.any():
        return np.zeros(band.shape, np.uint8)
    known = band[valid].astype(np.float64)
    darkest, brightest = np.percentile(known, [_DARKEST, _BRIGHTEST])
    if brightest <= darkest:  # nearly all of it is one value
        darkest, brightest = known.min(), known.max()
    span = brightest - darkest or 1.0
    shares = (np.where(valid, band, darkest).astype(np.float64) - darkest) / span
    visible: Pixels = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return visible


def _three(bands: list[Pixels]) -> list[Pixels]:
    """One band thrice is grey."""
    return bands if len(bands) == 3 else bands[:1] * 3
