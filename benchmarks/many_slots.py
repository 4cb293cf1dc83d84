"""Many slots against one tile after the other."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.arena import open_stage
from benchmarks.figures import Figures
from benchmarks.row import Row, at_least
from benchmarks.run import Ground, ready
from benchmarks.scale import Scale
from benchmarks.ways import ONE_BY_ONE, OSML, OSML_ENVIRONMENT

SLOTS = 64
LATENCY = 1.0
IN_FLIGHT = 400
TIMES = 55


@dataclass(frozen=True, slots=True)
class ManySlots:
    """What was measured.

    :ivar one_by_one: the detector, one tile after the other.
    :ivar ours: osml-tasks over all slots.
    """

    one_by_one: Figures
    ours: Figures

    @property
    def times(self) -> float:
        """How many times as fast: the whole life of the command against the detector without its start."""
        return self.ours.tiles_per_second / self.one_by_one.served_per_second


def measure(ground: Ground, scale: Scale) -> ManySlots:
    """Run the detector, then osml-tasks."""
    settings = OSML_ENVIRONMENT | {"ASYNC_SM_MAX_CONCURRENT_JOBS": str(IN_FLIGHT)}
    with open_stage(ground.arena, ["one-by-one", "many"], slots=SLOTS, latency=LATENCY) as stage:
        with ready(ground, stage, ONE_BY_ONE) as runner:
            one_by_one = runner.run(ground.tiles(scale.one_by_one), "one-by-one")
        with ready(ground, stage, OSML, settings) as runner:
            return ManySlots(one_by_one, runner.run(ground.tiles(scale.many), "many"))


def rows(measured: ManySlots) -> list[Row]:
    """The figure with its bar."""
    ours, theirs = measured.ours, measured.one_by_one
    text = (
        f"{measured.times:.1f} times: {ours.tiles_per_second:.1f} tiles/s over the whole life of a job of "
        f"{ours.tiles:,} tiles, {theirs.served_per_second:.2f} of the detector, which looks every 0.1 s"
    )
    figure = f"Tiles/s against one after the other, {LATENCY:g} s a tile, {SLOTS} slots"
    return [at_least(figure, measured.times, TIMES, text, " times")]
