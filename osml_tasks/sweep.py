"""What beat has done again and again: delete what is due, what was refused before, and what the dead left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from osml_tasks.assembly import end_job
from osml_tasks.cleanup import SWEEP_SECONDS, Cleanup
from osml_tasks.config import CleanupPolicy
from osml_tasks.connections import Connections
from osml_tasks.endpoint import longest_life
from osml_tasks.errors import ExtensionConfigurationError, ExtensionError, JobNotFoundError, S3OperationError
from osml_tasks.job_cleanup import (
    Keep,
    delete_directories,
    delete_for_good,
    delete_job,
    expect_late_outputs,
    in_directories,
    schedule_cleanup,
    worth_keeping,
)
from osml_tasks.jobs import Job, JobState, is_made_here, may_be_swept
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.logs import about, log_step
from osml_tasks.recovery import is_being_staged, restore_jobs, send_lost_messages
from osml_tasks.resume import live_by_copy, restore_records
from osml_tasks.s3 import S3Uri
from osml_tasks.two_clocks import earlier

LEFTOVERS_EVERY_SECONDS = 3600
"""How often the directories in S3 are looked through for leftovers, s."""

logger = logging.getLogger(__name__)


def sweep(connections: Connections) -> list[str]:
    """Go on with what was lost, clean up what is due, and answer with messages whose turn has come."""
    for step in _STEPS:
        try:
            step(connections)
        except ExtensionError as error:
            # Whatever cannot be cleaned up now must not keep those waiting who can begin.
            logger.warning("the sweep goes on without a step: %s", error)
    endpoints = connections.records.endpoints()
    return [message for name in endpoints for message in connections.capacity.grant(name).messages]


def _clean_up_objects(connections: Connections) -> None:
    done = connections.resources.cleanup(retry=False)
    level = logging.INFO if done.cleaned else logging.DEBUG
    log_step(logger, "cleanup", level=level, objects=done.cleaned, refused=done.failed)


def _look_for_leftovers(connections: Connections) -> None:
    if not connections.config.cleanup_leftover_seconds:
        return
    if connections.claims.claim("leftovers", uuid4().hex, LEFTOVERS_EVERY_SECONDS):
        delete_leftovers(connections)


def clean_up_jobs(connections: Connections, *, force: bool = False, retry: bool = False) -> Cleanup:
    """Delete the objects of jobs whose cleanup is due.

    :param force: those of every ended job that waits for its cleanup, kept or not, with its result.
    :param retry: those that were refused before as well, whenever they are to be tried again.
    """
    ledger = connections.resources.ledger
    due = list(ledger.entries(ResourceType.JOB)) if force else ledger.due(ResourceType.JOB, ledger.now())
    refused = list(ledger.failures(ResourceType.JOB)) if retry else []
    jobs = dict.fromkeys([*due, *refused])
    return sum((_clean_up_due(connections, job_id, force) for job_id in jobs), Cleanup())


def _clean_up_due(connections: Connections, job_id: str, force: bool) -> Cleanup:
    try:
        return _clean_up_job(connections, job_id, force)
    except ExtensionError as error:
        # Of another bucket or role, say: it must not keep the others waiting.
        return connections.resources.note_job(job_id, str(error))


def _clean_up_job(connections: Connections, job_id: str, force: bool) -> Cleanup:
    ledger, now = connections.resources.ledger, connections.resources.ledger.now()
    try:
        status = connections.records.status(job_id)
    except JobNotFoundError as error:
        logger.warning("cleanup is left to the search for leftovers: %s", error, extra=about(job=job_id))
        ledger.strike(ResourceType.JOB, [job_id])
        return Cleanup()
    if not status.state.is_over:
        # A deletion was refused while it runs: what is left goes with the rest, at its end.
        ledger.schedule(ResourceType.JOB, {job_id: now + SWEEP_SECONDS})
        return Cleanup()
    connections.records.close(job_id, now)
    # As the status has it: a retry may begin at any time.
    job = status.job
    connections.check_job(job)
    keep = Keep.NOTHING if force else worth_keeping(status)
    if status.finished is None:
        # Whoever ended it died on the way: this is what was left to be done.
        expect_late_outputs(connections, job, now)
        if job.options.cleanup_policy != CleanupPolicy.IMMEDIATE:
            schedule_cleanup(connections, job)
            return Cleanup()
    if job.options.cleanup_policy == CleanupPolicy.DISABLED and not (status.fetched or force):
        ledger.hold(ResourceType.JOB, [job_id])
        return Cleanup()
    return _delete_ended(connections, job, keep)


def _delete_ended(connections: Connections, job: Job, keep: Keep) -> Cleanup:
    ledger, now = connections.resources.ledger, connections.resources.ledger.now()
    if keep is Keep.NOTHING and not connections.records.remove(job.job_id):
        # A retry has begun this moment.
        ledger.schedule(ResourceType.JOB, {job.job_id: now + SWEEP_SECONDS})
        return Cleanup()
    done = delete_job(connections, job, keep)
    if done.failed:
        return done
    late_until = connections.records.late_until(job.job_id)
    ledger.strike(ResourceType.JOB, [job.job_id])
    if late_until > now:
        again = min(late_until, now + max(SWEEP_SECONDS, late_until - now) / 4)
        ledger.schedule(ResourceType.JOB, {job.job_id: again})
    return done


def remove_job(connections: Connections, job_id: str, *, force: bool = False) -> Cleanup:
    """Delete everything that one job has in S3, its result included.

    :param force: cancel it first, if it is still running.
    :raises ExtensionConfigurationError: it is still running, as far as Redis knows, or S3 where Redis knows nothing.
    :raises NotAllowedError: what S3 knows of it cannot be read, or is not for this process.
    """
    try:
        status = connections.records.status(job_id)
    except JobNotFoundError:
        if not is_made_here(job_id):
            raise
        live = _live_without_records(connections, job_id, force)
        if live is None:
            # Its directories are known by its id.
            return delete_directories(connections, job_id, output_folders(connections))
        # So that whoever is at work on it, or restores it, finds it cancelled.
        restore_records(connections, live)
        status = connections.records.status(job_id)
    job = connections.job(job_id)
    if not status.state.is_over:
        if not force:
            raise _still_running(job_id, "it")
        end_job(connections, job_id, JobState.CANCELLED, "it was removed")
        # Whatever the policy: this one is not to leave anything.
        connections.records.expect_late(job_id, connections.records.now() + longest_life(job.options.max_wait_time))
    return delete_for_good(connections, job)


def _live_without_records(connections: Connections, job_id: str, force: bool) -> Job | None:
    """What S3 knows of a live job of which there are no records; None if it is over, or has not begun."""
    live, who = None, ""
    try:
        if live := live_by_copy(connections, job_id):
            who = "by what is in S3 it"
    except JobNotFoundError:
        if is_being_staged(connections, job_id):
            who = "its client"
    if who and not force:
        raise _still_running(job_id, f"there are no records of it, and {who}")
    return live


def _still_running(job_id: str, what: str) -> ExtensionConfigurationError:
    return ExtensionConfigurationError(
        f"job {job_id} is not deleted, {what} is still running: wait for it or cancel it first; "
        f"osml-tasks cleanup --job {job_id} --force does both"
    )


def _count_lost_workers(connections: Connections) -> None:
    """Note workers that have said nothing for a while, and did not say that they stop."""
    ledger = connections.resources.ledger
    lost = ledger.due(ResourceType.WORKER, ledger.now())
    for node in lost:
        logger.warning("worker %s was lost: nothing is heard of it any more", node)
    ledger.strike(ResourceType.WORKER, lost)
    connections.resources.count(ResourceType.WORKER, Outcome.FAILED, len(lost))


def delete_leftovers(connections: Connections) -> Cleanup:
    """Delete what jobs and detectors have left that died: directories of ours in which nothing happens any more.

    A directory goes when its newest object is older than ``cleanup_leftover_seconds`` and no record says
    that its job is at work; a job that has a record and made no progress for as long is ended first.
    """
    outputs = output_folders(connections)
    inputs = connections.s3.folders(connections.input_uri(connections.config.input_prefix))
    names = {name for folders in (inputs, *outputs.values()) for name in folders if may_be_swept(name)}
    return sum((_delete_if_dead(connections, name, outputs) for name in sorted(names)), Cleanup())


def output_folders(connections: Connections) -> dict[S3Uri, Sequence[str]]:
    """Where endpoints write that this process knows and may list, and the directories there."""
    configured = S3Uri(connections.config.output_bucket, connections.config.output_prefix)
    known = [*connections.records.roots(), *([configured] if configured.key else [])]
    folders: dict[S3Uri, Sequence[str]] = {}
    for place in dict.fromkeys(S3Uri(root.bucket, root.key.rstrip("/")) for root in known):
        if place.bucket in connections.config.readable_output_buckets:
            try:
                folders[place] = connections.s3.folders(place)
            except S3OperationError as error:
                logger.warning("leftovers under %s are not looked for: %s", place, error)
    return folders


def _delete_if_dead(connections: Connections, job_id: str, roots: Collection[S3Uri]) -> Cleanup:
    try:
        return _delete_leftover(connections, job_id, roots)
    except ExtensionError as error:
        return connections.resources.note_job(job_id, str(error))


def _delete_leftover(connections: Connections, job_id: str, roots: Collection[S3Uri]) -> Cleanup:
    age = connections.config.cleanup_leftover_seconds
    idle = connections.records.idle_seconds(job_id)
    if idle is not None and idle < age:
        return Cleanup()
    newest = max((found.last_modified for found in in_directories(connections, job_id, roots)), default=None)
    now = datetime.fromtimestamp(earlier(connections.records.now()), UTC)
    if newest is None or (now - newest).total_seconds() < age:
        return Cleanup()
    if idle is not None:
        error = f"nothing has happened to it for {idle:.0f} s"
        end_job(connections, job_id, JobState.FAILED, error)
        if not connections.records.remove(job_id):
            return Cleanup()
    done = delete_directories(connections, job_id, roots)
    fields = about(job=job_id, objects=done.cleaned, refused=done.failed)
    logger.warning("leftovers deleted: nothing had happened to the job for long", extra=fields)
    return done


# Before anything is deleted: a job whose records are lost is none that nobody needs any more.
_STEPS: tuple[Callable[[Connections], object], ...] = (
    restore_jobs,
    _clean_up_objects,
    clean_up_jobs,
    _count_lost_workers,
    _look_for_leftovers,
    send_lost_messages,
)
