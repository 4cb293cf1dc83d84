"""Pixels of any depth to 8 bits: stretched between two percentiles of the whole image, the same for all its tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from osml_tasks.errors import SourceError

Pixels = NDArray[Any]
Levels = tuple[float, float]

_LONGEST_SIDE = 1024  # px of what the percentiles are taken from


def levels_of(dataset: DatasetReader, bands: Sequence[int], percentiles: tuple[float, float]) -> tuple[Levels, ...]:
    """What becomes 0 and what becomes 255 in each band, from the image made small; without what is nodata.

    :param bands: from 1.
    :raises SourceError: a band has complex numbers.
    """
    scale = max(dataset.width, dataset.height, _LONGEST_SIDE) / _LONGEST_SIDE
    shape = (max(1, round(dataset.height / scale)), max(1, round(dataset.width / scale)))
    return tuple(_levels(dataset, band, shape, percentiles) for band in bands)


def _levels(dataset: DatasetReader, band: int, shape: tuple[int, int], percentiles: tuple[float, float]) -> Levels:
    pixels = dataset.read(band, out_shape=shape, masked=True)
    if np.iscomplexobj(pixels):
        raise SourceError(f"band {band} of {dataset.name!r} has complex numbers, which --stretch does not take")
    known = pixels.compressed().astype(np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return (0.0, 1.0)
    low, high = np.percentile(known, percentiles).tolist()
    return (low, high) if high > low else (low, low + 1.0)


def stretch(pixels: Pixels, levels: Sequence[Levels]) -> Pixels:
    """Pixels as 8 bits.

    :param pixels: bands, rows, columns.
    :param levels: one for each band.
    """
    low, high = (np.array(ends, dtype=np.float32)[:, None, None] for ends in zip(*levels, strict=True))
    scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
    levelled: Pixels = np.nan_to_num(np.clip(np.rint(scaled), 0, 255)).astype(np.uint8)
    return levelled
