"""The area that convex shapes share, against GEOS."""

from __future__ import annotations

import cmath
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.imagery.convex import Corners, are_convex, shared_areas

FAR = complex(90_000, 99_000)
"""Where the last corner of a large image is."""


@st.composite
def boxes(draw: st.DrawFn) -> Any:
    """Leaning boxes, drawn either way round, that often meet, touch or are the same."""
    centre = complex(draw(st.integers(0, 6)), draw(st.integers(0, 6)))
    turned = cmath.rect(1, draw(st.sampled_from([0.0, 0.3, np.pi / 4, 1.5])))
    across, along = draw(st.integers(1, 5)), draw(st.integers(1, 5)) * 1j
    corners = [
        FAR + centre + turned * corner for corner in (-across - along, across - along, across + along, along - across)
    ]
    return corners[:: draw(st.sampled_from([1, -1]))]


def shape(corners: Any) -> Any:
    return shapely.Polygon([(corner.real, corner.imag) for corner in corners])


@given(st.lists(st.tuples(boxes(), boxes()), min_size=1, max_size=5))
def test_the_shared_area_is_what_geos_says(pairs: Any) -> None:
    ones, others = (np.array(side) for side in zip(*pairs, strict=True))
    assert are_convex(ones).all()
    expected = [shape(one).intersection(shape(other)).area for one, other in pairs]
    assert shared_areas(ones, others) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("corners", "convex"),
    [
        ([0, 4, 4 + 3j, 3j], True),
        ([3j, 4 + 3j, 4, 0], True),
        ([0, 4 + 3j, 4, 3j], False),  # crosses itself
        ([0, 4, 1 + 1j, 3j], False),  # an arrow
        ([0, 4, 8, 3j], False),  # a triangle
        ([0, 0, 4, 3j], False),
        ([0, 0, 0, 0], False),
    ],
)
def test_convex_is_what_turns_one_way(corners: Any, convex: bool) -> None:
    shapes: Corners = np.array([corners], np.complex128)
    assert are_convex(shapes).tolist() == [convex]
