"""``docs/performance.md``: written by the benchmark, all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks import (
    far_away,
    growth,
    imagery_cog,
    imagery_cut,
    imagery_scene,
    large_job,
    last_tile,
    main_job,
    many_slots,
)
from benchmarks.growth import Curves
from benchmarks.machine import describe
from benchmarks.main_job import MainJob
from benchmarks.row import COLUMNS, Row, in_markdown
from benchmarks.scale import FULL
from benchmarks.tiles import FILES
from benchmarks.ways import OSML, OSML_ENVIRONMENT

NAME, PLOT = "performance.md", "performance.png"
TEMPLATE = Path(__file__).with_name("performance_template.md")


def write(directory: Path, rows: Iterable[Row], main: MainJob, curves: Curves) -> None:
    """Write the document and its plot into a directory."""
    # Only a whole run needs what draws.
    from benchmarks.plot import draw

    draw(curves, directory / PLOT)
    (directory / NAME).write_text(text(rows, main, curves, describe()))


def text(rows: Iterable[Row], main: MainJob, curves: Curves, machine: Iterable[str]) -> str:
    """The document.

    :param machine: on what it was measured, in lines.
    """
    return TEMPLATE.read_text().format(
        machine="\n".join(f"- {line}" for line in machine),
        figures=in_markdown(COLUMNS, (row.cells for row in rows)),
        tiles=f"{main.ways[OSML.title].tiles:,}",
        slots=main_job.SLOTS,
        latency=f"{main_job.LATENCY:g}",
        ways=in_markdown(main_job.COLUMNS, (main_job.cells(title, figures) for title, figures in main.ways.items())),
        plot_slots=growth.SLOTS,
        plot_latency=f"{growth.LATENCY:g}",
        plot=PLOT,
        curves=in_markdown(("tiles/s, CPU ms/tile", *(f"{size:,} tiles" for size in growth.SIZES)), _cells(curves)),
        files=FILES,
        warm_up=OSML.warm_up_tiles,
        settings=_settings(OSML_ENVIRONMENT),
        in_flight_large=large_job.IN_FLIGHT,
        in_flight_far=far_away.IN_FLIGHT,
        in_flight_many=many_slots.IN_FLIGHT,
        many_slots=many_slots.SLOTS,
        last_slots=last_tile.SLOTS,
        cut_times=imagery_cut.TIMES,
        cut_side=f"{FULL.cut_side:,}",
        cell=imagery_scene.CELL,
        cog_slots=imagery_cog.SLOTS,
        cog_settings=_settings(imagery_cog.SETTINGS),
        near=f"{imagery_cog.NEAR:g}",
    )


def _settings(variables: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in variables.items())


def _cells(curves: Curves) -> Iterable[list[str]]:
    for title, runs in curves.items():
        by_size = {run.tiles: f"{run.tiles_per_second:.0f}, {run.cpu_ms:.2f}" for run in runs}
        yield [title, *(by_size.get(size, "—") for size in growth.SIZES)]
