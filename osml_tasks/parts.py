"""The part of a finished shard: its features, one a line, and beside it the list of its failed tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from osml_tasks.connections import Connections
from osml_tasks.errors import (
    NotAllowedError,
    ObjectNotFoundError,
    SourceError,
    UnparsableOutputError,
    library_errors,
)
from osml_tasks.features import Feature, add_provenance, check_size, parse, source_of, to_lines
from osml_tasks.jobs import Job, Progress, Reason, Shard
from osml_tasks.large_output import parse_in_turns
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.losses import Attempt
from osml_tasks.metrics import AsyncMetricsTracker, Metric
from osml_tasks.polling import TileRecord
from osml_tasks.report import TileFailure
from osml_tasks.s3 import S3Object, S3Uri
from osml_tasks.tile import Tile

_READ_AHEAD_BYTES = 8 * 1024 * 1024
_PARTS_AHEAD = 4


def parts_there(connections: Connections, job: Job) -> dict[int, S3Object]:
    """The parts of a job that exist, by the number of their shard: that tells which shards are finished."""
    found = {one.uri.key: one for one in connections.s3.list(connections.input_uri(f"{job.prefix}parts/"))}
    keys = {shard: job.part_key(shard) for shard in range(job.shards)}
    return {shard: found[key] for shard, key in keys.items() if key in found}


def read_parts(connections: Connections, objects: list[S3Object]) -> Iterator[bytes]:
    """The contents of objects one after the other: small ones fetched ahead, large ones in pieces."""

    def read(found: S3Object) -> bytes | None:
        return connections.s3.get(found) if found.size <= _READ_AHEAD_BYTES else None

    for found, body in zip(objects, connections.overlap(read, objects, _PARTS_AHEAD), strict=True):
        if body is None:
            yield from connections.s3.stream(found)
        else:
            yield body


def count_part(connections: Connections, job: Job, shard: Shard) -> Progress:
    """How a finished shard came out: its part has a feature a line, its list of failures a tile a line.

    Failed tiles of an earlier round than the last do not count: they were tried again.
    """

    def lines(key: str) -> int:
        try:
            return sum(chunk.count(b"\n") for chunk in connections.s3.stream(connections.input_uri(key)))
        except ObjectNotFoundError:
            return 0

    features, failed = lines(job.part_key(shard.shard)), lines(job.failures_key(shard.shard))
    counts = Progress(shard.tiles, shard.tiles - failed, failed, features, 1)
    return counts if shard.shard in job.latest_shards else counts.forgiven


def read_failures(connections: Connections, job: Job) -> Iterator[TileFailure]:
    """The failed tiles of a job, in their order: those of its last round, for it tries all those before again.

    :raises S3OperationError: a shard's list is not to be had.
    """
    keys = [job.failures_key(shard) for shard in _shards_with_failures(connections, job)]
    for text in connections.overlap(connections.s3.get, map(connections.input_uri, keys)):
        yield from map(TileFailure.from_json, text.splitlines())


def skipped_tiles(connections: Connections, job: Job) -> Counter[int]:
    """How many tiles of each image of a job had nothing in them, by the image's number."""
    listed = [found.uri for found in connections.s3.list(connections.input_uri(f"{job.prefix}skipped/"))]
    texts = connections.overlap(connections.s3.get, listed)
    return Counter(Tile.from_json(line).image for text in texts for line in text.splitlines())


def failed_tiles(connections: Connections, job: Job) -> dict[int, int]:
    """How many tiles of each shard of the last round have failed, as far as S3 still tells."""
    keys = {job.failures_key(shard): shard for shard in job.latest_shards}
    listed = connections.s3.list(connections.input_uri(f"{job.prefix}failures/"))
    there = [found for found in listed if found.uri.key in keys]
    texts = connections.overlap(connections.s3.get, there)
    return {keys[found.uri.key]: text.count(b"\n") for found, text in zip(there, texts, strict=True)}


