"""Whole images when things go wrong: what is wrong is said, and what can be had comes out as if nothing had been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from osml_tasks.assembly import assemble_job
from osml_tasks.celery import new_app, state_client
from osml_tasks.cli import run
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import create_job, start_job
from osml_tasks.image_sources import client_images, plan_sources
from osml_tasks.image_tiles import ImageTiles
from osml_tasks.imagery.options import image_options
from osml_tasks.imagery.plan import ImagePlan
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job
from osml_tasks.redis_keys import PREFIX
from osml_tasks.s3 import S3Uri
from osml_tasks.sources import find_tiles
from osml_tasks.tile import Tile
from tests.integration.crew import ALL, POLL, SUBMIT, Crew
from tests.integration.endpoints import ELSEWHERE, OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, wait_until
from tests.integration.scenes import TILING, Scene, draw, without_job
from tests.integration.steps import collected, connected, submitted
from tests.unit.imagery.drawn_images import noise, write
from tests.unit.imagery.test_datasets import vrt
from tests.unit.imagery.test_georeference import RPCS
from tests.unit.imagery.test_reader_pool import one_block, raw, resident

ONCE = {"ASYNC_SM_MAX_RETRIES": "0"}


@pytest.fixture(scope="module")
def scenes(_fleet: Fleet) -> list[Scene]:
    """Two images, of different georeference."""
    folder = Path(_fleet.tiles, "image_failures")
    return [draw(folder / "a.tif", seed=8), draw(folder / "b.tif", seed=9, ships=9, crs="EPSG:32619")]


def named(path: Path) -> list[dict[str, Any]]:
    return without_job(json.loads(path.read_text())["features"])


@pytest.fixture(scope="module")
def whole(_fleet: Fleet, scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a job without failures gives."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = _fleet.detect(*(scene.path for scene in scenes), "-e", "bright-objects", *TILING, folder=folder)
    assert outcome.status == 0, outcome.err
    return without_job(outcome.features)


def test_tiles_that_are_retried_come_out_as_if_they_had_never_failed(
    fleet: Fleet, scenes: list[Scene], whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    paths = [scene.path for scene in scenes]
    partly = fleet.detect(*paths, "-e", "second-sight", *TILING, "--keep", folder=tmp_path, **ONCE)
    assert partly.status == 3, partly.err
    assert 5 < partly.report["failed"] < 30
    assert without_job(partly.features) != whole
    job = partly.report["job_id"]
    again = fleet.run("retry", job, "-o", tmp_path / "again.geojson", "--report", tmp_path / "again.json")
    assert again.returncode == 0, again.stderr
    assert named(tmp_path / "again.geojson") == whole
    report = json.loads((tmp_path / "again.json").read_text())
    assert (report["failed"], report["features"]) == (0, len(whole))
    assert [image["tiles"] for image in report["images"]] == [20, 20]


def test_a_job_that_is_come_back_to_gives_a_file_of_each_image(
    fleet: Fleet, scenes: list[Scene], whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    paths = [scene.path for scene in scenes]
    job = fleet.run("detect", *paths, "-e", "bright-objects", *TILING, "--no-wait").stdout.strip()
    done = fleet.run("result", job, "-o", f"{tmp_path}/each/")
    assert done.returncode == 0, done.stderr
    assert named(tmp_path / "each" / "a.geojson") + named(tmp_path / "each" / "b.geojson") == whole


def planned(*sources: str | Path, **options: Any) -> ImagePlan:
    tiles = find_tiles(sources, boto3.Session())
    plan = plan_sources(sources, tiles, image_options(**options), lambda: client_images(boto3.Session()), stage=False)
    assert plan is not None
    return plan


def started(workers: Crew, plan: ImagePlan, **options: Any) -> str:
    """Start a job of small shards; without asking whether anybody works yet."""
    config = AsyncEndpointConfig(**{"max_concurrent_jobs": 16, "polling_interval": 0.2} | options)
    with closing(connect(config, workers.app)) as connections:
        return start_job(connections, plan.tiles, "bright-objects", stage=False, images=plan).job_id


def test_a_job_is_gone_on_with_after_its_broker_was_lost(
    workers: Crew, scenes: list[Scene], whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    fleet = workers.fleet
    first = workers.start("first", f"{SUBMIT},{POLL}", 2)
    paths = [scene.path for scene in scenes]
    job = started(workers, planned(*paths, tile_size=256, overlap=64))
    # Some of ten, and with luck not all.
    wait_until(lambda: any("/parts/" in key for key in fleet.objects()))
    first.kill()
    workers.broker.flushall()
    workers.start("second", ALL, 2)
    done = fleet.run("resume", job, "-o", tmp_path / "out.geojson")
    assert done.returncode == 0, done.stderr
    assert named(tmp_path / "out.geojson") == whole


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        yield connections
        for bucket in (INPUTS, OUTPUTS):
            connections.s3.delete(found.uri for found in connections.s3.list(S3Uri(bucket, "")))


def test_a_worker_that_dies_while_it_cuts_loses_and_doubles_nothing(
    fleet: Fleet,
    connections: Connections,
    scenes: list[Scene],
    whole: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(*(scene.path for scene in scenes), tile_size=256, overlap=64)
    job, shards = create_job(connections, plan.tiles, "bright-objects", stage=False, images=plan)
    before = len(fleet.invocations("bright-objects"))
    real, cut = ImageTiles.cut, []

    def dying(self: ImageTiles, of_job: Job, tile: Tile) -> bytes | None:
        cut.append(tile)
        if len(cut) == 15:
            raise KeyboardInterrupt
        return real(self, of_job, tile)

    with monkeypatch.context() as patched:
        patched.setattr(ImageTiles, "cut", dying)
        with pytest.raises(KeyboardInterrupt):
            for shard in shards:
                submitted(connections, shard)
    for shard in shards:
        submitted(connections, shard)
        collected(connections, shard)
    assemble_job(connections, job.job_id, 1)
    handle = JobHandle(connections, job.job_id)
    found = without_job(handle.result()["features"])
    for one, other in zip(found, whole, strict=True):
        assert json.loads(json.dumps(one)) == other
    invoked = fleet.invocations("bright-objects")[before:]
    assert len(set(invoked)) == job.tiles
    # What was under way as it died may be invoked again, under the same name.
    assert len(invoked) <= job.tiles + shards[0].tiles
    handle.discard()


def put(fleet: Fleet, bucket: str, key: str, path: Path) -> str:
    fleet.s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return f"s3://{bucket}/{key}"


def test_images_that_go_or_change_during_a_job_are_failures_and_the_rest_comes(workers: Crew, tmp_path: Path) -> None:
    fleet = workers.fleet
    path = write(tmp_path / "a.tif", noise(1, 300, 300))
    uris = [put(fleet, ELSEWHERE, f"mine/{name}.tif", path) for name in ("gone", "changed", "good")]
    job = started(workers, planned(*uris, tile_size=256), max_retries=1)
    fleet.s3.delete_object(Bucket=ELSEWHERE, Key="mine/gone.tif")
    put(fleet, ELSEWHERE, "mine/changed.tif", write(tmp_path / "b.tif", noise(1, 300, 400)))
    workers.start("w", ALL, 2)
    done = fleet.run("result", job, "-o", tmp_path / "o.geojson", "--report", tmp_path / "r.json")
    for name in ("changed", "good"):
        fleet.s3.delete_object(Bucket=ELSEWHERE, Key=f"mine/{name}.tif")
    assert done.returncode == 3, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["failed"], report["succeeded"]) == (8, 4)
    said = [(failure["tile"].split("#")[0], failure["reason"], failure["error"]) for failure in report["failures"]]
    assert [name for name, _, _ in said] == [uris[0]] * 4 + [uris[1]] * 4
    assert {reason for _, reason, _ in said} == {"input"}
    assert "cannot be read" in said[0][2]
    assert "is another by now than when the job began" in said[-1][2]


def test_strange_images_reach_no_endpoint_and_their_neighbours_do(workers: Crew, tmp_path: Path) -> None:
    fleet = workers.fleet
    folder = Path(fleet.tiles, "strange")
    folder.mkdir()
    good = [write(folder / f"{name}.tif", noise(1, 300, 400)) for name in "abcd"]
    mosaic = vrt(folder / "e.vrt", str(good[0]))
    job = started(workers, planned(*good, mosaic, tile_size=512), max_retries=0)
    before = len(fleet.invocations("bright-objects"))
    # All but the last, which is of the first no more.
    for path in good[:3]:
        path.unlink()
    raw(good[0], "/proc/self/environ")
    one_block(good[1], 20_000)
    good[2].symlink_to(good[2])
    raw(mosaic, "/proc/self/environ")
    worker = workers.start("w", ALL, 2)
    done = fleet.run("result", job, "-o", tmp_path / "o.geojson", "--report", tmp_path / "r.json")
    assert done.returncode == 3, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["succeeded"], report["failed"]) == (1, 4)
    assert {failure["reason"] for failure in report["failures"]} == {"input"}
    assert len(fleet.invocations("bright-objects")) == before + 1
    assert worker.process.pid is not None
    peaks = _peaks(worker.process.pid)
    # The worker, its processes, and those that read images for them.
    assert len(peaks) > 4
    assert max(peaks) < 500_000_000
    shutil.rmtree(folder)


def _peaks(pid: int) -> list[int]:
    """The most memory that a process and its descendants have had, in bytes."""
    children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return [resident(pid), *(peak for child in children for peak in _peaks(int(child)))]


@pytest.mark.parametrize("where", ["outside the roots", "outside the buckets"])
def test_what_a_worker_may_not_read_is_a_failure_of_its_tiles(fleet: Fleet, tmp_path: Path, where: str) -> None:
    path = write(tmp_path / "a.tif", noise(1, 300, 300))
    source = str(path) if where == "outside the roots" else put(fleet, OUTPUTS, "mine/a.tif", path)
    outcome = fleet.detect(source, "-e", "bright-objects", "--tile-size", "256", "--no-stage", folder=tmp_path)
    fleet.s3.delete_object(Bucket=OUTPUTS, Key="mine/a.tif")
    assert outcome.status == 3, outcome.err
    assert outcome.report["failed"] == outcome.report["tiles"] == 4
    for failure in outcome.report["failures"]:
        assert failure["reason"] == "input"
        setting = "ASYNC_SM_TILE_ROOTS" if where == "outside the roots" else "ASYNC_SM_TILE_BUCKETS"
        assert setting in failure["error"]


BAD = {
    "no image": (["no.tif"], "image '{folder}/no.tif' cannot be read: "),
    "a truncated image": (["cut.tif"], "image '{folder}/cut.tif' cannot be read: "),
    "an overlap that is not smaller": (["--tile-size", "256", "--overlap", "256"], "an overlap of 256 px does not go"),
    "a region outside": (["--roi", "0,0,1,1"], "a.tif"),
    "a region in another system": (["--roi", "500000,4000000,500100,4000100"], "lon"),
    "no region": (["--roi", "POLYGON((1 2"], "POLYGON((1 2"),
    "a band that is not there": (["--bands", "4"], "has 3 bands and no band 4: correct --bands"),
    "a format that does not take it": (["f.tif", "--tile-format", "JPEG"], "JPEG takes 1 or 3 bands of uint8"),
    "a tile larger than its format": (
        ["wide.tif", "--tile-format", "JPEG", "--tile-size", "70000"],
        "larger than JPEG can hold, 65500 px: lower --tile-size",
    ),
    "a compression of another format": (["--tile-compression", "LZW"], "PNG tiles cannot be compressed with LZW"),
    "a preview of several images": (["--preview", "{folder}/p.png"], "is no directory"),
    "a map in no directory": (["--map", "{folder}/none/m.html"], "there is no directory"),
    "a preview in no directory": (["--preview", "{folder}/none/p.png"], "there is no directory"),
    "options without cutting": (["--no-cut", "--tile-size", "256"], "nothing is cut, yet options of images are given"),
    "a height model that is none": (["--dem", "{folder}/no.tif", "rpcs.tif"], "no.tif"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    here: Fleet, scenes: list[Scene], tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "no.tif").write_text("no image")
    whole = write(tmp_path / "cut.tif", noise(3, 300, 300))
    whole.write_bytes(whole.read_bytes()[:-200])
    write(tmp_path / "f.tif", noise(3, 300, 300, "float32"))
    write(tmp_path / "wide.tif", np.zeros((1, 1, 66_000), "uint8"))
    given, message = BAD[kind]
    arguments = [argument.format(folder=tmp_path) for argument in given]
    own = [str(tmp_path / argument) for argument in arguments if argument in ("no.tif", "cut.tif", "f.tif", "wide.tif")]
    if "rpcs.tif" in arguments:
        own = [str(write(tmp_path / "rpcs.tif", noise(1, 300, 300), rpcs=RPCS))]
    options = [argument for argument in arguments if not argument.endswith(".tif") or "/" in argument]
    drawn = [str(scene.path) for scene in scenes]
    sources = own or drawn[: 2 if kind == "a preview of several images" else 1]
    redis = state_client(new_app(here.env["CELERY_BROKER_URL"], here.env["CELERY_BROKER_URL"]))
    keys = set(redis.scan_iter(f"{PREFIX}job:*"))
    status = run(["detect", *sources, "-e", "bright-objects", "--cut", *options, "-o", f"{tmp_path}/out.geojson"])
    said = capfd.readouterr().err
    complaint = said.splitlines()[-1]
    assert (status, complaint.startswith("osml-tasks: ")) == (2, True), said
    assert message.format(folder=tmp_path) in complaint
    assert "Traceback" not in said
    assert set(redis.scan_iter(f"{PREFIX}job:*")) == keys
    assert here.objects() == []
    assert not (tmp_path / "out.geojson").exists()
