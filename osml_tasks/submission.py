"""What the submit task does: bring a shard's tiles to the endpoint, each exactly when it is due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace

from osml_tasks.allowed_tiles import allowed_tile
from osml_tasks.connections import Connections, call_off
from osml_tasks.endpoint import Accepted, Invocation, check_answer, queue_limits
from osml_tasks.errors import (
    AnswerLostError,
    ClockSkewError,
    CredentialsExpiredError,
    ExtensionRuntimeError,
    ImageReadError,
    MessageRefusedError,
    NotAllowedError,
    RejectedError,
    S3OperationError,
    SourceError,
    ThrottledError,
    WorkerStoppingError,
    library_errors,
)
from osml_tasks.job_cleanup import expect_late_outputs
from osml_tasks.job_copy import write_paths
from osml_tasks.jobs import Job, Reason, Shard, failure_filename, output_filename
from osml_tasks.ledger import Outcome, ResourceType
from osml_tasks.logs import about, log_step
from osml_tasks.losses import Attempt
from osml_tasks.lost_answers import answered_attempts, until_answered
from osml_tasks.manifest import read_tiles
from osml_tasks.metrics import AsyncMetricsTracker, Metric
from osml_tasks.outage import insist
from osml_tasks.pace import first_look
from osml_tasks.payload import Payload, PayloadSender
from osml_tasks.polling import MAX_COUNTDOWN, TileRecord, due_again, give_up, longest_wait, try_again
from osml_tasks.records import OutputPaths
from osml_tasks.s3 import S3Uri
from osml_tasks.tile import Tile
from osml_tasks.two_clocks import earlier, later

CLAIM_SECONDS = 75
"""How long a submit task may stay silent before another may do its work, s; less than messages take to come back."""
_WRITE_DOWN_EVERY = 25
_WRITE_DOWN_SECONDS = 15.0
_NOT_THE_TILES = (WorkerStoppingError, ClockSkewError, CredentialsExpiredError, S3OperationError)
"""Trouble that uses up no attempt of a tile: the shard is gone on with later, or by another worker."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submit task leaves to be done.

    :ivar parked: whether this shard waits for capacity; its message is with the endpoint's others.
    :ivar busy: whether another task is submitting this very shard.
    :ivar resubmit_in: seconds until tiles of this shard are due again, or None.
    :ivar poll_in: seconds until this shard is likely to be through, and to be looked at for the first time.
    """

    parked: bool = False
    busy: bool = False
    resubmit_in: float | None = None
    poll_in: float = 0.0


def submit_shard(
    connections: Connections,
    shard: Shard,
    message: str,
    token: str,
    publish: Callable[[Iterable[str]], None],
    *,
    ticket: str = "",
    redelivered: bool = False,
) -> Submission:
    """Take capacity for a shard and invoke those of its tiles that are due.

    :param message: what to publish when capacity has become free, should there be none now.
    :param token: says which task does this; two at the same shard would invoke tiles twice.
    :param publish: sends messages of other shards whose turn has come.
    :param ticket: tells this message from others of the same shard, however often it comes.
    :param redelivered: whether it was with a worker before, which may have invoked tiles and not said so: what the
        endpoint answers to that may come after the job's end.
    :raises EndpointUnusableError: the job cannot go on.
    :raises WorkerStoppingError: this worker has no time for the rest; what it has invoked is written down.
    :raises S3OperationError: payloads cannot be uploaded; likewise.
    :raises ClockSkewError: this worker's clock is wrong; likewise.
    :raises CredentialsExpiredError: this worker's credentials have expired; likewise.
    """
    records, capacity = connections.records, connections.capacity
    job = connections.job_of(shard)
    progress = records.progress(shard)
    if redelivered:
        expect_late_outputs(connections, job, records.now())
    if records.state(job.job_id).is_over or progress.shards_finished:
        publish(capacity.keep(job.endpoint, shard, 0).messages)
        return Submission()
    limit = job.options.max_concurrent_jobs
    need = shard.tiles - progress.finished
    grant = capacity.request(job.endpoint, shard, need, limit, message, ticket)
    publish(grant.messages)
    if not grant.held:
        log_step(logger, "parked", **shard.ids, tiles=need)
        return Submission(parked=True)
    claim = f"{shard.name}/submit"
    if not connections.claims.claim(claim, token, CLAIM_SECONDS):
        return Submission(busy=True)
    try:
        with connections.losses.at_work(claim) as attempt:
            resubmit_in = _Submitter(connections, job, shard, token, attempt).invoke_due()
        foreseen = first_look(connections.paces.of(job.endpoint))
        return Submission(resubmit_in=resubmit_in, poll_in=min(longest_wait(job.options, 0), foreseen))
    except _ClaimLostError as error:
        logger.warning("%s", error, extra=about(**shard.ids))
        expect_late_outputs(connections, job, records.now())
        return Submission(busy=True)
    except MessageRefusedError:
        # What it has taken for this shard it gives back; what is in flight was invoked by the shard's own message.
        in_flight = sum(record.in_flight for record in records.tiles(shard).values())
        publish(capacity.keep(job.endpoint, shard, in_flight).messages)
        raise
    finally:
        connections.claims.unclaim(claim, token)


class _ClaimLostError(ExtensionRuntimeError):
    """This process stood still for so long that another has begun with its shard."""


class _Submitter:
    """One pass over a shard: what is known, what is found out, and where it is written down."""

    def __init__(self, connections: Connections, job: Job, shard: Shard, token: str, attempt: Attempt) -> None:
        self._connections = connections
        self._job = job
        self._shard = shard
        self._token = token
        self._attempt = attempt
        server = connections.records.now()
        self._now, self._latest = server_clock(earlier(server)), server_clock(later(server))
        self._records = connections.records.tiles(shard)
        self._known = set(self._records)
        self._paths = connections.records.paths(job.job_id)
        self._has_looked = False  # at what an answer says of them, which may be nothing
        self._news: dict[int, TileRecord] = {}
        self._written = self._now()
        self._metrics = AsyncMetricsTracker()
        self._uploads: set[S3Uri] = set()
        self._sender = PayloadSender(
            connections.runtime,
            connections.s3,
            inline_max_bytes=job.options.inline_payload_max_bytes,
            inline_refused=connections.records.inline_refused(job.job_id),
            on_inline_refused=self._go_without_inline,
            on_uploaded=self._uploads.add,
            metrics=self._metrics,
        )

    def invoke_due(self) -> float | None:
        """Invoke what is due; says in how many seconds more will be, or None if nothing waits."""
        if self._connections.records.progress(self._shard).shards_finished:
            # By now, and what was known of its tiles is forgotten.
            return None
        began = self._now()
        due = self._due()
        if due:
            step = "submit" if any(tile.index not in self._records for tile in due) else "resubmit"
            self._connections.records.start(self._job.job_id, began)
            try:
                (self._invoke_singly if self._attempt.is_careful else self._invoke)(due)
            finally:
                self._write_down()
                self._count()
            self._log(step, due, self._now() - began)
        again = due_again(self._records)
        return None if again is None else min(max(0.0, again - self._now()), MAX_COUNTDOWN)

    def _log(self, step: str, tiles: list[Tile], seconds: float) -> None:
        records = [self._records[tile.index] for tile in tiles]
        invoked = sum(record.invoked_at is not None for record in records)
        refused = sum(record.given_up for record in records)
        skipped = sum(record.skipped for record in records)
        waiting = len(tiles) - invoked - refused - skipped
        counts = {"tiles": len(tiles), "invoked": invoked, "refused": refused, "waiting": waiting}
        counts |= {"skipped": skipped} if self._job.images else {}
        log_step(logger, step, **self._shard.ids, **counts, seconds=seconds)

    def _count(self) -> None:
        self._connections.resources.count(ResourceType.S3_OBJECT, Outcome.REGISTERED, len(self._uploads))
        if self._connections.config.metrics_enabled:
            self._connections.records.add_metrics(self._shard, self._metrics)

    def _due(self) -> list[Tile]:
        now = self._now()
        indexes = range(self._shard.first, self._shard.first + self._shard.tiles)
        due = {index for index in indexes if _is_due(self._records.get(index), now)}
        due -= self._answered(due)
        if not due:
            return []
        return [tile for tile in read_tiles(self._connections, self._job, self._shard) if tile.index in due]

    def _answered(self, due: set[int]) -> set[int]:
        """Those tiles of which an earlier attempt has an output: its answer was lost, or it came late."""
        attempts = {index: self._records[index].attempt for index in due & self._records.keys()}
        found = answered_attempts(self._connections, self._shard, self._paths.output, attempts)
        for index, attempt in found.items():
            uploaded = self._records[index].uploaded
            record = TileRecord(attempt=attempt, invoked_at=self._latest(), uploaded=uploaded)
            self._records[index] = self._news[index] = record
        if found:
            self._write_down()
        return set(found)

    def _invoke(self, tiles: list[Tile]) -> None:
        pending: dict[Future[Accepted | TileRecord], Tile] = {
            self._connections.pool.submit(self._invoke_tile, tile): tile for tile in tiles
        }
        trouble: ExtensionRuntimeError | None = None
        try:
            for done in self._completed(pending):
                if isinstance(error := done.exception(), _NOT_THE_TILES):
                    trouble = error  # raised at the end: calls that are under way have yet to be noted
                else:
                    self._note(pending[done], done.result())
        finally:
            call_off(pending)
        if trouble is not None:
            raise trouble

    def _completed(self, pending: Iterable[Future[Accepted | TileRecord]]) -> Iterator[Future[Accepted | TileRecord]]:
        """What is done, as it is done; the claim is renewed while nothing is."""
        left = set(pending)
        while left:
            done, left = wait(left, timeout=_WRITE_DOWN_SECONDS, return_when=FIRST_COMPLETED)
            if not done:
                self._write_down()
            yield from done

    def _invoke_singly(self, tiles: list[Tile]) -> None:
        """The same one by one, each written down before the next: a worker was lost at one of them."""
        for tile in tiles:
            with self._attempt.at_tile(tile.index) as lost:
                record = give_up(self._record(tile), Reason.INPUT, lost)
                self._note(tile, record if lost else self._invoke_tile(tile))
                self._write_down()

    def _invoke_tile(self, tile: Tile) -> Accepted | TileRecord:
        """Invoke one tile: where its output will be, or its record if it was not accepted."""
        self._connections.stop.check()
        record = self._record(tile)
        try:
            payload, upload_to = self._payload(tile), self._payload_uri(tile)
            if payload is None:
                return replace(record, skipped=True)
            return self._sender.send(self._invocation(tile, record.attempt), payload, upload_to)
        except ThrottledError as error:
            self._metrics.count(Metric.THROTTLED_COUNT)
            return self._until_taken(record, error)
        except ImageReadError as error:
            # What is in a file stays there; S3 may be out of order.
            if not tile.location.startswith("s3://"):
                return give_up(record, Reason.INPUT, str(error))
            return try_again(record, Reason.INPUT, str(error), self._job.options, self._now())
        except (RejectedError, NotAllowedError, SourceError) as error:
            return give_up(record, Reason.INPUT, str(error))

    def _until_taken(self, record: TileRecord, error: ThrottledError) -> TileRecord:
        options, now = self._job.options, self._now()
        if isinstance(error, AnswerLostError):
            return until_answered(record, error, options, now, self._connections.paces.of(self._job.endpoint))
        return try_again(record, Reason.THROTTLED, str(error), options, now)

    def _payload(self, tile: Tile) -> Payload | None:
        """A file that this worker may read, an object, or what is cut from an image: None if that is nothing."""
        with library_errors(lambda said: SourceError(f"the worker cannot read {tile.location}: {said}")):
            if tile.window is not None:
                return self._connections.image_tiles.cut(self._job, tile)
            return allowed_tile(tile.location, self._connections.config)

    def _payload_uri(self, tile: Tile) -> S3Uri:
        return self._connections.input_uri(self._job.payload_key(self._shard.shard, tile.index, tile.name))

    def _record(self, tile: Tile) -> TileRecord:
        return self._records.get(tile.index, TileRecord())

    def _go_without_inline(self, refusal: RejectedError) -> None:
        if self._connections.records.refuse_inline(self._job.job_id):
            logger.warning(
                "the endpoint takes no payload inline, going on through S3 (%s)",
                refusal,
                extra=about(**self._shard.ids, endpoint=self._job.endpoint),
            )

    def _invocation(self, tile: Tile, attempt: int) -> Invocation:
        ttl, timeout = queue_limits(self._job.options.max_wait_time)
        return Invocation(
            endpoint=self._job.endpoint,
            inference_id=self._job.inference_id(tile.index, attempt),
            path_extension=self._shard.name,
            filename=output_filename(tile.index, attempt),
            content_type=self._connections.image_tiles.content_type(self._job, tile),
            ttl=ttl,
            timeout=timeout,
        )

    def _note(self, tile: Tile, outcome: Accepted | TileRecord) -> None:
        if isinstance(outcome, Accepted):
            outcome = self._accepted(tile, outcome)
        before = self._record(tile)
        outcome = replace(outcome, uploaded=before.uploaded or self._payload_uri(tile) in self._uploads)
        self._records[tile.index] = self._news[tile.index] = outcome
        # By time as well: claim and sign of life are renewed with it, and uploads may take long.
        if len(self._news) >= _WRITE_DOWN_EVERY or self._now() - self._written > _WRITE_DOWN_SECONDS:
            self._write_down()

    def _accepted(self, tile: Tile, answer: Accepted) -> TileRecord:
        """The record of an accepted tile; it names locations only where they cannot be foretold."""
        check_answer(answer, self._connections.config, self._job.endpoint)
        attempt = self._record(tile).attempt
        outputs = f"/{self._shard.name}/{output_filename(tile.index, attempt)}"
        failures = f"/{self._shard.name}/{failure_filename(tile.index, attempt)}"
        if self._paths.output is None and not self._has_looked:
            self._has_looked = True
            seen = OutputPaths(_root(answer.output, outputs), _root(answer.failure, failures))
            self._paths = self._connections.records.learn_paths(self._job.job_id, seen)
            write_paths(self._connections, self._job, self._paths)
        return TileRecord(
            attempt=attempt,
            invoked_at=self._latest(),
            output=_unforeseen(answer.output, self._paths.output, outputs),
            failure=_unforeseen(answer.failure, self._paths.failure, failures),
        )

    def _write_down(self) -> None:
        # What is accepted and not written down would be invoked again.
        insist(self._write_news, self._connections.stop)

    def _write_news(self) -> None:
        records, resources = self._connections.records, self._connections.resources
        self._keep_claim()
        records.set_tiles(self._shard, self._news)
        resources.count(ResourceType.INVOCATION, Outcome.REGISTERED, len(self._news.keys() - self._known))
        self._known |= self._news.keys()
        self._news = {}
        self._written = self._now()
        invoked = sum(
            record.invoked_at is not None or record.attempt > 1 or record.skipped for record in self._records.values()
        )
        before = records.progress(self._shard)
        records.set_progress(self._shard, replace(before, invoked=max(invoked, before.invoked)))

    def _keep_claim(self) -> None:
        """Renew the claim, before anything is written that another knows better.

        :raises _ClaimLostError: another has it, or may have had it.
        """
        claims, is_fresh = self._connections.claims, self._now() - self._written < CLAIM_SECONDS
        keep = claims.claim if is_fresh else claims.renew
        if not keep(f"{self._shard.name}/submit", self._token, CLAIM_SECONDS):
            raise _ClaimLostError("this process stood still, and left the shard to another that has begun with it")


def server_clock(start: float) -> Callable[[], float]:
    """A clock that goes on from a server's time, in s since the epoch."""
    offset = start - time.monotonic()
    return lambda: time.monotonic() + offset


def _is_due(record: TileRecord | None, now: float) -> bool:
    if record is None:
        return True
    return record.waits and record.due <= now


def _root(uri: S3Uri | None, tail: str) -> str | None:
    """What stands before the part of a location that this program chose."""
    return str(uri).removesuffix(tail) if uri and str(uri).endswith(tail) else None


def _unforeseen(uri: S3Uri | None, root: str | None, tail: str) -> str | None:
    return None if uri is None or str(uri) == f"{root}{tail}" else str(uri)
