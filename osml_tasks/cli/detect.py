"""``osml-tasks detect``: tiles or images in, one GeoJSON file out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osml_tasks.cli import EXIT_INTERRUPTED
from osml_tasks.cli.image_options import ImageRequest, add_image_options, image_request
from osml_tasks.cli.outcome import check_writable, finish, output_options, refuse_directory
from osml_tasks.cli.progress import follow, show_staging
from osml_tasks.cli.views import Views
from osml_tasks.result_files.target import Target

if TYPE_CHECKING:
    import boto3

    from osml_tasks.imagery.plan import ImagePlan
    from osml_tasks.job_handle import JobHandle
    from osml_tasks.sources import SourceTile


@click.command
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--endpoint", "-e", help="Name of the SageMaker endpoint; with --local the sample model's.")
@output_options(required=False)
@click.option("--wait/--no-wait", default=True, help="With --no-wait print the job's id and leave.")
@click.option("--stage/--no-stage", default=True, help="With --no-stage workers read the paths themselves.")
@click.option("--local", is_flag=True, help="Bring broker, S3, sample endpoint and workers up for this call.")
@add_image_options
def command(
    sources: tuple[str, ...],
    endpoint: str | None,
    output: Target | None,
    report: Path | None,
    keep: bool,
    wait: bool,
    stage: bool,
    local: bool,
    **of_images: Any,
) -> int:
    """Send each SOURCE through an endpoint: a file, directory, glob, s3:// URI or s3:// prefix of tiles or images."""
    request = image_request(of_images)
    _check_options(endpoint, output, report, request, keep, wait, local)
    check_writable(output, report, request.map, request.preview_file, of_images=request.cut is not False)
    if local:
        return _detect_locally(sources, endpoint, output, report, stage, request)
    if not wait:
        click.echo(_start(_find_work(sources, request, stage), str(endpoint), stage).job_id)
        return 0
    return run_job(sources, str(endpoint), output=output, report=report, stage=stage, keep=keep, request=request)


