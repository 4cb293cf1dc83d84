"""The sample model: what it finds, what it leaves alone, and how it says so."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from osml_tasks.local.model import find_bright_objects


def encoded(pixels: np.ndarray[Any, Any], image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def ground(size: int = 64, level: float = 60, noise: float = 6, seed: int = 0) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(seed).normal(level, noise, (size, size))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def features_of(payload: bytes) -> list[dict[str, Any]]:
    answer = find_bright_objects(payload)
    assert answer["type"] == "FeatureCollection"
    features = answer["features"]
    assert isinstance(features, list)
    return features


def test_finds_a_bright_object_where_it_is() -> None:
    pixels = ground()
    pixels[20:30, 12:40] = 210

    (feature,) = features_of(encoded(pixels))

    properties = feature["properties"]
    assert feature["geometry"] is None
    assert properties["imageBBox"] == [12.0, 20.0, 40.0, 30.0]
    assert properties["area_px"] == 280
    assert properties["featureClasses"][0]["iri"] == "bright-object"
    assert properties["featureClasses"][0]["score"] > 0.9


def test_the_geometry_is_a_closed_ring_round_the_object() -> None:
    pixels = ground()
    pixels[20:30, 12:40] = 210

    geometry = features_of(encoded(pixels))[0]["properties"]["imageGeometry"]

    (ring,) = geometry["coordinates"]
    assert geometry["type"] == "Polygon"
    assert ring[0] == ring[-1]
    assert {tuple(point) for point in ring} == {(12.0, 20.0), (40.0, 20.0), (40.0, 30.0), (12.0, 30.0)}


def test_the_box_follows_the_main_axis_of_a_slanted_object() -> None:
    image = Image.fromarray(ground())
    ImageDraw.Draw(image).polygon([(10, 20), (16, 14), (46, 44), (40, 50)], fill=220)

    ring = np.array(features_of(encoded(np.asarray(image)))[0]["properties"]["imageGeometry"]["coordinates"][0])

    sides = sorted(np.hypot(*np.diff(ring, axis=0)[:2].T))
    assert sides == pytest.approx([8.5, 42.4], abs=2.0)


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([32, 64, 128]),
    level=st.integers(60, 230),
    noise=st.floats(0, 12),
    seed=st.integers(0, 10_000),
)
def test_a_tile_of_noise_has_no_objects(size: int, level: int, noise: float, seed: int) -> None:
    assert features_of(encoded(ground(size, level, noise, seed))) == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_tile_has_no_objects(level: int) -> None:
    assert features_of(encoded(np.full((64, 64), level, np.uint8))) == []


def test_half_a_tile_of_land_is_no_object() -> None:
    pixels = ground()
    pixels[:, 32:] = ground(level=160)[:, 32:]

    assert features_of(encoded(pixels)) == []


def test_specks_are_no_objects() -> None:
    pixels = ground()
    pixels[10:12, 10:12] = 250

    assert features_of(encoded(pixels)) == []


def test_same_bytes_same_answer_in_plain_python_types_from_top_to_bottom() -> None:
    pixels = ground(128)
    for top, left in ((90, 20), (10, 70), (50, 40)):
        pixels[top : top + 8, left : left + 16] = 200
    payload = encoded(pixels)

    answer = find_bright_objects(payload)

    assert answer == find_bright_objects(payload)
    assert json.loads(json.dumps(answer)) == answer
    assert [feature["properties"]["imageBBox"][1] for feature in answer["features"]] == [10.0, 50.0, 90.0]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("bands", [1, 3])
def test_reads_eight_bit_formats(image_format: str, bands: int) -> None:
    pixels = ground()
    pixels[20:30, 12:40] = 210
    stacked = pixels if bands == 1 else np.dstack([pixels] * bands)

    assert len(features_of(encoded(stacked, image_format))) == 1


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_reads_deep_images(dtype: type, image_format: str) -> None:
    if image_format == "PNG" and dtype is not np.uint16:
        pytest.skip("PNG has no such pixels")
    pixels = ground().astype(dtype) * 10
    pixels[20:30, 12:40] = 2100

    (feature,) = features_of(encoded(pixels, image_format))

    assert feature["properties"]["imageBBox"] == [12.0, 20.0, 40.0, 30.0]


def test_reads_transparency_and_palettes() -> None:
    pixels = ground()
    pixels[20:30, 12:40] = 210
    for mode in ("RGBA", "LA", "P"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
        assert len(features_of(buffer.getvalue())) == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("payload", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"II*\x00\x08\x00\x00\x00\xff\xff"])
def test_bytes_that_are_no_image_are_a_value_error_of_one_line(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no readable image") as raised:
        find_bright_objects(payload)
    assert "\n" not in str(raised.value)


def test_a_truncated_image_is_a_value_error() -> None:
    payload = encoded(ground())

    with pytest.raises(ValueError, match="no readable image"):
        find_bright_objects(payload[: len(payload) // 2])


def test_a_small_tile_takes_milliseconds() -> None:
    pixels = ground()
    pixels[20:30, 12:40] = 210
    payload = encoded(pixels)
    find_bright_objects(payload)

    started = time.process_time()
    for _ in range(20):
        find_bright_objects(payload)

    # About 0.6 ms of CPU each.
    assert (time.process_time() - started) / 20 < 0.02
