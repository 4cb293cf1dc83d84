"""One tile costs one tile: whatever is wrong with it, the others come out."""

from __future__ import annotations

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
