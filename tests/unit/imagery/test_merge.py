"""Which features are one and the same, and which of them stays: case by case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from osml_tasks.imagery.merge import merge
from osml_tasks.imagery.merge_options import MergeMethod, MergeOn, MergeOptions
from osml_tasks.imagery.seen import Seen
from tests.unit.imagery.detections import Box, detection, merged, numbers, polygon, rectangle

LEFT, RIGHT, BELOW = (0, 0, 100, 100), (60, 0, 160, 100), (0, 60, 100, 160)
SIZES = {"port.tif": (160, 160)}


def pair(one: Any, other: Any, tiles: tuple[Box, Box] = (LEFT, RIGHT), **options: Any) -> list[int]:
    """Which of two stay, 0 with the lower score, 1 with the higher."""
    lines = [detection(tiles[0], one, 0.5, number=0), detection(tiles[1], other, 0.6, number=1)]
    return numbers(merged(lines, MergeOptions(**options), SIZES))


def test_what_two_tiles_saw_is_one_and_the_higher_score_stays() -> None:
    assert pair([70, 40, 90, 60], [71, 40, 91, 60]) == [1]


@pytest.mark.parametrize(("iou", "stays"), [(0.33, [1]), (0.34, [0, 1])])
def test_the_iou_says_from_when_on_two_are_one(iou: float, stays: list[int]) -> None:
    assert pair([65, 40, 85, 60], [75, 40, 95, 60], iou=iou) == stays


def test_what_overlaps_not_at_all_is_not_one_however_low_the_iou() -> None:
    upper, lower = (70, 40, 90, 50), (70, 49, 90, 60)
    drawn = [rectangle((70, 40, 90, 49)), rectangle((70, 49, 90, 60))]
    lines = [detection(LEFT, upper, geometry=drawn[0]), detection(RIGHT, lower, geometry=drawn[1])]
    assert merged(lines, MergeOptions(iou=1e-12)) == lines


def test_other_classes_are_other_things() -> None:
    lines = [detection(LEFT, [70, 40, 90, 60], name="ship"), detection(RIGHT, [70, 40, 90, 60], name="boat")]
    assert merged(lines) == lines


def test_tiles_that_only_touch_saw_different_things() -> None:
    assert pair([80, 40, 110, 60], [80, 40, 110, 60], (LEFT, (100, 0, 200, 100))) == [0, 1]


def test_what_lies_outside_its_tile_is_kept() -> None:
    assert pair([120, 40, 140, 60], [120, 40, 140, 60]) == [0, 1]


def test_a_whole_one_stays_for_a_cut_one_whatever_their_scores() -> None:
    # The right tile has but the end of it: a fifth, with the higher score.
    assert pair([40, 40, 65, 60], [60, 40, 65, 60]) == [0]


def test_a_small_whole_one_does_not_take_a_large_cut_one_out() -> None:
    assert pair([62, 40, 100, 80], [70, 45, 75, 50]) == [0, 1]


def test_an_edge_of_the_image_cuts_nothing() -> None:
    edge = [78, 130, 97, 160]
    lines = [detection(BELOW, edge, 0.6, number=0), detection((60, 60, 160, 160), [78, 125, 97, 155], 0.5, number=1)]
    assert numbers(merged(lines, sizes=SIZES)) == [0]
    assert numbers(merged(lines, sizes=None)) == [1]


@pytest.mark.parametrize(("apart", "stays"), [(0, [1]), (1, [1]), (2, [0, 1])])
def test_points_within_a_pixel_are_one(apart: int, stays: list[int]) -> None:
    assert pair([80, 40, 80, 40], [80 + apart, 40, 80 + apart, 40]) == stays


def test_lines_are_compared_by_their_box_made_wide() -> None:
    assert pair([70, 40, 90, 40], [70, 41, 90, 41]) == [1]
    assert pair([70, 40, 90, 40], [70, 43, 90, 43]) == [0, 1]


def test_polygons_are_compared_by_what_they_fill_of_their_box() -> None:
    box = (70, 40, 90, 60)
    upper, lower = polygon((70, 40), (90, 40), (90, 60)), polygon((70, 40), (90, 60), (70, 60))
    lines = [detection(LEFT, box, geometry=upper), detection(RIGHT, box, geometry=lower)]
    assert len(merged(lines)) == len(merged(lines, MergeOptions(iou=0.9))) == 2
    assert len(merged(lines, MergeOptions(on=MergeOn.BOX))) == 1


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "Polygon", "coordinates": None},
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": [[[70, 40], [90, 40]]]},
        {"type": "Polygon", "coordinates": [[[70, 40], [90, 40], [80, 40], [70, 40]]]},
        {"type": "Polygon", "coordinates": [[[70, 40], ["90", 40], [80, 50], [70, 40]]]},
        {"type": "Polygon", "coordinates": [[[70, 40], [True, False], {}, [70, 40]]]},
        {"type": "Polygon", "coordinates": [[[1e308, -1e308], [-1e308, 1e308], [1e308, 1e308], [1e308, -1e308]]]},
        {"type": "MultiPolygon", "coordinates": [[[70, 40], [90, 40]]]},
        {"type": "MultiPolygon", "coordinates": 7},
        {"type": "Circle", "coordinates": [70, 40], "radius": 5},
        {"type": ["Polygon"]},
        "POLYGON EMPTY",
        [70, 40],
        None,
    ],
)
def test_what_is_no_polygon_is_compared_by_its_box(geometry: Any) -> None:
    box = (70, 40, 90, 60)
    lines = [detection(LEFT, box, geometry=geometry), detection(RIGHT, box, 0.8, geometry=rectangle(box))]
    assert merged(lines) == lines[:1]


def test_a_polygon_that_crosses_itself_is_repaired() -> None:
    # An hourglass fills half of its box.
    hourglass = polygon((70, 40), (90, 40), (70, 60), (90, 60))
    lines = [detection(LEFT, (70, 40, 90, 60), geometry=geometry) for geometry in (hourglass, None)]
    lines.append(detection(RIGHT, (70, 40, 90, 60), 0.8, geometry=rectangle((70, 40, 90, 60)), number=3))
    assert numbers(merged(lines[1:])) == [0]
    assert numbers(merged([lines[0], lines[2]], MergeOptions(iou=0.51))) == [0, 3]
    assert numbers(merged([lines[0], lines[2]], MergeOptions(iou=0.5))) == [0]


def test_third_coordinates_and_holes_make_no_difference() -> None:
    box = (70, 40, 90, 60)
    high = {"type": "Polygon", "coordinates": [[[*corner, 7.5] for corner in rectangle(box)["coordinates"][0]]]}
    holed = {
        "type": "Polygon",
        "coordinates": [*rectangle(box)["coordinates"], *rectangle((75, 45, 76, 46))["coordinates"]],
    }
    lines = [detection(LEFT, box, geometry=high), detection(RIGHT, box, 0.8, geometry=holed)]
    assert merged(lines) == lines[:1]


@pytest.mark.parametrize("box", [None, [], [70, 40, 90], ["70", 40, 90, 60], [70, 40, None, 60], 7])
def test_what_has_no_box_passes(box: Any) -> None:
    lines = [detection(LEFT, box), detection(RIGHT, [70, 40, 90, 60])]
    assert merged(lines) == lines


def test_numbers_may_be_as_large_as_json_has_them() -> None:
    assert pair([-1e308, -1e308, 1e308, 1e308], [70, 40, 90, 60]) == [0, 1]


def test_a_box_may_have_its_corners_the_other_way_round() -> None:
    assert pair([90, 60, 70, 40], [70, 40, 90, 60]) == [1]


def test_a_threshold_leaves_out_before_anything_is_merged() -> None:
    lines = [detection(LEFT, [50, 40, 70, 60], 0.2, number=0), detection(RIGHT, [60, 40, 70, 60], 0.6, number=1)]
    assert numbers(merged(lines, sizes=SIZES)) == [0]
    assert numbers(merged(lines, MergeOptions(score_threshold=0.3), SIZES)) == [1]


def test_soft_suppression_lowers_a_score_by_the_overlap() -> None:
    lines = [detection(LEFT, [65, 40, 85, 60], 0.6), detection(RIGHT, [70, 40, 90, 60], 0.8)]
    first, second = merged(lines, MergeOptions(MergeMethod.SOFT_NMS), SIZES)
    assert second == lines[1]
    lowered, before = orjson.loads(first), orjson.loads(lines[0])
    assert lowered["properties"].pop("featureClasses") == [{"iri": "ship", "score": pytest.approx(0.6 * (1 - 0.6))}]
    before["properties"].pop("featureClasses")
    assert lowered == before


def test_soft_suppression_drops_what_falls_below_the_threshold() -> None:
    lines = [detection(LEFT, [65, 40, 85, 60], 0.6), detection(RIGHT, [70, 40, 90, 60], 0.8)]
    assert merged(lines, MergeOptions(MergeMethod.SOFT_NMS, score_threshold=0.25), SIZES) == lines[1:]
    same = [detection(LEFT, [70, 40, 90, 60], 0.6), detection(RIGHT, [70, 40, 90, 60], 0.8)]
    assert merged(same, MergeOptions(MergeMethod.SOFT_NMS), SIZES) == same[1:]


def test_what_three_rows_saw_is_one() -> None:
    tiles = [(0, top, 100, top + 100) for top in (0, 40, 80)]
    lines = [detection(tile, [40, 85, 60, 95], score) for tile, score in zip(tiles, (0.7, 0.9, 0.8), strict=True)]
    assert merged(lines) == [lines[1]]


def test_a_chain_over_many_rows_is_decided_from_its_best() -> None:
    # Each overlaps the next by half, scores fall from the last to the first: every other stays.
    lines = [
        detection((0, 20 * row, 100, 20 * row + 40), [40, 20 * row + 5, 60, 20 * row + 38], row / 100, number=row)
        for row in range(100)
    ]
    assert numbers(merged(lines, MergeOptions(iou=0.2))) == list(range(1, 100, 2))


def test_what_is_decided_comes_by_rows_of_tiles_and_left_to_right() -> None:
    tiles = [(left, top, left + 100, top + 100) for top in (0, 90) for left in (0, 90)]
    lines = [
        detection(tile, [tile[0] + 40 + place, tile[1] + 40, tile[0] + 50 + place, tile[1] + 50], number=number)
        for number, (tile, place) in enumerate((tile, place) for tile in tiles for place in (5, 0))
    ]
    assert numbers(merged(lines)) == [0, 1, 2, 3, 4, 5, 6, 7]
    waits = detection(tiles[0], [40, 92, 50, 98], number=100)
    assert numbers(merged([waits, *lines])) == [0, 1, 2, 3, 100, 4, 5, 6, 7]


def test_an_image_that_comes_twice_is_two_images() -> None:
    rows = [detection((0, top, 100, top + 100), [40, top + 5, 60, top + 9]) for top in (0, 60)]
    assert merged([*rows, *rows]) == [*rows, *rows]


def test_a_row_of_tiles_and_what_reaches_into_the_next_is_all_that_waits() -> None:
    rows, in_a_row, reaching = 300, 50, 5
    given = 0

    def stream() -> Iterator[Seen]:
        nonlocal given
        for row in range(rows):
            tile = (0, 90 * row, 10_000, 90 * row + 100)
            for number in range(in_a_row):
                bottom = tile[1] + (95 if number < reaching else 50)
                yield Seen.from_line(detection(tile, [100 * number, bottom - 4, 100 * number + 9, bottom]))
                given += 1

    waiting = [given - came for came, _ in enumerate(merge(stream(), MergeOptions()), 1)]
    assert len(waiting) == rows * in_a_row
    assert max(waiting) <= in_a_row + 2 * reaching
