"""Images to be cut: bright ships on dark water, at a known place on the globe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

SHIP = (36, 12)  # px, across and down
STEP = 180  # px from ship to ship


def write_scene(path: Path, *, width: int = 1400, height: int = 1100, bands: int = 3, dtype: str = "uint8") -> int:
    """Draw a GeoTIFF off San Francisco (UTM zone 10, 2 m a pixel); says how many ships are on it."""
    random = np.random.default_rng(7)
    brightest = np.iinfo(dtype).max
    scene = random.normal(0.16, 0.01, (height, width))
    ships = [(x, y) for y in range(90, height - 60, STEP) for x in range(70, width - 60, STEP)]
    for x, y in ships:
        scene[y : y + SHIP[1], x : x + SHIP[0]] = 0.9
    pixels = (np.clip(scene, 0, 1) * brightest).astype(dtype)
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "DEFLATE"}
    place = {"crs": "EPSG:32610", "transform": from_origin(540_000, 4_180_000, 2, 2)}
    with rasterio.open(path, "w", width=width, height=height, count=bands, dtype=dtype, **profile, **place) as dataset:
        dataset.write(np.stack([pixels] * bands))
    return len(ships)
