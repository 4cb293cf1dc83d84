"""``osml-tasks local``: everything that AWS would provide, on this machine."""

from __future__ import annotations

import shlex
import threading
from contextlib import suppress
from pathlib import Path

import click

_COUNT = click.IntRange(1, 1000)


@click.command
@click.option("--endpoint", "-e", default="bright-objects", show_default=True, help="Name of the endpoint.")
@click.option(
    "--model",
    default="osml_tasks.local.model:find_bright_objects",
    show_default=True,
    help="module:function that takes bytes, or the URL of a container with /invocations and /ping.",
)
@click.option("--instances", default=1, show_default=True, type=_COUNT, help="Instances of the endpoint.")
@click.option(
    "--concurrency", default=4, show_default=True, type=_COUNT, help="Invocations an instance takes at a time."
)
@click.option(
    "--latency",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Seconds added to every invocation.",
)
@click.option("--workers/--no-workers", default=True, help="Whether to run workers as well.")
@click.option(
    "--tile-root",
    "tile_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory that workers may read tiles from; may be repeated. Default: the current directory.",
)
def command(
    endpoint: str,
    model: str,
    instances: int,
    concurrency: int,
    latency: float,
    workers: bool,
    tile_roots: tuple[Path, ...],
) -> int:
    """Run broker, S3 server, endpoint and workers until Ctrl-C; prints the exports for another shell."""
    from osml_tasks.local.stack import LocalStack, StackOptions

    options = StackOptions(
        endpoint_name=endpoint,
        model=model,
        instances=instances,
        concurrency=concurrency,
        latency=latency,
        workers=workers,
        tile_roots=tile_roots or (Path.cwd(),),
    )
    with suppress(KeyboardInterrupt), LocalStack(options) as stack:
        for name, value in sorted(stack.env.items()):
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo(f"# ready: osml-tasks detect DIR --endpoint {endpoint} -o out.geojson; Ctrl-C stops all of it")
        threading.Event().wait()
    return 0
