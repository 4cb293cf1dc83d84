"""The tasks. Each says what happens in its order; how it is done is in the modules it calls."""

from __future__ import annotations

import gc
import json
import logging
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any
from uuid import uuid4

from celery import Task
from celery.exceptions import Ignore

from osml_tasks.assembly import assemble_job
from osml_tasks.celery import app
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.errors import (
    ExtensionConfigurationError,
    JobBusyError,
    JobNotFoundError,
    WorkersLostError,
)
from osml_tasks.jobs import Shard, check_job_id
from osml_tasks.logs import log_step
from osml_tasks.losses import MOST_LOSSES_OF_JOB
from osml_tasks.messages import log_refused
from osml_tasks.outage import PASSING
from osml_tasks.publishing import job_chord
from osml_tasks.remote_call import called_job, short_report
from osml_tasks.stopping import WORKER
from osml_tasks.submission import submit_shard
from osml_tasks.sweep import remove_job, sweep
from osml_tasks.task_errors import job_at_stake, leave_it_if_stopping, once_more

BUSY_SECONDS = 10
"""How long a task waits for another that is at the same shard, or creates the same job, s."""

logger = logging.getLogger(__name__)
_connecting = Lock()


@app.task(name="osml_tasks.detect", bind=True, max_retries=None, answers=True, throws=(ExtensionConfigurationError,))
def detect(self: Task[Any, Any], /, sources: str | list[str], *, endpoint: str, **options: Any) -> Any:
    """Start a job; the result of this task is the job's report, once it is over.

    :param sources: ``s3://`` URIs and prefixes, and paths under the workers' ``ASYNC_SM_TILE_ROOTS``.
    :param options: a job's own, as keywords of ``AsyncEndpointConfig``, such as ``max_retries``; and those of images,
        as keywords of :func:`osml_tasks.detect`, such as ``tile_size``.
    """
    leave_it_if_stopping()
    try:
        call = str(self.request.id)
        with connections().losses.at_work(f"{call}/detect") as attempt:
            if attempt.losses >= MOST_LOSSES_OF_JOB:
                raise WorkersLostError(
                    f"{attempt.losses} workers were lost as they looked at the sources, each killed or out of memory"
                )
            job, shards = called_job(connections(), call, sources, endpoint, options)
    except JobBusyError as error:
        raise self.retry(countdown=BUSY_SECONDS) from error
    except PASSING as error:
        raise once_more(connections(), error) from error
    except ExtensionConfigurationError as error:
        log_refused(self.name, error)
        raise
    if not shards:
        return short_report(connections(), job.job_id)
    log_step(logger, "started", job=job.job_id, tiles=job.tiles, shards=job.shards)
    with job_at_stake(connections, self, {"job": job.job_id}):
        return self.replace(job_chord(app, job, shards, keep_report=True))


@app.task(name="osml_tasks.submit", bind=True, max_retries=None, ignore_result=True)
def submit(self: Task[Any, Any], /, **shard: Any) -> None:
    """Invoke the tiles of a shard that are due, or park the shard until there is capacity."""
    with job_at_stake(connections, self, shard):
        here = connections()
        told = Shard.from_message(shard)
        outcome = submit_shard(
            here,
            told,
            _message(self),
            uuid4().hex,
            here.publish,
            ticket=str(self.request.id),
            redelivered=bool((self.request.delivery_info or {}).get("redelivered")),
        )
        if outcome.parked:
            raise Ignore
        if outcome.busy:
            raise self.retry(countdown=BUSY_SECONDS)
        _resubmit(shard, outcome.resubmit_in)
        _hold_back_next(self, outcome.poll_in)


@app.task(name="osml_tasks.poll", bind=True, max_retries=None, ignore_result=True)
def poll(self: Task[Any, Any], /, *, idle: int = 0, seen: int = 0, **shard: Any) -> None:
    """Look at what has arrived of a shard; come back later, or write its part when all has."""
    with job_at_stake(connections, self, shard):
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
    with job_at_stake(connections, self, {"job": job}):
        assemble_job(connections(), check_job_id(job), rounds)
    return None if self.request.ignore_result else short_report(connections(), job)


@app.task(name="osml_tasks.cleanup", ignore_result=True)
def cleanup(job: str | None = None) -> None:
    """Delete every object of one job that is over; without a job, do what is due and grant capacity that came free."""
    leave_it_if_stopping()
    try:
        if job is None:
            connections().publish(sweep(connections()))
        else:
            remove_job(connections(), check_job_id(job))
    except PASSING as error:
        raise once_more(connections(), error) from error
    except (JobNotFoundError, ExtensionConfigurationError) as error:
        log_refused("osml_tasks.cleanup", error)


def connections() -> Connections:
    """What this process talks to, opened at its first task."""
    with _connecting:
        return _connections()


@lru_cache(maxsize=1)
def _connections() -> Connections:
    opened = replace(connect(AsyncEndpointConfig(), app), stop=WORKER)
    # What there is by now stays. As long as it counts, Python hardly ever looks through the rest for garbage, and
    # each message that comes again leaves a traceback of Celery's of 240 kB.
    gc.freeze()
    return opened


def _message(task: Task[Any, Any]) -> str:
    """The task at hand as a message to be sent later: same id, same place in its chain and chord."""
    arguments, keywords = tuple(task.request.args or ()), dict(task.request.kwargs or {})
    message = task.signature_from_request(task.request, arguments, keywords)
    # What brokers and tracers have added is of this delivery.
    message.options.pop("headers", None)
    return json.dumps(message)


def _hold_back_next(task: Task[Any, Any], countdown: float) -> None:
    """Have what follows a task in its chain begin after so many seconds: Celery sends that when the task returns."""
    if following := task.request.chain:
        step: Any = following[-1]
        step["options"]["countdown"] = countdown


def _resubmit(shard: dict[str, Any], countdown: float | None) -> None:
    """Have tiles that are due again invoked, unless a message to that end is on its way."""
    if countdown is None:
        return
    name = f"{Shard.from_message(shard).name}/resubmit"
    if connections().claims.claim(name, uuid4().hex, round(countdown) + 1):
        submit.apply_async(kwargs=shard, countdown=countdown)
