"""A picture of an image with its detections drawn on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.features import rasterize

from osml_tasks.imagery.class_colours import class_colours
from osml_tasks.imagery.classes import top_class
from osml_tasks.imagery.outline import Stroke, outline_of
from osml_tasks.imagery.overview import Overview, Pixels, encode

FEW = 2000
"""So many detections are drawn in lines of two pixels with a dark edge; more in lines of one."""

_AT_ONCE = 10_000  # shapes in memory
_EDGE = 0.45  # of the ground's brightness is left under a dark edge

Numbers = npt.NDArray[np.int32]
Shape = tuple[dict[str, Any], int]


def write_preview(path: Path, overview: Overview, features: Iterable[dict[str, Any]]) -> None:
    """Write a PNG of an image made small, with the outlines of detections in the colours of their classes.

    What has no data is black.

    :param features: those of this image, as in the result; of any number.
    :raises OSError: the file cannot be written.
    """
    path.write_bytes(encode(_drawn(overview, features), "PNG"))


def _drawn(overview: Overview, features: Iterable[dict[str, Any]]) -> Pixels:
    pixels = np.where(overview.pixels[..., 3:] > 0, overview.pixels[..., :3], 0).astype(np.uint8)
    names: dict[str, int] = {}
    numbers, count = _numbers(pixels.shape[:2], _shapes(features, np.array(overview.scale), names))
    if count <= FEW:
        numbers = _grown(numbers, 0, 1)
        edge = _grown(numbers, -1, 0, 1) > 0
        pixels[edge] = (pixels[edge] * _EDGE).astype(np.uint8)
    colours = class_colours(names)
    palette = np.array([(0, 0, 0), *(colours[name] for name in names)], np.uint8)
    drawn = numbers > 0
    pixels[drawn] = palette[numbers[drawn]]
    return pixels


def _shapes(
    features: Iterable[dict[str, Any]], scale: npt.NDArray[np.float64], names: dict[str, int]
) -> Iterator[Shape]:
    """The lines of each feature in pixels of the overview, and its class's number, from 1: new ones into ``names``."""
    for feature in features:
        properties = feature.get("properties") or {}
        if strokes := outline_of(properties):
            yield _lines(strokes, scale), names.setdefault(top_class(properties)[0], len(names) + 1)


def _lines(strokes: list[Stroke], scale: npt.NDArray[np.float64]) -> dict[str, Any]:
    lines = []
    for points, closed in strokes:
        scaled = (points * scale).tolist()
        lines.append([*scaled, scaled[0]] if closed or len(scaled) == 1 else scaled)
    return {"type": "MultiLineString", "coordinates": lines}


def _numbers(size: tuple[int, int], shapes: Iterator[Shape]) -> tuple[Numbers, int]:
    """The number of the last shape that is drawn on a pixel, 0 for none; and how many shapes there were.

    A line that is shorter than a pixel still takes one.
    """
    numbers, count = np.zeros(size, np.int32), 0
    while some := list(islice(shapes, _AT_ONCE)):
        rasterize(some, out=numbers, all_touched=True)
        count += len(some)
    return numbers, count


def _grown(numbers: Numbers, *steps: int) -> Numbers:
    """The same with each pixel's number on so many pixels right and down of it, too, where there is none.

    :param steps: negative ones are left and up.
    """
    grown = numbers.copy()
    rows, columns = numbers.shape
    for down in steps:
        for right in steps:
            to = grown[max(down, 0) : rows + min(down, 0), max(right, 0) : columns + min(right, 0)]
            of = numbers[max(-down, 0) : rows + min(-down, 0), max(-right, 0) : columns + min(-right, 0)]
            np.copyto(to, of, where=to == 0)
    return grown
