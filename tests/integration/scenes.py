"""Images of a drawn harbour, and what the sample model finds in them when nobody but the test asks it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
import shapely.affinity
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from shapely.geometry import shape
from shapely.ops import transform

from osml_tasks.imagery.grid import windows
from osml_tasks.imagery.window import Window
from osml_tasks.local.harbour import Box, make_harbour
from tests.unit.imagery.drawn_images import write

CRS = "EPSG:32618"
PLACE = Affine(0.5, 0.05, 500_000, 0.05, -0.5, 4_000_000)
TILING = ("--tile-size", "256", "--overlap", "64")


@dataclass(frozen=True)
class Scene:
    """A georeferenced image, and the ships in it as boxes in its pixels."""

    path: Path
    pixels: NDArray[np.uint8]
    ships: tuple[Box, ...]

    @property
    def windows(self) -> list[Window]:
        """Its tiles as :data:`TILING` has them."""
        _, height, width = self.pixels.shape
        return windows(width, height, 256, 64)


def draw(path: Path, *, seed: int = 5, ships: int = 24, **profile: Any) -> Scene:
    """A harbour of 1024 x 768 px as a GeoTIFF, unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    harbour = make_harbour(path.parent / f".{path.stem}", width=1024, height=768, ships=ships, seed=seed)
    pixels = np.moveaxis(np.asarray(Image.open(harbour.overview)), -1, 0)
    write(path, pixels, **{"crs": CRS, "transform": PLACE, "compress": "DEFLATE"} | profile)
    return Scene(path, pixels, tuple(_on_image(ship.box, ship.tile) for ship in harbour.ships))


def _on_image(box: Box, tile: str) -> Box:
    row, column = (int(part[1:]) for part in tile.removesuffix(".png").split("_")[1:])
    left, top, right, bottom = box
    return (left + 256 * column, top + 256 * row, right + 256 * column, bottom + 256 * row)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A tile as a PNG, as a user without this program would write it."""
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(file, "PNG")
    return file.getvalue()


def on_image(feature: dict[str, Any], window: Window) -> dict[str, Any]:
    """What is left to be compared of a model's answer: its shape on image and globe, and its class."""
    properties = feature["properties"]
    moved = shapely.affinity.translate(shape(properties["imageGeometry"]), window.x, window.y)
    to_globe = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    on_globe = transform(lambda x, y: to_globe.transform(*(PLACE * (x, y))), moved)
    return {"image": moved, "globe": on_globe, "classes": properties["featureClasses"], "tile": window.box}


def as_placed(feature: dict[str, Any]) -> dict[str, Any]:
    """The same of a feature of a result."""
    properties = feature["properties"]
    return {
        "image": shape(properties["imageGeometry"]),
        "globe": shape(feature["geometry"]),
        "classes": properties["featureClasses"],
        "tile": tuple(properties["sourceMetadata"][-1]["tileBBox"]),
    }


def are_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two of these are: to a thousandth of a pixel, and 1e-7 degrees."""
    return (
        one["classes"] == other["classes"]
        and one["tile"] == other["tile"]
        and one["image"].normalize().equals_exact(other["image"].normalize(), 1e-3)
        and bool(shapely.hausdorff_distance(one["globe"], other["globe"]) < 1e-7)
    )


def iou(box: Box, other: Box) -> float:
    """Overlap of two boxes."""
    one, two = shapely.box(*box), shapely.box(*other)
    return float(one.intersection(two).area / one.union(two).area)


def without_job(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Features less which job found them, and when."""
    for feature in features:
        del feature["properties"]["inferenceMetadata"]
    return features
