"""What the poll task does: find what has arrived of a shard and, when all has, write its part."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from osml_tasks.connections import Connections
from osml_tasks.errors import ObjectNotFoundError
from osml_tasks.job_cleanup import clean_up_answers, clean_up_payloads, expect_late_outputs, remember_answers
from osml_tasks.jobs import Job, Progress, Reason, Shard, failure_filename, output_filename
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.logs import log_step
from osml_tasks.manifest import read_tiles
from osml_tasks.metrics import OPERATION, AsyncMetricsTracker, Metric, emit
from osml_tasks.pace import first_look, next_look
from osml_tasks.parts import Arrivals, PartWriter, count_part
from osml_tasks.polling import (
    MAX_COUNTDOWN,
    Standing,
    TileRecord,
    due_again,
    expire,
    failure_reason,
    next_poll,
    standing,
    try_again,
)
from osml_tasks.records import OutputPaths
from osml_tasks.s3 import S3Object, S3Uri
from osml_tasks.tile import Tile
from osml_tasks.two_clocks import APART_SECONDS, earlier, later

SOON_SECONDS = 1.0
"""Within this time failures are not asked for where the rest of a shard's outputs is likely to come, s."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """What a poll task leaves to be done.

    :ivar poll_in: seconds until this shard is to be polled again; None when it is finished.
    :ivar finished: tiles that are through.
    :ivar idle: how many polls in a row have found nothing new, this one included.
    :ivar resubmit_in: seconds until tiles are due to be invoked again; None when none is, or a submit
        task is already on its way.
    """

    poll_in: float | None = None
    finished: int = 0
    idle: int = 0
    resubmit_in: float | None = None


def collect_shard(
    connections: Connections, shard: Shard, *, idle: int, seen: int, publish: Callable[[Iterable[str]], None]
) -> Collection:
    """Look once at what has become of a shard.

    :param idle: how many polls in a row have found nothing new.
    :param seen: how many tiles were through at the last poll.
    :param publish: sends messages of other shards whose turn has come.
    :raises S3OperationError: S3 did not answer; to be tried again.
    """
    job = connections.job_of(shard)
    records = connections.records
    progress = records.progress(shard)
    if records.state(job.job_id).is_over or progress.shards_finished:
        publish(connections.capacity.keep(job.endpoint, shard, 0).messages)
        return Collection(finished=progress.finished)
    return _Collector(connections, job, shard, publish).look(idle=idle, seen=seen)


class _Collector:
    """One look at a shard."""

    def __init__(
        self, connections: Connections, job: Job, shard: Shard, publish: Callable[[Iterable[str]], None]
    ) -> None:
        self._connections = connections
        self._job = job
        self._shard = shard
        self._publish = publish
        server = connections.records.now()
        self._now = earlier(server)
        self._records = self._known(later(server))
        self._paths = connections.records.paths(job.job_id)
        self._pace = connections.paces.of(job.endpoint)
        self._metrics = AsyncMetricsTracker()
        self._indexes = range(shard.first, shard.first + shard.tiles)

    def _known(self, latest: float) -> dict[int, TileRecord]:
        """What is known of the tiles; an invocation of the future would be waited for until then."""
        known = self._connections.records.tiles(self._shard)
        of_the_future = {
            index: replace(record, invoked_at=latest)
            for index, record in known.items()
            if (record.invoked_at or 0.0) > latest + APART_SECONDS
        }
        self._connections.records.set_tiles(self._shard, of_the_future)
        return known | of_the_future

    def look(self, *, idle: int, seen: int) -> Collection:
        self._metrics.count(Metric.POLLING_ATTEMPTS)
        with self._metrics.timer(Metric.POLLING_DURATION):
            arrivals = self._arrivals(seen)
        # Asked after the listing, for another poll then deletes what was listed.
        if self._connections.records.progress(self._shard).shards_finished:
            self._publish(self._connections.capacity.keep(self._job.endpoint, self._shard, 0).messages)
            return Collection(finished=self._shard.tiles)
        if not self._records and self._has_part():
            # Its records are lost, and would have all of it invoked again.
            self._publish(self._connections.capacity.keep(self._job.endpoint, self._shard, 0).messages)
            return self._finished_before()
        standings = {index: self._standing(index, arrivals) for index in self._indexes}
        self._look_closer(standings, arrivals)
        self._settle(standings, arrivals)
        counts = Counter(standings.values())
        finished = counts[Standing.SUCCEEDED] + counts[Standing.FAILED]
        unfinished = self._shard.tiles - finished
        # Before anything that may fail: whoever waits for what came free can begin.
        self._publish(self._connections.capacity.keep(self._job.endpoint, self._shard, unfinished).messages)
        if not unfinished:
            return self._finish(arrivals)
        self._write_progress(counts)
        if self._connections.config.metrics_enabled:
            self._connections.records.add_metrics(self._shard, self._metrics)
        idle = 0 if finished > seen else idle + 1
        # Only to those who look for trouble: a shard is polled many times.
        log_step(logger, "poll", level=logging.DEBUG, **self._shard.ids, finished=finished, unfinished=unfinished)
        return Collection(self._poll_in(idle, standings, arrivals), finished, idle, self._resubmit_in())

    def _has_part(self) -> bool:
        part = self._connections.input_uri(self._job.part_key(self._shard.shard))
        return self._connections.s3.head(part) is not None

    def _arrivals(self, seen: int) -> Arrivals:
        listing = _Listing(self._connections, self._shard)
        # A record may be older than the latest attempt.
        attempts = self._job.options.max_retries + 1
        outputs, missing = {}, {}
        for index, record in self._records.items():
            if output := listing.first(self._outputs(record, index, max(attempts, record.attempt))):
                outputs[index] = output
            elif record.in_flight:
                missing[index] = record
        if self._is_early([*missing.values()], outputs, seen):
            return Arrivals(outputs, {})
        failures = {
            index: failure
            for index, record in missing.items()
            if (failure := listing.first(_failures(record, index, self._shard, self._paths)))
        }
        return Arrivals(outputs, failures)

    def _is_early(self, missing: Sequence[TileRecord], outputs: dict[int, S3Object], seen: int) -> bool:
        """Whether nothing else is to be expected yet, so that it is too soon to ask for failures."""
        if not missing:
            return True
        if any(self._now > record.deadline(self._job.options) for record in missing):
            return False
        if outputs:
            return len(outputs) > seen and self._foreseen(missing, outputs, news=True) < SOON_SECONDS
        # Only just before: of a slow endpoint there may be failures long before its outputs.
        return self._pace is not None and 0 < self._pace.likely - self._waited(missing) < SOON_SECONDS

    def _foreseen(self, missing: Sequence[TileRecord], outputs: dict[int, S3Object], *, news: bool) -> float:
        """Seconds until the rest is likely to be there."""
        arrived = [output.last_modified for output in outputs.values()]
        return next_look(self._pace, waited=self._waited(missing), missing=len(missing), arrived=arrived, news=news)

    def _waited(self, in_flight: Sequence[TileRecord]) -> float:
        """Seconds since the last of these tiles was invoked."""
        return self._now - max(record.invoked_at or 0.0 for record in in_flight)

    def _outputs(self, record: TileRecord, index: int, attempts: int) -> Iterator[S3Uri]:
        """Where a tile's output may be: earliest attempt first, so that the choice never changes."""
        if self._paths.output:
            directory = S3Uri.parse(f"{self._paths.output}/{self._shard.name}")
            for attempt in range(1, attempts + 1):
                yield directory.child(output_filename(index, attempt))
        if record.output:
            yield S3Uri.parse(record.output)

    def _standing(self, index: int, arrivals: Arrivals) -> Standing:
        return standing(
            self._records.get(index),
            output_arrived=index in arrivals.outputs,
            failure_arrived=index in arrivals.failures,
            options=self._job.options,
            now=self._now,
        )

    def _look_closer(self, standings: dict[int, Standing], arrivals: Arrivals) -> None:
        """Ask for the outputs of tiles whose time is up by themselves: a listing may be late."""
        expired = [index for index, found in standings.items() if found is Standing.EXPIRED]
        for index, output in zip(expired, self._connections.overlap(self._output, expired), strict=True):
            if output is not None:
                arrivals.outputs[index] = output
                standings[index] = Standing.SUCCEEDED

    def _output(self, index: int) -> S3Object | None:
        record = self._records[index]
        places = [*self._outputs(record, index, record.attempt)]
        if not places or places[-1].bucket not in self._connections.config.readable_output_buckets:
            return None
        return self._connections.s3.head(places[-1])

    def _settle(self, standings: dict[int, Standing], arrivals: Arrivals) -> None:
        """Decide on tiles whose attempt failed, and write that down."""
        settled: dict[int, TileRecord] = {}
        refused = [index for index, found in standings.items() if found is Standing.REFUSED]
        bodies = self._connections.overlap(lambda index: self._read_failure(arrivals.failures[index]), refused)
        for index, body in zip(refused, bodies, strict=True):
            reason, error = failure_reason(body)
            settled[index] = try_again(self._records[index], reason, error, self._job.options, self._now)
            self._metrics.count(Metric.RETRY_COUNT, 0 if settled[index].given_up else 1)
        for index, found in standings.items():
            if found is Standing.EXPIRED:
                settled[index] = expire(self._records[index], self._job.options)
        for index, record in settled.items():
            standings[index] = Standing.FAILED if record.given_up else Standing.WAITING
        # Another attempt has other locations, and these would be forgotten.
        failed = [self._records[index] for index in refused]
        remember_answers(self._connections, self._job, _unforeseen(failed), late=False)
        self._records |= settled
        self._connections.records.set_tiles(self._shard, settled)
        clean_up_answers(self._connections, self._job, [arrivals.failures[index].uri for index in refused])

    def _read_failure(self, failure: S3Object) -> bytes:
        with suppress(ObjectNotFoundError):
            return self._connections.s3.get(failure)
        return b""

    def _poll_in(self, idle: int, standings: dict[int, Standing], arrivals: Arrivals) -> float:
        in_flight = [self._records[index] for index, found in standings.items() if found is Standing.IN_FLIGHT]
        longest = next_poll(
            self._job.options, idle, [record.deadline(self._job.options) for record in in_flight], self._now
        )
        if not in_flight:
            return min(longest, (self._resubmit_in() or 0.0) + first_look(self._pace))
        foreseen = self._foreseen(in_flight, arrivals.outputs, news=not idle)
        if self._pace is None and arrivals.outputs:
            # A first guess, for the other shards.
            self._connections.paces.learn(self._job.endpoint, self._waited(in_flight) + foreseen)
        return min(longest, foreseen)

    def _resubmit_in(self) -> float | None:
        due = due_again(self._records)
        if due is None and len(self._records) < self._shard.tiles:
            # A submit task that stopped half way: what it has no record of is due now.
            due = self._now
        return None if due is None else min(max(0.0, due - self._now), MAX_COUNTDOWN)

    def _write_progress(self, counts: Counter[Standing]) -> None:
        before = self._connections.records.progress(self._shard)
        self._connections.records.set_progress(
            self._shard, Progress(before.invoked, counts[Standing.SUCCEEDED], counts[Standing.FAILED])
        )

    def _finish(self, arrivals: Arrivals) -> Collection:
        if len(arrivals.outputs) < self._shard.tiles and self._has_part():
            # Written of outputs that are deleted since, by a poll that these records know nothing of.
            return self._finished_before()
        tiles = read_tiles(self._connections, self._job, self._shard)
        writer = PartWriter(self._connections, self._job, self._shard, self._metrics)
        with self._connections.losses.at_work(f"{self._shard.name}/part") as attempt:
            progress = writer.write(tiles, arrivals, self._records, attempt)
        self._connections.records.set_progress(self._shard, progress)
        self._learn_pace(arrivals)
        self._count(arrivals)
        self._clean_up(tiles, arrivals, writer.failed)
        seconds = self._seconds()
        if self._connections.config.metrics_enabled:
            self._measure(progress, arrivals, seconds)
        self._connections.records.drop_tiles([self._shard])
        counts = {"succeeded": progress.succeeded, "failed": progress.failed, "features": progress.features}
        log_step(logger, "finished", **self._shard.ids, **counts, seconds=seconds)
        return Collection(finished=progress.finished)

    def _learn_pace(self, arrivals: Arrivals) -> None:
        """Note how long this shard took, unless failures made it last."""
        asked = [record for record in self._records.values() if not record.skipped]
        if not asked or any(record.attempt > 1 or record.invoked_at is None for record in asked):
            return
        if len(arrivals.outputs) < len(asked):
            return
        invoked = max(record.invoked_at or 0.0 for record in asked)
        # A listing says in which second that was.
        done = max(output.last_modified.timestamp() for output in arrivals.outputs.values()) + 0.5
        self._connections.paces.learn(self._job.endpoint, max(0.0, min(done, self._now) - invoked))

    def _finished_before(self) -> Collection:
        counts = count_part(self._connections, self._job, self._shard)
        remember_answers(self._connections, self._job, _unforeseen(self._records.values()), late=True)
        self._connections.records.set_progress(self._shard, counts)
        self._connections.records.drop_tiles([self._shard])
        return Collection(finished=counts.finished)

    def _count(self, arrivals: Arrivals) -> None:
        """Add to the fleet's statistics what this shard had in S3 and in Redis."""
        resources = self._connections.resources
        resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, len(arrivals.outputs) + len(arrivals.failures))
        resources.count(ResourceType.INVOCATION, Outcome.CLEANED, len(self._records))

    def _seconds(self) -> float:
        """How long it is since the first invocation that this shard knows of, s."""
        began = min((record.invoked_at for record in self._records.values() if record.invoked_at), default=self._now)
        return max(0.0, self._connections.records.now() - began)

    def _measure(self, progress: Progress, arrivals: Arrivals, seconds: float) -> None:
        """Write one line of metrics for the whole shard."""
        for index, output in arrivals.outputs.items():
            queued = output.last_modified.timestamp() - (self._records[index].invoked_at or self._now)
            self._metrics.put_metric(Metric.QUEUE_TIME, max(0.0, queued))
        given_up = [record for record in self._records.values() if record.given_up]
        self._metrics.put_metric(Metric.TOTAL_ASYNC_DURATION, seconds)
        self._metrics.count(Metric.TILES_SUCCEEDED, progress.succeeded)
        self._metrics.count(Metric.TILES_FAILED, progress.failed)
        self._metrics.count(Metric.TIMEOUT_COUNT, sum(record.reason is Reason.TIMEOUT for record in given_up))
        self._metrics.count(Metric.FEATURE_COUNT, progress.features)
        for name, total in self._connections.records.take_metrics(self._shard).items():
            self._metrics.put_metric(name, total)
        emit(
            self._metrics,
            namespace=self._connections.config.metrics_namespace,
            operation=OPERATION,
            model_name=self._job.endpoint,
            properties={"JobId": self._job.job_id, "Shard": self._shard.name},
        )

    def _clean_up(self, tiles: list[Tile], arrivals: Arrivals, failed: frozenset[int]) -> None:
        late = any(record.attempt > 1 or record.reason is Reason.TIMEOUT for record in self._records.values())
        if late:
            expect_late_outputs(self._connections, self._job, self._now)
        clean_up_answers(self._connections, self._job, _answers(arrivals, self._records))
        remember_answers(self._connections, self._job, _unforeseen(self._records.values()), late=late)
        clean_up_payloads(self._connections, self._job, self._payload_keys(tiles, failed))

    def _payload_keys(self, tiles: list[Tile], failed: frozenset[int]) -> Iterator[str]:
        """The payloads that are not needed any more: a retry needs those that only S3 has."""
        staged = f"{self._connections.input_uri(self._job.prefix)}"
        for tile in tiles:
            if tile.window is None and tile.location.startswith(staged):
                if tile.index not in failed:
                    yield S3Uri.parse(tile.location).key
            elif self._records[tile.index].uploaded:
                yield self._job.payload_key(self._shard.shard, tile.index, tile.name)


