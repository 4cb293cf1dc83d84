"""What the detect task does: start a job for an application that calls it by name, and answer with its report."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from osml_tasks.accounts import session_of
from osml_tasks.allowed_tiles import lies_under, readable_tile
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections
from osml_tasks.detection import NO_SECRETS, create_job, new_id
from osml_tasks.errors import (
    ExtensionConfigurationError,
    JobBusyError,
    JobNotFoundError,
    NotAllowedError,
    ObjectNotFoundError,
    SourceError,
)
from osml_tasks.glob_within import files_within
from osml_tasks.image_sources import plan_sources
from osml_tasks.imagery.options import IMAGE_OPTIONS, ImageOptions, image_options
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job, JobOptions, Shard
from osml_tasks.publishing import planned_shards
from osml_tasks.s3 import S3Uri
from osml_tasks.s3_settings import S3Settings
from osml_tasks.sources import SourceTile, find_tiles
from osml_tasks.submission import CLAIM_SECONDS

if TYPE_CHECKING:
    from osml_tasks.imagery.plan import ImagePlan

MOST_FAILURES = 1000
"""How many failed tiles a report has that is a task's result; the whole list is in S3."""

_LONGEST_OPTION = 100
_LONGEST_IMAGE_OPTIONS = 20_000


def called_job(
    connections: Connections, call: str, sources: str | list[str], endpoint: str, options: dict[str, Any]
) -> tuple[Job, list[Shard]]:
    """The job that a message asks for, created at most once however often the message comes; with no shards
    if it is over already.

    :param call: what tells this call from others: the id of its task.
    :raises ExtensionConfigurationError: an option is not a job's, or wrong.
    :raises NotAllowedError: a source is a path that workers may not read.
    :raises SourceError: a source does not exist, or is empty.
    :raises JobBusyError: another task is creating the job at this moment.
    """
    of_images = {name: options[name] for name in options.keys() & {*IMAGE_OPTIONS, "cut"}}
    own = {name: value for name, value in options.items() if name not in of_images}
    here = replace(connections, config=_configuration(connections.config, own))
    named = [sources] if isinstance(sources, str) else sources
    _check_sources(named, here.config)
    cut, asked = of_images.pop("cut", None), _image_options(of_images, here.config)
    job_id = here.claims.first(f"detect/{call}", new_id(here))
    claim, token = f"{job_id}/create", uuid4().hex
    if not here.claims.claim(claim, token, CLAIM_SECONDS):
        raise JobBusyError(f"job {job_id} is being created by another task")
    try:
        return _job_and_shards(here, job_id, named, endpoint, lambda tiles: _plan(here, named, tiles, asked, cut))
    finally:
        here.claims.unclaim(claim, token)


def _job_and_shards(
    here: Connections,
    job_id: str,
    sources: list[str],
    endpoint: str,
    plan: Callable[[list[SourceTile]], ImagePlan | None],
) -> tuple[Job, list[Shard]]:
    try:
        job = here.job(job_id)
        return job, [] if here.records.state(job_id).is_over else planned_shards(here, job)
    except (JobNotFoundError, ObjectNotFoundError) as error:
        if isinstance(error, ObjectNotFoundError) and here.records.state(job_id).is_over:
            return job, []
        tiles = _tiles_within_reach(sources, here.config)
        images = plan(tiles)
        cut = images.tiles if images else tiles
        return create_job(here, cut, endpoint, stage=False, images=images, job_id=job_id)


def _plan(
    here: Connections, sources: list[str], tiles: list[SourceTile], options: ImageOptions | None, cut: bool | None
) -> ImagePlan | None:
    return plan_sources(sources, tiles, options, lambda: here.image_tiles.reader, cut=cut, stage=False)


def _image_options(given: dict[str, Any], config: AsyncEndpointConfig) -> ImageOptions | None:
    """What a caller asks for with images; nothing of it is a file that this worker may not read.

    :raises ExtensionConfigurationError: a value is wrong.
    :raises NotAllowedError: it names a file that workers may not read.
    """
    if len(orjson.dumps(given)) > _LONGEST_IMAGE_OPTIONS:
        raise ExtensionConfigurationError(
            f"what is asked for with images has more than {_LONGEST_IMAGE_OPTIONS:,} bytes: shorten roi or properties"
        )
    try:
        options = image_options(**given)
    except (TypeError, ValueError, AttributeError) as error:
        raise ExtensionConfigurationError(f"an option of images is wrong: {error}") from None
    if options is not None and options.dem is not None:
        if options.dem.startswith("s3://"):
            _check_object(S3Uri.parse(options.dem), config)
        else:
            readable_tile(options.dem, config)
    if options is not None and options.roi is not None:
        from osml_tasks.imagery.roi import names_file

        if names_file(options.roi):
            raise NotAllowedError(f"roi {options.roi[:60]!r} names a file: give the region itself")
    return options


