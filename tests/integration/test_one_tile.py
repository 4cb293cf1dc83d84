"""One tile costs one tile: whatever is wrong with it, the others come out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from osml_tasks.assembly import assemble_job
from osml_tasks.connections import Connections
from osml_tasks.detection import create_job
from osml_tasks.image_sources import client_images, plan_sources
from osml_tasks.image_tiles import ImageTiles
from osml_tasks.imagery.options import image_options
from osml_tasks.imagery.plan import ImagePlan
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Shard
from osml_tasks.sources import find_tiles
from tests.integration.fleet import Fleet, write_tiles
from tests.integration.steps import collected, connected, empty, make_job, submitted
from tests.unit.imagery.drawn_images import noise, write


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        yield connections
        empty(connections)


def failures(connections: Connections, shards: list[Shard]) -> list[tuple[str, str, str]]:
    """Do the rest of a job: name, reason and error of each tile that failed."""
    for shard in shards:
        submitted(connections, shard)
        collected(connections, shard)
    assemble_job(connections, shards[0].job, 1)
    handle = JobHandle(connections, shards[0].job)
    report = handle.report()
    handle.discard()
    assert report["state"] == "completed"
    assert report["tiles"] == report["succeeded"] + report["failed"]
    return [(Path(one["tile"]).name, one["reason"], one["error"]) for one in report["failures"]]


def test_a_path_that_is_replaced_by_a_link_to_itself(connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"t{number}": {} for number in range(5)}))
    (tiles / "t2").unlink()
    (tiles / "t2").symlink_to(tiles / "t2")
    ((name, reason, error),) = failures(connections, shards)
    assert (name, reason) == ("t2", "input")
    assert "t2" in error


_KILLED = """
import os, signal, sys
import boto3, orjson
from osml_tasks import parts, submission
from osml_tasks.celery import new_app
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import connect
from osml_tasks.jobs import Shard
step, state, poison, text = sys.argv[1:]
shard = Shard.from_message(orjson.loads(text))
here = connect(AsyncEndpointConfig(), new_app(result_backend=state))

def deadly(real):
    def called(*arguments, **options):
        if any(poison in str(one) for one in arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return called

submission.allowed_tile = deadly(submission.allowed_tile)
parts.PartWriter._lines_of_tile = deadly(parts.PartWriter._lines_of_tile)
if step == "submit":
    submission.submit_shard(here, shard, "{}", "test", list)
else:
    while collect_shard(here, shard, idle=0, seen=0, publish=list).poll_in is not None:
        pass
"""


def killed(fleet: Fleet, connections: Connections, step: str, shard: Shard, poison: str) -> int:
    """A step done by a process that is killed at one of its tiles; says how it ended."""
    state = str(connections.app.conf.result_backend)
    variables = {
        "ASYNC_SM_TILE_ROOTS": str(fleet.tiles),
        "ASYNC_SM_MAX_CONCURRENT_JOBS": "16",
        "ASYNC_SM_POLLING_INTERVAL": "0.1",
    }
    command = [sys.executable, "-c", _KILLED, step, state, poison, json.dumps(shard.to_message())]
    return subprocess.run(command, env={**os.environ, **fleet.env, **variables}, check=False, timeout=90).returncode


@pytest.mark.parametrize("step", ["submit", "poll"])
def test_a_tile_that_workers_are_lost_at_is_reported(
    fleet: Fleet, connections: Connections, tiles: Path, step: str
) -> None:
    (shard, *more) = make_job(connections, write_tiles(tiles, {f"t{number}": {} for number in range(4)}))
    assert not more
    if step == "poll":
        submitted(connections, shard)
    ended = [killed(fleet, connections, step, shard, "t2") for _ in range(5)]
    # Once to see that one is lost, three times to be sure at which tile.
    assert ended == [-signal.SIGKILL] * 4 + [0]
    ((name, reason, error),) = failures(connections, [shard])
    assert (name, reason) == ("t2", "input" if step == "submit" else "unparsable")
    assert error.startswith("3 workers were lost at this tile")


@pytest.fixture(autouse=True)
def _there(tiles: Path) -> None:
    tiles.mkdir(parents=True, exist_ok=True)


def planned(*paths: Path) -> ImagePlan:
    tiles = find_tiles([str(path) for path in paths])
    images = client_images(boto3.Session())
    try:
        options = image_options(tile_size=64, overlap=0, tile_format="GTIFF")
        plan = plan_sources([str(path) for path in paths], tiles, options, lambda: images, stage=False)
    finally:
        images.close()
    assert plan is not None
    return plan


def image_job(connections: Connections, plan: ImagePlan) -> list[Shard]:
    return create_job(connections, plan.tiles, "bright-objects", stage=False, images=plan)[1]


@pytest.mark.parametrize("dtype", ["int8", "complex64", "float64"])
def test_an_image_that_is_replaced_by_one_of_another_type(connections: Connections, tiles: Path, dtype: str) -> None:
    one, other = (write(tiles / name, noise(1, 64, 128)) for name in ("a.tif", "b.tif"))
    shards = image_job(connections, planned(one, other))
    write(one, noise(1, 64, 128, dtype))
    found = failures(connections, shards)
    assert {(name.split("#")[0], reason) for name, reason, _ in found} == {("a.tif", "input")}
    assert all("is another by now" in error for _, _, error in found)


def test_what_a_library_raises_over_a_tile_is_said_of_it(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = image_job(connections, planned(write(tiles / "a.tif", noise(1, 64, 256))))
    real = ImageTiles.cut

    def torn(self: ImageTiles, job: object, tile: object) -> bytes | None:
        if tile.index == 1:  # type: ignore[attr-defined]
            raise IndexError("list index\nout of range")
        return real(self, job, tile)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageTiles, "cut", torn)
    ((name, reason, error),) = failures(connections, shards)
    assert (name, reason) == ("a.tif#xywh=64,0,64,64", "input")
    assert error.endswith("IndexError: list index out of range")
