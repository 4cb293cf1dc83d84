"""``osml-tasks queues``: in a database of the fleet's broker that no worker listens to, so that nothing moves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from amqp.exceptions import AccessRefused
from kombu.transport.redis import Channel

from osml_tasks.capacity import Capacity
from osml_tasks.celery import new_app
from osml_tasks.jobs import Shard
from osml_tasks.queues import queue_lengths
from osml_tasks.redis_keys import PREFIX
from tests.integration.fleet import PATIENCE, Fleet, write_tiles

EMPTY = {"osml.submit": 0, "osml.poll": 0, "osml.assemble": 0, "osml.cleanup": 0}


@pytest.fixture
def lonely(fleet: Fleet) -> Iterator[str]:
    url = fleet.env["CELERY_BROKER_URL"].removesuffix("/0") + "/9"
    yield url
    with redis.Redis.from_url(url) as broker:
        broker.flushdb()


def queues(fleet: Fleet, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Neither buckets nor credentials: whoever scales a fleet need not have them."""
    without = dict.fromkeys(("ARTIFACT_BUCKET", "ASYNC_SM_OUTPUT_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    return fleet.run("queues", *arguments, CELERY_BROKER_URL=url, **without)


def load(fleet: Fleet, url: str) -> dict[str, Any]:
    done = queues(fleet, url, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def published(fleet: Fleet, url: str, tiles: Path) -> str:
    """The id of a job of 12 tiles in shards of 4: its messages wait, its objects are gone."""
    write_tiles(tiles, {f"t{number:02d}": {} for number in range(12)})
    there: dict[str, str | None] = {"CELERY_BROKER_URL": url, "ASYNC_SM_MAX_CONCURRENT_JOBS": "16"}
    _, env = fleet.command(**there)
    call = f"import osml_tasks; print(osml_tasks.detect({str(tiles)!r}, endpoint='scripted', stage=False).job_id)"
    done = subprocess.run(
        [sys.executable, "-c", call], env=env, check=True, timeout=PATIENCE, capture_output=True, text=True
    )
    job = done.stdout.strip()
    assert fleet.run("cleanup", "--job", job, "--force", **there).returncode == 0
    return job


def test_a_fleet_without_jobs_has_four_empty_queues(fleet: Fleet, lonely: str) -> None:
    assert load(fleet, lonely) == {"queues": EMPTY, "endpoints": {}}


def test_each_queue_endpoint_and_job_is_said(fleet: Fleet, lonely: str, tiles: Path) -> None:
    job = published(fleet, lonely, tiles)
    with redis.Redis.from_url(lonely) as broker:
        for number in range(5):
            Capacity(broker).request("scripted", Shard(job, number, 4 * number, 4, 0, 0), 4, 16, "message")
    share = {"in_flight": 16, "limit": 16, "parked_shards": 1}
    wanted = {"queues": EMPTY | {"osml.submit": 3}, "endpoints": {"scripted": share | {"jobs": {job: share}}}}
    assert load(fleet, lonely) == wanted
    lines = queues(fleet, lonely).stdout.splitlines()
    assert re.fullmatch(r"osml\.submit +3 waiting", lines[0])
    assert lines[-2:] == [
        "endpoint scripted: 16 tiles in flight of 16 at most, shards parked: 1",
        f"  job {job}: 16 tiles in flight of 16 at most, shards parked: 1",
    ]


def test_a_job_without_a_record_has_no_limit(fleet: Fleet, lonely: str) -> None:
    with redis.Redis.from_url(lonely) as broker:
        broker.sadd(f"{PREFIX}endpoints", "scripted")
        Capacity(broker).request("scripted", Shard("lost", 0, 0, 4, 0, 0), 4, 16, "message")
    share = {"in_flight": 4, "limit": None, "parked_shards": 0}
    assert load(fleet, lonely)["endpoints"] == {"scripted": share | {"jobs": {"lost": share}}}


def test_a_broker_that_is_not_there_is_said_in_one_line(fleet: Fleet) -> None:
    done = queues(fleet, "redis://127.0.0.1:1/0")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "start it, or set CELERY_BROKER_URL" in done.stderr


def test_a_queue_that_may_not_be_looked_at_does_not_count_as_empty(
    fleet: Fleet, lonely: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AccessRefused("no access to the queue")

    monkeypatch.setattr(Channel, "queue_declare", refuse)
    monkeypatch.setattr("kombu.transport.redis.Transport.channel_errors", (AccessRefused,))
    with pytest.raises(AccessRefused):
        queue_lengths(new_app(lonely))
