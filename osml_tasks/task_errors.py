"""What a task does about an error: come again, return its message, drop it, or end the job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, TaskPredicate

from osml_tasks.assembly import end_job
from osml_tasks.celery import state_client
from osml_tasks.connections import Connections
from osml_tasks.errors import (
    ClockSkewError,
    CredentialsExpiredError,
    EndpointUnusableError,
    ExtensionConfigurationError,
    ExtensionRuntimeError,
    JobNotFoundError,
    MessageRefusedError,
    ObjectNotFoundError,
    PartsMissingError,
    S3AccessError,
    S3OperationError,
    WorkerStoppingError,
)
from osml_tasks.jobs import JobState, Shard, check_job_id
from osml_tasks.messages import log_refused
from osml_tasks.outage import PASSING, insist
from osml_tasks.redis_keys import PREFIX
from osml_tasks.stopping import WORKER

TROUBLE_SECONDS = 5
"""How long a task waits that found S3 out of order, s."""
S3_PATIENCE = 600
"""How long S3 may be out of order, or workers' clocks wrong, before a job fails, s."""
S3_ACCESS_PATIENCE = 30
"""The same where S3 denies access or an object is missing: that seldom mends itself, s."""
CREDENTIALS_PATIENCE = 24 * 3600
"""How long credentials may have expired before a job fails, s: somebody may have to sign in again."""
CREDENTIALS_SECONDS = 15
"""How long a task waits whose credentials have expired, s."""
PARTS_PATIENCE = 3600
"""How long a job may be silent whose parts are not all there, s; the sweep has sent again what it lacks long before."""

_PROBE = f"{PREFIX}probe"

logger = logging.getLogger(__name__)


def leave_it_if_stopping() -> None:
    """Return the message at hand to its queue if this worker is to begin nothing any more."""
    if WORKER.has_begun:
        raise Reject("this worker stops", requeue=True)


@contextmanager
def job_at_stake(
    connections: Callable[[], Connections], task: Task[Any, Any], arguments: dict[str, Any]
) -> Iterator[None]:
    """Try again what may pass; end the job where it cannot go on.

    :param connections: opens them, which in a new process takes longer than to see that it is to stop.
    :param arguments: of the message at hand, or ``job`` alone.
    """
    leave_it_if_stopping()
    at_stake = _AtStake(connections, task, arguments)
    try:
        with at_stake.sorted_out():
            yield
    except PASSING as error:
        raise once_more(connections(), error) from error


def once_more(connections: Connections, error: Exception) -> Reject:
    """Have the message at hand come again, once there is somebody to take the next one."""
    logger.warning("the broker does not answer, or takes no message now, trying again: %s", error)
    with suppress(*PASSING):
        insist(lambda: state_client(connections.app).set(_PROBE, 1, ex=60), WORKER)
    return Reject(str(error), requeue=True)


class _AtStake:
    """A task at its work, and the job that it is about."""

    def __init__(self, connections: Callable[[], Connections], task: Task[Any, Any], arguments: dict[str, Any]) -> None:
        self._connections = connections
        self._task = task
        self._arguments = arguments
        self._trouble = f"{arguments.get('job')}/{arguments.get('shard', '')}/{task.name}"

    @contextmanager
    def sorted_out(self) -> Iterator[None]:
        try:
            yield
        except WorkerStoppingError as error:
            logger.info("message returned: %s", error)
            raise Reject(str(error), requeue=True) from error
        except MessageRefusedError as error:
            log_refused(self._task.name, error)
            raise Ignore from error
        except JobNotFoundError as error:
            self._forget(error)
        except (S3OperationError, ClockSkewError, CredentialsExpiredError) as error:
            self._come_again(error)
        except (EndpointUnusableError, ExtensionConfigurationError) as error:
            self._give_up(error, misconfigured=True)
        except PASSING:
            raise
        except Reject as rejected:
            # So Celery says that it could not send the message of a retry, and drops the one at hand.
            reason = rejected.args[0]
            if isinstance(reason, PASSING):
                raise reason from rejected
            self._give_up(reason)
        except TaskPredicate:
            # Parked, or to come again in the course of things.
            self._connections().claims.trouble_is_over(self._trouble)
            raise
        except Exception as error:
            # A defect, or a machine in trouble: said to the caller, who would otherwise wait for ever.
            self._give_up(error)
        else:
            self._connections().claims.trouble_is_over(self._trouble)

    def _forget(self, error: JobNotFoundError) -> None:
        logger.warning("message dropped: %s", error)
        if "shard" in self._arguments:
            self._connections().give_back(Shard.from_message(self._arguments))
        raise Ignore from error

    def _come_again(self, error: ExtensionRuntimeError) -> None:
        if self._trouble_lasts(error) < _patience(error):
            seconds = CREDENTIALS_SECONDS if isinstance(error, CredentialsExpiredError) else TROUBLE_SECONDS
            logger.warning("%s, trying again in %d s", error, seconds)
            raise self._task.retry(countdown=seconds) from error
        self._give_up(error, misconfigured=isinstance(error, S3AccessError))

    def _trouble_lasts(self, error: ExtensionRuntimeError) -> float:
        """For how long the task has found S3 out of order, or has waited for shards of which nothing is heard, s."""
        lasts = self._connections().claims.trouble_lasts(self._trouble, forget_after=8 * TROUBLE_SECONDS)
        return min(lasts, self._idle_seconds()) if isinstance(error, PartsMissingError) else lasts

    def _idle_seconds(self) -> float:
        """For how long nothing has been heard of the job, unless its shards wait for capacity, s."""
        job = self._connections().records.job(str(self._arguments.get("job")))
        if self._connections().capacity.in_hand(job.endpoint, job.job_id).parked:
            return 0.0
        return self._connections().records.idle_seconds(job.job_id) or 0.0

    def _give_up(self, error: Exception, *, misconfigured: bool = False) -> None:
        job_id = check_job_id(self._arguments.get("job"))
        end_job(self._connections(), job_id, JobState.FAILED, str(error) or repr(error), misconfigured=misconfigured)
        raise error


def _patience(error: ExtensionRuntimeError) -> float:
    if isinstance(error, CredentialsExpiredError):
        return CREDENTIALS_PATIENCE
    if isinstance(error, PartsMissingError):
        return PARTS_PATIENCE
    return S3_ACCESS_PATIENCE if isinstance(error, S3AccessError | ObjectNotFoundError) else S3_PATIENCE
