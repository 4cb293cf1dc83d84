"""How a job starts: tiles in, messages out, a handle to follow it by."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from osml_tasks.accounts import session_of
from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy
from osml_tasks.connections import Connections, open_connections
from osml_tasks.errors import ExtensionConfigurationError, ExtensionError
from osml_tasks.job_cleanup import delete_job
from osml_tasks.job_copy import write_job
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job, JobOptions, JobState, Round, Shard, new_job_id, plan, shard_size
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.preflight import check_broker
from osml_tasks.publishing import publish_job
from osml_tasks.s3 import S3Uri
from osml_tasks.sources import Source, SourceTile, find_tiles
from osml_tasks.tile import Tile

if TYPE_CHECKING:
    import boto3

_SIGN_EVERY = 5.0

NO_SECRETS = (
    "credentials do not go into messages: name a role with assume_role_arn (ASYNC_SM_ASSUME_ROLE_ARN), "
    "for client and workers alike, and each assumes it by itself"
)


def detect(
    sources: Source | Iterable[Source],
    *,
    endpoint: str,
    config: AsyncEndpointConfig | None = None,
    stage: bool = True,
    session: boto3.Session | None = None,
    assumed_credentials: Mapping[str, Any] | None = None,
) -> JobHandle:
    """Send tiles through an asynchronous endpoint, on the workers of the configured broker.

    :param sources: files, directories, globs, ``s3://`` URIs or prefixes, each file or object a tile; bytes,
        which are one tile; or dictionaries with one of these as ``image_path``.
    :param endpoint: name of the SageMaker endpoint.
    :param config: default: from the environment.
    :param stage: whether local files are copied to S3 first. Without, workers read the paths
        themselves, under their ``ASYNC_SM_TILE_ROOTS``, and small tiles go inline.
    :param session: where AWS credentials come from, those that assume a configured role included;
        default: as boto3 finds them.
    :param assumed_credentials: refused; the detector takes them, a fleet is told of a role.
    :return: a handle of the job, which runs without this process from now on.
    :raises SourceError: a source does not exist, is empty or has a tile that is too large.
    :raises ExtensionConfigurationError: something the job needs is not configured, or does not answer.
    """
    if assumed_credentials is not None:
        raise ExtensionConfigurationError(NO_SECRETS)
    config = config or AsyncEndpointConfig()
    session = session_of(config, session)
    check_broker()
    connections = open_connections(config, session)
    one = isinstance(sources, str | bytes | os.PathLike | Mapping)
    tiles = find_tiles([sources] if one else sources, session)  # type: ignore[list-item, arg-type]
    return start_job(connections, tiles, endpoint, stage=stage)


def start_job(
    connections: Connections,
    sources: Sequence[SourceTile],
    endpoint: str,
    *,
    stage: bool = True,
    on_staged: Callable[[int], None] = lambda staged: None,
) -> JobHandle:
    """Make a job of some tiles and publish it; on any failure, take everything back.

    :param on_staged: called with the number of tiles staged so far.
    """
    job, shards = create_job(connections, sources, endpoint, stage=stage, on_staged=on_staged)
    try:
        publish_job(connections.app, job, shards)
    except BaseException:
        _take_back(connections, job)
        raise
    return JobHandle(connections, job.job_id)


def create_job(
    connections: Connections,
    sources: Sequence[SourceTile],
    endpoint: str,
    *,
    stage: bool,
    on_staged: Callable[[int], None] = lambda staged: None,
    job_id: str | None = None,
) -> tuple[Job, list[Shard]]:
    """Write down a job and its tiles, staged where they have to be; nothing works on it yet.

    :param job_id: default: a new one. One that is given may be created again, after an interruption.
    """
    job = _job(connections, endpoint, len(sources), job_id)
    size = job.rounds[0].shard_size
    tiles = [_tile(job, index, source, index // size, stage) for index, source in enumerate(sources)]
    lines = [tile.to_json() for tile in tiles]
    connections.records.create(job)
    try:
        _stage(connections, job, sources, tiles, on_staged)
        connections.s3.put(connections.input_uri(job.manifest_key), b"".join(lines))
        connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 1)
        write_job(connections, job)
        # The record may be lost over the staging, when the sweep had nothing yet to restore it from.
        connections.records.restore(job)
    except BaseException as error:
        if job_id is None and not isinstance(error, Exception):
            # Ctrl-C may come between a copy's start and its entry among those that are called off.
            connections.close()
        # A message that comes again goes on with the job that it began, if only its worker was stopped.
        if job_id is None or isinstance(error, Exception):
            _take_back(connections, job)
        raise
    return job, list(plan(job, lines))


def new_id(connections: Connections) -> str:
    """An id for a job of this configuration."""
    kept = connections.config.policy_in_force is CleanupPolicy.DISABLED
    return new_job_id(connections.records.now(), kept=kept)


def _job(connections: Connections, endpoint: str, tiles: int, job_id: str | None) -> Job:
    config = connections.config
    now = connections.records.now()
    return Job(
        job_id=job_id or new_id(connections),
        endpoint=endpoint,
        rounds=(Round(tiles, shard_size(tiles, config.max_concurrent_jobs)),),
        created=now,
        input_bucket=config.input_bucket,
        input_prefix=config.input_prefix,
        output_bucket=config.output_bucket,
        options=JobOptions.from_config(config),
        assume_role_arn=config.assume_role_arn,
    )


def _tile(job: Job, index: int, source: SourceTile, shard: int, stage: bool) -> Tile:
    if source.uri is not None:
        return Tile(index, str(source.uri), source.name)
    if stage or source.body is not None:
        key = job.payload_key(shard, index, source.name)
        return Tile(index, str(S3Uri(job.input_bucket, key)), source.name)
    return Tile(index, str(source.path), source.name)


def _stage(
    connections: Connections,
    job: Job,
    sources: Sequence[SourceTile],
    tiles: Sequence[Tile],
    on_staged: Callable[[int], None],
) -> None:
    """Copy local files, and what is in memory, to where their tiles say that they are."""
    to_copy = [
        (copied, S3Uri.parse(tile.location))
        for source, tile in zip(sources, tiles, strict=True)
        if (copied := source.body if source.path is None else Path(source.path)) is not None
        and tile.location.startswith("s3://")
    ]
    copies = connections.overlap(lambda copy: connections.s3.put(copy[1], copy[0]), to_copy)
    with _sign_of_life(connections, job), closing(copies):
        for staged, _ in enumerate(copies, start=1):
            on_staged(staged)
    connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, len(to_copy))


@contextmanager
def _sign_of_life(connections: Connections, job: Job) -> Iterator[None]:
    """Say every few seconds that this process lives: one copy may take minutes, and the sweep ends jobs of the dead."""
    is_over = Event()

    def go_on() -> None:
        while not is_over.wait(_SIGN_EVERY):
            with suppress(RedisError):
                connections.records.touch(job.job_id)

    signs = Thread(target=go_on, name="osml-signs", daemon=True)
    signs.start()
    try:
        yield
    finally:
        is_over.set()
        signs.join()


def _take_back(connections: Connections, job: Job) -> None:
    try:
        connections.records.end(job.job_id, JobState.CANCELLED, "the client stopped before the job had started")
        delete_job(connections, job)
        connections.records.close(job.job_id, connections.records.now())
    except ExtensionError:
        # The failure that brought us here is the one to report; the sweep finds what is left.
        connections.resources.ledger.schedule(ResourceType.JOB, {job.job_id: connections.records.now()})
