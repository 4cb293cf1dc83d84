"""Jobs on AWS as everybody runs them: AWS's own names, TLS, signatures that are checked; no endpoint is overridden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from tests.integration.aws.bed import DOTTED, Bed
from tests.integration.aws.callers import put, python, removed, started
from tests.integration.aws.front import REGION
from tests.integration.cloud import ACCOUNT
from tests.integration.endpoints import ELSEWHERE
from tests.integration.fleet import INPUTS, Fleet, names, wait_until, write_tiles
from tests.integration.ship_scene import write_scene

LARGE = {"padding": "x" * 200_000}
OURS = {f"{INPUTS}.s3.{REGION}", f"fleet-out.s3.{REGION}"}


@pytest.mark.parametrize("staging", ["--stage", "--no-stage"])
def test_tiles_inline_and_uploaded(aws: Bed, fleet: Fleet, tmp_path: Path, staging: str) -> None:
    tiles = write_tiles(fleet.tiles / staging, {"large": LARGE, "small": {}, "third": {"features": 3}})
    outcome = fleet.detect(tiles, "-e", "scripted", staging, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert names(outcome.features) == ["large", "small", "third", "third", "third"]
    asked = {one.host.service: one.name for one in aws.front.asked}
    assert (asked["runtime"], asked["api"]) == (
        f"runtime.sagemaker.{REGION}.amazonaws.com",
        f"api.sagemaker.{REGION}.amazonaws.com",
    )
    assert {one.name.removesuffix(".amazonaws.com") for one in aws.front.by("obstore")} == OURS
    assert {one.name.removesuffix(".amazonaws.com") for one in aws.front.by("boto3") if one.bucket} == OURS


_LIST = """
import sys
from osml_tasks.sources import find_tiles
print(*(tile.name for tile in find_tiles(sys.argv[1:])))
"""


def test_tiles_in_buckets_of_all_kinds_of_names(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    aws.front.access_points["tiles"] = ELSEWHERE
    put(aws, ELSEWHERE, "in/a", b'{"name": "a"}')
    put(aws, DOTTED, "in/b", b'{"name": "b"}')
    point = f"arn:aws:s3:{REGION}:{ACCOUNT}:accesspoint/tiles"
    for bucket, name in ((ELSEWHERE, "a"), (DOTTED, "b")):
        outcome = fleet.detect(f"s3://{bucket}/in/", "-e", "scripted", folder=tmp_path)
        assert (outcome.status, names(outcome.features)) == (0, [name]), outcome.err
    assert f"s3.{REGION}.amazonaws.com" in aws.front.hosts
    assert python(fleet, _LIST, f"s3://{point}/in/") == f"s3://{point}/in/a\n"
    assert f"tiles-{ACCOUNT}.s3-accesspoint.{REGION}.amazonaws.com" in aws.front.hosts
    removed(aws, f"s3://{ELSEWHERE}/in/a", f"s3://{DOTTED}/in/b")


@pytest.mark.parametrize("bucket", [ELSEWHERE, DOTTED])
def test_an_image_in_s3_with_a_map(aws: Bed, fleet: Fleet, tmp_path: Path, bucket: str) -> None:
    ships = write_scene(tmp_path / "scene.tif", width=700, height=600)
    image = put(aws, bucket, "images/scene.tif", (tmp_path / "scene.tif").read_bytes())
    page = tmp_path / "map.html"
    options = ("-e", "bright-objects", "--tile-size", "256", "--overlap", "64", "--map", page)
    outcome = fleet.detect(image, *options, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert len(outcome.features) == ships
    assert page.stat().st_size > 10_000
    host = f"s3.{REGION}.amazonaws.com" if bucket == DOTTED else f"{bucket}.s3.{REGION}.amazonaws.com"
    assert {one.name for one in aws.front.by("GDAL")} == {host}
    removed(aws, image)


def test_an_image_at_an_access_point(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    aws.front.access_points["scenes"] = ELSEWHERE
    ships = write_scene(tmp_path / "scene.tif", width=700, height=600)
    image = put(aws, ELSEWHERE, "images/scene.tif", (tmp_path / "scene.tif").read_bytes())
    there = f"s3://arn:aws:s3:{REGION}:{ACCOUNT}:accesspoint/scenes/images/scene.tif"
    options = ("-e", "bright-objects", "--tile-size", "256", "--overlap", "64")
    outcome = fleet.detect(there, *options, folder=tmp_path)
    assert (outcome.status, len(outcome.features)) == (0, ships), outcome.err
    assert {one.name for one in aws.front.by("GDAL")} == {f"scenes-{ACCOUNT}.s3-accesspoint.{REGION}.amazonaws.com"}
    removed(aws, image)


_DETECTOR = """
import sys
from pathlib import Path
from osml_tasks import AsyncEndpointConfig, AsyncSMDetector, AsyncTileWorkerPool
tiles = sorted(Path(sys.argv[1]).iterdir())
config = AsyncEndpointConfig(polling_interval=0.1)
with AsyncSMDetector("scripted", config) as detector:
    print(sum(len(detector.find_features(tile.read_bytes())["features"]) for tile in tiles))
    pool = AsyncTileWorkerPool(detector, config)
    print(*pool.process_tiles_async(tiles), len(pool.features["features"]))
