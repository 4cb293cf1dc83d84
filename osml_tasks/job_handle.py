"""A job as its caller sees it: where it stands, its result, its report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import geojson
import orjson

from osml_tasks.celery import state_client
from osml_tasks.celery_settings import SUBMIT_QUEUE
from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy
from osml_tasks.connections import Connections, open_connections
from osml_tasks.consumers import Consumers
from osml_tasks.errors import (
    ExtensionConfigurationError,
    ExtensionRuntimeError,
    JobFailedError,
    JobTimeoutError,
    ObjectNotFoundError,
)
from osml_tasks.feature_collection import feature_collection
from osml_tasks.job_cleanup import delete_for_good, schedule_cleanup
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import JobState, Progress, check_job_id
from osml_tasks.outage import Patience
from osml_tasks.preflight import check_broker
from osml_tasks.report import report_of
from osml_tasks.result_files.target import parse_target
from osml_tasks.s3 import S3Uri

if TYPE_CHECKING:
    import boto3

    from osml_tasks.resume import Resumption

_LOOK_EVERY = 0.25
_LOOK_LATER_EVERY = 0.5  # once it has taken half a minute
_TELL_EVERY = 1.0  # what this takes grows with the job's shards


def open_job(job_id: str, config: AsyncEndpointConfig | None = None, session: boto3.Session | None = None) -> JobHandle:
    """The handle of a job that somebody started before, whether or not there are records of it.

    :param config: default: from the environment. It has to name the job's buckets and prefix.
    :param session: where AWS credentials come from; default: as boto3 finds them.
    :raises NotAllowedError: that cannot be a job's id.
    """
    check_job_id(job_id)
    return JobHandle(open_connections(config or AsyncEndpointConfig(), session), job_id)


def list_jobs(limit: int = 20, config: AsyncEndpointConfig | None = None) -> list[JobStatus]:
    """Where the latest jobs of the fleet stand, newest first; their records are kept for 7 days."""
    return open_connections(config or AsyncEndpointConfig()).records.recent(limit)


class JobHandle:
    """Follows one job, from any process that has the configuration of the one that started it.

    :ivar job_id: what the job is called everywhere.
    """

    def __init__(self, connections: Connections, job_id: str) -> None:
        self.job_id = job_id
        self._connections = connections

    def status(self) -> JobStatus:
        """Where the job stands now.

        :raises JobNotFoundError: if there is no record of it.
        """
        return self._connections.records.status(self.job_id)

    def progress(self) -> Progress:
        """How many tiles are invoked, succeeded and failed so far, and how many features there are.

        :raises JobNotFoundError: if there is no record of the job.
        """
        return self.status().progress

    def cancel(self) -> bool:
        """End the job: nothing more is invoked, its capacity is given back, its objects are deleted.

        :return: whether that ended it; a job that is over stays as it is.
        :raises JobNotFoundError: if there is no record of it.
        """
        from osml_tasks.assembly import end_job

        if self.status().state.is_over:
            return False
        end_job(self._connections, self.job_id, JobState.CANCELLED, "its caller cancelled it")
        return self.status().state is JobState.CANCELLED

    def wait(
        self, timeout: float | None = None, on_status: Callable[[JobStatus], None] = lambda status: None
    ) -> JobStatus:
        """Wait until the job has ended and been cleaned up after, well or badly.

        :param timeout: s; default: as long as it takes.
        :param on_status: called every second, and at the end, with where the job stands.
        :raises JobTimeoutError: the time is up, or the job has not begun within ``job_queue_timeout``;
            the job itself goes on.
        :raises RedisError: the broker was away for more than ten minutes.
        :raises JobNotFoundError: there are no records of the job; those that get lost meanwhile have ten minutes
            to be restored.
        """
        began = queued = tell = time.monotonic()
        patience = Patience(f"job {self.job_id}")
        status: JobStatus | None = None
        while True:
            now = time.monotonic()
            if now >= tell or patience.ask(self._is_over):
                tell = now + _TELL_EVERY
                status = patience.ask(self.status)
                if status is not None:
                    on_status(status)
                    if status.finished is not None:
                        return status
            if timeout is not None and now - began > timeout:
                state = status.state if status else "unheard of"
                raise JobTimeoutError(f"job {self.job_id} is still {state} after {timeout:g} s; it goes on")
            if status is None or status.state is not JobState.QUEUED:
                queued = now
            self._check_queued(now - queued)
            time.sleep(_LOOK_EVERY if now - began < 30 else _LOOK_LATER_EVERY)

    def _is_over(self) -> bool:
        return self._connections.records.state(self.job_id).is_over

    def _check_queued(self, seconds: float) -> None:
        patience = self._connections.config.job_queue_timeout
        if seconds > patience:
            raise JobTimeoutError(
                f"job {self.job_id} has not begun in {patience:g} s (ASYNC_SM_JOB_QUEUE_TIMEOUT): {self._obstacle()}. "
                f"It waits on, and 'osml-tasks watch {self.job_id}' follows it"
            )

    def _obstacle(self) -> str:
        """What a job that is queued waits for, and what to do."""
        job, redis = self.status().job, state_client(self._connections.app)
        if self._connections.capacity.use(job.endpoint).parked.get(self.job_id):
            return f"other jobs have all of endpoint {job.endpoint!r}, wait or raise ASYNC_SM_MAX_CONCURRENT_JOBS"
        if count := Consumers(redis).counts()[SUBMIT_QUEUE]:
            return f"the workers on {SUBMIT_QUEUE} ({count}) are busy with other jobs, or hang: start more, or wait"
        return f"no worker is known to listen on {SUBMIT_QUEUE}: start one with 'osml-tasks worker'"

    def result(self) -> geojson.FeatureCollection:
        """The features of the job; waits for its end. Stays in S3 until :meth:`discard`, or the sweep of leftovers.

        :raises JobFailedError: the job could not go on.
        """
        self._wait_for_completion()
        return feature_collection(orjson.loads(self._connections.s3.get(self._result_uri()))["features"])

    def save_result(
        self, output: str | os.PathLike[str], *, file_format: str | None = None, images: Sequence[str] = ()
    ) -> None:
        """Write the job's features to a file or an ``s3://`` URI, in bounded memory; waits for the job's end.

        The ending says the format: ``.geojson`` and ``.json`` GeoJSON; ``.geojsonl``, ``.geojsonseq``, ``.ndjson`` and
        ``.jsonl`` one feature a line; and with the extra ``formats`` ``.fgb`` FlatGeobuf, ``.gpkg`` GeoPackage,
        ``.parquet`` and ``.geoparquet`` GeoParquet. A path with another ending is GeoJSON.

        :param output: what ends at a slash, or is a directory, gets a file for each image.
        :param file_format: ``geojson``, ``geojsonl``, ``fgb``, ``gpkg`` or ``parquet``; default: as the ending says.
        :param images: names of the job's images, for a file of each.
        :raises ExtensionConfigurationError: no such format, or what it takes is not installed.
        :raises JobFailedError: the job could not go on.
        :raises VectorFileError: the format cannot hold the features.
        :raises S3OperationError: the result cannot be read, or an object not be written.
        :raises OSError: the file cannot be written.
        """
        from osml_tasks.result_files.saving import save

        target = parse_target(os.fspath(output), file_format)
        target.check_extra()
        if target.per_image and not images:
            raise ExtensionConfigurationError(f"{target.name!r} is a directory: name a file")
        self._wait_for_completion()
        save(self._connections.s3, self._result_uri(), target, images)

    def report(self) -> dict[str, Any]:
        """The job's report as it stands now; complete with its failures once the job is over."""
        status = self.status()
        if status.state is JobState.COMPLETED and not status.fetched:
            try:
                text = self._connections.s3.get(self._connections.input_uri(status.job.report_key))
            except ObjectNotFoundError:
                return report_of(status, None)
            report: dict[str, Any] = orjson.loads(text)
            return report | {"finished": report_of(status, None)["finished"]}
        return report_of(status, None)

    def discard(self) -> None:
        """Say that the ended job's result is not needed any more: it goes with all else, as the cleanup policy says.

        :raises ExtensionRuntimeError: the job is still running.
        :raises NotAllowedError: it has other buckets, prefix or role than this process.
        """
        status = self.status()
        job = status.job
        if not status.state.is_over:
            raise ExtensionRuntimeError(f"job {self.job_id} is still {status.state}: wait for it, or cancel it, first")
        policy = self._connections.job(self.job_id).options.cleanup_policy
        if policy == CleanupPolicy.IMMEDIATE:
            delete_for_good(self._connections, job)
        elif policy == CleanupPolicy.DELAYED and self._connections.records.mark_fetched(self.job_id):
            schedule_cleanup(self._connections, job)

    def retry(self) -> int:
        """Try the failed tiles of the completed job again, merged into its result; :meth:`wait` for that as before.

        :return: how many tiles that are; 0 leaves the job as it is.
        :raises ExtensionConfigurationError: the job is not completed.
        :raises ExtensionRuntimeError: what it takes is not in S3 any more: it goes with :meth:`discard`.
        """
        from osml_tasks.retry import retry_job

        check_broker()
        return retry_job(self._connections, self.job_id)

    def resume(self, *, force: bool = False) -> Resumption:
        """Go on with the job after the broker has lost its messages or records, from what S3 still has.

        A retry that failed goes on, too.

        :param force: even if it seems to be at work; then some steps are done twice, to no harm.
        :raises JobNotFoundError: neither the broker nor S3 knows of it.
        :raises ExtensionConfigurationError: it is over, or seems to be at work.
        """
        from osml_tasks.resume import resume_job

        check_broker()
        return resume_job(self._connections, self.job_id, force=force)

    def _wait_for_completion(self) -> None:
        status = self.wait()
        if status.state is not JobState.COMPLETED:
            raise JobFailedError(f"job {self.job_id} {status.state}: {status.error or 'no reason is recorded'}")
        if status.fetched:
            raise JobFailedError(f"the result of job {self.job_id} was fetched and removed before")

    def _result_uri(self) -> S3Uri:
        return self._connections.input_uri(self.status().job.result_key)
