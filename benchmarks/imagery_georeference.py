"""Features put on their image and on the globe, and tiles found for a region: points and windows a CPU second.

``python -m benchmarks.imagery_georeference`` shows it alone.
"""

from __future__ import annotations

import gc
import math
import random
import time
from dataclasses import dataclass
from typing import Any

import orjson
import rasterio
from rich.console import Console

from benchmarks.row import Row, at_least, at_most, on_terminal
from benchmarks.run import Ground
from benchmarks.scale import Scale
from osml_tasks.imagery.georeference import Georeference, Transformer
from osml_tasks.imagery.place import place
from osml_tasks.imagery.roi import intersecting, parse_roi
from osml_tasks.imagery.window import Window

POINTS_PER_SECOND = 500_000
ROI_SECONDS = 1.0

_TILE = 1024  # px
_TILES = 2_000
_FEATURES = 20  # a tile
_TOGETHER = 16  # tiles
_POINTS = 5  # a rotated box
_WINDOWS = 10_000
_TIMES = 3

_UTM = Georeference("EPSG:32618", affine=(0.5, 0.0, 400_000.0, 0.0, -0.5, 4_000_000.0))
_DATE_LINE = Georeference("EPSG:4326", affine=(1e-5, 0.0, 179.995, 0.0, -1e-5, 10.0))


@dataclass(frozen=True, slots=True)
class Paces:
    """What was measured, the best of several times.

    :ivar together: points a CPU second, several tiles at a time.
    :ivar alone: the same, one tile at a time.
    :ivar over_date_line: the same, where all features cross 180 degrees.
    :ivar roi: CPU seconds to find those of 10,000 windows that meet a region.
    """

    together: float
    alone: float
    over_date_line: float
    roi: float


def measure(_ground: Ground | None = None, _scale: Scale | None = None) -> Paces:
    """Measure all; it needs neither a fleet nor a size."""
    tile = orjson.dumps(_features(random.Random(1), _TILE))
    strip = orjson.dumps(_features(random.Random(1), _TILE, width=1000.0))
    gc.collect()
    gc.freeze()  # as a worker does
    with rasterio.Env():
        utm, date_line = _UTM.transformer(), _DATE_LINE.transformer()
        paces = Paces(
            max(_points_per_second(tile, utm, _TOGETHER, _TILES) for _ in range(_TIMES)),
            max(_points_per_second(tile, utm, 1, _TILES) for _ in range(_TIMES)),
            max(_points_per_second(strip, date_line, _TOGETHER, _TILES // 20) for _ in range(_TIMES)),
            min(_roi_seconds(utm) for _ in range(_TIMES)),
        )
    gc.unfreeze()
    return paces


def rows(paces: Paces) -> list[Row]:
    """The figures with their bars."""
    return [
        at_least(
            "features on image and globe, UTM, points a CPU second",
            paces.together,
            POINTS_PER_SECOND,
            f"{paces.together:,.0f} ({_TOGETHER} tiles of {_FEATURES} boxes at a time; {paces.alone:,.0f} one at a "
            f"time; {paces.over_date_line:,.0f} where all cross the date line)",
        ),
        at_most(
            f"{_WINDOWS:,} windows against a region, CPU",
            paces.roi,
            ROI_SECONDS,
            f"{paces.roi:.2f} s",
            " s",
        ),
    ]


def _features(random_numbers: random.Random, size: int, width: float | None = None) -> list[dict[str, Any]]:
    """Rotated boxes, 5 to 60 px wide unless another width is given; seeded."""
    return [_feature(random_numbers, size, width) for _ in range(_FEATURES)]


def _feature(random_numbers: random.Random, size: int, width: float | None) -> dict[str, Any]:
    length = width or random_numbers.uniform(5, 60)
    turned = 0.0 if width else random_numbers.uniform(0, math.tau)
    x = 5.0 if width else random_numbers.uniform(0, size)
    y, height = random_numbers.uniform(0, size - 60), random_numbers.uniform(5, 60)
    cosine, sine = math.cos(turned), math.sin(turned)
    corners = ((0.0, 0.0), (length, 0.0), (length, height), (0.0, height), (0.0, 0.0))
    ring = [
        [round(x + cosine * across - sine * down, 2), round(y + sine * across + cosine * down, 2)]
        for across, down in corners
    ]
    return {
        "type": "Feature",
        "geometry": None,
        "properties": {
            "imageGeometry": {"type": "Polygon", "coordinates": [ring]},
            "featureClasses": [{"iri": "ship", "score": 0.9}],
        },
    }


def _points_per_second(tile: bytes, transformer: Transformer, together: int, tiles: int) -> float:
    """Of ``place`` alone; each answer is parsed before, and gone before the next."""
    spent = 0.0
    for first in range(0, tiles, together):
        batch = [(Window(row * _TILE, 0, _TILE, _TILE), orjson.loads(tile)) for row in range(first, first + together)]
        began = time.process_time()
        place(batch, transformer)
        spent += time.process_time() - began
    return tiles * _FEATURES * _POINTS / spent


def _roi_seconds(transformer: Transformer) -> float:
    side = math.isqrt(_WINDOWS)
    windows = [Window(row * _TILE, column * _TILE, _TILE, _TILE) for row in range(side) for column in range(side)]
    began = time.process_time()
    intersecting(windows, parse_roi("-75.9,35.8,-75.7,36.0"), transformer)
    return time.process_time() - began


if __name__ == "__main__":
    Console().print(on_terminal(rows(measure())))
