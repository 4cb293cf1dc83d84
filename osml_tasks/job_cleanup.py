"""Deleting what a job leaves in S3, step by step while it runs and as a whole when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

from osml_tasks.cleanup import SWEEP_SECONDS, Cleanup
from osml_tasks.config import CleanupPolicy
from osml_tasks.connections import Connections
from osml_tasks.endpoint import longest_life
from osml_tasks.errors import ExtensionRuntimeError
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Job, JobState
from osml_tasks.ledger import ResourceType
from osml_tasks.logs import log_step
from osml_tasks.s3 import S3Object, S3Uri

logger = logging.getLogger(__name__)


def clean_up_answers(connections: Connections, job: Job, answers: Iterable[S3Uri]) -> None:
    """Delete outputs and failure objects that are not needed any more, if the policy is ``immediate``.

    :param answers: objects that were answered for the job's own invocations.
    """
    if job.options.cleanup_policy == CleanupPolicy.IMMEDIATE:
        connections.resources.delete(answers, job_id=job.job_id)


def remember_answers(connections: Connections, job: Job, answers: Iterable[S3Uri], *, late: bool) -> None:
    """Note answers outside of the job's directories that are not deleted for good yet: nobody else will know them.

    :param late: whether they may yet appear.
    """
    if late or job.options.cleanup_policy != CleanupPolicy.IMMEDIATE:
        connections.records.note_locations(job.job_id, answers)


def clean_up_payloads(connections: Connections, job: Job, keys: Iterable[str]) -> None:
    """Delete uploaded payloads of a finished shard, if the policy is ``immediate``."""
    if job.options.cleanup_policy == CleanupPolicy.IMMEDIATE:
        uris = [connections.input_uri(key) for key in keys if key.startswith(job.prefix)]
        connections.resources.delete(uris, job_id=job.job_id)


class Keep(Enum):
    """What of a job that is over stays in S3."""

    NOTHING = auto()
    RESULT = auto()
    """Result and report, for the caller to fetch, and what restores the job's records."""
    RETRY = auto()
    """Everything in the input bucket: the result, and what it takes to try failed tiles again, or go on with that."""


def worth_keeping(status: JobStatus) -> Keep:
    """What of a job that is over somebody may yet ask for."""
    if status.fetched:
        return Keep.NOTHING
    if status.state is JobState.COMPLETED:
        return Keep.RETRY if status.progress.failed else Keep.RESULT
    return Keep.RETRY if status.is_unfinished_retry else Keep.NOTHING


def clean_up_job(connections: Connections, job: Job, keep: Keep = Keep.NOTHING) -> None:
    """Delete the objects of a job that is over, as its policy says."""
    if job.options.cleanup_policy == CleanupPolicy.IMMEDIATE:
        delete_job(connections, job, keep)
    else:
        schedule_cleanup(connections, job)


def schedule_cleanup(connections: Connections, job: Job) -> None:
    """Enter a job that is over into the ledger, for the time that its policy says."""
    ledger, policy = connections.resources.ledger, job.options.cleanup_policy
    if policy == CleanupPolicy.DISABLED:
        ledger.hold(ResourceType.JOB, [job.job_id])
        return
    wait = job.options.cleanup_delay_seconds if policy == CleanupPolicy.DELAYED else SWEEP_SECONDS
    ledger.schedule(ResourceType.JOB, {job.job_id: ledger.now() + wait})


def delete_for_good(connections: Connections, job: Job) -> Cleanup:
    """Delete every object of a job that is over, its result included; what stands in the way, the sweep tries again.

    :raises ExtensionRuntimeError: it is not over; maybe a retry has just begun.
    """
    ledger, records = connections.resources.ledger, connections.records
    now = ledger.now()
    ledger.schedule(ResourceType.JOB, {job.job_id: now + SWEEP_SECONDS})
    if not records.remove(job.job_id):
        raise ExtensionRuntimeError(f"job {job.job_id} is at work again: wait for it, or cancel it, first")
    done = delete_job(connections, job)
    if not done.failed and records.late_until(job.job_id) <= now:
        ledger.strike(ResourceType.JOB, [job.job_id])
    return done


