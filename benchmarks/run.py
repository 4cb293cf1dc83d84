"""One measured run of one way: warm-up, run, check, figures."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.arena import WARM_UP, Arena
from benchmarks.measure import BenchmarkError, ClientRun, cpu_seconds, endpoint_stats, run_client
from benchmarks.model import FEATURES_PER_TILE
from benchmarks.publishing import VARIABLE, Publishing, read_publishing
from benchmarks.tiles import find_tiles
from benchmarks.ways import Way

SETTLE_SECONDS = 1.0
"""How long workers have after the client's end to finish what still counts, s."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way has cost.

    :ivar tiles_per_second: tiles over the client's life, its imports, result and cleanup included.
    :ivar client_cpu_ms: CPU milliseconds a tile of the client process, imports included.
    :ivar worker_cpu_ms: the same of all workers together, their start and warm-up excluded.
    :ivar server_cpu_ms: the same of endpoint, S3 server and broker: the work itself, not the way.
    :ivar requests: AWS requests a tile: S3 (without the endpoint's own) and invocations.
    :ivar publishing: of the client, None where nothing is published.
    :ivar slots_busy: share of the slots' time used, from first invocation to last output.
    :ivar slots_busy_from_start: the same from the client's start.
    """

    tiles_per_second: float
    client_cpu_ms: float
    worker_cpu_ms: float
    server_cpu_ms: float
    requests: float
    publishing: Publishing | None
    slots_busy: float
    slots_busy_from_start: float

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a tile over client and all workers."""
        return self.client_cpu_ms + self.worker_cpu_ms


@dataclass(frozen=True, slots=True)
class _Meter:
    """Counters at one moment; see :class:`Figures`."""

    worker_cpu: float
    server_cpu: float
    s3_requests: int

    @classmethod
    def read(cls, arena: Arena, workers: list[int]) -> _Meter:
        return cls(cpu_seconds(workers), arena.server_cpu_seconds(), arena.s3_requests())


def run_way(arena: Arena, way: Way, *, tiles: Path, warm_up_tiles: Path, scratch: Path) -> Figures:
    """Run one way over a directory of tiles on its own endpoint, workers warm and buckets empty.

    :raises BenchmarkError: a tile did not come back with all its features, or objects were left behind.
    """
    arena.empty()
    with way.workers(arena) as workers:
        _run_client(arena, way, warm_up_tiles, WARM_UP, scratch / f"{way.name}-warm-up", way.warm_up)
        _check_emptied(arena, way)
        time.sleep(SETTLE_SECONDS)
        before = _Meter.read(arena, workers)
        client, publishing = _run_client(arena, way, tiles, way.name, scratch / way.name, {})
        time.sleep(SETTLE_SECONDS)
        after = _Meter.read(arena, workers)
        _check_emptied(arena, way)
    return _figures(len(find_tiles(tiles)), before, after, client, publishing, arena, way)


def _run_client(
    arena: Arena, way: Way, tiles: Path, endpoint: str, directory: Path, variables: dict[str, str]
) -> tuple[ClientRun, Publishing | None]:
    directory.mkdir()
    result, took = directory / "result.geojson", directory / "publishing.json"
    env = arena.env | variables | {VARIABLE: str(took)}
    client = run_client(way.client(tiles, endpoint, result), env, directory / "client.log")
    _check_result(result, find_tiles(tiles))
    return client, read_publishing(took)


def _check_result(result: Path, tiles: list[Path]) -> None:
    features = orjson.loads(result.read_bytes())["features"]
    found = Counter(feature["properties"]["sourceMetadata"][0]["location"] for feature in features)
    wanted = {str(tile): FEATURES_PER_TILE for tile in tiles}
    wrong = [tile for tile in wanted.keys() | found.keys() if wanted.get(tile) != found.get(tile)]
    if wrong:
        raise BenchmarkError(f"{result}: {len(wrong)} tiles have not {FEATURES_PER_TILE} features, such as {wrong[0]}")


def _check_emptied(arena: Arena, way: Way) -> None:
    if left := arena.objects():
        raise BenchmarkError(f"{way.title} has left {left} objects in the buckets")


def _figures(
    tiles: int,
    before: _Meter,
    after: _Meter,
    client: ClientRun,
    publishing: Publishing | None,
    arena: Arena,
    way: Way,
) -> Figures:
    stats = endpoint_stats(arena.endpoint_url, way.name)
    # The endpoint reads each input that is in S3 once and writes each output once.
    of_endpoint = stats["s3_input"] + stats["succeeded"]
    requests = after.s3_requests - before.s3_requests - of_endpoint + stats["invocations"]
    slots, last, busy = stats["slots"], stats["last_finished"], stats["busy_seconds"]
    return Figures(
        tiles_per_second=tiles / client.wall,
        client_cpu_ms=1000 * client.cpu / tiles,
        worker_cpu_ms=1000 * (after.worker_cpu - before.worker_cpu) / tiles,
        server_cpu_ms=1000 * (after.server_cpu - before.server_cpu) / tiles,
        requests=requests / tiles,
        publishing=publishing,
        slots_busy=busy / (slots * (last - stats["first_accepted"])),
        slots_busy_from_start=busy / (slots * (last - client.started)),
    )
