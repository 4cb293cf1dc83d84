"""Small images for tests, each pixel of them known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.rpc import RPC

from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.image import Image, describe

Pixels = NDArray[Any]


def rpcs(half: float) -> RPC:
    """Those of an image whose sides have twice so many px: around 10 degrees east, 50 north, 100 m up."""
    return RPC(
        height_off=100.0,
        height_scale=500.0,
        lat_off=50.0,
        lat_scale=0.5,
        long_off=10.0,
        long_scale=0.5,
        line_off=half,
        line_scale=half,
        samp_off=half,
        samp_scale=half,
        line_num_coeff=[0.0, 0.0, -1.0, 0.1, *[0.0] * 16],
        line_den_coeff=[1.0, *[0.0] * 19],
        samp_num_coeff=[0.0, 1.0, 0.0, 0.05, *[0.0] * 16],
        samp_den_coeff=[1.0, *[0.0] * 19],
    )


def noise(bands: int, height: int, width: int, dtype: str = "uint8") -> Pixels:
    """Pixels of all values that their type has; the same for the same arguments."""
    random = np.random.default_rng(bands * height * width)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return random.integers(limits.min, limits.max, (bands, height, width), kind, endpoint=True)
    values = random.normal(0, 1000, (bands, height, width))
    return (values + 1j * values[:, ::-1] if kind.kind == "c" else values).astype(kind)


def smooth(bands: int, height: int, width: int, dtype: str = "uint8") -> Pixels:
    """A slope, which lossy compression changes little."""
    top = min(np.iinfo(dtype).max, 2000)
    slope = np.linspace(0, top, height * width).reshape(height, width)
    return np.stack([slope] * bands).astype(dtype)


def write(path: Path, pixels: Pixels, **profile: Any) -> Path:
    """An image file of these bands; a GeoTIFF if nothing else is said."""
    bands, height, width = pixels.shape
    kind = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **kind | profile) as image:
        image.write(pixels)
    return path


def described(path: Path, cutting: Cutting, **options: Any) -> Image:
    """What is known of an image file."""
    with rasterio.open(path) as dataset:
        return describe(dataset, str(path), cutting, **options)
