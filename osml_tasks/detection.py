"""How a job starts: tiles in, a chord of submit → poll chains out, a handle to follow it by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from celery import chain, chord

from osml_tasks.accounts import session_of
from osml_tasks.celery import app, state_client
from osml_tasks.cleanup import delete_job
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.errors import ExtensionError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job, JobOptions, JobState, Shard, Tile, new_job_id, plan, shard_size
from osml_tasks.s3 import S3Uri
from osml_tasks.sources import SourceTile, find_tiles
from osml_tasks.tasks import assemble, poll, submit

if TYPE_CHECKING:
    import boto3


def detect(
    sources: str | Iterable[str],
    *,
    endpoint: str,
    config: AsyncEndpointConfig | None = None,
    stage: bool = True,
    session: boto3.Session | None = None,
) -> JobHandle:
    """Send tiles through an asynchronous endpoint, on the workers of the configured broker.

    :param sources: files, directories, globs, ``s3://`` URIs or prefixes; each file or object is a tile.
    :param endpoint: name of the SageMaker endpoint.
    :param config: default: from the environment.
    :param stage: whether local files are copied to S3 first. Without, workers read the paths
        themselves, under their ``ASYNC_SM_TILE_ROOTS``, and small tiles go inline.
    :param session: where AWS credentials come from, those that assume a configured role included;
        default: as boto3 finds them.
    :return: a handle of the job, which runs without this process from now on.
    :raises SourceError: a source does not exist, is empty or has a tile that is too large.
    :raises ExtensionConfigurationError: something the job needs is not configured.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    config = config or AsyncEndpointConfig()
    session = session_of(config, session)
    connections = open_connections(config, session)
    tiles = find_tiles(names, session)
    return start_job(connections, tiles, endpoint, stage=stage)


def open_connections(config: AsyncEndpointConfig, session: boto3.Session | None = None) -> Connections:
    """What a client talks to: the same as a worker, with the state where Celery's results are."""
    return connect(config, state_client(), session)


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
        publish_job(job, shards)
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
) -> tuple[Job, list[Shard]]:
    """Write down a job and its tiles, staged where they have to be; nothing works on it yet."""
    job = _job(connections, endpoint, len(sources))
    size = shard_size(job.tiles, job.options.max_concurrent_jobs)
    tiles = [_tile(job, index, source, index // size, stage) for index, source in enumerate(sources)]
    lines = [tile.to_json() for tile in tiles]
    connections.records.create(job)
    try:
        _stage(connections, sources, tiles, on_staged)
        connections.s3.put(connections.input_uri(job.manifest_key), b"".join(lines))
    except BaseException:
        _take_back(connections, job)
        raise
    return job, list(plan(job.job_id, lines, size))


def _job(connections: Connections, endpoint: str, tiles: int) -> Job:
    config = connections.config
    now = connections.records.now()
    return Job(
        job_id=new_job_id(now),
        endpoint=endpoint,
        tiles=tiles,
        shards=-(-tiles // shard_size(tiles, config.max_concurrent_jobs)),
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
    if stage:
        key = job.payload_key(shard, index, source.name)
        return Tile(index, str(S3Uri(job.input_bucket, key)), source.name)
    return Tile(index, str(source.path), source.name)


def _stage(
    connections: Connections,
    sources: Sequence[SourceTile],
    tiles: Sequence[Tile],
    on_staged: Callable[[int], None],
) -> None:
    """Copy local files to where their tiles say that they are."""
    to_copy = [
        (source.path, S3Uri.parse(tile.location))
        for source, tile in zip(sources, tiles, strict=True)
        if source.path is not None and tile.location.startswith("s3://")
    ]
    with closing(connections.overlap(lambda copy: connections.s3.put(copy[1], copy[0]), to_copy)) as copies:
        for staged, _ in enumerate(copies, start=1):
            on_staged(staged)


def publish_job(job: Job, shards: Sequence[Shard]) -> None:
    """Publish a job: a chain for each shard, linked by a chord to the assembly."""
    messages = [shard.to_message() for shard in shards]
    chains = [chain(submit.si(**message), poll.si(**message)) for message in messages]
    chord(chains, app=app)(assemble.si(job=job.job_id))


def _take_back(connections: Connections, job: Job) -> None:
    try:
        connections.records.end(job.job_id, JobState.CANCELLED, "the client stopped before the job had started")
        delete_job(connections, job, keep_result=False)
        connections.records.close(job.job_id, connections.records.now())
    except ExtensionError:
        # The failure that brought us here is the one to report; the sweep finds what is left.
        connections.records.schedule_cleanup(job.job_id, connections.records.now())
