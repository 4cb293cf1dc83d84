"""An image of any size that is like imagery: ground with noise and slow changes, and bright objects on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

Box = tuple[int, int, int, int]

BLOCK = 512  # px
LONGEST = 40  # px; tiles that overlap by more have each object whole at least once
CELL = 192  # px; each has one object, which touches none of another

_SHORTEST = 12  # px
_PATCH = 1024  # px of noise, which then repeats
_GROUND, _SWELL = 70, 10  # grey levels
_NOISE, _TINT = 8, 3  # grey levels, of all bands alike and of each
_PIXEL = 0.5  # m
_CRS, _CORNER = "EPSG:32618", (400_000.0, 4_000_000.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """An image, and what is on it.

    :ivar size: width and height, px.
    :ivar objects: their boxes in px, maxima not included.
    """

    path: Path
    size: int
    objects: list[Box]


def write_geotiff(path: Path, size: int, seed: int = 1) -> Scene:
    """Write a scene as a tiled GeoTIFF: three bands of 8 bits, without loss."""
    return _write(path, size, seed, compress="DEFLATE", predictor=2, zlevel=1)


def write_cog(path: Path, size: int, seed: int = 1) -> Scene:
    """Write a scene as a cloud-optimised GeoTIFF with overviews, in JPEG as imagery is delivered."""
    raw = path.with_suffix(".raw.tif")
    scene = _write(raw, size, seed)
    options = {"compress": "JPEG", "quality": 90, "overview_resampling": "AVERAGE", "blocksize": BLOCK}
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
        rasterio.shutil.copy(raw, path, driver="COG", **options)
    raw.unlink()
    return Scene(path, size, scene.objects)


def _write(path: Path, size: int, seed: int, **options: Any) -> Scene:
    random = np.random.default_rng(seed)
    objects, levels = _objects(random, size)
    noise = random.normal(0, _NOISE, (_PATCH, _PATCH)) + random.normal(0, _TINT, (3, _PATCH, _PATCH))
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": size, "height": size, "interleave": "pixel"}
    tiled = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "IF_SAFER"}
    place = {"crs": _CRS, "transform": Affine.translation(*_CORNER) * Affine.scale(_PIXEL, -_PIXEL)}
    with rasterio.open(path, "w", **profile, **tiled, **place, **options) as dataset:
        for top in range(0, size, BLOCK):
            height = min(BLOCK, size - top)
            pixels = _ground(noise, top, height, size)
            _draw(pixels, top, objects, levels)
            dataset.write(pixels, window=Window(0, top, size, height))
    return Scene(path, size, [(x, y, right, bottom) for x, y, right, bottom in objects.tolist()])


def _objects(random: np.random.Generator, size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """One in each cell, as box and grey level."""
    cells = np.stack(np.meshgrid(*[np.arange(size // CELL) * CELL] * 2), axis=-1).reshape(-1, 2)
    sides = random.integers(_SHORTEST, LONGEST, cells.shape, endpoint=True)
    corners = cells + random.integers(LONGEST, CELL - 2 * LONGEST, cells.shape)
    return np.hstack((corners, corners + sides)), random.integers(190, 240, len(cells), dtype=np.uint8)


def _ground(noise: NDArray[np.float64], top: int, height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.arange(top, top + height), np.arange(width)
    swell = _SWELL * np.sin(rows / 310)[:, None] * np.sin(columns / 420)[None, :]
    repeated = noise[:, (rows % _PATCH)[:, None], (columns % _PATCH)[None, :]]
    return (_GROUND + swell + repeated).astype(np.uint8)


def _draw(pixels: NDArray[np.uint8], top: int, objects: NDArray[np.int64], levels: NDArray[np.uint8]) -> None:
    within = (objects[:, 3] > top) & (objects[:, 1] < top + pixels.shape[1])
    for (x, y, right, bottom), level in zip(objects[within].tolist(), levels[within].tolist(), strict=True):
        pixels[:, max(y - top, 0) : bottom - top, x:right] = level
