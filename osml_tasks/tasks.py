"""The four tasks. Each says what happens in its order; how it is done is in the modules it calls."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any
from uuid import uuid4

from celery import Task
from celery.exceptions import Ignore, TaskPredicate
from celery.signals import worker_init

from osml_tasks.assembly import assemble_job, fail_job
from osml_tasks.celery import app, state_client
from osml_tasks.cleanup import delete_job, sweep
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.errors import (
    EndpointUnusableError,
    ExtensionConfigurationError,
    JobNotFoundError,
    ObjectNotFoundError,
    S3AccessError,
    S3OperationError,
)
from osml_tasks.jobs import Shard, check_job_id
from osml_tasks.submission import submit_shard

BUSY_SECONDS = 10
"""How long a submit task waits for another that is at the same shard, s."""
TROUBLE_SECONDS = 5
"""How long a task waits that found S3 out of order, s."""
S3_PATIENCE = 600
"""How long S3 may be out of order before a job fails, s."""
S3_ACCESS_PATIENCE = 30
"""The same where S3 denies access or an object is missing: that seldom mends itself, s."""

logger = logging.getLogger(__name__)
_connecting = Lock()


@app.task(name="osml_tasks.submit", bind=True, max_retries=None, ignore_result=True)
def submit(self: Task[Any, Any], /, **shard: Any) -> None:
    """Invoke the tiles of a shard that are due, or park the shard until there is capacity."""
    with _job_at_stake(self, shard):
        outcome = submit_shard(connections(), Shard.from_message(shard), _message(self), uuid4().hex, publish)
        if outcome.parked:
            raise Ignore
        if outcome.busy:
            raise self.retry(countdown=BUSY_SECONDS)
        _resubmit(shard, outcome.resubmit_in)


@app.task(name="osml_tasks.poll", bind=True, max_retries=None, ignore_result=True)
def poll(self: Task[Any, Any], /, *, idle: int = 0, seen: int = 0, **shard: Any) -> None:
    """Look at what has arrived of a shard; come back later, or write its part when all has."""
    with _job_at_stake(self, shard):
        outcome = collect_shard(connections(), Shard.from_message(shard), idle=idle, seen=seen, publish=publish)
        _resubmit(shard, outcome.resubmit_in)
        if outcome.poll_in is not None:
            looked = {"idle": outcome.idle, "seen": outcome.finished}
            raise self.retry(kwargs=shard | looked, countdown=outcome.poll_in)


@app.task(name="osml_tasks.assemble", bind=True, max_retries=None, ignore_result=True)
def assemble(self: Task[Any, Any], /, job: str) -> None:
    """Make one FeatureCollection of all parts of a job."""
    with _job_at_stake(self, {"job": job}):
        assemble_job(connections(), check_job_id(job))


@app.task(name="osml_tasks.cleanup", ignore_result=True)
def cleanup(job: str | None = None) -> None:
    """Delete every object of one job; without a job, do what is due and grant capacity that came free."""
    if job is None:
        publish(sweep(connections()))
    else:
        delete_job(connections(), connections().job(check_job_id(job)), keep_result=False)


@worker_init.connect
def check_configuration(**_: Any) -> None:
    """Stop a worker that could do nothing, before it takes a message."""
    try:
        AsyncEndpointConfig()
    except ExtensionConfigurationError as error:
        raise SystemExit(f"osml-tasks: {error}") from None


def connections() -> Connections:
    """What this process talks to, opened at its first task."""
    with _connecting:
        return _connections()


@lru_cache(maxsize=1)
def _connections() -> Connections:
    return connect(AsyncEndpointConfig(), state_client())


def publish(messages: Iterable[str]) -> None:
    """Send messages that were parked."""
    for message in messages:
        app.signature(json.loads(message)).apply_async()


def _message(task: Task[Any, Any]) -> str:
    """The task at hand as a message to be sent later: same id, same place in its chain and chord."""
    arguments, keywords = tuple(task.request.args or ()), dict(task.request.kwargs or {})
    return json.dumps(task.signature_from_request(task.request, arguments, keywords))


def _resubmit(shard: dict[str, Any], countdown: float | None) -> None:
    """Have tiles that are due again invoked, unless a message to that end is on its way."""
    if countdown is None:
        return
    name = f"{Shard.from_message(shard).name}/resubmit"
    if connections().records.claim(name, uuid4().hex, round(countdown) + 1):
        submit.apply_async(kwargs=shard, countdown=countdown)


@contextmanager
def _job_at_stake(task: Task[Any, Any], arguments: dict[str, Any]) -> Iterator[None]:
    """Try again what may pass; end the job where it cannot go on."""
    try:
        yield
    except JobNotFoundError as error:
        logger.warning("message dropped: %s", error)
        raise Ignore from error
    except S3OperationError as error:
        if _trouble_lasts(task, arguments) < _patience(error):
            logger.warning("%s, trying again in %d s", error, TROUBLE_SECONDS)
            raise task.retry(countdown=TROUBLE_SECONDS) from error
        _give_up(arguments, error, misconfigured=isinstance(error, S3AccessError))
    except (EndpointUnusableError, ExtensionConfigurationError) as error:
        _give_up(arguments, error, misconfigured=True)
    except TaskPredicate:
        raise
    except Exception as error:
        # A defect, or a machine in trouble: said to the caller, who would otherwise wait for ever.
        _give_up(arguments, error, misconfigured=False)


def _trouble_lasts(task: Task[Any, Any], arguments: dict[str, Any]) -> float:
    """For how long a task has found S3 out of order, s."""
    name = f"{arguments.get('job')}/{arguments.get('shard', '')}/{task.name}"
    return connections().records.trouble_lasts(name, forget_after=8 * TROUBLE_SECONDS)


def _patience(error: S3OperationError) -> float:
    return S3_ACCESS_PATIENCE if isinstance(error, S3AccessError | ObjectNotFoundError) else S3_PATIENCE


def _give_up(arguments: dict[str, Any], error: Exception, *, misconfigured: bool) -> None:
    job_id = check_job_id(arguments.get("job"))
    publish(fail_job(connections(), job_id, str(error) or repr(error), misconfigured=misconfigured))
    raise error
