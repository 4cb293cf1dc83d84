"""What of a job's records is in S3 as well, so that the loss of the broker is not the loss of the job."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

import orjson

from osml_tasks.celery import state_address
from osml_tasks.connections import Connections
from osml_tasks.errors import JobNotFoundError, NotAllowedError, ObjectNotFoundError, S3OperationError
from osml_tasks.jobs import RECORD_NAME, Job, JobState
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.records import OutputPaths

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobCopy:
    """A job's record as it is in S3.

    :ivar fleet: where the fleet that works on it keeps its state: another one leaves it alone.
    :ivar ended: failed or cancelled, where objects of such a job are left; None else.
    """

    job: Job
    fleet: str
    ended: JobState | None


def write_job(connections: Connections, job: Job, ended: JobState | None = None) -> None:
    """Put a copy of a job's record beside its manifest."""
    copy = {"job": asdict(job), "fleet": state_address(connections.app), "ended": ended}
    connections.s3.put(connections.input_uri(job.record_key), orjson.dumps(copy))
    connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 1)


def read_job(connections: Connections, job_id: str) -> JobCopy:
    """The copy of a job's record.

    :raises JobNotFoundError: there is none.
    :raises NotAllowedError: it is not this job's, or not for this process's buckets and prefix.
    """
    config = connections.config
    uri = connections.input_uri(f"{config.input_prefix}{job_id}/{RECORD_NAME}")
    try:
        text = connections.s3.get(uri)
    except ObjectNotFoundError:
        raise JobNotFoundError(f"neither the broker nor S3 ({uri}) knows of job {job_id!r}: check the id") from None
    try:
        values = orjson.loads(text)
        ended = JobState(values["ended"]) if values["ended"] else None
        copy = JobCopy(Job.from_json(orjson.dumps(values["job"])), str(values["fleet"]), ended)
    except (ValueError, KeyError, TypeError) as error:
        raise NotAllowedError(f"{uri} is not the record of a job ({error}): start the job again") from None
    connections.check_job(copy.job)
    if copy.job.job_id != job_id:
        raise NotAllowedError(f"{uri} is the record of job {copy.job.job_id!r}: name that one")
    return copy


def note_end(connections: Connections, job: Job, state: JobState) -> None:
    """Have what is left of a job say that it failed or was cancelled: nobody is to go on with it by himself."""
    try:
        write_job(connections, job, state)
    except S3OperationError as error:
        logger.warning("the copy of job %s does not say that it %s: %s", job.job_id, state, error)


def write_paths(connections: Connections, job: Job, paths: OutputPaths) -> None:
    """Put down where the endpoint writes; without it, a resumed job invokes again what is not collected yet."""
    try:
        connections.s3.put(connections.input_uri(job.paths_key), orjson.dumps(asdict(paths)))
        connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 1)
    except S3OperationError as error:
        logger.warning("job %s goes on without a copy of its output paths: %s", job.job_id, error)


def read_paths(connections: Connections, job: Job) -> OutputPaths | None:
    """Where the endpoint writes, if an invocation of the job has shown it."""
    try:
        return OutputPaths(**orjson.loads(connections.s3.get(connections.input_uri(job.paths_key))))
    except (ObjectNotFoundError, ValueError, TypeError):
        return None
