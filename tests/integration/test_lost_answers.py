"""Invocations whose answers are lost after the endpoint has accepted them, step by step in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from osml_tasks import lost_answers
from osml_tasks.connections import Connections
from osml_tasks.s3 import S3Uri
from tests.integration.endpoints import OUTPUTS
from tests.integration.faulty_way import FaultyWay, reset_answer
from tests.integration.fleet import INPUTS, Fleet, wait_until, write_tiles
from tests.integration.steps import collected, connected, make_job, submitted

ENDPOINT = "scripted"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_answers, "LOST_SECONDS", 1.0)
    monkeypatch.setattr(lost_answers, "LOST_LOOKS", 1)


@pytest.fixture
def way(fleet: Fleet) -> Iterator[FaultyWay]:
    with FaultyWay(fleet.endpoints_url) as way:
        yield way


@pytest.fixture
def connections(fleet: Fleet, way: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    monkeypatch.setitem(fleet.env, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", way.url)  # type: ignore[arg-type]
    with connected(fleet, monkeypatch) as connections:
        yield connections
        for bucket in (INPUTS, OUTPUTS):
            connections.s3.delete(found.uri for found in connections.s3.list(S3Uri(bucket, "")))


def test_what_was_accepted_is_found_before_it_is_invoked_again(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {f"{tiles.name}-{number}": {} for number in range(4)}))
    lost = way.shows(reset_answer(), "POST", times=2)
    before = len(fleet.invocations(ENDPOINT))
    submitted(connections, shard)
    assert lost.done == 2
    wait_until(lambda: fleet.stats(ENDPOINT)["in_flight"] == 0)
    wait_until(lambda: submitted(connections, shard).resubmit_in is None)
    assert collected(connections, shard).finished == 4
    assert connections.records.progress(shard).succeeded == 4
    assert len(fleet.invocations(ENDPOINT)) - before == 4


def test_what_was_not_accepted_is_invoked_again(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    # At an endpoint that forgets what it accepts, what is lost looks like what never came.
    (shard,) = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}), "silent")
    way.shows(reset_answer(), "POST", times=1)
    submitted(connections, shard)
    assert connections.records.tiles(shard)[0].waits
    wait_until(lambda: submitted(connections, shard).resubmit_in is None)
    record = connections.records.tiles(shard)[0]
    assert (record.in_flight, record.attempt) == (True, 2)