def delete_job(connections: Connections, job: Job, keep: Keep = Keep.NOTHING) -> Cleanup:
    """Delete the objects of a job, whatever its policy; what is refused is tried again by the sweep."""
    roots = output_roots(connections, job.job_id)
    done = delete_directories(connections, job.job_id, roots, lambda uri: _stays(connections, job, keep, uri))
    done += connections.resources.delete(_elsewhere(connections, job, roots), job_id=job.job_id)
    # The sweep looks again and again for what comes too late, mostly in vain.
    level = logging.INFO if done.cleaned else logging.DEBUG
    log_step(logger, "cleanup", level=level, job=job.job_id, objects=done.cleaned, refused=done.failed)
    return done


def _stays(connections: Connections, job: Job, keep: Keep, uri: S3Uri) -> bool:
    here = uri.bucket == connections.config.input_bucket and uri.key.startswith(job.prefix)
    if keep is Keep.RETRY:
        return here or _is_of_later_round(job, uri)
    kept = (job.result_key, job.report_key, job.record_key, job.paths_key)
    return keep is Keep.RESULT and here and uri.key in kept


def _is_of_later_round(job: Job, uri: S3Uri) -> bool:
    """Whether an answer belongs to a retry that has begun meanwhile."""
    shard = uri.key.partition(f"{job.job_id}/")[2].partition("/")[0]
    return shard.isdecimal() and int(shard) >= job.shards


def delete_directories(
    connections: Connections, job_id: str, roots: Iterable[S3Uri], stays: Callable[[S3Uri], bool] = lambda uri: False
) -> Cleanup:
    """Delete the directories of a job: the one in the input bucket, and one under each of some roots.

    :param stays: whether an object is left where it is.
    """
    found = (one.uri for one in in_directories(connections, job_id, roots))
    done = connections.resources.delete((uri for uri in found if not stays(uri)), job_id=job_id)
    connections.s3.abort_uploads(_directory(connections, job_id))
    return done


def in_directories(connections: Connections, job_id: str, roots: Iterable[S3Uri]) -> Iterator[S3Object]:
    """All objects in the directories of a job."""
    for directory in (_directory(connections, job_id), *(root.child(job_id) for root in roots)):
        yield from connections.s3.list(directory)


def _elsewhere(connections: Connections, job: Job, roots: Iterable[S3Uri]) -> list[S3Uri]:
    """Answered locations that are in none of a job's directories, whether there is anything or not."""
    directories = tuple(f"{root.child(job.job_id)}/" for root in roots)
    return [uri for uri in connections.records.locations(job) if not str(uri).startswith(directories)]


def _directory(connections: Connections, job_id: str) -> S3Uri:
    return connections.input_uri(f"{connections.config.input_prefix}{job_id}/")


def expect_late_outputs(connections: Connections, job: Job, now: float) -> None:
    """See to it that outputs which appear after their tiles were given up are deleted as well."""
    policy = job.options.cleanup_policy
    if policy == CleanupPolicy.DISABLED:
        return
    connections.records.expect_late(job.job_id, now + longest_life(job.options.max_wait_time))
    if policy == CleanupPolicy.IMMEDIATE:
        connections.resources.ledger.schedule(ResourceType.JOB, {job.job_id: now + SWEEP_SECONDS})


def output_roots(connections: Connections, job_id: str) -> list[S3Uri]:
    """Where the endpoint of a job writes, if that is known and this process may delete there."""
    paths = connections.records.paths(job_id)
    roots = {S3Uri.parse(path) for path in (paths.output, paths.failure) if path}
    return [root for root in roots if connections.resources.may_delete(root.child(job_id))]
