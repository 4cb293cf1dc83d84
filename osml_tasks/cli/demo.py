"""``osml-tasks demo``: ships in a harbour, found by the whole system on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from osml_tasks.cli.detect import run_job
from osml_tasks.cli.image_options import ImageRequest
from osml_tasks.cli.outcome import check_writable
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.merge_options import MergeOptions
from osml_tasks.imagery.options import ImageOptions
from osml_tasks.result_files.target import Target

if TYPE_CHECKING:
    from osml_tasks.local.harbour import Harbour

TILE_SIZE, OVERLAP = 512, 96
"""Of the tiles that the demonstration cuts, px; no ship is longer than the overlap."""
SCORE_THRESHOLD = 0.8
"""Roofs and piers are bright, too, and score less than ships."""
LATENCY_SECONDS = 0.3
"""What the demonstration's model adds to each tile, so that there is something to watch, s."""


@click.command
@click.option(
    "--output",
    "-o",
    default="harbour.geojson",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the GeoJSON goes; map and picture go beside it, ending in .html and .png.",
)
@click.option(
    "--ships", default=60, show_default=True, type=click.IntRange(0, 10_000), help="How many ships lie in the harbour."
)
@click.option(
    "--seed", default=7, show_default=True, type=click.IntRange(0, 2**32), help="Another number gives another harbour."
)
def command(output: Path, ships: int, seed: int) -> int:
    """Draw an image of a harbour with ships at known places, find them with a fleet on this machine, and count."""
    from osml_tasks.local.harbour import make_harbour
    from osml_tasks.local.session import local_session
    from osml_tasks.local.stack import StackOptions

    target = Target(str(output), output)
    request = ImageRequest(
        options=ImageOptions(Cutting(TILE_SIZE, OVERLAP), MergeOptions(score_threshold=SCORE_THRESHOLD)),
        map=output.with_suffix(".html"),
        preview=output.with_suffix(".png"),
    )
    check_writable(target, request.map, request.preview)
    with tempfile.TemporaryDirectory(prefix="osml-demo-") as directory:
        harbour = make_harbour(Path(directory), ships=ships, seed=seed)
        click.echo(f"an image of a harbour with {ships} ships")
        options = StackOptions(workers=True, latency=LATENCY_SECONDS, tile_roots=(Path(directory),))
        click.echo("starting Valkey, SeaweedFS, an asynchronous endpoint and Celery workers on this machine")
        with local_session(options):
            image = (str(harbour.image),)
            status = run_job(image, options.endpoint_name, output=target, stage=False, request=request)
        if status == 0:
            _say_score(harbour, output)
    return status


def _say_score(harbour: Harbour, output: Path) -> None:
    from osml_tasks.local.harbour import recall

    score = recall(harbour, orjson.loads(output.read_bytes())["features"])
    click.echo(
        f"{score.found} of {score.ships} known ships found, {score.false_alarms} false alarms: "
        f"precision {score.precision:.2f}, recall {score.recall:.2f}"
    )
