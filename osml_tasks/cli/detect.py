"""``osml-tasks detect``: tiles in, one GeoJSON file out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osml_tasks.cli import EXIT_INTERRUPTED
from osml_tasks.cli.outcome import check_writable, finish, output_options
from osml_tasks.cli.progress import follow, show_staging
from osml_tasks.result_files.target import Target

if TYPE_CHECKING:
    from osml_tasks.job_handle import JobHandle
    from osml_tasks.sources import SourceTile


@click.command
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--endpoint", "-e", help="Name of the SageMaker endpoint; with --local the sample model's.")
@output_options(required=False)
@click.option("--wait/--no-wait", default=True, help="With --no-wait print the job's id and leave.")
@click.option("--stage/--no-stage", default=True, help="With --no-stage workers read the paths themselves.")
@click.option("--local", is_flag=True, help="Bring broker, S3, sample endpoint and workers up for this call.")
def command(
    sources: tuple[str, ...],
    endpoint: str | None,
    output: Target | None,
    report: Path | None,
    keep: bool,
    wait: bool,
    stage: bool,
    local: bool,
) -> int:
    """Send each SOURCE through an endpoint: a file, directory, glob, s3:// URI or s3:// prefix of tiles."""
    _check_options(endpoint, output, report, keep, wait, local)
    check_writable(output, report)
    if local:
        return _detect_locally(sources, endpoint, output, report, stage)
    if not wait:
        click.echo(_start(sources, str(endpoint), stage).job_id)
        return 0
    return run_job(sources, str(endpoint), output=output, report=report, stage=stage, keep=keep)


def run_job(
    sources: tuple[str, ...],
    endpoint: str,
    *,
    output: Target | None,
    report: Path | None = None,
    stage: bool = True,
    keep: bool = False,
) -> int:
    """Start a job, show its progress, fetch what it has made; says the exit status."""
    handle = _start(sources, endpoint, stage)
    try:
        return finish(handle, follow(handle), output, report, keep=keep)
    except KeyboardInterrupt:
        click.echo(
            f"osml-tasks: interrupted; job {handle.job_id} goes on. Come back to it with: "
            f"osml-tasks watch {handle.job_id}, or osml-tasks result {handle.job_id} -o OUT.geojson",
            err=True,
        )
        return EXIT_INTERRUPTED


def _check_options(
    endpoint: str | None, output: Target | None, report: Path | None, keep: bool, wait: bool, local: bool
) -> None:
    if not endpoint and not local:
        raise click.UsageError("no endpoint named: add --endpoint NAME, or --local for the sample model")
    if wait and output is None:
        raise click.UsageError("no output named: add -o OUT.geojson, or --no-wait to fetch the result later")
    if not wait and (output or report):
        raise click.UsageError("--no-wait writes no file: leave out -o and --report, and use 'osml-tasks result'")
    if keep and local:
        raise click.UsageError("--local ends with this call, so it cannot go with --keep: leave one of them out")
    if local and output is not None and not isinstance(output.place, Path):
        raise click.UsageError("--local has an S3 server of its own, which ends with this call: name a file with -o")
    if not wait and local:
        raise click.UsageError("--local ends with this call, so it cannot go with --no-wait: leave one of them out")


def _start(sources: tuple[str, ...], endpoint: str, stage: bool) -> JobHandle:
    """Check everything that can be checked before the first upload, then start the job."""
    from osml_tasks.accounts import session_of
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.connections import open_connections
    from osml_tasks.detection import start_job
    from osml_tasks.preflight import require
    from osml_tasks.s3 import S3Manager
    from osml_tasks.s3_settings import S3Settings
    from osml_tasks.sources import find_tiles

    config = AsyncEndpointConfig()
    session = session_of(config)
    tiles = find_tiles(sources, session)
    s3 = S3Manager(session, S3Settings.of(config))
    require(config, endpoint, session, s3)
    connections = open_connections(config, session, s3)
    with show_staging(_to_stage(tiles, stage)) as on_staged:
        return start_job(connections, tiles, endpoint, stage=stage, on_staged=on_staged)


def _to_stage(tiles: list[SourceTile], stage: bool) -> int:
    return sum(tile.path is not None for tile in tiles) if stage else 0


def _detect_locally(
    sources: tuple[str, ...], endpoint: str | None, output: Target | None, report: Path | None, stage: bool
) -> int:
    """The same on a stack that lives for this one job."""
    from osml_tasks.local.session import local_session
    from osml_tasks.local.stack import StackOptions
    from osml_tasks.sources import find_tiles

    # Before anything is started: a wrong source should not cost the time that takes.
    folders = {Path(tile.path).parent for tile in find_tiles(_on_this_machine(sources)) if tile.path is not None}
    options = StackOptions(workers=True, tile_roots=tuple(sorted(folders)))
    if endpoint:
        options = replace(options, endpoint_name=endpoint)
    click.echo("starting broker, S3 server, endpoint and workers on this machine", err=True)
    with local_session(options):
        handle = _start(sources, options.endpoint_name, stage)
        return finish(handle, follow(handle), output, report)


def _on_this_machine(sources: tuple[str, ...]) -> tuple[str, ...]:
    for source in sources:
        if source.startswith("s3://"):
            raise click.UsageError(f"{source!r} is not on this machine: --local has an S3 server of its own, and empty")
    return sources
