"""How a job starts: tiles in, messages out, a handle to follow it by."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from osml_tasks.accounts import session_of
from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy
from osml_tasks.connections import Connections, open_connections
from osml_tasks.errors import ExtensionConfigurationError, ExtensionError, SourceError
from osml_tasks.image_sources import client_images, plan_sources
from osml_tasks.imagery.limits import Limits
from osml_tasks.imagery.options import image_options
from osml_tasks.job_cleanup import delete_job
from osml_tasks.job_copy import write_job
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job, JobOptions, JobState, Round, Shard, new_job_id, plan, shard_size
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.preflight import check_broker
from osml_tasks.publishing import publish_job
from osml_tasks.s3 import S3Uri
from osml_tasks.s3_settings import S3Settings
from osml_tasks.sources import Source, SourceTile, find_tiles
from osml_tasks.tile import Tile

if TYPE_CHECKING:
    import boto3

    from osml_tasks.imagery.plan import ImagePlan

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
    cut: bool | None = None,
    tile_size: int | None = None,
    overlap: int | None = None,
    tile_format: str | None = None,
    tile_compression: str | None = None,
    bands: Sequence[int] | None = None,
    stretch: tuple[float, float] | None = None,
    roi: str | None = None,
    height: float | None = None,
    dem: str | None = None,
    merge: str | None = None,
    iou: float | None = None,
    merge_on: str | None = None,
    score_threshold: float | None = None,
    properties: Mapping[str, Any] | None = None,
) -> JobHandle:
    """Send tiles, or images that workers cut into tiles, through an asynchronous endpoint.

    The workers are those of the configured broker. Sources are images where any option from ``tile_size`` on is
    given; or, without, where each is a file or object by itself that is larger than a tile of 1024 px.

    :param sources: files, directories, globs, ``s3://`` URIs or prefixes, each file or object a tile or an image;
        bytes, which are one tile; or dictionaries with one of these as ``image_path``.
    :param endpoint: name of the SageMaker endpoint.
    :param config: default: from the environment.
    :param stage: whether local files are copied to S3 first. Without, workers read the paths
        themselves, under their ``ASYNC_SM_TILE_ROOTS``, and small tiles go inline.
    :param session: where AWS credentials come from, those that assume a configured role included;
        default: as boto3 finds them.
    :param assumed_credentials: refused; the detector takes them, a fleet is told of a role.
    :param cut: True: sources are images; False: each is a tile and goes as it is. Default: see above.
    :param tile_size: width and height of tiles, px. Default 1024.
    :param overlap: what neighbouring tiles share at least, px. Default 50.
    :param tile_format: ``PNG`` (default), ``JPEG``, ``GTIFF`` or ``NITF``.
    :param tile_compression: ``NONE``, ``DEFLATE``, ``LZW``, ``ZSTD``, ``JPEG`` or ``J2K``, as the format can.
    :param bands: bands of the image that tiles have, from 1. Default: all.
    :param stretch: two percentiles of the image's pixels that become 0 and 255. Default: pixels stay as they are.
    :param roi: only tiles that meet it are cut: ``west,south,east,north``, WKT, GeoJSON or its file, in lon/lat.
    :param height: m above the ellipsoid, for images with RPCs.
    :param dem: a height model for these, a path or an ``s3://`` URI.
    :param merge: what becomes of what overlapping tiles saw twice: ``nms`` (default), ``soft-nms`` or ``none``.
    :param iou: from which overlap, 0 to 1, two features of one class are the same. Default 0.5.
    :param merge_on: whether that is measured on their ``polygon`` (default) or their ``box``.
    :param score_threshold: features whose best class scores less are left out. Default 0.
    :param properties: what every feature gets besides.
    :return: a handle of the job, which runs without this process from now on.
    :raises SourceError: a source does not exist, is empty, has a tile that is too large, or cannot be cut as asked.
    :raises ExtensionConfigurationError: something the job needs is not configured, or does not answer.
    """
    if assumed_credentials is not None:
        raise ExtensionConfigurationError(NO_SECRETS)
    options = image_options(
        tile_size=tile_size,
        overlap=overlap,
        tile_format=tile_format,
        tile_compression=tile_compression,
        bands=bands,
        stretch=stretch,
        roi=roi,
        height=height,
        dem=dem,
        merge=merge,
        iou=iou,
        merge_on=merge_on,
        score_threshold=score_threshold,
        properties=properties,
    )
    config = config or AsyncEndpointConfig()
    session = session_of(config, session)
    check_broker()
    connections = open_connections(config, session)
    one = isinstance(sources, str | bytes | os.PathLike | Mapping)
    named: list[Source] = [sources] if one else list(sources)  # type: ignore[list-item, arg-type]
    settings = S3Settings.of(config)
    tiles = find_tiles(named, session, settings)
    reader = partial(client_images, session, settings, Limits.by(config))
    images = plan_sources(named, tiles, options, reader, cut=cut, stage=stage)
    if images is None:
        return start_job(connections, tiles, endpoint, stage=stage)
    for warning in images.warnings:
        warnings.warn(warning, stacklevel=2)
    return start_job(connections, images.tiles, endpoint, stage=stage, images=images)


def start_job(
    connections: Connections,
    sources: Sequence[SourceTile],
    endpoint: str,
    *,
    stage: bool = True,
    images: ImagePlan | None = None,
    on_staged: Callable[[int], None] = lambda staged: None,
) -> JobHandle:
    """Make a job of some tiles and publish it; on any failure, take everything back.

    :param images: where the tiles are windows of images, what is known of these.
    :param on_staged: called with the number of tiles staged so far.
    """
    job, shards = create_job(connections, sources, endpoint, stage=stage, images=images, on_staged=on_staged)
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
    images: ImagePlan | None = None,
    on_staged: Callable[[int], None] = lambda staged: None,
    job_id: str | None = None,
) -> tuple[Job, list[Shard]]:
    """Write down a job and its tiles, staged where they have to be; nothing works on it yet.

    :param job_id: default: a new one. One that is given may be created again, after an interruption.
    """
    job = _job(connections, endpoint, len(sources), job_id, len(images.job.images) if images else 0)
    size = job.rounds[0].shard_size
    tiles = [_tile(job, index, source, index // size, stage) for index, source in enumerate(sources)]
    lines = [tile.to_json() for tile in tiles]
    connections.records.create(job)
    try:
        _stage(connections, job, _copies(job, sources, tiles, images if stage else None), on_staged)
        connections.s3.put(connections.input_uri(job.manifest_key), b"".join(lines))
        connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 1)
        if images is not None:
            _write_images(connections, job, images, stage)
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


def _job(connections: Connections, endpoint: str, tiles: int, job_id: str | None, images: int) -> Job:
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
        images=images,
    )


def _tile(job: Job, index: int, source: SourceTile, shard: int, stage: bool) -> Tile:
    location = source.location
    if source.uri is None and (stage or source.body is not None):
        key = job.payload_key(shard, index, source.name)
        if source.window is not None:
            key = job.image_key(source.image, str(source.path))
        location = str(S3Uri(job.input_bucket, key))
    return Tile(index, location, source.name, source.window, source.image)


def _copies(
    job: Job, sources: Sequence[SourceTile], tiles: Sequence[Tile], staged: ImagePlan | None
) -> dict[str, Path | bytes]:
    """What is to be copied, local files and what is in memory, by where its tiles say that it is.

    :param staged: where a height model is copied with the images, what they are.
    """
    copies: dict[str, Path | bytes] = {}
    for source, tile in zip(sources, tiles, strict=True):
        if source.uri is None and tile.location.startswith("s3://") and tile.location not in copies:
            copies[tile.location] = Path(source.path) if source.path else source.body or b""
    if staged is not None and staged.local_dem is not None:
        copies[str(S3Uri(job.input_bucket, job.dem_key(staged.local_dem)))] = Path(staged.local_dem)
    return copies


def _stage(
    connections: Connections,
    job: Job,
    to_copy: Mapping[str, Path | bytes],
    on_staged: Callable[[int], None],
) -> None:
    """Copy what has to be in S3 to there."""
    copies = connections.overlap(lambda copy: _copy(connections, S3Uri.parse(copy[0]), copy[1]), to_copy.items())
    with _sign_of_life(connections, job), closing(copies):
        for staged, _ in enumerate(copies, start=1):
            on_staged(staged)
    connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, len(to_copy))


def _copy(connections: Connections, uri: S3Uri, body: Path | bytes) -> None:
    if isinstance(body, Path) and body.exists() and not body.is_file():
        # A pipe, say: it could be read for ever.
        raise SourceError(f"{str(body)!r} is not a file any more: leave the sources alone while they are staged")
    connections.s3.put(uri, body)


def _write_images(connections: Connections, job: Job, plan: ImagePlan, stage: bool) -> None:
    known = plan.job
    if stage and plan.local_dem is not None:
        known = known.with_dem(str(S3Uri(job.input_bucket, job.dem_key(plan.local_dem))))
    connections.s3.put(connections.input_uri(job.images_key), known.to_json())
    connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 1)


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
