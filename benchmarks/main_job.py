"""``python -m benchmarks.main_job``: what the main job costs with osml-tasks, and with what one would write otherwise.

All ways do the same work on the same tiles against the same kind of endpoint, one after the other in one
run: local tiles in, one GeoJSON file out, nothing left in S3.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.arena import open_arena
from benchmarks.measure import BenchmarkError
from benchmarks.run import Figures, run_way
from benchmarks.tiles import make_tiles
from benchmarks.ways import CHORD, OSML, OSML_ENVIRONMENT, THREADS, THREADS_INLINE, WAYS, Way
from osml_tasks.errors import ExtensionError

WARM_UP_TILES = 32
QUICK_TILES = 200
PUBLISHING_SHARE = 1 / 5
SLOTS_BUSY = 0.9

_NOTES = """\
CPU: user and system, of the client (a process of its own, imports included) and of all worker processes
(warm: their start and a run of 32 tiles came before); not of endpoint, S3 server and broker, whose own
column is the same kind of work for every way. Requests: S3, counted by the S3 server, less what the endpoint
itself did; and invocations. Not in it: two questions to the control plane that osml-tasks asks a job.
Publish: CPU s / wall s of the client from the list of tiles to everything published. Slots busy: from the
first invocation to the last output / from the client's start. tiles/s: over the client's whole life."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that has to hold.

    :ivar binding: whether missing it fails the benchmark.
    """

    claim: str
    figures: str
    met: bool
    binding: bool = True


@click.command(context_settings={"show_default": True})
@click.option("--tiles", default=1000, help="How many tiles.")
@click.option("--slots", default=32, help="Invocations that the endpoint works on at a time.")
@click.option("--latency", default=1.0, help="Of the model, s.")
@click.option("--seed", default=1, help="Decides sizes and contents of the tiles.")
@click.option(
    "--quick",
    is_flag=True,
    help=f"{QUICK_TILES} tiles; bars are printed, and fail nothing: its last wave fills few slots.",
)
@click.option("--only", multiple=True, type=click.Choice([way.name for way in WAYS]), help="These ways alone, no bars.")
def command(tiles: int, slots: int, latency: float, seed: int, quick: bool, only: tuple[str, ...]) -> int:
    """Compare ways to do the main job; exits with 1 where a bar is missed or a run went wrong."""
    tiles = QUICK_TILES if quick else tiles
    ways = [way for way in WAYS if not only or way.name in only]
    console = Console(width=None if sys.stdout.isatty() else 140)
    results = _measure(ways, tiles=tiles, slots=slots, latency=latency, seed=seed)
    console.print(_table(results, f"{tiles} tiles of 140 kB on average, endpoint of {slots} slots x {latency:g} s"))
    console.print(_NOTES, style="dim", highlight=False, soft_wrap=True)
    console.print("osml-tasks ran with", " ".join(f"{name}={value}" for name, value in OSML_ENVIRONMENT.items()))
    if only:
        return 0
    bars = _bars(results)
    console.print(_bar_table(bars))
    return int(not quick and not all(bar.met for bar in bars if bar.binding))


def _measure(ways: Iterable[Way], *, tiles: int, slots: int, latency: float, seed: int) -> dict[str, Figures]:
    names = [way.name for way in ways]
    with tempfile.TemporaryDirectory(prefix="osml-benchmark-") as directory:
        scratch = Path(directory).resolve()
        make_tiles(scratch / "tiles" / "all", tiles, seed)
        make_tiles(scratch / "tiles" / "warm-up", WARM_UP_TILES, seed + 1)
        results = {}
        with open_arena(
            names, slots=slots, latency=latency, tile_root=scratch / "tiles", environment=OSML_ENVIRONMENT
        ) as arena:
            for way in ways:
                click.echo(f"running {way.title}", err=True)
                results[way.name] = run_way(
                    arena,
                    way,
                    tiles=scratch / "tiles" / "all",
                    warm_up_tiles=scratch / "tiles" / "warm-up",
                    scratch=scratch,
                )
    return results


def _table(results: dict[str, Figures], title: str) -> Table:
    table = Table(title=title)
    table.add_column("way", no_wrap=True)
    heads = (
        "tiles/s",
        "CPU ms/tile\nclient + workers",
        "AWS requests\na tile",
        "publish\nCPU s / wall s",
        "slots busy\n/ from start",
        "servers' CPU\nms/tile",
    )
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    titles = {way.name: way.title for way in WAYS}
    for name, figures in results.items():
        table.add_row(titles[name], *_cells(figures), style="bold" if name == OSML.name else None)
    return table


def _cells(figures: Figures) -> list[str]:
    publishing = figures.publishing
    return [
        f"{figures.tiles_per_second:.1f}",
        f"{figures.cpu_ms:.2f} = {figures.client_cpu_ms:.2f} + {figures.worker_cpu_ms:.2f}",
        f"{figures.requests:.2f}",
        f"{publishing.cpu:.2f} / {publishing.wall:.2f}" if publishing else "-",
        f"{figures.slots_busy:.1%} / {figures.slots_busy_from_start:.1%}",
        f"{figures.server_cpu_ms:.2f}",
    ]


def _bars(results: dict[str, Figures]) -> list[Bar]:
    ours = results[OSML.name]
    return [
        _cpu_bar("(b)", ours, results[THREADS.name], binding=True),
        _cpu_bar("(b2)", ours, results[THREADS_INLINE.name], binding=False),
        _publishing_bar(ours, results[CHORD.name]),
        Bar(f"slots busy >= {SLOTS_BUSY:.0%}", f"{ours.slots_busy:.1%}", ours.slots_busy >= SLOTS_BUSY),
    ]


def _cpu_bar(name: str, ours: Figures, theirs: Figures, *, binding: bool) -> Bar:
    ratio = ours.cpu_ms / theirs.cpu_ms
    figures = f"{ours.cpu_ms:.2f} ms against {theirs.cpu_ms:.2f} ms: {ratio:.2f} of it"
    return Bar(f"CPU a tile <= {name}", figures, ratio <= 1, binding)


def _publishing_bar(ours: Figures, theirs: Figures) -> Bar:
    if ours.publishing is None or theirs.publishing is None:
        raise BenchmarkError("a client has not said how long it took to publish")
    cpu = ours.publishing.cpu / theirs.publishing.cpu
    wall = ours.publishing.wall / theirs.publishing.wall
    return Bar("publishing <= 1/5 of (a)", f"CPU {cpu:.3f}, wall {wall:.3f} of it", max(cpu, wall) <= PUBLISHING_SHARE)


def _bar_table(bars: Iterable[Bar]) -> Table:
    table = Table("bar", "measured", "met")
    for bar in bars:
        table.add_row(bar.claim, bar.figures, ("yes" if bar.met else "no") + ("" if bar.binding else " (not binding)"))
    return table


def main() -> int:
    """Run the command line; says the exit status."""
    try:
        return int(command.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (BenchmarkError, ExtensionError) as error:
        click.echo(f"the benchmark failed: {error}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return 130


if __name__ == "__main__":
    sys.exit(main())
