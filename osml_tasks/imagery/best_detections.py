"""The best detections of any number of features, as small as a page wants them."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from osml_tasks.imagery.classes import top_class
from osml_tasks.imagery.description import describe, position
from osml_tasks.imagery.outline import Stroke, outline_of

STEPS_A_PIXEL = 10
"""Places are kept to a tenth of a pixel."""

_SCATTER, _NUMBERS = 2_654_435_761, 2**32  # odd, so that no two features below 2**32 draw the same lot


@dataclass(frozen=True, slots=True)
class Detection:
    """A detection that is drawn.

    :ivar image: the image's place among those of the page.
    :ivar name: of its class; empty without one.
    :ivar lengths: points of each stroke, negative where it is open.
    :ivar points: of all strokes, ``x, y`` in tenths of a pixel of the image, as 32-bit integers.
    :ivar known: what a click shows, as JSON.
    """

    image: int
    name: str
    score: float
    lengths: tuple[int, ...]
    points: bytes
    known: str


@dataclass(frozen=True)
class BestDetections:
    """What is drawn, in the features' order, and how many features are not.

    :ivar features: how many there were.
    :ivar unplaced: those with no place on an image of the page.
    """

    detections: tuple[Detection, ...]
    features: int
    unplaced: int

    @property
    def left_out(self) -> int:
        """Those with lower scores than the ones that are drawn."""
        return self.features - self.unplaced - len(self.detections)


class _Entry(NamedTuple):
    """Orders detections by score; equal ones by lot, so that they are left out all over the image."""

    score: float
    lot: int
    number: int
    detection: Detection


def best_detections(features: Iterable[dict[str, Any]], images: Mapping[str, int], most: int) -> BestDetections:
    """Go through features once, and keep the best.

    :param images: the place of each image on the page, by the name that ``sourceMetadata`` ends with.
    :param most: how many to keep.
    """
    best: list[_Entry] = []
    count = unplaced = 0
    for number, feature in enumerate(features):
        count += 1
        properties = feature.get("properties") or {}
        image = _image(properties, images)
        strokes = [] if image is None else outline_of(properties)
        if image is None or not strokes:
            unplaced += 1
            continue
        name, score = _class_of(properties)
        lot = number * _SCATTER % _NUMBERS
        if len(best) < most or (score, lot) > best[0][:2]:
            entry = _Entry(score, lot, number, _detection(image, name, score, strokes, feature))
            (heapq.heappush if len(best) < most else heapq.heapreplace)(best, entry)
    best.sort(key=lambda entry: entry.number)
    return BestDetections(tuple(entry.detection for entry in best), count, unplaced)


def _image(properties: dict[str, Any], images: Mapping[str, int]) -> int | None:
    """The image that a feature is of; where there is one only, all that do not say are of it."""
    sources = properties.get("sourceMetadata")
    if not sources:
        return 0 if len(images) == 1 else None
    last = sources[-1] if isinstance(sources, list) else sources
    location = last.get("location") if isinstance(last, dict) else None
    return images.get(location) if isinstance(location, str) else None


def _class_of(properties: dict[str, Any]) -> tuple[str, float]:
    name, score = top_class(properties)
    return name, score if math.isfinite(score) else 0.0


def _detection(image: int, name: str, score: float, strokes: list[Stroke], feature: dict[str, Any]) -> Detection:
    points = np.rint(np.concatenate([stroke.points for stroke in strokes]) * STEPS_A_PIXEL).astype("<i4")
    lengths = tuple(len(stroke.points) * (1 if stroke.closed else -1) for stroke in strokes)
    known = {"position": position(feature), "rows": describe(feature["properties"])}
    return Detection(image, name, score, lengths, points.tobytes(), json.dumps(known, separators=(",", ":")))
