"""A submitter that stands still for longer than its claim lasts, and then goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osml_tasks import submission
from osml_tasks.connections import Connections
from osml_tasks.jobs import Shard
from osml_tasks.s3 import S3Uri
from osml_tasks.submission import Submission, submit_shard
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, write_tiles
from tests.integration.steps import connected, fail_and_forget, ignore, make_job


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    monkeypatch.setattr(submission, "CLAIM_SECONDS", 1)
    with connected(fleet, monkeypatch) as connections:
        yield connections
        for bucket in (INPUTS, OUTPUTS):
            connections.s3.delete(found.uri for found in connections.s3.list(S3Uri(bucket, "")))


class _StandsStill:
    """A runtime in which a process is stopped over its first call, while another does its work."""

    def __init__(self, connections: Connections, shard: Shard) -> None:
        self._connections = connections
        self._shard = shard
        self.by_other: dict[int, Any] = {}

    def invoke_endpoint_async(self, **members: Any) -> Any:
        time.sleep(1.2)  # what is tested is that so much time has passed
        assert not submit(self._connections, self._shard, "other").busy
        self.by_other = self._connections.records.tiles(self._shard)
        return self._connections.runtime.invoke_endpoint_async(**members)


def submit(connections: Connections, shard: Shard, token: str) -> Submission:
    return submit_shard(connections, shard, json.dumps(shard.to_message()), token, ignore)


def test_what_another_has_written_meanwhile_stays(connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}), "silent")
    stopped = _StandsStill(connections, shard)
    outcome = submit(replace(connections, runtime=stopped), shard, "stopped")
    assert outcome.busy
    assert stopped.by_other == connections.records.tiles(shard)
    assert connections.records.late_until(shard.job) > 0
    fail_and_forget(connections, shard.job)


def test_a_claim_that_the_server_has_lost_is_taken_again(connections: Connections, tiles: Path) -> None:
    connections_now = connections

    class Forgets:
        def invoke_endpoint_async(self, **members: Any) -> Any:
            connections_now.claims.unclaim(f"{shard.name}/submit", "mine")
            return connections_now.runtime.invoke_endpoint_async(**members)

    (shard,) = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}), "silent")
    assert not submit(replace(connections, runtime=Forgets()), shard, "mine").busy
    assert connections.records.tiles(shard)[0].in_flight
    fail_and_forget(connections, shard.job)
