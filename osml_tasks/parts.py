"""The part of a finished shard: its features, one a line, and beside it the list of its failed tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from osml_tasks.connections import Connections
from osml_tasks.errors import ObjectNotFoundError, UnparsableOutputError
from osml_tasks.features import add_provenance, parse, to_lines
from osml_tasks.jobs import Job, Progress, Reason, Shard, Tile
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.metrics import AsyncMetricsTracker, Metric
from osml_tasks.polling import TileRecord
from osml_tasks.report import TileFailure
from osml_tasks.s3 import S3Object, S3Uri


def parts_there(connections: Connections, job: Job) -> dict[int, S3Object]:
    """The parts of a job that exist, by the number of their shard: that tells which shards are finished."""
    found = {one.uri.key: one for one in connections.s3.list(connections.input_uri(f"{job.prefix}parts/"))}
    keys = {shard: job.part_key(shard) for shard in range(job.shards)}
    return {shard: found[key] for shard, key in keys.items() if key in found}


def count_part(connections: Connections, job: Job, shard: Shard) -> Progress:
    """How a finished shard came out: its part has a feature a line, its list of failures a tile a line."""

    def lines(key: str) -> int:
        try:
            return sum(chunk.count(b"\n") for chunk in connections.s3.stream(connections.input_uri(key)))
        except ObjectNotFoundError:
            return 0

    features, failed = lines(job.part_key(shard.shard)), lines(job.failures_key(shard.shard))
    return Progress(shard.tiles, shard.tiles - failed, failed, features, 1)


def read_failures(connections: Connections, job: Job) -> Iterator[TileFailure]:
    """The failed tiles of a job, in their order: those of its last round, for it tries all those before again."""
    wanted = {job.failures_key(shard) for shard in job.latest_shards}
    there = connections.s3.list(connections.input_uri(f"{job.prefix}failures/"))
    lists = sorted((found.uri for found in there if found.uri.key in wanted), key=str)
    for text in connections.overlap(connections.s3.get, lists):
        yield from map(TileFailure.from_json, text.splitlines())


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What a shard's invocations have left in S3 so far, by tile index."""

    outputs: dict[int, S3Object]
    failures: dict[int, S3Object]


class PartWriter:
    """Writes the features and the failed tiles of a finished shard, tile after tile in bounded memory."""

    def __init__(self, connections: Connections, job: Job, shard: Shard, metrics: AsyncMetricsTracker) -> None:
        self._connections = connections
        self._job = job
        self._shard = shard
        self._metrics = metrics
        self._failures: list[TileFailure] = []
        self._features = 0

    def write(self, tiles: list[Tile], arrivals: Arrivals, records: dict[int, TileRecord]) -> Progress:
        """Write the part, last of all: that it exists says that the shard is finished.

        :raises WorkerStoppingError: this worker has no time for the rest; there is no part then.
        """
        self._note_failures(tiles, arrivals, records)
        with self._connections.s3.writer(self._uri(self._job.part_key(self._shard.shard))) as part:
            for lines in self._lines(tiles, arrivals, records):
                part.write(lines)
            self._write_failures()
        failed = len(self.failed)
        self._connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, 2 if failed else 1)
        return Progress(self._shard.tiles, self._shard.tiles - failed, failed, self._features, 1)

    @property
    def failed(self) -> frozenset[int]:
        """The failed tiles, once the part is written."""
        return frozenset(failure.index for failure in self._failures)

    def _note_failures(self, tiles: list[Tile], arrivals: Arrivals, records: dict[int, TileRecord]) -> None:
        for tile in tiles:
            if tile.index not in arrivals.outputs:
                record = records[tile.index]
                reason = record.reason or Reason.INPUT
                self._failures.append(TileFailure(tile.index, tile.name, reason, record.error, record.attempt))

    def _lines(self, tiles: list[Tile], arrivals: Arrivals, records: dict[int, TileRecord]) -> Iterator[bytes]:
        there = [tile for tile in tiles if tile.index in arrivals.outputs]
        found = [arrivals.outputs[tile.index] for tile in there]
        outputs = self._connections.overlap(self._download, (output.uri for output in found))
        for tile, output, body in zip(there, found, outputs, strict=True):
            self._connections.stop.check()
            try:
                features = parse(body)
            except UnparsableOutputError as error:
                attempt = records[tile.index].attempt
                self._failures.append(TileFailure(tile.index, tile.name, Reason.UNPARSABLE, str(error), attempt))
                continue
            add_provenance(features, job_id=self._job.job_id, tile=tile.name, inferred=output.last_modified)
            self._features += len(features)
            yield to_lines(features)

    def _download(self, uri: S3Uri) -> bytes:
        with self._metrics.timer(Metric.S3_DOWNLOAD_DURATION):
            body = self._connections.s3.get(uri)
        self._metrics.count(Metric.S3_DOWNLOAD_COUNT)
        self._metrics.count(Metric.S3_DOWNLOAD_SIZE, len(body))
        return body

    def _write_failures(self) -> None:
        """Before the part is complete, so that no part is without its failures."""
        if self._failures:
            failures = sorted(self._failures, key=lambda failure: failure.index)
            lines = b"".join(failure.to_json() for failure in failures)
            self._connections.s3.put(self._uri(self._job.failures_key(self._shard.shard)), lines)

    def _uri(self, key: str) -> S3Uri:
        return self._connections.input_uri(key)
