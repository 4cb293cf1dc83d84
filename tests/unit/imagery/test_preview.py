"""Outlines on a picture of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from osml_tasks.imagery.class_colours import class_colours
from osml_tasks.imagery.preview import FEW, write_preview
from tests.unit.imagery.shown_detections import blank, detection

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
GREY = (90, 90, 90)


def drawn(path: Path, features: Any) -> Any:
    """The preview's pixels ``(rows, columns, 3)``; it is half as large as the image."""
    write_preview(path, blank(), features)
    with rasterio.open(path) as dataset:
        assert dataset.driver == "PNG"
        return np.moveaxis(dataset.read(), 0, -1)


def test_a_detection_is_outlined_in_the_colour_of_its_class(tmp_path: Path) -> None:
    pixels = drawn(
        tmp_path / "out.png", [detection((100, 100, 200, 160), "ship"), detection((300, 20, 340, 60), "car")]
    )
    colours = class_colours(["ship", "car"])
    assert tuple(pixels[50, 75]) == tuple(pixels[65, 50]) == colours["ship"]
    assert tuple(pixels[10, 160]) == colours["car"]
    assert tuple(pixels[65, 75]) == GREY
    assert (pixels[49, 60:90] < 90).all(), "a dark edge"


@pytest.mark.parametrize("count", [0, 1, FEW + 1])
def test_few_are_drawn_thick_and_many_thin(tmp_path: Path, count: int) -> None:
    pixels = drawn(tmp_path / "out.png", [detection((100, 100, 200, 160))] * count)
    coloured = (pixels != GREY).any(axis=-1)
    assert coloured[40:60, 75].sum() == {0: 0, 1: 4, FEW + 1: 1}[count]


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [100.2, 100.2]},
        {"type": "LineString", "coordinates": [[90, 100], [110, 100]]},
        {"type": "Polygon", "coordinates": [[[100, 100], [100.3, 100], [100.3, 100.3], [100, 100]]]},
    ],
    ids=lambda geometry: geometry["type"],
)
def test_points_lines_and_the_smallest_shapes_are_seen(tmp_path: Path, geometry: Any) -> None:
    features = [detection((0, 0, 1, 1), imageGeometry=geometry)] * (FEW + 1)
    pixels = drawn(tmp_path / "out.png", features)
    assert tuple(pixels[50, 50]) == class_colours(["ship"])["ship"]


def test_what_lies_beyond_the_image_or_has_no_shape_is_no_error(tmp_path: Path) -> None:
    shapeless = detection((0, 0, 9, 9), imageGeometry=None, imageBBox=None)
    pixels = drawn(
        tmp_path / "out.png", [detection((-500, -500, -400, -400)), detection((380, 280, 900, 900)), shapeless]
    )
    assert tuple(pixels[140, 195]) == class_colours(["ship"])["ship"]
    assert tuple(pixels[20, 20]) == GREY