class _Listing:
    """Objects of a shard: directories that only it uses are listed once, anything else is asked for singly."""

    def __init__(self, connections: Connections, shard: Shard) -> None:
        self._s3 = connections.s3
        self._shard = shard
        self._may_be_answer = connections.resources.may_be_answer
        self._directories: dict[S3Uri, dict[S3Uri, S3Object]] = {}

    def first(self, uris: Iterator[S3Uri]) -> S3Object | None:
        """The first of these objects that exists."""
        return next((found for uri in uris if (found := self._find(uri))), None)

    def _find(self, uri: S3Uri) -> S3Object | None:
        if not self._may_be_answer(uri):
            return None
        directory = uri.parent
        if not f"/{directory.key}".endswith(f"/{self._shard.name}"):
            return self._s3.head(uri)
        if directory not in self._directories:
            self._directories[directory] = {found.uri: found for found in self._s3.list(directory)}
        return self._directories[directory].get(uri)


def _failures(record: TileRecord, index: int, shard: Shard, paths: OutputPaths) -> Iterator[S3Uri]:
    """Where the failure object of the current attempt may be."""
    if record.failure:
        yield S3Uri.parse(record.failure)
    elif paths.failure:
        yield S3Uri.parse(f"{paths.failure}/{shard.name}/{failure_filename(index, record.attempt)}")


def _answers(arrivals: Arrivals, records: dict[int, TileRecord]) -> list[S3Uri]:
    """Objects that were answered for this shard's own invocations."""
    arrived = [found.uri for found in (*arrivals.outputs.values(), *arrivals.failures.values())]
    return list({*arrived, *_unforeseen(records.values())})


def _unforeseen(records: Iterable[TileRecord]) -> list[S3Uri]:
    """Answered locations that do not follow from the names of job and shard."""
    named = (uri for record in records for uri in (record.output, record.failure) if uri)
    return list(map(S3Uri.parse, named))
