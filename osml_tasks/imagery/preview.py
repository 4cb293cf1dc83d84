"""A picture of an image with its detections drawn on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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

_EDGE = 0.45  # of the ground's brightness is left under a dark edge

Mask = npt.NDArray[np.bool_]


def write_preview(path: Path, overview: Overview, features: Iterable[dict[str, Any]]) -> None:
    """Write a PNG of an image made small, with the outlines of detections in the colours of their classes.

    What has no data is black.

    :param features: those of this image, as in the result.
    :raises OSError: the file cannot be written.
    """
    path.write_bytes(encode(_drawn(overview, _geometries(overview, features)), "PNG"))


def _geometries(overview: Overview, features: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What to draw of each class, in pixels of the overview."""
    scale = np.array(overview.scale)
    by_class: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for feature in features:
        properties = feature.get("properties") or {}
        if strokes := outline_of(properties):
            by_class[top_class(properties)[0]].append(_geometry(strokes, scale))
    return by_class


def _geometry(strokes: list[Stroke], scale: npt.NDArray[np.float64]) -> dict[str, Any]:
    lines = []
    for points, closed in strokes:
        scaled = (points * scale).tolist()
        lines.append([*scaled, scaled[0]] if closed or len(scaled) == 1 else scaled)
    return {"type": "MultiLineString", "coordinates": lines}


def _drawn(overview: Overview, by_class: dict[str, list[dict[str, Any]]]) -> Pixels:
    pixels = np.where(overview.pixels[..., 3:] > 0, overview.pixels[..., :3], 0).astype(np.uint8)
    is_few = sum(map(len, by_class.values())) <= FEW
    lines = {name: _lines(geometries, pixels.shape[:2], is_few) for name, geometries in by_class.items()}
    if is_few and lines:
        edge = _grown(np.logical_or.reduce(list(lines.values())), -1, 0, 1)
        pixels[edge] = (pixels[edge] * _EDGE).astype(np.uint8)
    colours = class_colours(lines)
    for name, drawn in lines.items():
        pixels[drawn] = colours[name]
    return pixels


def _lines(geometries: list[dict[str, Any]], shape: tuple[int, int], is_few: bool) -> Mask:
    """Where the lines are. One that is shorter than a pixel still takes one."""
    drawn = rasterize(geometries, out_shape=shape, all_touched=True, dtype="uint8").astype(bool)
    return _grown(drawn, 0, 1) if is_few else drawn


def _grown(drawn: Mask, *steps: int) -> Mask:
    """What is drawn, and so many pixels right and down of it; negative ones are left and up."""
    grown = np.zeros_like(drawn)
    rows, columns = drawn.shape
    for down in steps:
        for right in steps:
            to = grown[max(down, 0) : rows + min(down, 0), max(right, 0) : columns + min(right, 0)]
            to |= drawn[max(-down, 0) : rows + min(-down, 0), max(-right, 0) : columns + min(-right, 0)]
    return grown
