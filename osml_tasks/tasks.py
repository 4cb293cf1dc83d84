"""The tasks. Each says what happens in its order; how it is done is in the modules it calls."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any
from uuid import uuid4

from celery import Task
from celery.exceptions import Ignore, Reject, TaskPredicate

from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.celery import app, state_client
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.errors import (
    EndpointUnusableError,
    ExtensionConfigurationError,
    JobBusyError,
    JobNotFoundError,
    ObjectNotFoundError,
    PartsMissingError,
    S3AccessError,
    S3OperationError,
    WorkerStoppingError,
)
from osml_tasks.jobs import JobState, Shard, check_job_id
from osml_tasks.logs import log_step
from osml_tasks.outage import PASSING, insist
from osml_tasks.publishing import job_chord
from osml_tasks.remote_call import called_job, short_report
from osml_tasks.stopping import WORKER
from osml_tasks.submission import submit_shard
from osml_tasks.sweep import remove_job, sweep

BUSY_SECONDS = 10
"""How long a submit task waits for another that is at the same shard, s."""
TROUBLE_SECONDS = 5
"""How long a task waits that found S3 out of order, s."""
S3_PATIENCE = 600
"""How long S3 may be out of order before a job fails, s."""
S3_ACCESS_PATIENCE = 30
"""The same where S3 denies access or an object is missing: that seldom mends itself, s."""
PARTS_PATIENCE = 3600
"""How long a job may be silent whose parts are not all there, s; the sweep has sent again what it lacks long before."""

_PROBE = "osml:probe"

logger = logging.getLogger(__name__)
_connecting = Lock()


@app.task(name="osml_tasks.detect", bind=True, max_retries=None)
def detect(self: Task[Any, Any], /, sources: str | list[str], *, endpoint: str, **options: Any) -> Any:
    """Start a job; the result of this task is the job's report, once it is over.

    :param sources: ``s3://`` URIs and prefixes, and paths under the workers' ``ASYNC_SM_TILE_ROOTS``.
    :param options: a job's own, as keywords of ``AsyncEndpointConfig``, such as ``max_retries``.
    """
    _leave_it_if_stopping()
    try:
        job, shards = called_job(connections(), str(self.request.id), sources, endpoint, options)
    except JobBusyError as error:
        raise self.retry(countdown=BUSY_SECONDS) from error
    except PASSING as error:
        raise _once_more(error) from error
    if not shards:
        return short_report(connections(), job.job_id)
    log_step(logger, "started", job=job.job_id, tiles=job.tiles, shards=job.shards)
    with _job_at_stake(self, {"job": job.job_id}):
        return self.replace(job_chord(app, job, shards, keep_report=True))


@app.task(name="osml_tasks.submit", bind=True, max_retries=None, ignore_result=True)
def submit(self: Task[Any, Any], /, **shard: Any) -> None:
    """Invoke the tiles of a shard that are due, or park the shard until there is capacity."""
    with _job_at_stake(self, shard):
        here = connections()
        told = Shard.from_message(shard)
        outcome = submit_shard(here, told, _message(self), uuid4().hex, here.publish, ticket=str(self.request.id))
        if outcome.parked:
            raise Ignore
        if outcome.busy:
            raise self.retry(countdown=BUSY_SECONDS)
        _resubmit(shard, outcome.resubmit_in)


@app.task(name="osml_tasks.poll", bind=True, max_retries=None, ignore_result=True)
def poll(self: Task[Any, Any], /, *, idle: int = 0, seen: int = 0, **shard: Any) -> None:
    """Look at what has arrived of a shard; come back later, or write its part when all has."""
    with _job_at_stake(self, shard):
        here = connections()
        outcome = collect_shard(here, Shard.from_message(shard), idle=idle, seen=seen, publish=here.publish)
        _resubmit(shard, outcome.resubmit_in)
        if outcome.poll_in is not None:
            looked = {"idle": outcome.idle, "seen": outcome.finished}
            raise self.retry(kwargs=shard | looked, countdown=outcome.poll_in)


@app.task(name="osml_tasks.assemble", bind=True, max_retries=None)
def assemble(self: Task[Any, Any], /, job: str, rounds: int = 1) -> dict[str, Any] | None:
    """Make one FeatureCollection of all parts of a job; answers with the report, if somebody wants it.

    :param rounds: how many the job had when this was sent.
    """
    with _job_at_stake(self, {"job": job}):
        assemble_job(connections(), check_job_id(job), rounds)
    return None if self.request.ignore_result else short_report(connections(), job)


@app.task(name="osml_tasks.cleanup", ignore_result=True)
def cleanup(job: str | None = None) -> None:
    """Delete every object of one job that is over; without a job, do what is due and grant capacity that came free."""
    _leave_it_if_stopping()
    try:
        if job is None:
            connections().publish(sweep(connections()))
        else:
            remove_job(connections(), check_job_id(job))
    except PASSING as error:
        raise _once_more(error) from error


def connections() -> Connections:
    """What this process talks to, opened at its first task."""
    with _connecting:
        return _connections()


@lru_cache(maxsize=1)
def _connections() -> Connections:
    return replace(connect(AsyncEndpointConfig(), app), stop=WORKER)


def _message(task: Task[Any, Any]) -> str:
    """The task at hand as a message to be sent later: same id, same place in its chain and chord."""
    arguments, keywords = tuple(task.request.args or ()), dict(task.request.kwargs or {})
    return json.dumps(task.signature_from_request(task.request, arguments, keywords))


def _resubmit(shard: dict[str, Any], countdown: float | None) -> None:
    """Have tiles that are due again invoked, unless a message to that end is on its way."""
    if countdown is None:
        return
    name = f"{Shard.from_message(shard).name}/resubmit"
    if connections().claims.claim(name, uuid4().hex, round(countdown) + 1):
        submit.apply_async(kwargs=shard, countdown=countdown)


def _leave_it_if_stopping() -> None:
    """Return the message at hand to its queue if this worker is to begin nothing any more."""
    if WORKER.has_begun:
        raise Reject("this worker stops", requeue=True)


@contextmanager
def _job_at_stake(task: Task[Any, Any], arguments: dict[str, Any]) -> Iterator[None]:
    """Try again what may pass; end the job where it cannot go on."""
    _leave_it_if_stopping()
    try:
        with _sorted_out(task, arguments):
            yield
    except PASSING as error:
        raise _once_more(error) from error


@contextmanager
def _sorted_out(task: Task[Any, Any], arguments: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except WorkerStoppingError as error:
        logger.info("message returned: %s", error)
        raise Reject(str(error), requeue=True) from error
    except JobNotFoundError as error:
        logger.warning("message dropped: %s", error)
        if "shard" in arguments:
            connections().give_back(Shard.from_message(arguments))
        raise Ignore from error
    except S3OperationError as error:
        if _trouble_lasts(task, arguments, error) < _patience(error):
            logger.warning("%s, trying again in %d s", error, TROUBLE_SECONDS)
            raise task.retry(countdown=TROUBLE_SECONDS) from error
        _give_up(arguments, error, misconfigured=isinstance(error, S3AccessError))
    except (EndpointUnusableError, ExtensionConfigurationError) as error:
        _give_up(arguments, error, misconfigured=True)
    except PASSING:
        raise
    except Reject as rejected:
        # So Celery says that it could not send the message of a retry, and drops the one at hand.
        reason = rejected.args[0]
        if isinstance(reason, PASSING):
            raise reason from rejected
        _give_up(arguments, reason, misconfigured=False)
    except TaskPredicate:
        # Parked, or to come again in the course of things.
        connections().claims.trouble_is_over(_trouble(task, arguments))
        raise
    except Exception as error:
        # A defect, or a machine in trouble: said to the caller, who would otherwise wait for ever.
        _give_up(arguments, error, misconfigured=False)
    else:
        connections().claims.trouble_is_over(_trouble(task, arguments))


def _once_more(error: Exception) -> Reject:
    """Have the message at hand come again, once there is somebody to take the next one."""
    logger.warning("the broker does not answer, or takes no message now, trying again: %s", error)
    with suppress(*PASSING):
        insist(lambda: state_client(app).set(_PROBE, 1, ex=60), WORKER)
    return Reject(str(error), requeue=True)


def _trouble_lasts(task: Task[Any, Any], arguments: dict[str, Any], error: S3OperationError) -> float:
    """For how long a task has found S3 out of order, or has waited for shards of which nothing is heard, s."""
    lasts = connections().claims.trouble_lasts(_trouble(task, arguments), forget_after=8 * TROUBLE_SECONDS)
    if isinstance(error, PartsMissingError):
        return min(lasts, connections().records.idle_seconds(str(arguments.get("job"))) or 0.0)
    return lasts


def _trouble(task: Task[Any, Any], arguments: dict[str, Any]) -> str:
    return f"{arguments.get('job')}/{arguments.get('shard', '')}/{task.name}"


def _patience(error: S3OperationError) -> float:
    if isinstance(error, PartsMissingError):
        return PARTS_PATIENCE
    return S3_ACCESS_PATIENCE if isinstance(error, S3AccessError | ObjectNotFoundError) else S3_PATIENCE


def _give_up(arguments: dict[str, Any], error: Exception, *, misconfigured: bool) -> None:
    job_id = check_job_id(arguments.get("job"))
    text = str(error) or repr(error)
    end_job(connections(), job_id, JobState.FAILED, text, misconfigured=misconfigured)
    raise error
