"""Measured runs of one way: workers started and warm, then run after run, each checked."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.arena import WARM_UP, Arena, Stage
from benchmarks.broker_watch import BrokerWatch
from benchmarks.client import ClientRun, run_client
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figures, Served
from benchmarks.processes import WorkerPeaks, cpu_seconds
from benchmarks.result import check_result
from benchmarks.tiles import Contents, find_tiles, link_tiles, make_contents
from benchmarks.ways import Way

SETTLE_SECONDS = 1.0
"""How long workers have after the client's end to finish what still counts, s."""
CLIENT_SECONDS = 200.0
CLIENT_SECONDS_A_TILE = 0.05
"""A client that takes longer than both together is killed, s."""


@dataclass
class Ground:
    """What all runs stand on: the arena, the contents of tiles, and a place for files.

    :ivar directories: made so far, by what was asked for.
    """

    arena: Arena
    contents: Contents
    scratch: Path
    directories: dict[tuple[int, bool], Path] = field(default_factory=dict)
    runs: int = 0

    @classmethod
    def lay(cls, arena: Arena, scratch: Path) -> Ground:
        """Make the tiles' contents."""
        return cls(arena, make_contents(arena.tile_root / "contents"), scratch)

    def tiles(self, count: int, *, only_small: bool = False) -> Path:
        """A directory of so many tiles, the same for every way."""
        asked = (count, only_small)
        if asked not in self.directories:
            name = f"{count}-small" if only_small else f"{count}"
            directory = self.arena.tile_root / name
            self.directories[asked] = link_tiles(directory, self.contents, count, only_small=only_small)
        return self.directories[asked]

    def new_directory(self, name: str) -> Path:
        """A directory of its own for a run's files."""
        self.runs += 1
        directory = self.scratch / f"{self.runs:03d}-{name}"
        directory.mkdir()
        return directory


@dataclass(frozen=True, slots=True)
class _Meter:
    """Counters at one moment; see :class:`Figures`."""

    worker_cpu: float
    server_cpu: float
    s3_requests: int
    control_requests: int
    busy: float
    counts: dict[str, int]

    @classmethod
    def read(cls, stage: Stage, endpoint: str, workers: list[int]) -> _Meter:
        stats = stage.stats(endpoint)
        counts = {name: int(stats[name]) for name in ("invocations", "s3_input", "succeeded")}
        return cls(
            cpu_seconds(workers),
            sum(stage.server_cpu_seconds().values()),
            stage.arena.store.requests(),
            stage.control_requests(),
            float(stats["busy_seconds"]),
            counts,
        )

    def counted_since(self, before: _Meter, name: str) -> int:
        """How many there were of what the endpoint counts."""
        return self.counts[name] - before.counts[name]


@dataclass(frozen=True)
class Runner:
    """One way whose workers are warm.

    :ivar workers: the roots of their process trees.
    :ivar env: of the clients.
    """

    ground: Ground
    stage: Stage
    way: Way
    workers: list[int]
    env: dict[str, str]

    def run(self, tiles: Path, endpoint: str) -> Figures:
        """Run a client over a directory of tiles.

        :raises BenchmarkError: a feature is missing, doubled or changed, or objects were left behind.
        """
        found = find_tiles(tiles)
        print(f"{datetime.now():%H:%M:%S} {self.way.title}: {len(found):,} tiles", file=sys.stderr, flush=True)
        before = _Meter.read(self.stage, endpoint, self.workers)
        with BrokerWatch(self.stage.arena.broker.url) as broker:
            client = self._client(tiles, endpoint, found, self.env)
            time.sleep(SETTLE_SECONDS)
        after = _Meter.read(self.stage, endpoint, self.workers)
        peaks = WorkerPeaks.read(self.workers)
        self._check_emptied()
        return _figures(len(found), before, after, client, peaks, broker.rise, self.stage.stats(endpoint))

    def warm_up(self) -> None:
        """Run over some tiles, so that connections are open and code is loaded."""
        tiles = self.ground.tiles(self.way.warm_up_tiles)
        self._client(tiles, WARM_UP, find_tiles(tiles), self.env | self.way.warm_up)
        self._check_emptied()
        time.sleep(SETTLE_SECONDS)

    def _client(self, tiles: Path, endpoint: str, found: list[Path], env: Mapping[str, str]) -> ClientRun:
        directory = self.ground.new_directory(endpoint)
        result = directory / "result.geojson"
        within = CLIENT_SECONDS + CLIENT_SECONDS_A_TILE * len(found)
        client = run_client(self.way.client(tiles, endpoint, result), env, directory / "client.log", within=within)
        check_result(result, found)
        result.unlink()
        return client

    def _check_emptied(self) -> None:
        if left := self.stage.arena.objects():
            raise BenchmarkError(f"{self.way.title} has left {left} objects in the buckets")


@contextmanager
def ready(ground: Ground, stage: Stage, way: Way, settings: Mapping[str, str] | None = None) -> Iterator[Runner]:
    """Empty buckets and broker, start the workers of a way, and have them warm.

    :param settings: variables in place of the way's own.
    """
    ground.arena.empty()
    env = stage.env | (way.environment if settings is None else dict(settings))
    with way.workers(env, ground.new_directory(f"{way.name}-workers")) as workers:
        runner = Runner(ground, stage, way, workers, env)
        runner.warm_up()
        yield runner


def _figures(
    tiles: int,
    before: _Meter,
    after: _Meter,
    client: ClientRun,
    peaks: WorkerPeaks,
    broker_peak: int,
    stats: dict[str, float],
) -> Figures:
    # The endpoint reads each input that is in S3 once and writes each output once.
    of_endpoint = after.counted_since(before, "s3_input") + after.counted_since(before, "succeeded")
    served = Served(
        invocations=after.counted_since(before, "invocations"),
        slots=int(stats["slots"]),
        busy=after.busy - before.busy,
        first_accepted=stats["first_accepted"],
        last_finished=stats["last_finished"],
    )
    return Figures(
        tiles=tiles,
        client=client,
        peaks=peaks,
        served=served,
        worker_cpu=after.worker_cpu - before.worker_cpu,
        server_cpu=after.server_cpu - before.server_cpu,
        s3_requests=after.s3_requests - before.s3_requests - of_endpoint,
        control_requests=after.control_requests - before.control_requests,
        broker_peak=broker_peak,
    )
