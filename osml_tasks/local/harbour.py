"""Demo imagery: a harbour from above, drawn, with ships at known places to measure a model against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import cos, hypot, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.local.harbour_scene import Placement, draw_scene

DETECTION_MAX_SHARE = 4.0  # a detection hits a ship only where its box is at most this many of the ship's
IMAGE_NAME = "harbour.tif"
_NAMES = re.compile(r"harbour(_r\d+_c\d+\.png|\.tif)$")
# Somewhere in the North Sea.
_CRS, _CORNER = "EPSG:32631", (500_000.0, 5_800_000.0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Ship:
    """A ship that was drawn; lengths in pixels.

    :ivar tile: file name of the one tile that it is in.
    :ivar center: ``(x, y)`` in that tile, from its top left corner, x right, y down.
    :ivar place: the same in the whole image.
    :ivar heading: degrees from up (north), clockwise.
    """

    tile: str
    center: tuple[float, float]
    length: float
    width: float
    heading: float
    place: tuple[float, float] = (0.0, 0.0)

    @property
    def box(self) -> Box:
        """Its upright bounding box ``(min x, min y, max x, max y)`` in the tile."""
        across, down = _half_extents(self.length, self.width, self.heading)
        x, y = self.center
        return (x - across, y - down, x + across, y + down)


@dataclass(frozen=True)
class Harbour:
    """Files of a harbour, and what is in them.

    :ivar tiles: PNG files, row by row.
    :ivar overview: PNG file of the whole.
    :ivar image: the same as a GeoTIFF, in UTM, a metre a pixel.
    """

    tiles: tuple[Path, ...]
    ships: tuple[Ship, ...]
    overview: Path
    image: Path


@dataclass(frozen=True)
class Score:
    """How well detections agree with the ships that are known.

    :ivar found: ships that a detection hits.
    :ivar ships: ships there are.
    :ivar false_alarms: detections that hit no ship.
    :ivar duplicates: detections that hit one which another has found.
    """

    found: int
    ships: int
    false_alarms: int
    duplicates: int = 0

    @property
    def recall(self) -> float:
        """Share of the ships that were found, 0 to 1; 1 where there are none."""
        return self.found / self.ships if self.ships else 1.0

    @property
    def precision(self) -> float:
        """Share of the detections that found a ship, 0 to 1; 1 where there are none."""
        detections = self.found + self.duplicates + self.false_alarms
        return self.found / detections if detections else 1.0


def make_harbour(
    directory: Path,
    *,
    width: int = 2560,
    height: int = 2048,
    ships: int = 120,
    seed: int = 7,
    tile_size: int = 256,
) -> Harbour:
    """Draw a harbour; the same arguments give the same pixels.

    Writes ``directory/harbour.tif``, ``directory/harbour.png``, and tiles ``directory/tiles/harbour_r00_c00.png`` and
    on. Each ship is inside one tile, on open water, and touches no other. None is in the lowest row of tiles, which is
    mostly land: a model that tells bright from dark cannot find them there.

    :param width: px, a multiple of ``tile_size``; so is ``height``, two tiles at least.
    :param ships: how many to draw.
    :param tile_size: px, 128 at least, or the ships have no room in a tile.
    :raises ExtensionConfigurationError: a size is wrong, or so many ships have no room.
    """
    _check_sizes(width, height, tile_size)
    random = np.random.default_rng(seed)
    image, placements = draw_scene(random, width=width, height=height, ships=ships, tile_size=tile_size)
    if len(placements) < ships:
        raise ExtensionConfigurationError(
            f"only {len(placements)} of {ships} ships have room in {width} x {height} px: ask for fewer"
        )
    overview = directory / "harbour.png"
    tiles_directory = directory / "tiles"
    tiles_directory.mkdir(parents=True, exist_ok=True)
    image.save(overview, compress_level=1)
    _write_image(image, directory / IMAGE_NAME)
    return Harbour(
        tiles=_write_tiles(image, tiles_directory, tile_size),
        ships=tuple(_ship(placement, tile_size) for placement in placements),
        overview=overview,
        image=directory / IMAGE_NAME,
    )


def _check_sizes(width: int, height: int, tile_size: int) -> None:
    if tile_size < 128:
        raise ExtensionConfigurationError(f"tile_size {tile_size} is too small for ships: 128 px at least")
    for name, size, least in (("width", width, 1), ("height", height, 2)):
        if size < least * tile_size or size % tile_size:
            near = max(size // tile_size, least) * tile_size
            raise ExtensionConfigurationError(f"{name} {size} does not do with tile_size {tile_size}: try {near}")


def _write_image(image: Image.Image, path: Path) -> None:
    pixels = np.asarray(image).transpose(2, 0, 1)
    profile = {"driver": "GTiff", "tiled": True, "compress": "DEFLATE", "zlevel": 1, "dtype": pixels.dtype}
    bands, height, width = pixels.shape
    corner = Affine.translation(*_CORNER) @ Affine.scale(1.0, -1.0)
    with rasterio.open(
        path, "w", **profile, count=bands, height=height, width=width, crs=_CRS, transform=corner
    ) as tif:
        tif.write(pixels)


def _write_tiles(image: Image.Image, directory: Path, size: int) -> tuple[Path, ...]:
    corners = [(x, y) for y in range(0, image.height, size) for x in range(0, image.width, size)]
    paths = tuple(directory / _tile_name(x, y, size) for x, y in corners)
    for path, (x, y) in zip(paths, corners, strict=True):
        image.crop((x, y, x + size, y + size)).save(path, compress_level=1)
    return paths


def _tile_name(x: float, y: float, size: int) -> str:
    return f"harbour_r{int(y // size):02d}_c{int(x // size):02d}.png"


def _ship(placement: Placement, size: int) -> Ship:
    return Ship(
        tile=_tile_name(placement.x, placement.y, size),
        center=(placement.x % size, placement.y % size),
        length=placement.length,
        width=placement.width,
        heading=placement.heading,
        place=(placement.x, placement.y),
    )


def _half_extents(length: float, width: float, heading: float) -> tuple[float, float]:
    turn = radians(heading)
    across = abs(sin(turn)) * length + abs(cos(turn)) * width
    down = abs(cos(turn)) * length + abs(sin(turn)) * width
    return across / 2, down / 2


def recall(harbour: Harbour, features: Iterable[Mapping[str, Any]]) -> Score:
    """Compare detections with the ships that were drawn.

    A detection hits a ship of its tile where its ``imageBBox`` contains the ship's center and is at most four
    times as large as the ship's own box: a box round the whole tile finds nothing. Each detection counts
    for the nearest such ship only. Tile or image are known from ``sourceMetadata[0].location``.

    :param features: GeoJSON features as jobs give them; one without tile or box counts as a false alarm.
    """
    fleets = _by_tile(harbour.ships)
    fleets[IMAGE_NAME] = tuple(replace(ship, center=ship.place) for ship in harbour.ships)
    hits = [_ship_hit(feature, fleets) for feature in features]
    found = len({ship for ship in hits if ship is not None})
    false_alarms = hits.count(None)
    return Score(found, len(harbour.ships), false_alarms, len(hits) - false_alarms - found)


def _by_tile(ships: Sequence[Ship]) -> dict[str, tuple[Ship, ...]]:
    ordered = sorted(ships, key=lambda ship: ship.tile)
    return {tile: tuple(fleet) for tile, fleet in groupby(ordered, key=lambda ship: ship.tile)}


def _ship_hit(feature: Mapping[str, Any], fleets: Mapping[str, Sequence[Ship]]) -> Ship | None:
    properties = feature.get("properties") or {}
    box = properties.get("imageBBox")
    if not box:
        return None
    hit = [ship for ship in fleets.get(_tile_of(properties), ()) if _hits(box, ship)]
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return min(hit, key=lambda ship: hypot(ship.center[0] - middle[0], ship.center[1] - middle[1]), default=None)


def _tile_of(properties: Mapping[str, Any]) -> str:
    sources = properties.get("sourceMetadata") or [{}]
    name = _NAMES.search(str(sources[0].get("location", "")))
    return name.group() if name else ""


def _hits(box: Sequence[float], ship: Ship) -> bool:
    min_x, min_y, max_x, max_y = box
    x, y = ship.center
    left, top, right, bottom = ship.box
    within = min_x <= x <= max_x and min_y <= y <= max_y
    area, ship_area = (max_x - min_x) * (max_y - min_y), (right - left) * (bottom - top)
    return within and area <= DETECTION_MAX_SHARE * ship_area
