"""``python -m benchmarks``: every figure and its bar, side by side in one run on one machine."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import (
    document,
    far_away,
    growth,
    imagery_cog,
    imagery_cut,
    imagery_georeference,
    imagery_merge,
    large_job,
    last_tile,
    main_job,
    many_slots,
    start_up,
)
from benchmarks.command import guarded, open_ground
from benchmarks.errors import BenchmarkError
from benchmarks.row import Row, on_terminal
from benchmarks.run import Ground
from benchmarks.scale import FULL, QUICK, Scale

ROOM_BYTES = 25e9
"""What the large job may need of the disk: the S3 server gives back late what was deleted."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One arrangement that gives some of the rows.

    :ivar in_quick: whether a quick run has it, too.
    """

    name: str
    measure: Callable[[Ground, Scale], Any]
    rows: Callable[[Any], list[Row]]
    in_quick: bool = True


SCENARIOS = (
    Scenario("start-up", start_up.measure, start_up.rows),
    Scenario("main-job", main_job.measure, main_job.rows),
    Scenario("far-away", far_away.measure, far_away.rows),
    Scenario("last-tile", last_tile.measure, last_tile.rows),
    Scenario("many-slots", many_slots.measure, many_slots.rows),
    Scenario("large-job", large_job.measure, large_job.rows),
    Scenario("imagery-cut", imagery_cut.measure, imagery_cut.rows),
    Scenario("imagery-georeference", imagery_georeference.measure, imagery_georeference.rows),
    Scenario("imagery-merge", imagery_merge.measure, imagery_merge.rows, in_quick=False),
    Scenario("imagery-cog", imagery_cog.measure, imagery_cog.rows, in_quick=False),
)


@click.command()
@click.option("--quick", is_flag=True, help="Few tiles, two minutes, no plot; bars are shown and fail nothing.")
@click.option(
    "--only", multiple=True, type=click.Choice([one.name for one in SCENARIOS]), help="These scenarios alone."
)
@click.option("--write", type=click.Path(path_type=Path, file_okay=False), help="Where document and plot go.")
def command(quick: bool, only: tuple[str, ...], write: Path | None) -> int:
    """Measure all figures; exits with 1 where a bar is missed or a run went wrong."""
    if write and (quick or only):
        raise click.UsageError("--write is for a whole run: leave out --quick and --only")
    scenarios = [one for one in SCENARIOS if (one.name in only if only else one.in_quick or not quick)]
    scale = QUICK if quick else FULL
    began = time.monotonic()
    with open_ground() as ground:
        _check_room(ground.scratch, scale)
        measured = {one.name: _measure(one, ground, scale) for one in scenarios}
        curves = growth.measure(ground) if write else {}
    rows = [row for one in scenarios for row in one.rows(measured[one.name])]
    Console(width=None if sys.stdout.isatty() else 160).print(on_terminal(rows))
    click.echo(f"took {(time.monotonic() - began) / 60:.1f} min", err=True)
    if write:
        document.write(write, rows, measured["main-job"], curves)
    return int(not quick and not all(row.met for row in rows))


def _measure(scenario: Scenario, ground: Ground, scale: Scale) -> Any:
    click.echo(f"{datetime.now():%H:%M:%S} {scenario.name}", err=True)
    measured = scenario.measure(ground, scale)
    for row in scenario.rows(measured):
        click.echo(f"  {row.figure}: {row.measured} [{row.bar}: {row.cells[-1]}]", err=True)
    return measured


def _check_room(directory: Path, scale: Scale) -> None:
    free = shutil.disk_usage(directory).free
    if scale is FULL and free < ROOM_BYTES:
        raise BenchmarkError(f"{directory} has {free / 1e9:.0f} GB free, set TMPDIR to where there are 25 GB")


if __name__ == "__main__":
    sys.exit(guarded(command))
