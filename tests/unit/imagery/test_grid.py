"""Where tiles lie."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.imagery.grid import offsets, windows


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int, int]:
    """A side, a tile's size and the least overlap."""
    tile_size = draw(st.integers(1, 400))
    return draw(st.integers(1, 5_000)), tile_size, draw(st.integers(0, tile_size - 1))


@pytest.mark.parametrize(("length", "tiles", "apart"), [(3376, 9, 358), (2576, 7, 344)])
def test_the_overlap_grows_until_tiles_cover_the_image(length: int, tiles: int, apart: int) -> None:
    assert offsets(length, 512, 128) == [apart * step for step in range(tiles)]


@given(grids())
def test_tiles_cover_a_side_from_its_beginning_to_its_end(grid: tuple[int, int, int]) -> None:
    length, tile_size, overlap = grid
    found = offsets(length, tile_size, overlap)
    assert found[0] == 0
    assert found[-1] == max(0, length - tile_size)
    for one, following in pairwise(found):
        assert 0 < following - one <= tile_size - overlap


@given(grids())
def test_there_are_as_few_as_overlap_enough(grid: tuple[int, int, int]) -> None:
    length, tile_size, overlap = grid
    one_less = len(offsets(length, tile_size, overlap)) - 1
    reach = one_less * (tile_size - overlap) + overlap if one_less else 0
    assert reach < length


@given(grids())
def test_they_spread_evenly(grid: tuple[int, int, int]) -> None:
    steps = [following - one for one, following in pairwise(offsets(*grid))]
    assert max(steps, default=0) - min(steps, default=0) <= 1


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 60))
def test_tiles_have_full_size_wherever_the_image_has_it_and_come_row_by_row(
    width: int, height: int, tile_size: int
) -> None:
    cut = windows(width, height, tile_size, tile_size // 3)
    assert {(window.width, window.height) for window in cut} == {(min(tile_size, width), min(tile_size, height))}
    assert [(window.y, window.x) for window in cut] == sorted({(window.y, window.x) for window in cut})
    assert {(window.y, window.x) for window in cut} == {
        (y, x) for y in offsets(height, tile_size, tile_size // 3) for x in offsets(width, tile_size, tile_size // 3)
    }


def test_an_image_that_is_smaller_is_one_tile() -> None:
    assert [window.box for window in windows(300, 200, 1024, 50)] == [(0, 0, 300, 200)]
