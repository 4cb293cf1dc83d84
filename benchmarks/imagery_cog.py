"""A large image in S3, from the command to the result: with the sample model, and workers that cut it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.arena import IMAGE_BUCKET, Stage, open_stage
from benchmarks.client import ClientRun, run_client
from benchmarks.errors import BenchmarkError
from benchmarks.fleet import osml_workers
from benchmarks.imagery_scene import Box, Scene, write_cog
from benchmarks.processes import WorkerPeaks, cpu_seconds_of_nodes
from benchmarks.row import Row, at_least, at_most
from benchmarks.run import SETTLE_SECONDS, Ground
from benchmarks.scale import Scale

TILE_SIZE = 1024
SETTINGS = {"ASYNC_SM_SUBMISSION_WORKERS": "2", "ASYNC_SM_POLLING_WORKERS": "1"}
WORKER_MB = 400
FOUND = 1.0
TIMES_READ = 3.0
SLOTS = 4
NEAR = 2.0  # px: JPEG has soft edges

_SAMPLE_MODEL = "osml_tasks.local.model:find_bright_objects"
_ENDPOINT = "images"
_WITHIN_SECONDS = 1200.0


@dataclass(frozen=True, slots=True)
class WholeImage:
    """What one run has cost.

    :ivar size: width and height of the image, px.
    :ivar file_bytes: of the image's file.
    :ivar read_bytes: what the S3 server has sent of it.
    :ivar tiles: that were cut.
    :ivar objects: on the image.
    :ivar found: how many of them have a detection in the result.
    :ivar features: in the result.
    :ivar cpu: CPU seconds by process: the client, workers by what they do, and servers.
    """

    size: int
    file_bytes: int
    read_bytes: int
    tiles: int
    objects: int
    found: int
    features: int
    client: ClientRun
    peaks: WorkerPeaks
    cpu: dict[str, float]

    @property
    def worker_peak(self) -> int:
        """The most that any worker had resident, bytes."""
        return max(self.peaks.of_nodes.values(), default=0)


def measure(ground: Ground, scale: Scale) -> WholeImage:
    """Write an image, copy it to S3, and have it go the whole way."""
    ground.arena.empty()
    directory = ground.new_directory("imagery-cog")
    scene = write_cog(directory / "scene.tif", scale.cog_side)
    image = ground.arena.add_image(scene.path)
    file_bytes = scene.path.stat().st_size
    scene.path.unlink()
    with open_stage(ground.arena, [_ENDPOINT], slots=SLOTS, latency=0.0, model=_SAMPLE_MODEL) as stage:
        env = stage.env | SETTINGS
        with osml_workers(env, directory) as workers:
            return _run(stage, scene, image, file_bytes, workers, env, directory)


def rows(measured: WholeImage) -> list[Row]:
    """The figures with their bars."""
    what = f"{measured.size:,} x {measured.size:,} px COG from S3, {measured.tiles} tiles of {TILE_SIZE} px"
    peaks = ", ".join(f"{name} {peak / 1e6:.0f}" for name, peak in sorted(measured.peaks.of_nodes.items()))
    cpu = ", ".join(f"{name} {seconds:.1f}" for name, seconds in measured.cpu.items() if seconds >= 0.1)
    wall = measured.client.wall
    share = measured.found / measured.objects
    read = measured.read_bytes / measured.file_bytes
    return [
        at_most(
            f"{what}: peak RSS of any worker",
            measured.worker_peak / 1e6,
            WORKER_MB,
            f"{measured.worker_peak / 1e6:.0f} MB ({peaks}; client {measured.client.peak / 1e6:.0f})",
            " MB",
        ),
        at_least(
            f"{what}: objects found by the sample model",
            100 * share,
            100 * FOUND,
            f"{share:.1%} of {measured.objects:,}, {measured.features:,} features, in {wall:.0f} s = "
            f"{measured.tiles / wall:.1f} tiles/s (CPU s: {cpu})",
            " %",
        ),
        at_most(
            f"{what}: bytes read of the image, by its size",
            read,
            TIMES_READ,
            f"{read:.2f} = {measured.read_bytes / 1e6:.0f} / {measured.file_bytes / 1e6:.0f} MB",
            " times",
        ),
    ]


def _run(
    stage: Stage,
    scene: Scene,
    image: str,
    file_bytes: int,
    workers: list[int],
    env: Mapping[str, str],
    directory: Path,
) -> WholeImage:
    result, report = directory / "result.geojson", directory / "report.json"
    command = [sys.executable, "-m", "osml_tasks", "detect", image, "--endpoint", _ENDPOINT]
    options = ["--tile-size", str(TILE_SIZE), "-o", str(result), "--report", str(report)]
    before, sent = _cpu(stage, workers), stage.arena.store.sent_bytes(IMAGE_BUCKET)
    client = run_client([*command, *options], env, directory / "client.log", within=_WITHIN_SECONDS)
    time.sleep(SETTLE_SECONDS)
    after = _cpu(stage, workers)
    if left := stage.arena.objects():
        raise BenchmarkError(f"an image has left {left} objects in the buckets")
    boxes = [*_boxes(result)]
    return WholeImage(
        size=scene.size,
        file_bytes=file_bytes,
        read_bytes=stage.arena.store.sent_bytes(IMAGE_BUCKET) - sent,
        tiles=orjson.loads(report.read_bytes())["tiles"],
        objects=len(scene.objects),
        found=_found(scene.objects, boxes),
        features=len(boxes),
        client=client,
        peaks=WorkerPeaks.read(workers),
        cpu={"client": client.cpu} | {name: spent - before.get(name, 0.0) for name, spent in after.items()},
    )


def _cpu(stage: Stage, workers: list[int]) -> dict[str, float]:
    return cpu_seconds_of_nodes(workers) | stage.server_cpu_seconds()


def _boxes(result: Path) -> Iterator[list[float]]:
    """Where the features of a result are, in pixels of the image; each must be on the globe too."""
    features: list[dict[str, Any]] = orjson.loads(result.read_bytes())["features"]
    for one in features:
        if one["geometry"] is None:
            raise BenchmarkError(f"{result} has a feature that is nowhere on the globe: {one}")
        yield one["properties"]["imageBBox"]


def _found(objects: list[Box], boxes: list[list[float]]) -> int:
    """How many objects have a box that is theirs."""
    corners: dict[tuple[int, int], list[list[float]]] = {}
    for box in boxes:
        corners.setdefault((int(box[0]) // 64, int(box[1]) // 64), []).append(box)
    return sum(any(_is_near(one, box) for box in _around(one, corners)) for one in objects)


def _around(one: Box, corners: Mapping[tuple[int, int], list[list[float]]]) -> Iterator[list[float]]:
    column, row = one[0] // 64, one[1] // 64
    for right in (-1, 0, 1):
        for down in (-1, 0, 1):
            yield from corners.get((column + right, row + down), ())


def _is_near(one: Box, box: list[float]) -> bool:
    return all(abs(wanted - found) <= NEAR for wanted, found in zip(one, box, strict=True))
