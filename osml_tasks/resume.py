"""Going on with a job whose messages or records are lost, from what S3 still has.

A finished shard is its part. Of the others, what the endpoint has written already is collected; the rest
is invoked again, for nothing tells whether it is in flight: that may cost an invocation, never a feature.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import orjson

from osml_tasks.config import CleanupPolicy
from osml_tasks.connections import Connections
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError, JobNotFoundError, ObjectNotFoundError
from osml_tasks.job_cleanup import Keep, expect_late_outputs, schedule_cleanup, worth_keeping
from osml_tasks.job_copy import read_job, read_paths, write_job
from osml_tasks.jobs import Job, JobState, Progress, Shard
from osml_tasks.parts import count_part, failed_tiles, parts_there
from osml_tasks.polling import TileRecord
from osml_tasks.publishing import planned_shards, publish_job
from osml_tasks.records import OutputPaths
from osml_tasks.s3 import S3Uri
from osml_tasks.two_clocks import later

IDLE_SECONDS = 90
"""How long a job must have been silent to be resumed, s: so long messages of a dead worker take to come back."""

_NO_ATTEMPT = TileRecord(attempt=0)
# What output_filename and failure_filename name.
_ANSWER = re.compile(r"/(?P<index>\d{7,})-(?P<attempt>\d+)(?P<failed>-error)?\.out$")


@dataclass(frozen=True, slots=True)
class Resumption:
    """What was found of a job, and what goes on.

    :ivar finished: shards whose parts are in S3.
    :ivar shards: shards whose messages were sent again.
    :ivar answers: tiles of theirs that the endpoint has answered already, well or badly.
    """

    finished: int
    shards: int
    answers: int


def resume_job(connections: Connections, job_id: str, *, force: bool = False) -> Resumption:
    """Send the messages again that a job lacks for its end, after restoring its records if they are lost.

    :param force: even if it seems to be at work: then some steps are done twice, to no harm.
    :raises JobNotFoundError: neither Redis nor S3 knows of it.
    :raises ExtensionConfigurationError: it is over, or seems to be at work.
    :raises ExtensionRuntimeError: its manifest is gone.
    :raises NotAllowedError: it has other buckets, prefix or role than this process.
    """
    try:
        job = _job(connections, job_id, force)
    except JobNotFoundError:
        copy = read_job(connections, job_id)
        if copy.ended and len(copy.job.rounds) == 1:
            raise _over(job_id, copy.ended) from None
        # It may say that the job has ended, or is another fleet's.
        write_job(connections, copy.job)
        return restore_job(connections, copy.job)
    if connections.records.is_assembled(job_id):
        # What result and report were made of may be gone by now.
        publish_job(connections.app, job, [])
        return Resumption(job.shards, 0, 0)
    shards = _shards(connections, job)
    unfinished = _unfinished(connections, job, shards)
    _reopen(connections, job, unfinished)
    return _go_on(connections, job, shards, unfinished)


def live_by_copy(connections: Connections, job_id: str) -> Job | None:
    """A job of which there are no records, where it has not ended by what is in S3; None if it has.

    :raises JobNotFoundError: S3 does not know of it either.
    :raises NotAllowedError: its copy cannot be read, or has other buckets, prefix or role than this process.
    """
    copy = read_job(connections, job_id)
    return None if copy.ended or _counts_of_report(connections, copy.job) else copy.job


def restore_records(connections: Connections, job: Job) -> None:
    """Restore the record of a job that is lost, and where its endpoint writes, and have nothing done."""
    connections.records.restore(job)
    _learn_paths(connections, job)


def restore_job(connections: Connections, job: Job) -> Resumption:
    """Restore the records of a job that are lost, and have done what is left of it.

    :raises ExtensionRuntimeError: its manifest is gone.
    :raises ExtensionConfigurationError: somebody else has done so meanwhile.
    """
    if counts := _counts_of_report(connections, job):
        return _end_again(connections, job, counts)
    shards = _shards(connections, job)
    if not connections.records.restore(job):
        raise ExtensionConfigurationError(f"job {job.job_id} was restored by somebody else meanwhile")
    return _go_on(connections, job, shards, _unfinished(connections, job, shards))


def catch_up(connections: Connections, job: Job) -> None:
    """Tell the records of a job at work what S3 knows better, where they may be older than that.

    :raises ExtensionRuntimeError: its manifest is gone.
    """
    if counts := _counts_of_report(connections, job):
        _end_again(connections, job, counts)
        return
    shards = _shards(connections, job)
    unfinished = _unfinished(connections, job, shards)
    _count_finished(connections, job, shards, unfinished)
    _recall_answers(connections, job, unfinished)


def _go_on(connections: Connections, job: Job, shards: Sequence[Shard], unfinished: Sequence[Shard]) -> Resumption:
    _count_finished(connections, job, shards, unfinished)
    answers = _recall_answers(connections, job, unfinished)
    publish_job(connections.app, job, unfinished)
    return Resumption(len(shards) - len(unfinished), len(unfinished), answers)


def _job(connections: Connections, job_id: str, force: bool) -> Job:
    """The job as its records have it.

    :raises JobNotFoundError: they are lost.
    :raises ExtensionConfigurationError: there is nothing to resume.
    """
    records = connections.records
    status, idle = records.status(job_id), records.idle_seconds(job_id) or 0.0
    connections.check_job(status.job)
    if status.state.is_over:
        if status.state is JobState.COMPLETED or worth_keeping(status) is Keep.NOTHING:
            raise _over(job_id, status.state)
    elif idle < IDLE_SECONDS and not force:
        raise ExtensionConfigurationError(
            f"job {job_id} is {status.state}, and its last sign of life is {idle:.0f} s old: "
            f"wait until that is {IDLE_SECONDS} s, or add --force"
        )
    return status.job


def _over(job_id: str, state: JobState) -> ExtensionConfigurationError:
    return ExtensionConfigurationError(f"job {job_id} is {state} already: there is nothing to resume")


def _reopen(connections: Connections, job: Job, unfinished: Sequence[Shard]) -> None:
    """Have the records of a job, and their copy, say that it is at work."""
    records = connections.records
    if records.state(job.job_id).is_over:
        # A retry that failed: its answers were deleted, and nobody waits for more.
        records.drop_tiles(unfinished)
        if not records.reopen(job, {}):
            raise ExtensionConfigurationError(
                f"job {job.job_id} is about to end, or was resumed or removed by somebody else: "
                f"see osml-tasks status {job.job_id}"
            )
    # What a retry that was interrupted has left to be done.
    connections.resources.delete([connections.input_uri(job.report_key)], job_id=job.job_id)
    write_job(connections, job)


def _shards(connections: Connections, job: Job) -> list[Shard]:
    try:
        return planned_shards(connections, job)
    except ObjectNotFoundError as error:
        raise ExtensionRuntimeError(f"job {job.job_id} cannot go on, its manifest is gone: {error}") from None


def _counts_of_report(connections: Connections, job: Job) -> Progress | None:
    """What the report says of a job that was assembled; a retry removes it when it begins."""
    try:
        report = orjson.loads(connections.s3.get(connections.input_uri(job.report_key)))
        counts = Progress(job.tiles, report["succeeded"], report["failed"], report["features"], 1)
    except (ObjectNotFoundError, ValueError, KeyError, TypeError):
        return None
    if len(job.rounds) > 1 and counts.failed != sum(failed_tiles(connections, job).values()):
        # A late assembly of an earlier round wrote it, or it could not be removed: not all that it says to have
        # failed has failed again.
        return None
    return counts


def _end_again(connections: Connections, job: Job, counts: Progress) -> Resumption:
    """Restore the records of a job that had ended."""
    records = connections.records
    # What another has made of it meanwhile stays.
    records.restore(job)
    _learn_paths(connections, job)
    failed = failed_tiles(connections, job) if counts.failed else {}
    rest = replace(counts, failed=counts.failed - sum(failed.values()))
    for number in range(job.shards):
        done = Progress(failed=failed.get(number, 0), shards_finished=1)
        records.set_progress(
            Shard(job.job_id, number, 0, 0, 0, 0), done if number else replace(rest + done, shards_finished=1)
        )
    records.mark_assembled(job.job_id, len(job.rounds))
    records.end(job.job_id, JobState.COMPLETED)
    records.close(job.job_id, records.now())
    expect_late_outputs(connections, job, records.now())
    if job.options.cleanup_policy != CleanupPolicy.IMMEDIATE:
        schedule_cleanup(connections, job)
    return Resumption(finished=job.shards, shards=0, answers=0)


def _learn_paths(connections: Connections, job: Job) -> OutputPaths | None:
    """Where the endpoint writes, from the copy; known to the records from now on."""
    paths = read_paths(connections, job)
    return None if paths is None else connections.records.learn_paths(job.job_id, paths)


def _unfinished(connections: Connections, job: Job, shards: Sequence[Shard]) -> list[Shard]:
    """Those of a job's shards that have no part."""
    there = parts_there(connections, job)
    return [shard for shard in shards if shard.shard not in there]


