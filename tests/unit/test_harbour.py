"""The demo harbour: the same pixels by seed, ships where it says, and a fair score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.local.harbour import Harbour, Score, Ship, make_harbour, recall
from osml_tasks.local.model import find_bright_objects

WIDTH, HEIGHT, SHIPS, TILE = 1280, 1024, 24, 256


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Harbour:
    directory = tmp_path_factory.mktemp("harbour")
    return make_harbour(directory, width=WIDTH, height=HEIGHT, ships=SHIPS, seed=3, tile_size=TILE)


def detection(tile: str, box: list[float]) -> dict[str, Any]:
    source = {"location": f"s3://bucket/prefix/{tile}", "format": "PNG"}
    return {"type": "Feature", "properties": {"imageBBox": box, "sourceMetadata": [source]}}


def detections(harbour: Harbour) -> list[dict[str, Any]]:
    return [
        detection(tile.name, feature["properties"]["imageBBox"])
        for tile in harbour.tiles
        for feature in find_bright_objects(tile.read_bytes())["features"]
    ]


def test_writes_tiles_and_overview(harbour: Harbour) -> None:
    assert [tile.name for tile in harbour.tiles][:6] == [
        *(f"harbour_r00_c{column:02d}.png" for column in range(5)),
        "harbour_r01_c00.png",
    ]
    assert len(harbour.tiles) == (WIDTH // TILE) * (HEIGHT // TILE)
    assert harbour.tiles[0].parent == harbour.overview.parent / "tiles"
    with Image.open(harbour.overview) as overview, Image.open(harbour.tiles[0]) as tile:
        assert overview.size == (WIDTH, HEIGHT)
        assert tile.size == (TILE, TILE)
        assert np.array_equal(np.asarray(overview)[:TILE, :TILE], np.asarray(tile))


def test_tiles_are_small_enough_to_go_inline(harbour: Harbour) -> None:
    assert max(tile.stat().st_size for tile in harbour.tiles) < 128_000


def test_the_seed_decides_every_pixel(harbour: Harbour, tmp_path: Path) -> None:
    again = make_harbour(tmp_path / "a", width=WIDTH, height=HEIGHT, ships=SHIPS, seed=3, tile_size=TILE)
    other = make_harbour(tmp_path / "b", width=WIDTH, height=HEIGHT, ships=SHIPS, seed=4, tile_size=TILE)

    assert again.ships == harbour.ships
    assert again.overview.read_bytes() == harbour.overview.read_bytes()
    assert other.ships != harbour.ships


def test_each_ship_is_inside_one_tile_and_apart_from_the_others(harbour: Harbour) -> None:
    names = {tile.name for tile in harbour.tiles}
    for ship in harbour.ships:
        left, top, right, bottom = ship.box
        assert ship.tile in names
        assert left > 0 and top > 0 and right < TILE and bottom < TILE
    for index, ship in enumerate(harbour.ships):
        for other in harbour.ships[index + 1 :]:
            if ship.tile == other.tile:
                distance = np.hypot(ship.center[0] - other.center[0], ship.center[1] - other.center[1])
                assert distance > (ship.length + other.length) / 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_sample_model_finds_nearly_all_ships(tmp_path: Path, seed: int) -> None:
    harbour = make_harbour(tmp_path, width=WIDTH, height=HEIGHT, ships=30, seed=seed, tile_size=TILE)

    score = recall(harbour, detections(harbour))

    assert score.ships == 30
    assert score.recall >= 0.95
    assert score.false_alarms <= 2


def ship_at(x: float, y: float) -> Ship:
    return Ship(tile="harbour_r01_c02.png", center=(x, y), length=40, width=10, heading=90)


def scored(ships: tuple[Ship, ...], *features: dict[str, Any]) -> Score:
    return recall(Harbour(tiles=(), ships=ships, overview=Path("harbour.png"), image=Path("harbour.tif")), features)


def test_a_box_on_the_ship_hits() -> None:
    hit = detection("harbour_r01_c02.png", [80, 95, 120, 105])

    assert scored((ship_at(100, 100),), hit) == Score(found=1, ships=1, false_alarms=0)


def test_two_boxes_on_one_ship_find_one_ship() -> None:
    half = detection("harbour_r01_c02.png", [80, 95, 101, 105])
    whole = detection("harbour_r01_c02.png", [80, 95, 120, 105])

    assert scored((ship_at(100, 100),), half, whole) == Score(found=1, ships=1, false_alarms=0, duplicates=1)


@pytest.mark.parametrize(
    "feature",
    [
        detection("harbour_r00_c00.png", [80, 95, 120, 105]),
        detection("harbour_r01_c02.png", [0, 0, 256, 256]),
        detection("harbour_r01_c02.png", [10, 10, 20, 20]),
        {"type": "Feature", "properties": {"imageBBox": [80, 95, 120, 105]}},
        {"type": "Feature", "properties": None},
    ],
    ids=["another tile", "round everything", "elsewhere", "no tile", "no box"],
)
def test_what_hits_no_ship_is_a_false_alarm(feature: dict[str, Any]) -> None:
    assert scored((ship_at(100, 100),), feature) == Score(found=0, ships=1, false_alarms=1)


def test_one_box_over_two_ships_finds_one() -> None:
    both = detection("harbour_r01_c02.png", [80, 90, 120, 122])

    assert scored((ship_at(100, 97), ship_at(100, 115)), both) == Score(found=1, ships=2, false_alarms=0)


def test_a_harbour_without_ships_has_full_recall() -> None:
    assert scored(()).recall == 1.0


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 1000}, "width 1000 does not do"),
        ({"height": 256}, r"height 256 does not do .* try 512"),
        ({"tile_size": 64}, "tile_size 64 is too small"),
        ({"ships": 5000}, "ask for fewer"),
    ],
)
def test_sizes_that_do_not_do_are_refused(tmp_path: Path, sizes: dict[str, int], message: str) -> None:
    wanted = {"width": 512, "height": 512, "ships": 3, "seed": 1, "tile_size": 256} | sizes

    with pytest.raises(ExtensionConfigurationError, match=message):
        make_harbour(tmp_path, **wanted)
