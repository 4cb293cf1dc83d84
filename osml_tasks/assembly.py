"""What the assemble task does: make one FeatureCollection of all parts, and end the job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from osml_tasks.cleanup import SWEEP_SECONDS
from osml_tasks.config import CleanupPolicy
from osml_tasks.connections import Connections
from osml_tasks.errors import ExtensionError, JobNotFoundError, PartsMissingError, WorkersLostError
from osml_tasks.features import COLLECTION_HEAD, COLLECTION_TAIL, join_lines
from osml_tasks.image_assembly import merge_parts, report_images
from osml_tasks.job_cleanup import clean_up_job, expect_late_outputs, schedule_cleanup, worth_keeping
from osml_tasks.job_copy import note_end
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Job, JobState
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.logs import log_step
from osml_tasks.losses import MOST_LOSSES_OF_JOB
from osml_tasks.messages import check_rounds
from osml_tasks.parts import count_part, parts_there, read_failures, read_parts
from osml_tasks.publishing import planned_shards
from osml_tasks.report import report_lines, report_of
from osml_tasks.s3 import S3Object, S3Uri

logger = logging.getLogger(__name__)


def assemble_job(connections: Connections, job_id: str, rounds: int = 1) -> None:
    """Write result and report, end the job and clean up after it. Done twice, or too late, it changes nothing.

    :param rounds: how many the job had when this was asked for.
    :raises MessageRefusedError: it never had so many.
    :raises PartsMissingError: shards are not finished.
    :raises S3OperationError: S3 does not answer.
    :raises WorkerStoppingError: this worker has no time for the rest.
    """
    job = connections.job(job_id)
    check_rounds(job, rounds)
    records = connections.records
    if records.state(job_id) is JobState.COMPLETED:
        records.close(job_id, records.now())
    if records.state(job_id).is_over or len(job.rounds) > rounds:
        return
    if not records.is_assembled(job_id):
        with connections.losses.at_work(f"{job_id}/assemble") as attempt:
            if attempt.losses >= MOST_LOSSES_OF_JOB:
                attempt.forget()
                raise WorkersLostError(
                    f"{attempt.losses} workers were lost as they assembled job {job_id}, each killed or out of memory: "
                    "give workers more memory; 'osml-tasks resume' goes on with it"
                )
            _assemble(connections, job)
    # Anything may have happened meanwhile: it was cancelled; or another has done the same, and a retry has begun.
    status = records.status(job_id)
    if len(status.job.rounds) > rounds:
        return
    if not status.state.is_over:
        clean_up_job(connections, job, worth_keeping(replace(status, state=JobState.COMPLETED)))
        if records.end(job_id, JobState.COMPLETED, rounds=rounds):
            _log_completed(status, records.now())
    status = records.status(job_id)
    if status.state in (JobState.FAILED, JobState.CANCELLED) or status.fetched:
        # Nobody will ask for what was just written.
        clean_up_job(connections, job, worth_keeping(status))
    records.close(job_id, records.now())


def _assemble(connections: Connections, job: Job) -> None:
    parts = _parts(connections, job)
    connections.records.set_state(job.job_id, JobState.ASSEMBLING)
    merged = merge_parts(connections, job, parts) if job.images else None
    chunks = read_parts(connections, parts) if merged is None else merged.chunks()
    _write(connections, job, job.result_key, _collection(chunks))
    _count_untold(connections, job)
    features = merged.features if merged else None
    _write_report(connections, job, features)
    connections.records.mark_assembled(job.job_id, len(job.rounds), features)
    connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 2)


def _count_untold(connections: Connections, job: Job) -> None:
    """Count the parts of which no progress tells: records may be older than what S3 has."""
    progress = connections.records.progress_of_shards(job.job_id)
    told = {number for number, done in progress.items() if done.shards_finished}
    if told.issuperset(range(job.shards)) or connections.records.state(job.job_id).is_over:
        return
    for shard in planned_shards(connections, job):
        if shard.shard not in told:
            connections.records.set_progress(shard, count_part(connections, job, shard))


def _log_completed(status: JobStatus, now: float) -> None:
    progress = status.progress
    counts = {"tiles": status.job.tiles, "failed": progress.failed, "features": status.features}
    log_step(logger, "completed", job=status.job.job_id, **counts, seconds=now - (status.started or now))


def end_job(
    connections: Connections,
    job_id: str,
    state: JobState,
    error: str,
    *,
    misconfigured: bool = False,
    publish: Callable[[Iterable[str]], None] | None = None,
) -> None:
    """End a job that is not to go on: give its capacity back and clean up after it; one that is over stays as it is.

    Works with the job's own record, so that a job this worker may not touch is ended all the same;
    its objects are then left to the sweep of a worker that may.

    :param state: failed or cancelled.
    :param misconfigured: whether a setting, rather than the course of events, is the reason.
    :param publish: sends messages of shards whose turn has come. Default: to the broker.
    """
    records, ledger = connections.records, connections.resources.ledger
    try:
        job = records.job(job_id)
        if records.state(job_id) is JobState.COMPLETED:
            return
    except JobNotFoundError:
        return
    # First of all: should this process die on its way, the sweep goes on from there.
    ledger.schedule(ResourceType.JOB, {job_id: ledger.now() + SWEEP_SECONDS})
    if records.end(job_id, state, error, misconfigured=misconfigured):
        level = logging.ERROR if state is JobState.FAILED else logging.INFO
        log_step(logger, state.value, level=level, job=job_id, error=error)
    elif records.state(job_id) is JobState.COMPLETED:
        return
    # Before the cleanup, which may take long: others wait for what came free.
    (publish or connections.publish)(connections.capacity.forget(job.endpoint, job_id).messages)
    _clean_up_ended(connections, job)
    records.close(job_id, records.now())


def _clean_up_ended(connections: Connections, job: Job) -> None:
    """Delete what an ended job has left, or see to it that somebody does."""
    config = connections.config
    theirs = (job.input_bucket, job.input_prefix, job.assume_role_arn)
    if theirs != (config.input_bucket, config.input_prefix, config.assume_role_arn):
        schedule_cleanup(connections, job)
        return
    status = connections.records.status(job.job_id)
    if job.options.cleanup_policy != CleanupPolicy.IMMEDIATE or status.is_unfinished_retry:
        note_end(connections, job, status.state)
    try:
        clean_up_job(connections, job, worth_keeping(status))
        expect_late_outputs(connections, job, connections.records.now())
    except ExtensionError as error:
        connections.resources.note_job(job.job_id, str(error))


def _parts(connections: Connections, job: Job) -> list[S3Object]:
    """All parts in the order of their shards."""
    there = parts_there(connections, job)
    missing = [job.part_key(shard) for shard in range(job.shards) if shard not in there]
    if missing:
        raise PartsMissingError(
            f"{len(missing)} of {job.shards} parts of job {job.job_id} are missing, the first is {missing[0]}",
            uri=str(connections.input_uri(missing[0])),
        )
    return list(there.values())


def _collection(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield COLLECTION_HEAD
    yield from join_lines(chunks)
    yield COLLECTION_TAIL


def _write(connections: Connections, job: Job, key: str, chunks: Iterable[bytes]) -> S3Uri:
    uri = connections.input_uri(key)
    with connections.s3.writer(uri) as file:
        for chunk in chunks:
            connections.stop.check()
            connections.records.touch(job.job_id)
            file.write(chunk)
    return uri


def _write_report(connections: Connections, job: Job, features: int | None) -> None:
    """Write the report of a job that is about to be completed."""
    status = connections.records.status(job.job_id)
    ended = replace(status, state=JobState.COMPLETED, finished=connections.records.now(), merged=features)
    report = report_of(ended, str(connections.input_uri(job.result_key)))
    if job.images:
        report |= report_images(connections, job)
    _write(connections, job, job.report_key, report_lines(report, read_failures(connections, job)))