def _count_finished(connections: Connections, job: Job, shards: Iterable[Shard], unfinished: Sequence[Shard]) -> None:
    """Write down how finished shards came out, where that is lost."""
    records = connections.records
    known = records.progress_of_shards(job.job_id)
    left = {shard.shard for shard in unfinished}
    for shard in shards:
        if shard.shard in left or known.get(shard.shard, Progress()).shards_finished:
            continue
        records.set_progress(shard, count_part(connections, job, shard))
        records.drop_tiles([shard])


def _recall_answers(connections: Connections, job: Job, shards: Iterable[Shard]) -> int:
    """Take up what the endpoint has written for tiles that no record tells of; says for how many it had."""
    records = connections.records
    paths = _learn_paths(connections, job)
    if paths is None:
        return 0
    answered = _answered(connections, job, paths)
    recalled = 0
    for shard in shards:
        known = records.tiles(shard)
        indexes = range(shard.first, shard.first + shard.tiles)
        unknown = {
            index: answer
            for index in indexes
            if (answer := answered.get(index)) and answer.attempt > known.get(index, _NO_ATTEMPT).attempt
        }
        records.set_tiles(shard, unknown)
        progress = records.progress(shard)
        records.set_progress(
            shard, replace(progress, invoked=max(progress.invoked, len(known.keys() | unknown.keys())))
        )
        recalled += len(unknown.keys() - known.keys())
    return recalled


def _answered(connections: Connections, job: Job, paths: OutputPaths) -> dict[int, TileRecord]:
    """Records of the tiles whose outputs or failure objects exist, by index; an output beats a failure."""
    attempts: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for root in {S3Uri.parse(path) for path in (paths.output, paths.failure) if path}:
        if root.bucket not in connections.config.readable_output_buckets:
            continue
        for found in connections.s3.list(root.child(job.job_id)):
            if answer := _ANSWER.search(found.uri.key):
                latest = attempts[answer["failed"] is None]
                latest[int(answer["index"])] = max(latest.get(int(answer["index"]), 0), int(answer["attempt"]))
    now = later(connections.records.now())
    latest = attempts[False] | attempts[True]
    return {index: TileRecord(attempt=attempt, invoked_at=now) for index, attempt in latest.items()}
