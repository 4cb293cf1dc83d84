"""The main job with osml-tasks, and with what one would write otherwise: CPU, requests, use of the endpoint.

All ways do the same work on the same tiles against the same kind of endpoint, one after the other: local tiles
in, one GeoJSON file out, nothing left in S3. ``python -m benchmarks.main_job`` runs this alone, with the
``ASYNC_SM_*`` variables of the caller.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import click
from rich.console import Console
from rich.table import Table

from benchmarks.arena import open_stage
from benchmarks.command import guarded, open_ground
from benchmarks.figures import Figures
from benchmarks.row import Row, at_least, at_most
from benchmarks.run import Ground, ready
from benchmarks.scale import FULL, Scale
from benchmarks.ways import OSML, OSML_ENVIRONMENT, THREADS, WAYS, Way

SLOTS = 40
LATENCY = 1.0
CPU_SHARE, CPU_AIM = 0.50, 0.33
BUSY = 0.95
REQUESTS, REQUESTS_SMALL = 2.6, 2.1

COLUMNS = (
    "way",
    "tiles/s",
    "CPU ms/tile: client + workers",
    "AWS requests/tile",
    "slots' time used",
    "servers' CPU ms/tile",
)


@dataclass(frozen=True, slots=True)
class MainJob:
    """What was measured.

    :ivar ways: by the title of the way.
    :ivar small: of osml-tasks where every tile is small.
    """

    ways: dict[str, Figures]
    small: Figures


def measure(ground: Ground, scale: Scale) -> MainJob:
    """Run all ways that are compared, and osml-tasks once more over small tiles."""
    small = "osml-tasks-small"
    endpoints = [*(way.name for way in scale.compared), small]
    figures = {}
    with open_stage(ground.arena, endpoints, slots=SLOTS, latency=LATENCY) as stage:
        for way in scale.compared:
            with ready(ground, stage, way) as runner:
                figures[way.title] = runner.run(ground.tiles(scale.main), way.name)
                if way is OSML:
                    of_small = runner.run(ground.tiles(scale.small, only_small=True), small)
    return MainJob(figures, of_small)


def rows(measured: MainJob) -> list[Row]:
    """The figures with their bars."""
    ours, bare = measured.ways[OSML.title], measured.ways[THREADS.title]
    small = measured.small
    share = ours.cpu_ms / bare.cpu_ms
    cpu = f"{share:.2f} of it: {ours.cpu_ms:.2f} ({ours.client_cpu_ms:.2f} of the client) against {bare.cpu_ms:.2f} ms"
    return [
        at_most(
            f"CPU a tile, {ours.tiles:,} tiles, against {THREADS.title}", share, CPU_SHARE, cpu, f", aim {CPU_AIM}"
        ),
        at_least(
            f"{ours.served.slots} slots x {LATENCY:g} s: their time used, from the command's start to the last output",
            100 * ours.slots_busy,
            100 * BUSY,
            f"{ours.slots_busy:.1%}",
            " %",
        ),
        at_most("AWS requests a tile, this mix", ours.requests, REQUESTS, _requests(ours)),
        at_most("AWS requests a tile, every tile small", small.requests, REQUESTS_SMALL, _requests(small)),
    ]


def _requests(figures: Figures) -> str:
    parts = (figures.s3_requests, figures.served.invocations, figures.control_requests)
    return f"{figures.requests:.2f} (S3 {parts[0]:,}, invocations {parts[1]:,}, control plane {parts[2]})"


def cells(title: str, figures: Figures) -> tuple[str, ...]:
    """One way as texts, in the order of the columns."""
    workers = figures.cpu_ms - figures.client_cpu_ms
    return (
        title,
        f"{figures.tiles_per_second:.1f}",
        f"{figures.client_cpu_ms:.2f} + {workers:.2f} = {figures.cpu_ms:.2f}",
        f"{figures.requests:.2f}",
        f"{figures.slots_busy:.1%}",
        f"{figures.server_cpu_ms:.2f}",
    )


@click.command(context_settings={"show_default": True})
@click.option("--tiles", default=1000, help="How many tiles.")
@click.option("--slots", default=32, help="Invocations that the endpoint works on at a time.")
@click.option("--latency", default=1.0, help="Of the model, s.")
@click.option("--only", multiple=True, type=click.Choice([way.name for way in WAYS]), help="These ways alone.")
def command(tiles: int, slots: int, latency: float, only: tuple[str, ...]) -> int:
    """Compare ways to do the main job; ASYNC_SM_* variables are those of osml-tasks."""
    ways = [way for way in WAYS if way.name in only] or list(FULL.compared)
    settings = OSML_ENVIRONMENT | {name: value for name, value in os.environ.items() if name.startswith("ASYNC_SM_")}
    table = Table(*COLUMNS, title=f"{tiles} tiles of 140 kB on average, endpoint of {slots} slots x {latency:g} s")
    with (
        open_ground() as ground,
        open_stage(ground.arena, [way.name for way in ways], slots=slots, latency=latency) as stage,
    ):
        for way in ways:
            with ready(ground, stage, way, _settings(way, settings)) as runner:
                table.add_row(*cells(way.title, runner.run(ground.tiles(tiles), way.name)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0


def _settings(way: Way, settings: Mapping[str, str]) -> Mapping[str, str]:
    return settings if way is OSML else way.environment


if __name__ == "__main__":
    sys.exit(guarded(command))
