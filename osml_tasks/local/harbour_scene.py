"""Drawing of the demo harbour: water, land, piers, warehouses and ships."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, hypot, pi, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Pixels = NDArray[np.float32]
Random = np.random.Generator
Point = tuple[float, float]
Colour = tuple[int, int, int]

# Grey levels in this order: water about 40, land and roofs 70 to 120, ships 150 and up.
_WATER = (16, 44, 58)
_LAND = (92, 90, 84)
_ROAD = (74, 74, 74)
_PIER = (88, 86, 82)
_ROOFS: tuple[Colour, ...] = ((112, 104, 96), (96, 104, 110), (118, 92, 80), (86, 98, 90), (108, 108, 106))
_HULLS: tuple[Colour, ...] = ((236, 236, 230), (214, 218, 220), (240, 232, 212), (205, 212, 205))
_DECKS: tuple[Colour, ...] = ((205, 150, 110), (150, 178, 190), (196, 186, 160), (172, 190, 166))
_BRIDGE = (252, 252, 250)
_SHADOW = (6, 20, 28)

_OVERSAMPLING = 4
_GAP = 8.0  # px of water between two ships, and between a ship and the edge of its tile
_MISSES_IN_A_ROW = 2000  # and the harbour counts as full


@dataclass(frozen=True)
class Placement:
    """Where a ship lies: center and size in px of the scene, heading in degrees from up, clockwise."""

    x: float
    y: float
    length: float
    width: float
    heading: float


def draw_scene(
    random: Random, *, width: int, height: int, ships: int, tile_size: int
) -> tuple[Image.Image, tuple[Placement, ...]]:
    """Draw the harbour: at most ``ships`` ships, fewer where there is no room."""
    land = _draw_land(random, width, height, tile_size)
    shore = np.asarray(land.getchannel("A")) > 0
    placements = _place_ships(random, shore, ships, tile_size)
    scene = Image.fromarray(_as_bytes(_draw_water(random, width, height)))
    _cast_shadow(scene, land)
    scene.paste(land, mask=land.getchannel("A"))
    for placement in placements:
        _draw_ship(random, scene, placement)
    return Image.fromarray(_as_bytes(_with_sensor_noise(random, scene))), placements


def _as_bytes(pixels: Pixels) -> NDArray[np.uint8]:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _with_sensor_noise(random: Random, scene: Image.Image) -> Pixels:
    noise = random.standard_normal((scene.height, scene.width, 1), dtype=np.float32)
    return np.asarray(scene, dtype=np.float32) + np.float32(1.6) * noise


def _draw_water(random: Random, width: int, height: int) -> Pixels:
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    bend = 9 * _clouds(random, width, height, 180)
    swell = 1.3 * np.sin((0.8 * x + 0.6 * y) * (2 * pi / 23) + bend)
    ripple = 0.8 * np.sin((0.5 * x - 0.87 * y) * (2 * pi / 9) + 2 * bend)
    depth = 3.5 * _clouds(random, width, height, 420)
    tint = np.array([0.8, 1.0, 1.05], dtype=np.float32)
    light: Pixels = (swell + ripple + depth)[..., None] * tint
    return np.asarray(_WATER, dtype=np.float32) + light


def _clouds(random: Random, width: int, height: int, size: int) -> Pixels:
    """Return smooth noise of about -1 to 1 with features of ``size`` px."""
    coarse = random.standard_normal((height // size + 3, width // size + 3)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _draw_land(random: Random, width: int, height: int, tile: int) -> Image.Image:
    """Draw a quay along the lower edge and piers from it, transparent where water is."""
    land = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(land)
    # Land and piers are too large a part of the tiles that they begin in to be taken for objects.
    quay = height - tile * 0.6
    pen.rectangle((0, quay, width, height), fill=_LAND)
    _draw_piers(random, pen, quay, width, tile)
    _draw_warehouses(random, pen, quay, width, tile)
    pen.rectangle((0, quay, width, quay + 2), fill=(112, 110, 104))
    texture = _clouds(random, width, height, 5) * 2.5 + _clouds(random, width, height, 60) * 3
    colours = np.asarray(land.convert("RGB"), dtype=np.float32) + texture[..., None]
    textured = Image.fromarray(_as_bytes(colours))
    textured.putalpha(land.getchannel("A"))
    return textured


def _draw_piers(random: Random, pen: ImageDraw.ImageDraw, quay: float, width: int, tile: int) -> None:
    breadth = tile * 0.2
    for column in range(1, width // tile, 2):
        middle = (column + 0.5) * tile
        end = quay - tile * float(random.uniform(0.95, 1.15))
        pen.rectangle((middle - breadth / 2, end, middle + breadth / 2, quay + 2), fill=_PIER)
        pen.rectangle((middle - breadth / 6, end + breadth / 4, middle + breadth / 6, quay), fill=_ROAD)


def _draw_warehouses(random: Random, pen: ImageDraw.ImageDraw, quay: float, width: int, tile: int) -> None:
    road = quay + tile * 0.1
    pen.rectangle((0, road, width, road + tile * 0.07), fill=_ROAD)
    left = tile * 0.1
    while left < width:
        right = left + tile * float(random.uniform(0.25, 0.6))
        _draw_warehouse(random, pen, (left, road + tile * 0.12, right, road + tile * random.uniform(0.3, 0.42)))
        left = right + tile * float(random.uniform(0.06, 0.2))


def _draw_warehouse(random: Random, pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    ridge = (top + bottom) / 2
    roof = _ROOFS[int(random.integers(len(_ROOFS)))]
    pen.rectangle((left + 4, top + 4, right + 4, bottom + 4), fill=(58, 57, 54))
    pen.rectangle((left, top, right, ridge), fill=roof)
    pen.rectangle((left, ridge, right, bottom), fill=_scaled(roof, 0.86))
    for x in np.arange(left, right, 9.0):
        pen.line((x, top, x, bottom), fill=_scaled(roof, 0.8))


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(part * factor) for part in colour)
    return red, green, blue


def _cast_shadow(scene: Image.Image, land: Image.Image) -> None:
    shape = land.getchannel("A").filter(ImageFilter.GaussianBlur(2)).point(lambda level: level * 0.6)
    scene.paste(Image.new("RGB", land.size, _SHADOW), (4, 4), shape)


def _place_ships(random: Random, shore: NDArray[np.bool_], wanted: int, tile: int) -> tuple[Placement, ...]:
    placed: list[Placement] = []
    wind = float(random.uniform(0, 360))
    misses = 0
    while len(placed) < wanted and misses < _MISSES_IN_A_ROW:
        ship = _random_ship(random, shore.shape, tile, wind)
        if _fits(ship, shore, tile) and all(_are_apart(ship, other) for other in placed):
            placed.append(ship)
            misses = 0
        else:
            misses += 1
    return tuple(placed)


def _random_ship(random: Random, shape: tuple[int, ...], tile: int, wind: float) -> Placement:
    """Make up a ship: most lie at anchor with the wind, the others head anywhere.

    None is in the row of tiles with the quay: where most of a tile is land, land is its ground.
    """
    length = float(random.uniform(24, 40) if random.random() < 0.5 else random.uniform(40, 78))
    at_anchor = random.random() < 0.6
    heading = float(random.normal(wind, 8) if at_anchor else random.uniform(0, 360)) % 360
    return Placement(
        x=float(random.uniform(0, shape[1])),
        y=float(random.uniform(0, shape[0] - tile)),
        length=length,
        width=max(length / float(random.uniform(3.8, 5.5)), 8.0),
        heading=heading,
    )


def _fits(ship: Placement, shore: NDArray[np.bool_], tile: int) -> bool:
    """Tell whether all of the ship is on water inside one tile."""
    reach = ship.length / 2 + _GAP
    left, top, right, bottom = ship.x - reach, ship.y - reach, ship.x + reach, ship.y + reach
    one_tile = left // tile == right // tile and top // tile == bottom // tile
    return one_tile and not shore[int(top) : ceil(bottom), int(left) : ceil(right)].any()


def _are_apart(ship: Placement, other: Placement) -> bool:
    return hypot(ship.x - other.x, ship.y - other.y) > (ship.length + other.length) / 2 + _GAP


def _draw_ship(random: Random, scene: Image.Image, ship: Placement) -> None:
    size = 2 * ceil(ship.length / 2 + _GAP)
    corner = (round(ship.x) - size // 2, round(ship.y) - size // 2)
    center = (ship.x - corner[0], ship.y - corner[1])
    canvas = Image.new("RGBA", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    _Hull(ImageDraw.Draw(canvas), center, ship).draw(random)
    patch = canvas.reduce(_OVERSAMPLING)
    shadow = patch.getchannel("A").filter(ImageFilter.GaussianBlur(1.5)).point(lambda level: level * 0.7)
    scene.paste(Image.new("RGB", patch.size, _SHADOW), (corner[0] + 2, corner[1] + 2), shadow)
    scene.paste(patch, corner, patch)


class _Hull:
    """A pen in the ship's own frame: along from stern -0.5 to bow 0.5, across from port -0.5 to 0.5."""

    def __init__(self, pen: ImageDraw.ImageDraw, center: Point, ship: Placement) -> None:
        self._pen = pen
        self._center = center
        self._ship = ship

    def draw(self, random: Random) -> None:
        hull = _HULLS[int(random.integers(len(_HULLS)))]
        deck = _DECKS[int(random.integers(len(_DECKS)))]
        outline = [(-0.5, -0.36), (-0.46, -0.5), (0.2, -0.5), (0.38, -0.32), (0.5, 0.0)]
        self._fill([*outline, *((along, -across) for along, across in reversed(outline))], hull)
        for start in np.arange(-0.2, 0.26, 0.13):
            self._fill(_block(float(start), float(start) + 0.1, 0.32), deck)
        self._fill(_block(-0.42, -0.27, 0.4), _scaled(hull, 0.8))
        self._fill(_block(-0.4, -0.29, 0.34), _BRIDGE)

    def _fill(self, outline: list[Point], colour: Colour) -> None:
        self._pen.polygon([self._pixel(point) for point in outline], fill=(*colour, 255))

    def _pixel(self, point: Point) -> Point:
        along, across = point[0] * self._ship.length, point[1] * self._ship.width
        turn = radians(self._ship.heading)
        x = self._center[0] + along * sin(turn) + across * cos(turn)
        y = self._center[1] - along * cos(turn) + across * sin(turn)
        return x * _OVERSAMPLING, y * _OVERSAMPLING


def _block(start: float, end: float, half: float) -> list[Point]:
    return [(start, -half), (end, -half), (end, half), (start, half)]
