"""Tiles a second and CPU a tile of each way against the number of tiles: what the plot shows."""

from __future__ import annotations

from benchmarks.arena import open_stage
from benchmarks.figures import Figures
from benchmarks.run import Ground, ready
from benchmarks.ways import CHORD, ONE_BY_ONE, OSML, OSML_ENVIRONMENT, POLL_EACH, THREADS, THREADS_INLINE, Way

SLOTS = 64
LATENCY = 0.05
IN_FLIGHT = 1000
SIZES = (100, 300, 1000, 3000)
MOST = {ONE_BY_ONE.name: 300, CHORD.name: 1000}
"""Beyond so many tiles a way would take minutes."""

Curves = dict[str, list[Figures]]
"""The runs of each way by its title, by their number of tiles."""


def measure(ground: Ground) -> Curves:
    """Run every way over every number of tiles, but for :data:`MOST`; the endpoint is faster than any of them."""
    return {way.title: _curve(ground, way) for way in (ONE_BY_ONE, POLL_EACH, THREADS, THREADS_INLINE, CHORD, OSML)}


def _curve(ground: Ground, way: Way) -> list[Figures]:
    settings = OSML_ENVIRONMENT | {"ASYNC_SM_MAX_CONCURRENT_JOBS": str(IN_FLIGHT)} if way is OSML else None
    sizes = [size for size in SIZES if size <= MOST.get(way.name, size)]
    endpoints = {size: f"{way.name}-{size}" for size in sizes}
    with (
        open_stage(ground.arena, list(endpoints.values()), slots=SLOTS, latency=LATENCY) as stage,
        ready(ground, stage, way, settings) as runner,
    ):
        return [runner.run(ground.tiles(size), endpoint) for size, endpoint in endpoints.items()]