def run_job(
    sources: tuple[str, ...],
    endpoint: str,
    *,
    output: Target | None,
    report: Path | None = None,
    stage: bool = True,
    keep: bool = False,
    request: ImageRequest | None = None,
) -> int:
    """Start a job, show its progress, fetch what it has made; says the exit status."""
    work = _find_work(sources, request or ImageRequest(), stage, output)
    return _run(work, endpoint, output, report, stage=stage, keep=keep)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done.

    :ivar session: where AWS credentials come from.
    :ivar images: what the tiles are windows of; None where they are sources themselves.
    :ivar views: what is written for people to look at.
    """

    tiles: list[SourceTile]
    session: boto3.Session
    images: ImagePlan | None
    views: Views | None

    def to_stage(self, stage: bool) -> int:
        """How many files are copied to S3 first."""
        return len({tile.path for tile in self.tiles} - {None}) if stage else 0


def _find_work(
    sources: tuple[str, ...],
    request: ImageRequest,
    stage: bool,
    output: Target | None = None,
    session: boto3.Session | None = None,
) -> _Work:
    """Everything that can be known of the sources before anything is started.

    :param session: of the stack that lives for this one call; default: as the environment says.
    """
    from osml_tasks.accounts import session_of
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.image_sources import client_images, plan_sources
    from osml_tasks.imagery.limits import Limits
    from osml_tasks.s3_settings import S3Settings
    from osml_tasks.sources import find_tiles

    settings = limits = None
    if session is None:
        config = AsyncEndpointConfig()
        session, settings, limits = session_of(config), S3Settings.of(config), Limits.by(config)
    reader = cache(partial(client_images, session, settings, limits))
    tiles = find_tiles(sources, session, settings)
    images = plan_sources(sources, tiles, request.options, reader, cut=request.cut, stage=stage)
    if images is None:
        refuse_directory(output)
        return _Work(tiles, session, None, None)
    for line in (*images.summary, *images.warnings):
        click.echo(f"osml-tasks: {line}", err=True)
    return _Work(images.tiles, session, images, Views.of(request, images, reader()))


def _run(
    work: _Work, endpoint: str, output: Target | None, report: Path | None, *, stage: bool, keep: bool = False
) -> int:
    handle = _start(work, endpoint, stage)
    try:
        return finish(handle, follow(handle), output, report, keep=keep, views=work.views)
    except KeyboardInterrupt:
        click.echo(
            f"osml-tasks: interrupted; job {handle.job_id} goes on. Come back to it with: "
            f"osml-tasks watch {handle.job_id}, or osml-tasks result {handle.job_id} -o OUT.geojson",
            err=True,
        )
        return EXIT_INTERRUPTED


def _check_options(
    endpoint: str | None,
    output: Target | None,
    report: Path | None,
    request: ImageRequest,
    keep: bool,
    wait: bool,
    local: bool,
) -> None:
    if not endpoint and not local:
        raise click.UsageError("no endpoint named: add --endpoint NAME, or --local for the sample model")
    if wait and output is None:
        raise click.UsageError("no output named: add -o OUT.geojson, or --no-wait to fetch the result later")
    if not wait and (output or report or request.map or request.preview):
        raise click.UsageError(
            "--no-wait writes no file: leave out -o, --report, --map and --preview, and use 'osml-tasks result'"
        )
    if keep and local:
        raise click.UsageError("--local ends with this call, so it cannot go with --keep: leave one of them out")
    if local and output is not None and not isinstance(output.place, Path):
        raise click.UsageError("--local has an S3 server of its own, which ends with this call: name a file with -o")
    if not wait and local:
        raise click.UsageError("--local ends with this call, so it cannot go with --no-wait: leave one of them out")


def _start(work: _Work, endpoint: str, stage: bool) -> JobHandle:
    """Check everything that can be checked before the first upload, then start the job."""
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.connections import open_connections
    from osml_tasks.detection import start_job
    from osml_tasks.preflight import require
    from osml_tasks.s3 import S3Manager
    from osml_tasks.s3_settings import S3Settings

    config = AsyncEndpointConfig()
    s3 = S3Manager(work.session, S3Settings.of(config))
    require(config, endpoint, work.session, s3, warn=lambda line: click.echo(f"osml-tasks: {line}", err=True))
    connections = open_connections(config, work.session, s3)
    with show_staging(work.to_stage(stage)) as on_staged:
        return start_job(connections, work.tiles, endpoint, stage=stage, images=work.images, on_staged=on_staged)


def _detect_locally(
    sources: tuple[str, ...],
    endpoint: str | None,
    output: Target | None,
    report: Path | None,
    stage: bool,
    request: ImageRequest,
) -> int:
    """The same on a stack that lives for this one job."""
    import boto3

    from osml_tasks.local.session import local_session
    from osml_tasks.local.stack import StackOptions

    # Before anything is started: a wrong source should not cost the time that takes.
    found = _find_work(_on_this_machine(sources), request, False, output, boto3.Session())
    dem = found.images.local_dem if found.images else None
    files = {tile.path for tile in found.tiles if tile.path is not None} | ({dem} if dem else set())
    folders = {Path(file).absolute().parent for file in files}
    options = StackOptions(workers=True, tile_roots=tuple(sorted(folders)))
    if endpoint:
        options = replace(options, endpoint_name=endpoint)
    click.echo("starting broker, S3 server, endpoint and workers on this machine", err=True)
    with local_session(options):
        # With credentials for that stack; and an image need not be copied to where its workers are.
        work = replace(found, session=boto3.Session())
        return _run(work, options.endpoint_name, output, report, stage=stage and found.images is None)


def _on_this_machine(sources: tuple[str, ...]) -> tuple[str, ...]:
    for source in sources:
        if source.startswith("s3://"):
            raise click.UsageError(f"{source!r} is not on this machine: --local has an S3 server of its own, and empty")
    return sources
