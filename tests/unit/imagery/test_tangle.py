"""Polygons that cross themselves too often to be repaired."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest
import shapely

from osml_tasks.imagery.georeference import Georeference
from osml_tasks.imagery.place import place
from osml_tasks.imagery.polygons import polygons, shared_areas
from osml_tasks.imagery.tangle import MOST_CROSSINGS, Effort, crossings_of
from osml_tasks.imagery.window import Window

WAY = Georeference("EPSG:4326", affine=(0.001, 0, 1, 0, -0.001, 2)).transformer()


def tangle(corners: int, seed: int = 1) -> Any:
    points = np.random.default_rng(seed).random((corners, 2)) * 100
    return shapely.polygons(np.vstack([points, points[:1]]))


def comb(teeth: int, upright: bool) -> Any:
    points = [point for tooth in range(teeth) for point in ((tooth, 0), (tooth + 0.5, teeth))]
    points += [(teeth + 1, 0), (teeth + 1, -1), (0, -1), (0, 0)]
    return shapely.polygons(points if upright else [(y, x) for x, y in points])


def feature(shape: Any) -> dict[str, Any]:
    ring = shapely.get_coordinates(shape).tolist()
    drawn = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": None, "properties": {"imageGeometry": drawn}}


def cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


@pytest.mark.parametrize(
    ("points", "crossings"),
    [
        ([(0, 0), (4, 0), (4, 4), (0, 4), (0, 0)], 0),
        ([(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)], 1),
        ([(0, 0), (10, 0), (10, 5), (1, 5), (1, -5), (5, -5), (5, 9), (0, 9), (0, 0)], 3),
    ],
)
def test_crossings_are_counted(points: list[tuple[float, float]], crossings: int) -> None:
    assert crossings_of(shapely.polygons(points)) == crossings


@pytest.mark.parametrize("corners", [200, 5_000, 100_000])
def test_a_tangle_is_counted_no_further_than_it_has_to_be(corners: int) -> None:
    began = cpu_seconds()
    assert crossings_of(tangle(corners)) == MOST_CROSSINGS + 1
    assert cpu_seconds() - began < 15


def test_a_long_coast_is_no_tangle() -> None:
    angles = np.linspace(0, 2 * np.pi, 20_001)
    radius = 100 + np.random.default_rng(1).random(20_001) * 0.01
    radius[-1] = radius[0]
    coast = shapely.polygons(np.column_stack([np.cos(angles) * radius, np.sin(angles) * radius]))
    assert crossings_of(coast) < MOST_CROSSINGS


@pytest.mark.parametrize("corners", [200, 3_000])
@pytest.mark.parametrize("x", [0, 178_999])
def test_a_shape_that_crosses_itself_too_often_has_no_place_and_takes_no_time(corners: int, x: int) -> None:
    # Repaired, the smaller takes six seconds, the larger is not done in minutes; the second is at the date line.
    features = [feature(tangle(corners)), feature(tangle(4))]
    began = cpu_seconds()
    place([(Window(0, x, 100, 100), features)], WAY)
    assert cpu_seconds() - began < 5
    wrong, right = features
    assert "crosses itself at more than 1,000 places" in wrong["properties"]["placementError"]
    assert wrong["geometry"] is None
    assert right["geometry"] is not None


def test_what_is_spent_on_one_tile_is_bounded() -> None:
    effort, drawn = Effort(), tangle(95)
    with pytest.raises(ValueError, match="and so do too many others of its tile"):
        for _ in range(1000):
            effort.spend_on(drawn)


def test_merging_measures_no_tangles_and_no_combs() -> None:
    began = cpu_seconds()
    lines = [str(feature(tangle(3_000))).replace("'", '"').replace("None", "null").encode()]
    assert polygons(lines)[0] is None
    areas = shared_areas(np.array([comb(3_000, True)]), np.array([comb(3_000, False)]))
    assert np.isnan(areas).all()
    assert cpu_seconds() - began < 10
