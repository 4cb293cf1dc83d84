"""``osml-tasks demo``: ships in a harbour, found by the whole system on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from osml_tasks.cli.detect import run_job
from osml_tasks.cli.outcome import check_writable
from osml_tasks.result_files.target import Target

if TYPE_CHECKING:
    from osml_tasks.local.harbour import Harbour

LATENCY_SECONDS = 0.3
"""What the demonstration's model adds to each tile, so that there is something to watch, s."""


@click.command
@click.option(
    "--output",
    "-o",
    default="harbour.geojson",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the GeoJSON goes.",
)
@click.option(
    "--ships", default=60, show_default=True, type=click.IntRange(0, 10_000), help="How many ships lie in the harbour."
)
@click.option(
    "--seed", default=7, show_default=True, type=click.IntRange(0, 2**32), help="Another number gives another harbour."
)
def command(output: Path, ships: int, seed: int) -> int:
    """Draw a harbour with ships at known places, send its tiles through a local fleet, and count what came back."""
    from osml_tasks.local.harbour import make_harbour
    from osml_tasks.local.session import local_session
    from osml_tasks.local.stack import StackOptions

    target = Target(str(output), output)
    check_writable(target)
    with tempfile.TemporaryDirectory(prefix="osml-demo-") as directory:
        harbour = make_harbour(Path(directory), ships=ships, seed=seed)
        click.echo(f"a harbour with {ships} ships, in {len(harbour.tiles)} tiles")
        options = StackOptions(workers=True, latency=LATENCY_SECONDS, tile_roots=(Path(directory),))
        click.echo("starting Valkey, SeaweedFS, an asynchronous endpoint and Celery workers on this machine")
        with local_session(options):
            tiles = str(Path(directory, "tiles"))
            status = run_job((tiles,), options.endpoint_name, output=target, stage=False)
        if status == 0:
            _say_score(harbour, output)
    return status


def _say_score(harbour: Harbour, output: Path) -> None:
    from osml_tasks.local.harbour import recall

    score = recall(harbour, orjson.loads(output.read_bytes())["features"])
    click.echo(f"{score.found} of {score.ships} known ships found, {score.false_alarms} false alarms")
