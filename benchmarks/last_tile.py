"""From the last output to the finished result, with the default polling."""

from __future__ import annotations

from benchmarks.arena import open_stage
from benchmarks.figures import Figures
from benchmarks.row import Row, at_most
from benchmarks.run import Ground, ready
from benchmarks.scale import Scale
from benchmarks.ways import OSML

SLOTS = 8
LATENCY = 1.0
SECONDS = 3
MORE = 5
"""By how many tiles each job is longer than the one before."""


def measure(ground: Ground, scale: Scale) -> dict[str, list[Figures]]:
    """Run jobs at endpoints that are new to the fleet, each a second time, with no setting but the defaults."""
    endpoints = [f"end-{number}" for number in range(scale.last_runs)]
    with (
        open_stage(ground.arena, endpoints, slots=SLOTS, latency=LATENCY) as stage,
        ready(ground, stage, OSML, {}) as runner,
    ):
        # Of several lengths, so that the end does not always fall to the same moment between two polls.
        tiles = [ground.tiles(scale.last + MORE * number) for number in range(scale.last_runs)]
        pairs = [
            (runner.run(some, endpoint), runner.run(some, endpoint))
            for some, endpoint in zip(tiles, endpoints, strict=True)
        ]
    return {"new": [first for first, _ in pairs], "known": [second for _, second in pairs]}


def rows(measured: dict[str, list[Figures]]) -> list[Row]:
    """The figure with its bar: the worst run."""
    runs = [figures for kind in measured.values() for figures in kind]
    worst = max(figures.tail for figures in runs)
    each = ", ".join(f"{kind} endpoint {_seconds(of_kind)}" for kind, of_kind in measured.items())
    sizes = "/".join(str(size) for size in sorted({figures.tiles for figures in runs}))
    figure = f"Last output to the command's end, default polling, {sizes} tiles of {LATENCY:g} s, {SLOTS} slots"
    return [at_most(figure, worst, SECONDS, f"{worst:.1f} s, the worst of {len(runs)} ({each})", " s")]


def _seconds(runs: list[Figures]) -> str:
    return " and ".join(f"{figures.tail:.1f}" for figures in runs)
