"""Tiles cut and encoded as a worker does it, beside a plain rasterio loop over the same windows: tiles a CPU second.

``python -m benchmarks.imagery_cut`` shows it alone.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import boto3
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console

from benchmarks import peer_rasterio
from benchmarks.errors import BenchmarkError
from benchmarks.imagery_scene import Scene, write_geotiff
from benchmarks.processes import cpu_seconds
from benchmarks.row import Row, at_least, on_terminal
from benchmarks.run import Ground
from benchmarks.scale import FULL, Scale
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.image_tiles import ImageTiles
from osml_tasks.imagery.cutting import Cutting, TileFormat
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.options import ImageOptions
from osml_tasks.imagery.plan import ImagePlan, plan_images
from osml_tasks.imagery.reader import Reader
from osml_tasks.jobs import Job, JobOptions, Round, new_job_id
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.sources import SourceTile
from osml_tasks.tile import Tile

SHARE = 0.85
"""Tiles come over a pipe, which takes a millisecond; and the same work is measured some per cent apart."""

TILE_SIZES = (1024, 512)
TIMES = 5

# As the program's: the same files come of it.
_PLAIN: dict[TileFormat, dict[str, Any]] = {
    TileFormat.PNG: {"driver": "PNG", "zlevel": 1},
    TileFormat.JPEG: {"driver": "JPEG", "quality": 90},
    TileFormat.GTIFF: {"driver": "GTiff", "interleave": "pixel", "compress": "DEFLATE", "zlevel": 1},
}


@dataclass(frozen=True, slots=True)
class Cut:
    """Tiles of one format and size; the best of several times.

    :ivar tiles: how many there are.
    :ivar ours: tiles a CPU second; so is ``plain``.
    """

    tile_format: TileFormat
    tile_size: int
    tiles: int
    ours: float
    plain: float

    @property
    def share(self) -> float:
        """Ours by the plain loop's."""
        return self.ours / self.plain


class _Kept:
    """The object of a job that says what its images are, without a server."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def get(self, uri: S3Uri) -> bytes:
        return self._text


def measure(_ground: Ground | None = None, scale: Scale = FULL) -> list[Cut]:
    """Cut an image in every format with both ways, in turns; it needs no fleet."""
    with tempfile.TemporaryDirectory(prefix="osml-benchmark-") as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        scene = write_geotiff(Path(directory).resolve() / "scene.tif", scale.cut_side)
        return [_measure(scene, Cutting(tile_size=size, tile_format=kind)) for kind in _PLAIN for size in TILE_SIZES]


def rows(measured: list[Cut]) -> list[Row]:
    """The figures with their bars."""
    return [_row([cut for cut in measured if cut.tile_format is kind]) for kind in _PLAIN]


def _row(cuts: list[Cut]) -> Row:
    worst = min(cut.share for cut in cuts)
    texts = (
        f"{cut.share:.2f} at {cut.tile_size} px = {cut.ours:.1f} / {cut.plain:.1f} tiles a CPU second" for cut in cuts
    )
    figure = f"{cuts[0].tile_format} tiles cut and encoded, against a plain rasterio loop"
    return at_least(figure, worst, SHARE, ", ".join(texts), " of it")


def _measure(scene: Scene, cutting: Cutting) -> Cut:
    plan = _plan(scene, cutting)
    config = AsyncEndpointConfig(input_bucket="osml-input", output_bucket="osml-output", tile_roots=[scene.path.parent])
    worker = ImageTiles(config, cast(S3Manager, _Kept(plan.job.to_json())), boto3.Session())
    # The first time its process begins, which it does once.
    if [*_ours(scene, plan, config, worker)] != [*_plain(scene, plan)]:
        raise BenchmarkError(f"the two ways to cut {cutting.tile_format} tiles do not give the same tiles")
    turns = ((_ours(scene, plan, config, worker), _plain(scene, plan)) for _ in range(TIMES))
    in_turns = [(_cpu_seconds(ours), _cpu_seconds(plain)) for ours, plain in turns]
    worker.reader.close()
    ours, plain = zip(*in_turns, strict=True)
    tiles = len(plan.tiles)
    return Cut(cutting.tile_format, cutting.tile_size, tiles, tiles / min(ours), tiles / min(plain))


def _plan(scene: Scene, cutting: Cutting) -> ImagePlan:
    source = SourceTile("scene.tif", str(scene.path), None, scene.path.stat().st_size)
    return plan_images([source], ImageOptions(cutting=cutting), Reader(Datasets(boto3.Session())))


def _ours(
    scene: Scene, plan: ImagePlan, config: AsyncEndpointConfig, image_tiles: ImageTiles
) -> Iterator[bytes | None]:
    """As a worker that has no image of this job open yet."""
    rounds, options = (Round(len(plan.tiles), len(plan.tiles)),), JobOptions.from_config(config)
    job = Job(new_job_id(time.time()), "ships", rounds, 0.0, "osml-input", "in/", "osml-output", options)
    for index, one in enumerate(plan.tiles):
        yield image_tiles.cut(job, Tile(index, str(scene.path), one.name, one.window, one.image))


def _plain(scene: Scene, plan: ImagePlan) -> Iterator[bytes]:
    windows = [one.window for one in plan.tiles if one.window is not None]
    kind = plan.job.cutting.tile_format
    return peer_rasterio.cut(scene.path, windows, _PLAIN[kind], georeferenced=kind is TileFormat.GTIFF)


def _cpu_seconds(tiles: Iterable[object]) -> float:
    """Of this process, and of those that read images for it."""
    began = cpu_seconds([os.getpid()])
    for _ in tiles:
        pass
    return cpu_seconds([os.getpid()]) - began


if __name__ == "__main__":
    Console(width=160).print(on_terminal(rows(measure())))
