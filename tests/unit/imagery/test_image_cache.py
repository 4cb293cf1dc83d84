"""What has been read of an image is kept for the next tile."""

from __future__ import annotations

from pathlib import Path

import boto3
import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from osml_tasks.imagery.datasets import Datasets

SIDE, BLOCK = 1024, 256


def test_a_block_that_neighbours_share_is_read_from_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    pixels = np.random.default_rng(1).integers(1, 255, (1, SIDE, SIDE), dtype=np.uint8)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "width": SIDE, "height": SIDE}
    blocks = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    with rasterio.open(path, "w", **profile, **blocks, transform=Affine.scale(2)) as image:
        image.write(pixels)
    datasets = Datasets(boto3.Session())
    with datasets.open(str(path)) as image:
        assert (image.read(window=Window(0, 0, 700, 700)) == pixels[:, :700, :700]).all()
    with path.open("r+b") as file:
        file.seek(-SIDE * SIDE, 2)
        file.write(bytes(SIDE * SIDE))
    with datasets.open(str(path)) as image:
        assert (image.read(window=Window(400, 400, 300, 300)) == pixels[:, 400:700, 400:700]).all()
