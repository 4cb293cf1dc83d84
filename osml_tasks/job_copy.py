"""What of a job's records is in S3 as well, so that the loss of the broker is not the loss of the job."""

from __future__ import annotations

import logging
from dataclasses import asdict

import orjson

from osml_tasks.connections import Connections
from osml_tasks.errors import JobNotFoundError, NotAllowedError, ObjectNotFoundError, S3OperationError
from osml_tasks.jobs import RECORD_NAME, Job
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.records import OutputPaths

logger = logging.getLogger(__name__)


def write_job(connections: Connections, job: Job) -> None:
    """Put a copy of a job's record beside its manifest."""
    connections.s3.put(connections.input_uri(job.record_key), job.to_json())
    connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 1)


def read_job(connections: Connections, job_id: str) -> Job:
    """The copy of a job's record.

    :raises JobNotFoundError: there is none.
    :raises NotAllowedError: it is not this job's, or not for this process's buckets and prefix.
    """
    config = connections.config
    uri = connections.input_uri(f"{config.input_prefix}{job_id}/{RECORD_NAME}")
    try:
        job = Job.from_json(connections.s3.get(uri))
    except ObjectNotFoundError:
        raise JobNotFoundError(f"neither the broker nor S3 ({uri}) knows of job {job_id!r}: check the id") from None
    except (ValueError, KeyError, TypeError) as error:
        raise NotAllowedError(f"{uri} is not the record of a job ({error}): start the job again") from None
    connections.check_job(job)
    if job.job_id != job_id:
        raise NotAllowedError(f"{uri} is the record of job {job.job_id!r}: name that one")
    return job


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
