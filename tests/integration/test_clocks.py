"""Tiles and jobs while the clock of the server with the fleet's state is wrong, step by step in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osml_tasks.claims import Claims
from osml_tasks.collection import collect_shard
from osml_tasks.connections import Connections
from osml_tasks.ledger import ResourceType
from osml_tasks.records import JobRecords
from osml_tasks.s3 import S3Uri
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, wait_until, write_tiles
from tests.integration.steps import connected, fail_and_forget, ignore, make_job, submitted, with_options

AHEAD = 4000.0


class _RecordsAhead(JobRecords):
    """Records of a server whose clock is ahead."""

    def now(self) -> float:
        return super().now() + AHEAD


class _ServerAhead:
    """A Redis client of such a server."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    def time(self) -> tuple[int, int]:
        seconds, microseconds = self._redis.time()
        return seconds + int(AHEAD), microseconds


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        yield with_options(connections, max_wait_time=60.0)
        for bucket in (INPUTS, OUTPUTS):
            connections.s3.delete(found.uri for found in connections.s3.list(S3Uri(bucket, "")))


@pytest.fixture
def ahead(connections: Connections) -> Connections:
    """The same while the server's clock is ahead."""
    return replace(connections, records=_RecordsAhead(connections.records._redis))


def test_a_tile_in_flight_is_not_given_up(connections: Connections, ahead: Connections, tiles: Path) -> None:
    shard = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}), "silent")[0]
    submitted(connections, shard)
    looked = collect_shard(ahead, shard, idle=0, seen=0, publish=ignore)
    assert looked.poll_in is not None
    assert connections.records.tiles(shard)[0].in_flight
    fail_and_forget(connections, shard.job)


def test_a_tile_that_is_tried_again_waits_no_longer(connections: Connections, ahead: Connections, tiles: Path) -> None:
    shard = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {"fail_first": 1}}))[0]
    submitted(connections, shard)

    def is_to_be_tried_again() -> bool:
        return collect_shard(ahead, shard, idle=0, seen=0, publish=ignore).resubmit_in is not None

    wait_until(is_to_be_tried_again)
    assert connections.records.tiles(shard)[0].due < time.time() + 60
    fail_and_forget(connections, shard.job)


def test_an_invocation_of_the_future_has_its_deadline_from_now_on(
    connections: Connections, ahead: Connections, tiles: Path
) -> None:
    shard = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}), "silent")[0]
    submitted(ahead, shard)
    assert (connections.records.tiles(shard)[0].invoked_at or 0.0) > time.time() + 1000
    collect_shard(connections, shard, idle=0, seen=0, publish=ignore)
    assert (connections.records.tiles(shard)[0].invoked_at or 0.0) < time.time() + 60
    fail_and_forget(connections, shard.job)


def test_trouble_does_not_become_old(connections: Connections) -> None:
    redis = connections.records._redis
    assert Claims(redis).trouble_lasts("any", forget_after=60) < 1
    assert Claims(_ServerAhead(redis)).trouble_lasts("any", forget_after=60) < 60


def test_nothing_is_cleaned_up_before_its_time(connections: Connections) -> None:
    ledger = connections.resources.ledger
    ledger.schedule(ResourceType.JOB, {"any": ledger.now() + 600})
    ledger._redis = _ServerAhead(ledger._redis)  # type: ignore[attr-defined]
    assert ledger.due(ResourceType.JOB, ledger.now()) == []
