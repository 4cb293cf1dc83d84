"""The main job from outside: tiles in, one FeatureCollection and a report out, nothing left behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import geojson
import geopandas
import pyogrio
import pytest

from osml_tasks.local.harbour import make_harbour
from osml_tasks.local.model import find_bright_objects
from tests.integration.fleet import INPUTS, PATIENCE, Fleet, names, wait_until, write_tiles

ADDED = {"inferenceMetadata", "sourceMetadata"}


def as_the_model_said(feature: dict[str, Any]) -> dict[str, Any]:
    properties = {name: value for name, value in feature["properties"].items() if name not in ADDED}
    return feature | {"properties": properties}


@pytest.mark.parametrize("staging", ["--stage", "--no-stage"])
def test_features_equal_those_of_the_model_called_directly(
    fleet: Fleet, tiles: Path, tmp_path: Path, staging: str
) -> None:
    harbour = make_harbour(tiles, ships=40, seed=11)
    outcome = fleet.detect(tiles / "tiles", "--endpoint", "bright-objects", staging, folder=tmp_path)
    direct = [feature for tile in harbour.tiles for feature in find_bright_objects(tile.read_bytes())["features"]]
    assert outcome.status == 0
    assert [as_the_model_said(feature) for feature in outcome.features] == direct
    assert outcome.report["tiles"] == outcome.report["succeeded"] == len(harbour.tiles)
    assert outcome.report["features"] == len(direct)


def test_many_shards_come_back_whole_and_in_tile_order(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    scripts = {f"tile-{number:04d}": {"features": number % 4} for number in range(330)}
    write_tiles(tiles, scripts)
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    expected = [name for name, script in scripts.items() for _ in range(script["features"])]
    assert (outcome.status, names(outcome.features)) == (0, expected)


def test_each_feature_says_where_it_came_from(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a.png": {}})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    properties = outcome.features[0]["properties"]
    assert properties["sourceMetadata"] == [{"location": str(tiles / "a.png"), "format": "PNG"}]
    assert properties["inferenceMetadata"]["jobId"] == outcome.report["job_id"]


def test_common_readers_read_the_result(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {f"t{number}": {"features": 2} for number in range(5)})
    fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    path = tmp_path / "out.geojson"
    assert geojson.loads(path.read_text()).is_valid
    assert pyogrio.read_info(path)["features"] == 10
    assert len(geopandas.read_file(path)) == 10


def test_no_tile_with_a_feature_gives_an_empty_collection(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"empty": {"features": 0}})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert (outcome.status, outcome.features) == (0, [])
    assert geopandas.read_file(tmp_path / "out.geojson").empty


def test_small_tiles_go_inline_and_large_ones_through_s3(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"small": {}, "at-the-limit": {}, "large": {"padding": "x" * 200_000}})
    limit = (tiles / "at-the-limit").stat().st_size
    before = fleet.stats("scripted")
    outcome = fleet.detect(
        tiles, "-e", "scripted", "--no-stage", folder=tmp_path, ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES=f"{limit}"
    )
    after = fleet.stats("scripted")
    assert names(outcome.features) == ["at-the-limit", "large", "small"]
    assert (after["inline"] - before["inline"], after["s3_input"] - before["s3_input"]) == (2, 1)


def test_inline_can_be_turned_off(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}, "b": {}})
    before = fleet.stats("scripted")["inline"]
    outcome = fleet.detect(
        tiles, "-e", "scripted", "--no-stage", folder=tmp_path, ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES="0"
    )
    assert (outcome.status, fleet.stats("scripted")["inline"]) == (0, before)


def test_s3_tiles_are_neither_copied_nor_deleted(fleet: Fleet, tmp_path: Path) -> None:
    keys = ["mine/a.json", "mine/b.json"]
    for key in keys:
        fleet.s3.put_object(Bucket=INPUTS, Key=key, Body=f'{{"name": "{key}"}}'.encode())
    outcome = fleet.detect(f"s3://{INPUTS}/mine/", "-e", "scripted", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, keys)
    assert sorted(fleet.objects()) == [f"{INPUTS}/{key}" for key in keys]
    for key in keys:
        fleet.s3.delete_object(Bucket=INPUTS, Key=key)


def test_a_job_can_be_left_and_fetched_later(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}, "b": {"raw": "nonsense"}})
    job = fleet.run("detect", tiles, "-e", "scripted", "--no-wait").stdout.strip()
    watched = fleet.run("watch", job)
    assert watched.returncode == 3
    assert f"osml-tasks result {job}" in watched.stdout
    assert '"state": "completed"' in fleet.run("status", job, "--json").stdout
    result = tmp_path / "late.geojson"
    fetched = fleet.run("result", job, "-o", result)
    assert (fetched.returncode, geojson.loads(result.read_text()).is_valid) == (3, True)
    again = fleet.run("result", job, "-o", result)
    assert (again.returncode, "was fetched and removed before" in again.stderr) == (1, True)


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles, {f"t{number}": {"after": str(gate)} for number in range(20)})
    client = fleet.start("detect", tiles, "-e", "slow", "-o", tmp_path / "out.geojson")
    assert client.stderr is not None
    job = next(line.split()[1] for line in client.stderr if line.startswith("job "))
    wait_until(lambda: '"state": "running"' in fleet.run("status", job, "--json").stdout)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=PATIENCE)
    gate.touch()
    assert (client.returncode, f"osml-tasks watch {job}" in err) == (130, True)
    fetched = fleet.run("result", job, "-o", tmp_path / "later.geojson")
    assert fetched.returncode == 0
    assert fetched.stdout.startswith("20 features from 20 of 20 tiles")


def test_two_jobs_at_once_never_exceed_the_capacity_of_the_endpoint(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {f"t{number:03d}": {} for number in range(120)})
    folders = [tmp_path / "one", tmp_path / "two"]
    clients = [
        fleet.start(
            "detect", tiles, "-e", "bounded", "-o", folder.with_suffix(".geojson"), ASYNC_SM_MAX_CONCURRENT_JOBS="24"
        )
        for folder in folders
    ]
    for client in clients:
        out, err = client.communicate(timeout=PATIENCE)
        assert (client.returncode, out[:31]) == (0, "120 features from 120 of 120 ti"), err
    assert fleet.stats("bounded")["in_flight_max"] <= 24


def test_a_result_that_cannot_be_written_is_not_lost(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles, {"a": {"after": str(gate)}})
    folder = tmp_path / "folder"
    folder.mkdir()
    client = fleet.start("detect", tiles, "-e", "scripted", "-o", folder / "out.geojson")
    assert client.stderr is not None
    next(line for line in client.stderr if line.startswith("job "))
    folder.rmdir()
    gate.touch()
    _, err = client.communicate(timeout=PATIENCE)
    assert (client.returncode, "cannot be written" in err) == (2, True)
    (job,) = re.findall(r"osml-tasks result (\S+)", err)
    assert fleet.run("result", job, "-o", "/dev/stdout").stdout.count("Feature") == 2


def test_ctrl_c_while_staging_leaves_nothing(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {f"t{number:04d}": {"padding": "x" * 100_000} for number in range(1500)})
    client = fleet.start("detect", tiles, "-e", "scripted", "-o", tmp_path / "out.geojson")
    wait_until(lambda: len(fleet.objects()) > 20)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=PATIENCE)
    assert (client.returncode, "interrupted" in err) == (130, True)
