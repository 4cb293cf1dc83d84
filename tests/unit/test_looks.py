"""What a look at a shard asks S3 for, and what it finds, on state of a fake Redis and objects in memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import boto3
import fakeredis
import pytest

from osml_tasks.capacity import Capacity
from osml_tasks.claims import Claims
from osml_tasks.cleanup import ResourceManager
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections
from osml_tasks.image_tiles import ImageTiles
from osml_tasks.jobs import Job, JobOptions, Round, Shard, failure_filename, new_job_id
from osml_tasks.ledger import RedisLedger
from osml_tasks.losses import Losses
from osml_tasks.pace import Paces
from osml_tasks.polling import TileRecord
from osml_tasks.read_ahead import ReadAhead
from osml_tasks.records import JobRecords, OutputPaths
from osml_tasks.s3 import S3Object, S3Uri

TILES = 4
CONFIG = AsyncEndpointConfig(
    input_bucket="tiles", output_bucket="outputs", input_prefix="in/", metrics_enabled=False, max_retries=1
)


class Bucket:
    """Objects in memory, and the directories that were listed."""

    def __init__(self) -> None:
        self.objects: dict[S3Uri, bytes] = {}
        self.listed: list[str] = []

    def list(self, prefix: S3Uri) -> list[S3Object]:
        self.listed.append(prefix.key)
        now = datetime.now(UTC)
        return [S3Object(uri, len(body), now) for uri, body in self.objects.items() if uri.parent == prefix]

    def get(self, what: S3Object) -> bytes:
        return self.objects[what.uri]

    def head(self, uri: S3Uri) -> None:
        return None

    def delete(self, uris: Any) -> list[Any]:
        for uri in uris:
            self.objects.pop(uri, None)
        return []


@pytest.fixture
def here() -> Iterator[Connections]:
    redis: Any = fakeredis.FakeRedis()
    s3: Any = Bucket()
    here = Connections(
        app=Mock(),
        config=CONFIG,
        s3=s3,
        read_ahead=ReadAhead(s3),
        runtime=SimpleNamespace(),
        records=JobRecords(redis),
        claims=Claims(redis),
        losses=Losses(redis),
        capacity=Capacity(redis),
        paces=Paces(redis),
        resources=ResourceManager(CONFIG, s3, RedisLedger(redis)),
        image_tiles=ImageTiles(CONFIG, s3, boto3.Session()),
        pool=ThreadPoolExecutor(2),
    )
    yield here
    here.close()


def in_flight(here: Connections, *, since: float) -> Shard:
    """A shard all of whose tiles were invoked so many seconds ago."""
    options = JobOptions.from_config(CONFIG)
    job = Job(new_job_id(1e9), "ships", (Round(TILES, TILES),), 0.0, "tiles", "in/", "outputs", options)
    here.records.create(job)
    here.records.learn_paths(job.job_id, OutputPaths("s3://outputs/o", "s3://outputs/f"))
    shard = Shard(job.job_id, 0, 0, TILES, 0, 90)
    invoked = here.records.now() - since
    here.records.set_tiles(shard, {index: TileRecord(invoked_at=invoked) for index in range(TILES)})
    return shard


def fail(here: Connections, shard: Shard) -> None:
    """Have a failure object of each tile appear."""
    bucket: Any = here.s3
    directory = S3Uri.parse(f"s3://outputs/f/{shard.name}")
    bucket.objects |= {directory.child(failure_filename(index, 1)): b"no model" for index in range(TILES)}


def test_failures_of_a_slow_endpoint_are_found_at_the_first_look(here: Connections) -> None:
    here.paces.learn("ships", 600.0)  # it had to start its instances
    shard = in_flight(here, since=5)
    fail(here, shard)
    outcome = collect_shard(here, shard, idle=0, seen=0, publish=list)
    assert outcome.resubmit_in is not None
    assert {record.attempt for record in here.records.tiles(shard).values()} == {2}


def test_a_look_that_comes_a_moment_too_early_asks_for_no_failures(here: Connections) -> None:
    here.paces.learn("ships", 4.0)  # likely through after five
    shard = in_flight(here, since=4.5)
    collect_shard(here, shard, idle=0, seen=0, publish=list)
    bucket: Any = here.s3
    assert bucket.listed == [f"o/{shard.name}"]
