"""Draw an image of ships at a known place, find them with an asynchronous endpoint, and put them into GeoPandas.

    python examples/whole_image.py [IMAGE] [--endpoint NAME]

IMAGE is yours, or where the drawing goes. It takes the extra osml-tasks[imagery], geopandas, a broker and workers;
everything else is as in basic_async_usage.py.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from rasterio.transform import from_origin

import osml_tasks

SHIPS = [(x, y) for y in range(60, 1000, 150) for x in range(60, 1400, 200)]


def draw(path: Path) -> None:
    """Draw bright ships on dark water, 2 m a pixel, in the bay of San Francisco."""
    pixels = np.random.default_rng(1).normal(40, 2, (1050, 1450)).astype("uint8")
    for x, y in SHIPS:
        pixels[y : y + 10, x : x + 40] = 230
    place = {"crs": "EPSG:32610", "transform": from_origin(553_000, 4_186_000, 2, 2)}
    size = {"width": pixels.shape[1], "height": pixels.shape[0], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as image:
        image.write(pixels, 1)


def main() -> None:
    """Find what is on the image, and say where it lies and how large it is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path, nargs="?", default=Path("ships.tif"))
    parser.add_argument("--endpoint", default=os.environ.get("ENDPOINT", "bright-objects"))
    arguments = parser.parse_args()
    if not arguments.image.exists():
        draw(arguments.image)
        print(f"{len(SHIPS)} ships are drawn in {arguments.image.name}")

    job = osml_tasks.detect(arguments.image, endpoint=arguments.endpoint, tile_size=512, overlap=64)
    found = geopandas.GeoDataFrame.from_features(job.result()["features"], crs="EPSG:4326")
    report = job.report()
    job.discard()

    print(f"{len(found)} found in {report['tiles']} tiles, {report['failed']} failed")
    if len(found):
        found["square_metres"] = found.to_crs(found.estimate_utm_crs()).area.round()
        print(found[["geometry", "square_metres", "imageBBox"]].head().to_string())


if __name__ == "__main__":
    main()
