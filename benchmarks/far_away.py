"""One submit worker process while AWS is far away: each call takes so much longer."""

from __future__ import annotations

from benchmarks.arena import open_stage
from benchmarks.figures import Figures
from benchmarks.row import Row, at_least
from benchmarks.run import Ground, ready
from benchmarks.scale import Scale
from benchmarks.ways import OSML, OSML_ENVIRONMENT

DELAY = 0.060
"""What is added to every AWS call, s."""
SLOTS = 200
IN_FLIGHT = 1000
TILES_PER_SECOND = 100

SETTINGS = OSML_ENVIRONMENT | {
    "ASYNC_SM_MAX_CONCURRENT_JOBS": str(IN_FLIGHT),
    "ASYNC_SM_SUBMISSION_WORKERS": "1",
}


def measure(ground: Ground, scale: Scale) -> Figures:
    """Run osml-tasks with one submit process."""
    with (
        open_stage(ground.arena, ["far-away"], slots=SLOTS, latency=0.0, delay=DELAY) as stage,
        ready(ground, stage, OSML, SETTINGS) as runner,
    ):
        return runner.run(ground.tiles(scale.far), "far-away")


def rows(measured: Figures) -> list[Row]:
    """The figure with its bar. The last output stands for the last invocation: the model takes no time."""
    rate = measured.served_per_second
    text = f"{rate:.0f} ({measured.tiles:,} tiles, model without latency, max_concurrent_jobs {IN_FLIGHT:,})"
    figure = f"{1000 * DELAY:.0f} ms added to every AWS call: tiles/s of one submit process"
    return [at_least(figure, rate, TILES_PER_SECOND, text)]
