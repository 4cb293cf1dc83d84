"""Trying the failed tiles of a completed job again; what they give is merged into its result.

They become another round of the job: more lines in its manifest, with indexes of their own, and more
shards. The parts of all rounds together are the result.
"""

from __future__ import annotations

from dataclasses import replace

from osml_tasks.connections import Connections
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError, ObjectNotFoundError
from osml_tasks.job_cleanup import Keep, worth_keeping
from osml_tasks.job_copy import write_job
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Job, JobOptions, JobState, Round, plan, shard_size
from osml_tasks.manifest import read_manifest
from osml_tasks.parts import parts_there, read_failures
from osml_tasks.publishing import publish_job
from osml_tasks.tile import Tile


def retry_job(connections: Connections, job_id: str) -> int:
    """Have the failed tiles of a completed job tried again, with the options of this process's configuration.

    :return: how many tiles that are; 0 leaves the job as it is.
    :raises ExtensionConfigurationError: the job is not completed, or is at work again.
    :raises ExtensionRuntimeError: what it takes is not in S3 any more.
    :raises NotAllowedError: the job has other buckets, prefix or role than this process.
    """
    status = connections.records.status(job_id)
    job = status.job
    connections.check_job(job)
    _check_completed(status)
    if not status.progress.failed:
        return 0
    lines = _manifest(connections, job)
    failed = [lines[failure.index] for failure in read_failures(connections, job)]
    if len(failed) != status.progress.failed:
        raise _gone(job)
    _begin_round(connections, job, lines, failed)
    return len(failed)


def _check_completed(status: JobStatus) -> None:
    job_id = status.job.job_id
    if not status.state.is_over or status.finished is None:
        raise ExtensionConfigurationError(
            f"job {job_id} is still {status.state}: wait for its end with osml-tasks watch {job_id}, then retry it"
        )
    if worth_keeping(status) is Keep.RETRY and status.state is not JobState.COMPLETED:
        raise ExtensionConfigurationError(
            f"a retry of job {job_id} {status.state} before: go on with it with osml-tasks resume {job_id}"
        )
    if status.state is not JobState.COMPLETED:
        raise ExtensionConfigurationError(
            f"job {job_id} {status.state}, and nothing of it is left to retry: start it again with osml-tasks detect"
        )


def _manifest(connections: Connections, job: Job) -> list[bytes]:
    """The manifest of a job whose parts are all there.

    :raises ExtensionRuntimeError: they are not.
    """
    if len(parts_there(connections, job)) < job.shards:
        raise _gone(job)
    try:
        return read_manifest(connections, job)
    except ObjectNotFoundError:
        raise _gone(job) from None


def _gone(job: Job) -> ExtensionRuntimeError:
    return ExtensionRuntimeError(
        f"what it takes to retry job {job.job_id} is not in S3 any more: it goes when the result is fetched, unless "
        "--keep or the cleanup policy says otherwise; start the failed tiles as a new job with osml-tasks detect"
    )


def _options(connections: Connections, job: Job) -> JobOptions:
    """This process's options, but for the cleanup: the job's id promises what becomes of its objects."""
    ours, theirs = JobOptions.from_config(connections.config), job.options
    return replace(ours, cleanup_policy=theirs.cleanup_policy, cleanup_delay_seconds=theirs.cleanup_delay_seconds)


def _begin_round(connections: Connections, job: Job, lines: list[bytes], failed: list[bytes]) -> None:
    options = _options(connections, job)
    size = shard_size(len(failed), options.max_concurrent_jobs)
    again = replace(job, rounds=(*job.rounds, Round(len(failed), size)), options=options)
    tiles = map(Tile.from_json, failed)
    lines = lines + [replace(tile, index=index).to_json() for index, tile in enumerate(tiles, start=job.lines)]
    connections.s3.put(connections.input_uri(job.manifest_key), b"".join(lines))
    forgiven = {
        shard: done.forgiven
        for shard, done in connections.records.progress_of_shards(job.job_id).items()
        if done.failed
    }
    if not connections.records.reopen(again, forgiven):
        if connections.records.status(job.job_id).fetched:
            connections.resources.delete([connections.input_uri(job.manifest_key)], job_id=job.job_id)
        raise ExtensionConfigurationError(
            f"job {job.job_id} was retried or removed by somebody else meanwhile: see osml-tasks status {job.job_id}"
        )
    # Without a report, S3 says that the job is at work again.
    connections.resources.delete([connections.input_uri(job.report_key)], job_id=job.job_id)
    write_job(connections, again)
    shards = [shard for shard in plan(again, lines) if shard.shard in again.latest_shards]
    publish_job(connections.app, again, shards)