def _shards_with_failures(connections: Connections, job: Job) -> list[int]:
    """Which shards of the last round have failed tiles: their progress tells, and a listing where that is lost."""
    progress = connections.records.progress_of_shards(job.job_id)
    told = {shard: done.failed > 0 for shard, done in progress.items() if done.shards_finished}
    if told.keys() >= set(job.latest_shards):
        return [shard for shard in job.latest_shards if told[shard]]
    listed = {found.uri.key for found in connections.s3.list(connections.input_uri(f"{job.prefix}failures/"))}
    return [shard for shard in job.latest_shards if told.get(shard, job.failures_key(shard) in listed)]


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
        self._skipped: list[Tile] = []
        self._features = 0

    def write(
        self, tiles: list[Tile], arrivals: Arrivals, records: dict[int, TileRecord], attempt: Attempt
    ) -> Progress:
        """Write the part, last of all: that it exists says that the shard is finished.

        :param attempt: which one this is, and at which tiles earlier ones were lost.
        :raises WorkerStoppingError: this worker has no time for the rest; there is no part then.
        """
        self._note_failures(tiles, arrivals, records)
        with self._connections.s3.writer(self._uri(self._job.part_key(self._shard.shard))) as part:
            for lines in self._lines(tiles, arrivals, records, attempt):
                part.write(lines)
            self._write_failures(records)
            self._write_skipped()
        failed = len(self.failed)
        objects = 1 + bool(failed) + bool(self._skipped)
        self._connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, objects)
        return Progress(self._shard.tiles, self._shard.tiles - failed, failed, self._features, 1)

    @property
    def failed(self) -> frozenset[int]:
        """The failed tiles, once the part is written."""
        return frozenset(failure.index for failure in self._failures)

    def _note_failures(self, tiles: list[Tile], arrivals: Arrivals, records: dict[int, TileRecord]) -> None:
        for tile in tiles:
            if tile.index not in arrivals.outputs:
                record = records[tile.index]
                if record.skipped:
                    self._skipped.append(tile)
                    continue
                reason = record.reason or Reason.INPUT
                self._failures.append(TileFailure(tile.index, tile.name, reason, record.error, record.attempt))

    def _lines(
        self, tiles: list[Tile], arrivals: Arrivals, records: dict[int, TileRecord], attempt: Attempt
    ) -> Iterator[bytes]:
        there = [tile for tile in tiles if tile.index in arrivals.outputs]
        outputs = [arrivals.outputs[tile.index] for tile in there]
        small = self._connections.overlap(self._download_small, outputs)
        for tile, output, body in zip(there, outputs, small, strict=True):
            try:
                with attempt.at_tile(tile.index) if attempt.is_careful else nullcontext("") as lost:
                    if lost:
                        raise UnparsableOutputError(lost)
                    yield from self._lines_of_tile(tile, output, body)
            except (UnparsableOutputError, SourceError, NotAllowedError) as error:
                # The model's output; or a height model, without which it has no place.
                reason = Reason.UNPARSABLE if isinstance(error, UnparsableOutputError) else Reason.INPUT
                attempts = records[tile.index].attempt
                self._failures.append(TileFailure(tile.index, tile.name, reason, str(error), attempts))

    def _lines_of_tile(self, tile: Tile, output: S3Object, body: bytes | None) -> Iterator[bytes]:
        self._connections.stop.check()
        for features in self._parse(output, body):
            self._connections.stop.check()
            if body is None:
                # It is large, and the sweep would take the shard for lost.
                self._connections.records.touch(self._job.job_id)
            with library_errors(lambda said: UnparsableOutputError(f"the features cannot be placed: {said}")):
                told = self._with_provenance(tile, output, features)
            self._features += len(told)
            yield to_lines(told)

    def _with_provenance(self, tile: Tile, output: S3Object, features: list[Feature]) -> list[Feature]:
        if tile.window is not None:
            return self._connections.image_tiles.place(self._job, tile, features, output.last_modified)
        source = source_of(tile.name)
        add_provenance(features, job_id=self._job.job_id, source=source, inferred=output.last_modified)
        return features

    def _parse(self, output: S3Object, body: bytes | None) -> Iterator[list[Feature]]:
        check_size(output.size, self._connections.config.max_output_bytes)
        return parse_in_turns(self._download(output)) if body is None else iter([parse(body)])

    def _download_small(self, output: S3Object) -> bytes | None:
        """An output that may wait in memory for its turn."""
        limit = min(_READ_AHEAD_BYTES, self._connections.config.max_output_bytes)
        return self._download(output) if output.size <= limit else None

    def _download(self, output: S3Object) -> bytes:
        with self._metrics.timer(Metric.S3_DOWNLOAD_DURATION):
            body = self._connections.s3.get(output)
        self._metrics.count(Metric.S3_DOWNLOAD_COUNT)
        self._metrics.count(Metric.S3_DOWNLOAD_SIZE, len(body))
        return body

    def _write_failures(self, records: dict[int, TileRecord]) -> None:
        """Before the part is complete, so that no part is without its failures."""
        uri = self._uri(self._job.failures_key(self._shard.shard))
        if self._failures:
            failures = sorted(self._failures, key=lambda failure: failure.index)
            lines = b"".join(failure.to_json() for failure in failures)
            self._connections.s3.put(uri, lines)
        elif any(record.given_up for record in records.values()):
            # All of them answered late, after a poll that died may have written them down as failed.
            self._connections.s3.delete([uri])

    def _write_skipped(self) -> None:
        if self._skipped:
            lines = b"".join(tile.to_json() for tile in self._skipped)
            self._connections.s3.put(self._uri(self._job.skipped_key(self._shard.shard)), lines)

    def _uri(self, key: str) -> S3Uri:
        return self._connections.input_uri(key)