"""


def test_the_detector_and_the_pool(aws: Bed, fleet: Fleet) -> None:
    tiles = write_tiles(fleet.tiles / "pool", {"p-large": LARGE, "p-small": {}})
    assert python(fleet, _DETECTOR, tiles) == "2\n2 0 2\n"


def test_results_in_s3_and_every_command_of_a_job(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(fleet.tiles / "life", {"l-good": LARGE, "l-bad": {"fail_first": 1}})
    job = started(fleet, tiles, "-e", "scripted", ASYNC_SM_MAX_RETRIES="0")
    assert fleet.run("watch", job).returncode == 3
    retried = fleet.run("retry", job, ASYNC_SM_MAX_RETRIES="0")
    assert retried.returncode == 0, retried.stderr
    assert fleet.run("watch", job).returncode == 0
    uri = f"s3://{ELSEWHERE}/results/out.geojson"
    done = fleet.run("result", job, "-o", uri)
    assert done.returncode == 0, done.stderr
    found = json.loads(aws.seen.s3.get_object(Bucket=ELSEWHERE, Key="results/out.geojson")["Body"].read())
    assert sorted(names(found["features"])) == ["l-bad", "l-good"]
    removed(aws, uri)


def test_a_cancelled_job_leaves_nothing(aws: Bed, fleet: Fleet) -> None:
    tiles = write_tiles(fleet.tiles / "cancelled", {f"c{number:02d}": {"sleep": 0.3} for number in range(40)})
    job = started(fleet, tiles, "-e", "slow", ASYNC_SM_MAX_CONCURRENT_JOBS="8")
    wait_until(lambda: fleet.stats("slow")["in_flight"] == 8)
    done = fleet.run("cancel", job)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: fleet.stats("slow")["in_flight"] == 0)
    wait_until(lambda: fleet.run("cleanup", "--job", job).stdout.startswith("0 deleted"))


def test_a_job_is_resumed_after_the_broker_has_lost_everything(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(fleet.tiles / "resumed", {f"r{number:02d}": LARGE for number in range(6)})
    job = started(fleet, tiles, "-e", "one-at-a-time")
    wait_until(lambda: fleet.stats("one-at-a-time")["in_flight"] > 0)
    with redis.Redis.from_url(fleet.env["CELERY_BROKER_URL"]) as broker:
        broker.flushdb()
    result = tmp_path / "out.geojson"
    done = fleet.run("resume", job, "--force", "-o", result)
    assert done.returncode == 0, done.stderr
    assert sorted(names(json.loads(result.read_text())["features"])) == [f"r{number:02d}" for number in range(6)]
    wait_until(lambda: fleet.stats("one-at-a-time")["in_flight"] == 0)
    wait_until(lambda: fleet.run("cleanup", "--job", job).stdout.startswith("0 deleted"))


def test_delayed_cleanup_waits_for_the_sweep(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(fleet.tiles / "delayed", {"d-large": LARGE, "d-small": {}})
    delayed = {"ASYNC_SM_CLEANUP_POLICY": "delayed", "ASYNC_SM_CLEANUP_DELAY_SECONDS": "1"}
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path, **delayed)
    assert outcome.status == 0, outcome.err
    assert aws.seen.objects()
    wait_until(lambda: fleet.run("cleanup").returncode == 0 and not aws.seen.objects())


def test_check_says_all_is_well(aws: Bed, fleet: Fleet) -> None:
    done = fleet.run("check", "-e", "scripted")
    assert done.returncode == 0, done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}


def test_a_role_of_another_account(aws: Bed, tmp_path: Path) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/detector"
    with aws.fleet(ASYNC_SM_ASSUME_ROLE_ARN=role, ASYNC_SM_EXTERNAL_ID="external-4711") as fleet:
        tiles = write_tiles(fleet.tiles / "role", {"role-large": LARGE, "role-small": {}})
        outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert names(outcome.features) == ["role-large", "role-small"]
    assert f"sts.{REGION}.amazonaws.com" in aws.front.hosts
    job = outcome.report["job_id"]
    of_job = [one.request for one in aws.front.asked if job in one.request.target]
    assert of_job
    assert not any(aws.user.access_key in one.headers["authorization"] for one in of_job)
