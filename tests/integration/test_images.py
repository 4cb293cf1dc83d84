"""Whole images from outside: one command, one result on the globe, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio

from osml_tasks.imagery.datasets import MOST_OPEN
from osml_tasks.local.model import find_bright_objects
from tests.integration.crew import ALL, Crew
from tests.integration.endpoints import ELSEWHERE
from tests.integration.fleet import INPUTS, PATIENCE, Fleet
from tests.integration.owned_way import OwnedWay, Seen
from tests.integration.scenes import TILING, Scene, are_same, as_placed, draw, iou, on_image, png, without_job
from tests.unit.imagery.drawn_images import noise, write

MODEL = ("-e", "bright-objects")
HEADER = "0-65535"


@pytest.fixture(scope="module")
def scene(_fleet: Fleet) -> Scene:
    return draw(Path(_fleet.tiles, "images", "scene.tif"))


@pytest.fixture
def s3_image(fleet: Fleet) -> Iterator[str]:
    """A large image in S3 that compresses badly, in blocks."""
    pixels = noise(1, 1024, 1024)
    profile = {"driver": "GTiff", "count": 1, "height": 1024, "width": 1024, "dtype": "uint8"}
    with rasterio.MemoryFile() as file:
        with file.open(**profile, tiled=True, blockxsize=256, blockysize=256) as image:
            image.write(pixels)
        fleet.s3.put_object(Bucket=ELSEWHERE, Key="mine/noise.tif", Body=bytes(file.getbuffer()))
    yield f"s3://{ELSEWHERE}/mine/noise.tif"
    fleet.s3.delete_object(Bucket=ELSEWHERE, Key="mine/noise.tif")


def asked_directly(scene: Scene) -> list[dict[str, Any]]:
    """What the model says of each tile, placed by hand."""
    return [
        on_image(feature, window)
        for window in scene.windows
        for feature in find_bright_objects(
            png(scene.pixels[:, window.y : window.y + window.height, window.x : window.x + window.width])
        )["features"]
    ]


@pytest.mark.parametrize("staging", ["--stage", "--no-stage"])
def test_features_are_those_of_the_model_called_by_hand(
    fleet: Fleet, scene: Scene, tmp_path: Path, staging: str
) -> None:
    outcome = fleet.detect(scene.path, *MODEL, *TILING, staging, "--merge", "none", folder=tmp_path)
    expected = asked_directly(scene)
    assert outcome.status == 0, outcome.err
    assert len(outcome.features) == len(expected) > len(scene.ships)
    assert all(map(are_same, map(as_placed, outcome.features), expected))
    assert outcome.report["tiles"] == outcome.report["succeeded"] == len(scene.windows)


def test_each_known_ship_is_found_once(fleet: Fleet, scene: Scene, tmp_path: Path) -> None:
    outcome = fleet.detect(scene.path, *MODEL, *TILING, "--property", "mission=x", folder=tmp_path)
    boxes = [feature["properties"]["imageBBox"] for feature in outcome.features]
    for ship in scene.ships:
        assert sum(iou(ship, box) > 0.4 for box in boxes) == 1, ship
    assert {feature["properties"]["mission"] for feature in outcome.features} == {"x"}
    read = geopandas.read_file(tmp_path / "out.geojson")
    assert (len(read), read.crs) == (len(outcome.features), "EPSG:4326")


def test_features_and_report_say_what_was_cut(fleet: Fleet, scene: Scene, tmp_path: Path) -> None:
    outcome = fleet.detect(
        scene.path, *MODEL, *TILING, "--bands", "2", "--stretch", "1,99", "--merge", "none", folder=tmp_path
    )
    assert outcome.status == 0, outcome.err
    (image,) = outcome.report["images"]
    levels = [np.percentile(scene.pixels[1], (1, 99)).tolist()]
    assert image == {
        "location": str(scene.path),
        "format": "GTIFF",
        "width": 1024,
        "height": 768,
        "bands": 3,
        "dtype": "uint8",
        "crs": "EPSG:32618",
        "georeferenced": True,
        "conversion": {"bands": [2], "stretch": levels},
        "tiles": 20,
        "skipped": 0,
    }
    for feature in outcome.features:
        source = feature["properties"]["sourceMetadata"][-1]
        assert source.pop("tileBBox") in [list(window.box) for window in scene.windows]
        assert source == {name: image[name] for name in ("location", "format", "conversion")}
        assert feature["properties"]["inferenceMetadata"]["jobId"] == outcome.report["job_id"]
    assert outcome.features
    assert f"{scene.path} has 1024 x 768 px, 3 bands of uint8: 20 tiles of 256 x 256 px" in outcome.err


def test_an_image_without_georeference_keeps_its_pixels(fleet: Fleet, tmp_path: Path) -> None:
    scene = draw(tmp_path / "plain.png", driver="PNG", crs=None, transform=None, compress=None)
    outcome = fleet.detect(scene.path, *MODEL, *TILING, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.features
    assert {feature["geometry"] for feature in outcome.features} == {None}
    assert all(feature["properties"]["imageBBox"] for feature in outcome.features)
    assert outcome.err.count("no georeference") == 1
    assert "Warning" not in outcome.err
    assert outcome.report["images"][0]["georeferenced"] is False


def test_tiles_without_data_are_counted_and_never_invoked(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    tiles.mkdir()
    half = noise(1, 300, 500)
    half[:, :, :300] = 0
    sparse = write(tiles / "half.tif", half, nodata=0)
    empty = write(tiles / "empty.tif", np.zeros((1, 300, 300), "uint8"), nodata=0)
    before = len(fleet.invocations("bright-objects"))
    outcome = fleet.detect(
        *(sparse, empty), *MODEL, "--no-stage", "--tile-size", "100", "--overlap", "0", folder=tmp_path
    )
    assert outcome.status == 0, outcome.err
    counts = [(image["tiles"], image["skipped"]) for image in outcome.report["images"]]
    assert counts == [(15, 9), (9, 9)]
    assert (outcome.report["tiles"], outcome.report["skipped"], outcome.report["failed"]) == (24, 18, 0)
    assert len(fleet.invocations("bright-objects")) - before == 6


def test_an_image_of_nodata_alone_gives_an_empty_result(fleet: Fleet, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.tif", np.zeros((1, 300, 300), "uint8"), nodata=0)
    outcome = fleet.detect(empty, *MODEL, "--tile-size", "100", folder=tmp_path)
    assert (outcome.status, outcome.features, outcome.report["skipped"]) == (0, [], outcome.report["tiles"])


def test_several_images_give_one_result_or_a_file_each(fleet: Fleet, scene: Scene, tmp_path: Path) -> None:
    other = draw(tmp_path / "other" / "scene.tif", seed=6, ships=5)
    flat = write(tmp_path / "flat.tif", np.full((1, 300, 300), 7, "uint8"))
    paths = (scene.path, other.path, flat)
    together = fleet.detect(*paths, *MODEL, *TILING, folder=tmp_path)
    of_each = Counter(feature["properties"]["sourceMetadata"][-1]["location"] for feature in together.features)
    assert list(of_each) == [str(scene.path), str(other.path)]
    folder = tmp_path / "each"
    done = fleet.run("detect", *paths, *MODEL, *TILING, "-o", f"{folder}/", "--preview", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    found = {path.name: json.loads(path.read_text())["features"] for path in folder.iterdir()}
    assert found.keys() == {"scene.geojson", "scene_2.geojson", "flat.geojson"}
    assert found["flat.geojson"] == []
    both = without_job(found["scene.geojson"] + found["scene_2.geojson"])
    assert both == without_job(together.features)
    assert {path.name for path in (tmp_path / "other").glob("*.png")} == {"scene.png", "scene_2.png", "flat.png"}


def test_only_what_meets_a_region_is_cut_and_both_views_are_written(fleet: Fleet, scene: Scene, tmp_path: Path) -> None:
    whole = fleet.detect(scene.path, *MODEL, *TILING, "--no-stage", "--merge", "none", folder=tmp_path)
    ship = max(whole.features, key=lambda feature: feature["properties"]["imageBBox"][0])
    region = ",".join(map(str, ship["bbox"]))
    (tmp_path / "out.geojson").unlink()
    views = ("--map", tmp_path / "map.html", "--preview", tmp_path / "out.png")
    outcome = fleet.detect(
        *(scene.path, *MODEL, *TILING, "--no-stage", "--merge", "none", "--roi", region, *views), folder=tmp_path
    )
    assert outcome.status == 0, outcome.err
    left, top, right, bottom = ship["properties"]["imageBBox"]
    met = [
        window.box
        for window in scene.windows
        if window.x <= right and window.y <= bottom and left <= window.box[2] and top <= window.box[3]
    ]
    assert outcome.report["tiles"] == len(met) < len(scene.windows)
    expected = [one for one in whole.features if tuple(one["properties"]["sourceMetadata"][-1]["tileBBox"]) in met]
    assert without_job(outcome.features) == without_job(expected)
    assert "scene.tif" in (tmp_path / "map.html").read_text()
    with rasterio.open(tmp_path / "out.png") as preview:
        assert (preview.width, preview.height) == (1024, 768)


FROM_PYTHON = """
import sys, geopandas, osml_tasks
job = osml_tasks.detect(sys.argv[1], endpoint="bright-objects", tile_size=512)
frame = geopandas.GeoDataFrame.from_features(job.result())
job.discard()
print(len(frame), frame.geometry.is_valid.all())
"""


def test_from_python_straight_into_geopandas(fleet: Fleet, scene: Scene) -> None:
    _, env = fleet.command()
    # A process of its own: an app is configured once.
    call = [sys.executable, "-c", FROM_PYTHON, str(scene.path)]
    done = subprocess.run(call, env=env, capture_output=True, text=True, timeout=PATIENCE, check=True)
    features, valid = done.stdout.split()
    assert (int(features) >= len(scene.ships), valid) == (True, "True")


def test_a_large_file_is_an_image_without_being_told(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    tiles.mkdir()
    path = write(tiles / "wide.tif", np.zeros((1, 40, 1100), "uint8"))
    outcome = fleet.detect(path, *MODEL, folder=tmp_path)
    assert (outcome.status, outcome.report["tiles"]) == (0, 2)


def of_image(way: OwnedWay, bucket: str) -> list[Seen]:
    return [seen for seen in way.seen if seen.bucket == bucket and seen.rest == "mine/noise.tif"]


def test_an_image_in_s3_is_read_by_ranges_and_neither_copied_nor_deleted(
    workers: Crew, s3_image: str, tmp_path: Path
) -> None:
    with OwnedWay(workers.fleet.env["AWS_ENDPOINT_URL_S3"], {}) as way:
        workers.start("w", ALL, 1, AWS_ENDPOINT_URL_S3=way.url)
        outcome = workers.fleet.detect(
            *(s3_image, *MODEL, "--tile-size", "256", "--merge", "none"),
            *("--overlap", "0"),
            folder=tmp_path,
            AWS_ENDPOINT_URL_S3=way.url,
        )
        assert outcome.status == 0, outcome.err
        assert outcome.report["tiles"] == 16
        seen = of_image(way, ELSEWHERE)
        assert {one.method for one in seen} <= {"GET", "HEAD"}
        ranges = [one.headers["range"].removeprefix("bytes=") for one in seen if one.method == "GET"]
        of_pixels = [tuple(map(int, one.split("-"))) for one in ranges if one != HEADER]
        assert max(last - first for first, last in of_pixels) < 500_000
        # Threads that read neighbours at the same time may each ask for what lies between them.
        assert sum(last - first for first, last in of_pixels) < 2 * 1024 * 1024
        # Once by the client, and by each of the threads that read at the same time.
        assert ranges.count(HEADER) <= 1 + 2 * MOST_OPEN
        copied = [seen for seen in way.seen if seen.bucket == INPUTS and "images/" in seen.rest]
        assert copied == []


def test_tiles_arrive_as_what_they_are(workers: Crew, scene: Scene, tmp_path: Path) -> None:
    with OwnedWay(workers.fleet.endpoints_url, {}) as way:
        workers.start("w", ALL, 1, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=way.url)
        for tile_format, expected in (
            ("PNG", "image/png"),
            ("JPEG", "image/jpeg"),
            ("GTIFF", "image/tiff"),
            ("NITF", "image/nitf"),
        ):
            before = len(way.seen)
            workers.fleet.detect(
                *(scene.path, "--no-stage", *MODEL, "--tile-format", tile_format),
                folder=tmp_path,
                ASYNC_SM_MAX_RETRIES="0",  # of what Pillow cannot read
            )
            invoked = [one for one in way.seen[before:] if one.method == "POST"]
            assert [one.headers.get("x-amzn-sagemaker-content-type") for one in invoked] == [expected]


def test_small_tiles_go_inline_and_large_ones_through_s3(fleet: Fleet, scene: Scene, tmp_path: Path) -> None:
    before = fleet.stats("bright-objects")
    for limit in ("0", "128000"):
        outcome = fleet.detect(scene.path, *MODEL, *TILING, folder=tmp_path, ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES=limit)
        assert outcome.status == 0, outcome.err
    after = fleet.stats("bright-objects")
    assert {kind: after[kind] - before[kind] for kind in ("inline", "s3_input")} == {"inline": 20, "s3_input": 20}
    fleet.wait_empty()
