"""A job of 100,000 tiles beside one of 1,000: what grows, and what must not."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.arena import open_stage
from benchmarks.figures import Figures
from benchmarks.model import FEATURES_PER_TILE
from benchmarks.row import Row, at_most
from benchmarks.run import Ground, ready
from benchmarks.scale import Scale
from benchmarks.ways import OSML, OSML_ENVIRONMENT

SLOTS = 64
IN_FLIGHT = 1000
SETTINGS = OSML_ENVIRONMENT | {"ASYNC_SM_MAX_CONCURRENT_JOBS": str(IN_FLIGHT)}

PUBLISH_MS = 0.3
BROKER_BYTES = 300
CLIENT_MB, WORKER_MB, ASSEMBLY_MB = 200, 200, 300
GROWTH = 1.2


@dataclass(frozen=True, slots=True)
class LargeJob:
    """What was measured, both with the same workers and settings.

    :ivar base: the small job, which ran first.
    """

    base: Figures
    large: Figures

    @property
    def growth(self) -> float:
        """CPU a tile of the large job over that of the small one, of client and workers together."""
        return self.large.cpu_ms / self.base.cpu_ms

    @property
    def worker_growth(self) -> float:
        """The same of the workers alone: a client's start, which many tiles share, cannot hide there what grows."""
        return (self.large.worker_cpu / self.large.tiles) / (self.base.worker_cpu / self.base.tiles)


def measure(ground: Ground, scale: Scale) -> LargeJob:
    """Run the small job, then the large one."""
    with (
        open_stage(ground.arena, ["base", "large"], slots=SLOTS, latency=0.0) as stage,
        ready(ground, stage, OSML, SETTINGS) as runner,
    ):
        return LargeJob(
            base=runner.run(ground.tiles(scale.base), "base"),
            large=runner.run(ground.tiles(scale.large), "large"),
        )


def rows(measured: LargeJob) -> list[Row]:
    """The figures with their bars."""
    large, base = measured.large, measured.base
    size = f"{large.tiles:,} tiles"
    publish_ms = 1000 * (large.client.publish_cpu or float("inf")) / large.tiles
    broker = large.broker_peak / large.tiles
    growth = max(measured.growth, measured.worker_growth)
    growth_text = (
        f"{growth:.2f}, the larger of {measured.growth:.2f} = {large.cpu_ms:.2f} / {base.cpu_ms:.2f} ms and, workers "
        f"alone, {measured.worker_growth:.2f}; model without latency, {large.tiles_per_second:.0f} tiles/s"
    )
    node, peak = large.peaks.largest_other
    return [
        at_most(
            f"{size}: client's CPU until all is published, a tile",
            publish_ms,
            PUBLISH_MS,
            f"{publish_ms:.3f} ms (imports, checks and the search for tiles in it)",
            " ms",
        ),
        at_most(f"{size}: broker's memory a tile, peak", broker, BROKER_BYTES, f"{broker:.0f} bytes", " bytes"),
        _memory(
            f"{size}, {large.tiles * FEATURES_PER_TILE:,} features: peak RSS of the client",
            large.client.peak,
            CLIENT_MB,
        ),
        _memory(f"{size}: peak RSS of any other worker", peak, WORKER_MB, f" ({node})"),
        _memory(f"{size}: peak RSS of the assembling worker", large.peaks.assembling, ASSEMBLY_MB),
        at_most(f"CPU a tile at {size} over that at {base.tiles:,}", growth, GROWTH, growth_text),
    ]


def _memory(figure: str, peak: int, bar: float, whose: str = "") -> Row:
    return at_most(figure, peak / 1e6, bar, f"{peak / 1e6:.0f} MB{whose}", " MB")
