"""The steps of a job done in the test's own process, one by one, on the fleet's servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from osml_tasks.assembly import end_job
from osml_tasks.celery import new_app, state_client
from osml_tasks.collection import Collection, collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import create_job
from osml_tasks.jobs import Job, JobState, Shard
from osml_tasks.sources import find_tiles
from osml_tasks.submission import Submission, submit_shard
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, wait_until

Sent = list[tuple[Job, list[Shard]]]


@contextmanager
def connected(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    """A worker's and a client's connections at once, with an empty database."""
    for name, value in fleet.env.items():
        monkeypatch.setenv(name, value)
    app = new_app(result_backend=fleet.env["CELERY_BROKER_URL"].removesuffix("/0") + "/7")
    session = boto3.Session(
        aws_access_key_id=fleet.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=fleet.env["AWS_SECRET_ACCESS_KEY"],
        region_name=fleet.env["AWS_REGION"],
    )
    config = AsyncEndpointConfig(
        input_bucket=INPUTS,
        output_bucket=OUTPUTS,
        tile_roots=(fleet.tiles,),
        max_concurrent_jobs=16,
        polling_interval=0.1,
    )
    yield connect(config, app, session)
    state_client(app).flushdb()


def make_job(connections: Connections, tiles: Path, endpoint: str = "scripted") -> list[Shard]:
    return create_job(connections, find_tiles([str(tiles)]), endpoint, stage=False)[1]


def ignore(messages: Iterable[str]) -> None:
    """Publish nothing."""


def submitted(connections: Connections, shard: Shard) -> Submission:
    return submit_shard(connections, shard, json.dumps(shard.to_message()), "test", ignore)


def collected(connections: Connections, shard: Shard, publish: Callable[[Iterable[str]], None] = ignore) -> Collection:
    """Poll until the shard is finished."""
    outcomes: list[Collection] = []

    def finished() -> bool:
        outcomes.append(collect_shard(connections, shard, idle=0, seen=0, publish=publish))
        if outcomes[-1].resubmit_in is not None:
            submitted(connections, shard)
        return outcomes[-1].poll_in is None

    wait_until(finished)
    return outcomes[-1]


def with_options(connections: Connections, **options: Any) -> Connections:
    config = AsyncEndpointConfig(**connections.config.model_dump() | options)
    return replace(connections, config=config)


def empty(connections: Connections) -> None:
    """Delete what a test left in the input bucket."""
    connections.s3.delete(found.uri for found in connections.s3.list(connections.input_uri("")))


def fail_and_forget(connections: Connections, job_id: str) -> None:
    """End a job that a test leaves in the middle of its life."""
    end_job(connections, job_id, JobState.FAILED, "the test is over", publish=ignore)


def sent_by(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Sent:
    """What these modules publish from now on, instead of a message: the job and the shards."""
    sent: Sent = []
    for module in modules:
        monkeypatch.setattr(module, "publish_job", lambda app, job, shards: sent.append((job, list(shards))))
    return sent