def _configuration(config: AsyncEndpointConfig, options: dict[str, Any]) -> AsyncEndpointConfig:
    """This worker's configuration, with what a job may choose for itself."""
    own = {field.name for field in fields(JobOptions)}
    for name in options.keys() - own:
        if any(word in name.lower() for word in ("credential", "secret", "token", "access_key")):
            raise ExtensionConfigurationError(f"{name}: {NO_SECRETS}")
        raise ExtensionConfigurationError(
            f"{name} is not an option of a job: choose among {', '.join(sorted(own | IMAGE_OPTIONS))}"
        )
    for name, value in options.items():
        if not isinstance(value, str | int | float | None) or len(str(value)) > _LONGEST_OPTION:
            raise ExtensionConfigurationError(f"{name} is no number and no short text")
    return AsyncEndpointConfig(**config.model_dump(exclude_unset=True) | options)


def _check_sources(sources: list[str], config: AsyncEndpointConfig) -> None:
    """Refuse sources outside of what workers may read by themselves, before anything is listed.

    :raises NotAllowedError: a path is under none of ``ASYNC_SM_TILE_ROOTS``, or an object under none of
        ``ASYNC_SM_TILE_BUCKETS``.
    """
    for source in sources:
        if source.startswith("s3://"):
            _check_object(S3Uri.parse(source), config)
        else:
            if ".." in Path(source).parts:
                raise NotAllowedError(f"{source!r} goes up a directory: name it without '..'")
            readable_tile(_listed_first(source), config)


def _listed_first(source: str) -> str:
    """What of a path is looked at first: of a glob, the directory above its first sign."""
    if not _is_glob(source):
        return source
    path = Path(source).absolute()
    return str(next(above for above in (*path.parents, path) if not glob.has_magic(str(above))))


def _is_glob(source: str) -> bool:
    return glob.has_magic(source) and not os.path.exists(source)  # noqa: PTH110 - which may raise


def _tiles_within_reach(sources: list[str], config: AsyncEndpointConfig) -> list[SourceTile]:
    """The tiles of sources, each of them one that workers may read."""
    named = [one for source in sources for one in _found(source, config)]
    tiles = find_tiles(named, session_of(config), S3Settings.of(config))
    for tile in tiles:
        if tile.path is not None:
            readable_tile(tile.path, config)
        elif tile.uri is not None:
            _check_object(tile.uri, config)
    return tiles


def _found(source: str, config: AsyncEndpointConfig) -> list[str]:
    """The files of a glob, none of them listed where workers may not read; what is no glob as it is."""
    if source.startswith("s3://") or not _is_glob(source):
        return [source]
    files = files_within(str(Path(source).absolute()), lambda folder: _check_folder(source, folder, config))
    if not files:
        raise SourceError(f"{source!r} has no tiles: the glob matches nothing")
    return files


def _check_folder(source: str, folder: str, config: AsyncEndpointConfig) -> None:
    try:
        readable_tile(folder, config)
    except NotAllowedError:
        # What was found on the way there is not the caller's to know.
        raise NotAllowedError(
            f"{source!r} leads out of ASYNC_SM_TILE_ROOTS: name what lies under one of them"
        ) from None


def _check_object(uri: S3Uri, config: AsyncEndpointConfig) -> None:
    """Refuse what a caller may not have this worker list, and an endpoint read."""
    # A prefix may be named without the slash at its end.
    if not (lies_under(uri, config.callable_locations) or f"{uri}/" in config.callable_locations):
        raise NotAllowedError(
            f"{str(uri)!r} is under none of {', '.join(config.callable_locations)}: "
            "name its bucket in the workers' ASYNC_SM_TILE_BUCKETS"
        )


def short_report(connections: Connections, job_id: str) -> dict[str, Any]:
    """The report of a job with its first failures, and how many are ``failures_left_out``."""
    report = JobHandle(connections, job_id).report()
    left_out = max(0, len(report["failures"]) - MOST_FAILURES)
    return report | {"failures": report["failures"][:MOST_FAILURES], "failures_left_out": left_out}
