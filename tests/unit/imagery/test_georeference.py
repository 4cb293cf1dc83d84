"""Where an image's pixels lie on the globe, against PROJ and GDAL's own transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyproj
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_bounds

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.georeference import Georeference
from tests.unit.imagery.drawn_images import rpcs

UTM = Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
CORNERS = (np.array([0.0, 60.0, 60.0, 0.0]), np.array([0.0, 0.0, 40.0, 40.0]))
RPCS = rpcs(500.0)


def draw(path: Path, width: int = 60, height: int = 40, **profile: Any) -> Path:
    bands = np.full((1, height, width), 7, dtype=profile.pop("dtype", "uint8"))
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype=bands.dtype, **profile
    ) as image:
        image.write(bands)
    return path


def read(path: Path, **options: Any) -> Georeference | None:
    with rasterio.open(path) as dataset:
        return Georeference.of_dataset(dataset, **options)


def on_map(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def corners(georeference: Georeference | None) -> list[tuple[float, float]]:
    assert georeference is not None
    longitude, latitude = georeference.transformer().to_lonlat(*CORNERS)
    return list(zip(longitude.tolist(), latitude.tolist(), strict=True))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32618", UTM),
        ("EPSG:3857", Affine(30, 0, -13_651_650, 0, -30, 4_576_290)),
        ("EPSG:3413", Affine(100, 5, -2000, 5, -100, 2000)),
        ("EPSG:2056", Affine(0.1, 0.02, 2_600_000, 0.02, -0.1, 1_200_000)),
        ("EPSG:4326", Affine(0.001, 0, 10, 0, -0.001, 50)),
    ],
)
def test_corners_are_where_proj_says(tmp_path: Path, crs: str, transform: Affine) -> None:
    image = draw(tmp_path / "image.tif", crs=crs, transform=transform)
    proj = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = on_map(transform, *CORNERS)
    np.testing.assert_allclose(corners(read(image)), np.column_stack(proj.transform(x, y)), rtol=0, atol=1e-9)


@given(
    st.tuples(*[st.floats(-5, 5)] * 4).filter(lambda m: abs(m[0] * m[3] - m[1] * m[2]) > 0.1),
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=20),
)
def test_an_affine_transform_leads_back_to_the_same_pixels(
    matrix: tuple[float, ...], pixels: list[tuple[float, float]]
) -> None:
    a, b, d, e = matrix
    affine = Affine(a, b, 500_000, d, e, 4_000_000)
    georeference = Georeference("EPSG:32618", affine=tuple(affine)[:6])
    x, y = np.array(pixels).T
    longitude, latitude = georeference.transformer().to_lonlat(x, y)
    proj = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32618", always_xy=True)
    east, north = proj.transform(longitude, latitude)
    # UTM serves some 10 degrees to either side of its meridian.
    near = np.abs(longitude + 75) < 10
    back_x, back_y = on_map(~affine, np.asarray(east), np.asarray(north))
    np.testing.assert_allclose(back_x[near], x[near], atol=0.01)
    np.testing.assert_allclose(back_y[near], y[near], atol=0.01)


def points(crs: str, transform: Affine, grid: int = 3) -> list[GroundControlPoint]:
    return [
        GroundControlPoint(row, column, *on_map(transform, column, row))
        for column in np.linspace(0, 60, grid)
        for row in np.linspace(0, 40, grid)
    ]


def test_ground_control_points_agree_with_the_transform_they_were_made_from(tmp_path: Path) -> None:
    affine = draw(tmp_path / "affine.tif", crs="EPSG:32618", transform=UTM)
    image = draw(tmp_path / "gcps.tif", crs="EPSG:32618", gcps=points("EPSG:32618", UTM))
    found = read(image)
    assert found is not None
    assert (len(found.gcps), found.affine) == (9, None)
    np.testing.assert_allclose(corners(found), corners(read(affine)), rtol=0, atol=1e-7)


def test_ground_control_points_over_the_date_line(tmp_path: Path) -> None:
    made = points("EPSG:4326", Affine(0.01, 0, 179.7, 0, -0.01, 10))
    for point in made:
        point.x -= 360 if point.x > 180 else 0
    image = draw(tmp_path / "gcps.tif", crs="EPSG:4326", gcps=made)
    np.testing.assert_allclose(
        corners(read(image)), [(179.7, 10), (180.3, 10), (180.3, 9.6), (179.7, 9.6)], rtol=0, atol=1e-7
    )


def on_ground(column: float, row: float, height: float) -> tuple[float, float]:
    """What the polynomials above say, solved for the ground; RPCs count from the centre of the first pixel."""
    z = (height - 100) / 500
    return 10 + 0.5 * ((column - 500.5) / 500 - 0.05 * z), 50 - 0.5 * ((row - 500.5) / 500 - 0.1 * z)


@pytest.mark.parametrize("height", [None, 0.0, 350.0])
def test_rpcs_with_a_height(tmp_path: Path, height: float | None) -> None:
    image = draw(tmp_path / "rpcs.tif", rpcs=RPCS)
    expected = [on_ground(x, y, 100 if height is None else height) for x, y in zip(*CORNERS, strict=True)]
    np.testing.assert_allclose(corners(read(image, height=height)), expected, rtol=0, atol=1e-7)


def elevations(path: Path, **changes: Any) -> Path:
    """Everywhere 7 m."""
    profile = {"crs": "EPSG:4326", "transform": from_bounds(9, 49, 11, 51, 60, 40), "dtype": "float32"}
    return draw(path, **profile | changes)


def test_rpcs_with_elevations(tmp_path: Path) -> None:
    image, dem = draw(tmp_path / "rpcs.tif", rpcs=RPCS), elevations(tmp_path / "dem.tif")
    expected = [on_ground(x, y, 7) for x, y in zip(*CORNERS, strict=True)]
    np.testing.assert_allclose(corners(read(image, dem=str(dem))), expected, rtol=0, atol=1e-7)


def test_a_height_is_taken_where_the_elevations_end(tmp_path: Path) -> None:
    image = draw(tmp_path / "rpcs.tif", rpcs=RPCS)
    dem = elevations(tmp_path / "dem.tif", transform=from_bounds(29, 49, 31, 51, 60, 40))
    expected = [on_ground(x, y, 350) for x, y in zip(*CORNERS, strict=True)]
    np.testing.assert_allclose(corners(read(image, dem=str(dem), height=350)), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"transform": from_bounds(29, 49, 31, 51, 60, 40)}, "has no elevation at the image's middle"),
        ({"crs": None}, "has no coordinate system"),
    ],
)
def test_a_dem_that_does_not_serve_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    image, dem = draw(tmp_path / "rpcs.tif", rpcs=RPCS), elevations(tmp_path / "dem.tif", **changes)
    with pytest.raises(ExtensionConfigurationError, match=complaint) as raised:
        read(image, dem=str(dem))
    assert str(dem) in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_dem_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    image, dem = draw(tmp_path / "rpcs.tif", rpcs=RPCS), tmp_path / "dem.tif"
    if content is not None:
        dem.write_bytes(content)
    with pytest.raises(ExtensionConfigurationError, match="cannot be read") as raised:
        read(image, dem=str(dem))
    assert len(str(raised.value).splitlines()) == 1


def test_an_affine_transform_comes_first_and_a_height_asks_for_rpcs(tmp_path: Path) -> None:
    image = draw(tmp_path / "both.tif", crs="EPSG:32618", transform=UTM, rpcs=RPCS)
    first, asked = read(image), read(image, height=10)
    assert first is not None
    assert asked is not None
    assert (first.affine, first.rpcs) == (tuple(UTM)[:6], None)
    assert (asked.affine, asked.height) == (None, 10)


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"transform": UTM},
        {"crs": "EPSG:32618"},
        {"crs": 'LOCAL_CS["site",UNIT["metre",1]]', "transform": UTM},
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_does_not_lead_to_the_globe_is_no_georeference(tmp_path: Path, profile: dict[str, Any]) -> None:
    image = draw(tmp_path / "image.tif", **profile)
    assert read(image) is None
    assert read(image, height=3) is None


def test_it_travels_as_json(tmp_path: Path) -> None:
    for name, profile in {
        "affine": {"crs": "EPSG:3857", "transform": UTM},
        "wkt": {"crs": "+proj=laea +lat_0=40 +lon_0=-70 +datum=WGS84", "transform": Affine(2, 0, 0, 0, -2, 0)},
        "gcps": {"crs": "EPSG:32618", "gcps": points("EPSG:32618", UTM)},
        "rpcs": {"rpcs": RPCS},
    }.items():
        found = read(draw(tmp_path / f"{name}.tif", **profile))
        assert found is not None
        copy = Georeference.from_dict(orjson.loads(orjson.dumps(found.to_dict())))
        assert copy == found
        assert corners(copy) == corners(found)


def test_the_name_of_a_known_system_is_short(tmp_path: Path) -> None:
    found = read(draw(tmp_path / "image.tif", crs="EPSG:32618", transform=UTM))
    assert found is not None
    assert found.crs == "EPSG:32618"


@pytest.mark.parametrize(
    "georeference",
    [
        Georeference("EPSG:32618", affine=tuple(UTM)[:6]),
        Georeference("EPSG:4326", affine=(0.1, 0, 10, 0, -0.1, 50)),
        Georeference("EPSG:32618", gcps=tuple((p.col, p.row, p.x, p.y) for p in points("EPSG:32618", UTM))),
        Georeference("EPSG:4326", rpcs=RPCS.to_dict()),
    ],
    ids=["utm", "geographic", "gcps", "rpcs"],
)
def test_what_is_nowhere_is_nan_and_the_rest_stays(georeference: Georeference) -> None:
    transformer = georeference.transformer()
    x, y = np.array([5.0, np.nan, 1e300, np.inf, 6.0]), np.array([5.0, 5.0, 5.0, -np.inf, 6.0])
    together = np.array(transformer.to_lonlat(x, y))
    alone = np.array(transformer.to_lonlat(np.array([5.0, 6.0]), np.array([5.0, 6.0])))
    np.testing.assert_allclose(together[:, [0, 4]], alone, atol=1e-12)
    assert np.isnan(together[:, 1:4]).all()
    assert transformer.to_lonlat(np.array([]), np.array([]))[0].size == 0


def test_a_point_outside_its_projection_does_not_take_the_others_along() -> None:
    # Orthographic: half of the plane is not on the globe.
    georeference = Georeference("+proj=ortho +lat_0=0 +lon_0=0", affine=(1000, 0, 0, 0, -1000, 0))
    longitude, _ = georeference.transformer().to_lonlat(np.array([0.0, 9e3, 1.0]), np.zeros(3))
    assert np.isnan(longitude).tolist() == [False, True, False]


def test_half_a_pixel_beyond_the_pole_is_the_pole() -> None:
    georeference = Georeference("EPSG:4326", affine=(1, 0, -180, 0, -1, 90.5))
    _, latitude = georeference.transformer().to_lonlat(np.array([0.0, 0.0]), np.array([0.0, 181.0]))
    assert latitude.tolist() == [90, -90]
