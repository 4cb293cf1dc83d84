"""Placed features as tests give them to merging, and random scenes of overlapping tiles."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from hypothesis import strategies as st

from osml_tasks.imagery.merge import merge
from osml_tasks.imagery.merge_options import MergeOptions
from osml_tasks.imagery.seen import Seen

TILE = 12
"""The side of a tile in random scenes, px: small, so that many things meet."""

Box = tuple[float, float, float, float]


def detection(
    tile: Box,
    box: Any,
    score: float = 0.9,
    name: str = "ship",
    *,
    image: str = "port.tif",
    geometry: Any = None,
    number: int = 0,
) -> bytes:
    """One placed feature as a line."""
    properties = {
        "imageGeometry": geometry,
        "imageBBox": box,
        "featureClasses": [{"iri": name, "score": score}],
        "number": number,
        "sourceMetadata": [{"location": "made up"}, {"location": image, "format": "GTIFF", "tileBBox": tile}],
    }
    return orjson.dumps({"type": "Feature", "geometry": None, "properties": properties})


def merged(
    lines: Iterable[bytes], options: MergeOptions | None = None, sizes: dict[str, tuple[int, int]] | None = None
) -> list[bytes]:
    """What stays."""
    return list(merge(map(Seen.from_line, lines), options or MergeOptions(), sizes))


def numbers(lines: Iterable[bytes]) -> list[int]:
    """Which ones they are."""
    return [orjson.loads(line)["properties"]["number"] for line in lines]


def polygon(*corners: tuple[float, float]) -> dict[str, Any]:
    """A ring, closed."""
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


def rectangle(box: Box) -> dict[str, Any]:
    """The polygon that a box is."""
    left, top, right, bottom = box
    return polygon((left, top), (left, bottom), (right, bottom), (right, top))


def drawn_in(box: Box) -> Iterator[Any]:
    """Geometries of every kind that fill a box, and one that is none."""
    left, top, right, bottom = box
    yield None
    yield rectangle(box)
    yield polygon((left, top), (left, bottom), (right, bottom))
    yield polygon((left, top), (right, bottom), (right, top), (left, bottom))  # crosses itself
    middle, lower = (left + right) / 2, top + (bottom - top) / 4
    yield polygon((middle, top), (left, lower), (middle, bottom), (right, bottom - (bottom - top) / 4))
    yield {"type": "MultiPolygon", "coordinates": [rectangle(box)["coordinates"]]}
    yield {"type": "LineString", "coordinates": [[left, top], [right, bottom]]}
    yield {"type": "Polygon", "coordinates": [[[left, top], [right, None]]]}


@st.composite
def scenes(draw: st.DrawFn) -> list[bytes]:
    """Things, each seen by most of the tiles that have some of it, more or less at its place; by rows of tiles."""
    pitch = draw(st.integers(3, TILE))
    place, side = st.integers(0, 3 * pitch + TILE), st.integers(0, 9)
    things = draw(st.lists(st.tuples(place, place, side, side, st.integers(0, 7)), min_size=1, max_size=10))
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    lines = []
    for row, column in itertools.product(range(4), range(4)):
        left, top = column * pitch, row * pitch
        tile = (left, top, left + TILE, top + TILE)
        for x, y, width, height, kind in things:
            if x <= tile[2] and y <= tile[3] and x + width >= left and y + height >= top and chance.random() < 0.8:
                lines.append(_sighting(chance, tile, (x, y, x + width, y + height), kind, len(lines)))
    return lines


def _sighting(chance: random.Random, tile: Box, box: Box, kind: int, number: int) -> bytes:
    """Few classes, scores and sizes, so that many are equal; some are cut, some reach out of their tile."""
    right, down = chance.choice([0, 0, 0, 1, -2]), chance.choice([0, 0, 0, 1, -2])
    seen = (box[0] + right, box[1] + down, box[2] + right, box[3] + down)
    if chance.random() < 0.7:
        seen = tuple(min(max(value, tile[place % 2]), tile[2 + place % 2]) for place, value in enumerate(seen))
    geometry = next(itertools.islice(drawn_in(seen), kind, None))
    score = chance.choice([0.0, 0.25, 0.5, 0.75, 1.0])
    return detection(tile, seen, score, chance.choice(["ship", "ship", "boat"]), geometry=geometry, number=number)


OPTIONS = st.builds(
    MergeOptions,
    iou=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    score_threshold=st.sampled_from([0.0, 0.3]),
    on=st.sampled_from(["box", "polygon"]),
)
