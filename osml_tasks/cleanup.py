"""Deleting what a job leaves behind: only what this program created, or was answered for its own calls."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from osml_tasks.config import CleanupPolicy
from osml_tasks.connections import Connections
from osml_tasks.endpoint import queue_limits
from osml_tasks.errors import JobNotFoundError
from osml_tasks.jobs import Job
from osml_tasks.s3 import S3Uri

SWEEP_SECONDS = 30
"""How often beat looks for what is due, s."""

logger = logging.getLogger(__name__)


def clean_up_answers(connections: Connections, job: Job, answers: Iterable[S3Uri]) -> None:
    """Delete outputs and failure objects that are not needed any more, if the policy is ``immediate``.

    :param answers: objects that were answered for the job's own invocations.
    """
    if job.options.cleanup_policy == CleanupPolicy.IMMEDIATE:
        connections.s3.delete(_deletable(connections, answers))


def clean_up_payloads(connections: Connections, job: Job, keys: Iterable[str]) -> None:
    """Delete uploaded payloads of a finished shard, if the policy is ``immediate``."""
    if job.options.cleanup_policy == CleanupPolicy.IMMEDIATE:
        connections.s3.delete([connections.input_uri(key) for key in keys if key.startswith(job.prefix)])


def clean_up_job(connections: Connections, job: Job, *, keep_result: bool) -> None:
    """Delete every object of a job that is over, as its policy says.

    :param keep_result: leave result and report for the caller to fetch.
    """
    policy = job.options.cleanup_policy
    if policy == CleanupPolicy.DISABLED:
        return
    if policy == CleanupPolicy.DELAYED:
        when = connections.records.now() + connections.config.cleanup_delay_seconds
        connections.records.schedule_cleanup(job.job_id, when)
        return
    delete_job(connections, job, keep_result=keep_result)


def delete_job(connections: Connections, job: Job, *, keep_result: bool) -> None:
    """Delete every object of a job, whatever its policy."""
    keep = frozenset({job.result_key, job.report_key}) if keep_result else frozenset()
    connections.s3.delete_under(connections.input_uri(job.prefix), keep)
    connections.s3.abort_uploads(connections.input_uri(job.prefix))
    roots = _roots(connections, job)
    for root in roots:
        connections.s3.delete_under(_under(root, job.job_id))
    if not roots:
        connections.s3.delete(_deletable(connections, connections.records.locations(job)))


def expect_late_outputs(connections: Connections, job: Job, now: float) -> None:
    """See to it that outputs which appear after their tiles were given up are deleted as well."""
    if job.options.cleanup_policy == CleanupPolicy.IMMEDIATE:
        connections.records.expect_late(job.job_id, now + sum(queue_limits(job.options.max_wait_time)))
        connections.records.schedule_cleanup(job.job_id, now + SWEEP_SECONDS)


def sweep(connections: Connections) -> list[str]:
    """Clean up what is due, and answer with messages whose turn has come."""
    now = connections.records.now()
    for job_id in connections.records.due_cleanups(now):
        _clean_up_due(connections, job_id, now)
    endpoints = connections.records.endpoints()
    return [message for name in endpoints for message in connections.capacity.grant(name).messages]


def _clean_up_due(connections: Connections, job_id: str, now: float) -> None:
    try:
        status = connections.records.status(job_id)
    except JobNotFoundError as error:
        logger.warning("cleanup of job %s dropped: %s", job_id, error)
        connections.records.unschedule_cleanup(job_id)
        return
    if not status.state.is_over:
        connections.records.schedule_cleanup(job_id, now + SWEEP_SECONDS)
        return
    delete_job(connections, connections.job(job_id), keep_result=not status.fetched)
    connections.records.close(job_id, now)
    late_until = connections.records.late_until(job_id)
    if late_until > now:
        connections.records.schedule_cleanup(job_id, min(late_until, now + max(SWEEP_SECONDS, late_until - now) / 4))
    else:
        connections.records.unschedule_cleanup(job_id)


def _roots(connections: Connections, job: Job) -> list[S3Uri]:
    """Where the endpoint writes, if that is known and this process may touch it."""
    paths = connections.records.paths(job.job_id)
    known = {S3Uri.parse(path) for path in (paths.output, paths.failure) if path}
    return _deletable(connections, known)


def _deletable(connections: Connections, uris: Iterable[S3Uri]) -> list[S3Uri]:
    return [uri for uri in uris if uri.bucket in connections.config.readable_output_buckets]


def _under(root: S3Uri, name: str) -> S3Uri:
    return S3Uri(root.bucket, f"{root.key}/{name}".lstrip("/"))
