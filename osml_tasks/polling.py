"""What has become of invocations, and when to look again: plain functions, and a poller for a single one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

import orjson

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.endpoint import Accepted
from osml_tasks.errors import AsyncInferenceTimeoutError, ModelError, ObjectNotFoundError
from osml_tasks.jobs import JobOptions, Reason
from osml_tasks.metrics import Metric, MetricsSink, put, timing
from osml_tasks.one_line import in_one_line
from osml_tasks.pace import Pace, first_look, next_look
from osml_tasks.s3 import S3Manager, S3Object, S3Uri

MAX_COUNTDOWN = 30.0
"""Longest countdown of one message in seconds: well under the broker's visibility timeout."""

_SHORTEST_WAIT = 0.05
_MESSAGE_KEYS = ("failureReason", "message", "Message", "ErrorMessage", "errorMessage", "error")
_EXPIRED_WORDS = ("expired", "timed out")
_LONGEST_FAILURE = 4000
_LONGEST_ERROR = 1000


@dataclass(frozen=True, slots=True)
class TileRecord:
    """What is known of one tile; kept in Redis while its shard is at work.

    :ivar attempt: number of the current attempt, from 1.
    :ivar invoked_at: when the endpoint accepted it (s since the epoch); None while it waits to be invoked.
    :ivar due: when it may be invoked again (s since the epoch), if it waits.
    :ivar output: where its output will appear, if that is not where the job's paths say.
    :ivar failure: where its failure object will appear, likewise.
    :ivar reason: why the latest attempt failed.
    :ivar error: the same in words.
    :ivar given_up: whether it is not tried again.
    :ivar uploaded: whether a worker put its payload into S3.
    :ivar skipped: whether there is nothing in it that a model could look at; it counts as succeeded.
    """

    attempt: int = 1
    invoked_at: float | None = None
    due: float = 0.0
    output: str | None = None
    failure: str | None = None
    reason: Reason | None = None
    error: str = ""
    given_up: bool = False
    uploaded: bool = False
    skipped: bool = False

    def to_json(self) -> bytes:
        """The record as it is kept: short, for there is one a tile."""
        values = [self.attempt, self.invoked_at, self.due, self.output, self.failure, self.reason, self.error]
        return orjson.dumps([*values, self.given_up + 2 * self.uploaded + 4 * self.skipped])

    @classmethod
    def from_json(cls, text: bytes) -> TileRecord:
        """Read a record back."""
        attempt, invoked_at, due, output, failure, reason, error, flags = orjson.loads(text)
        return cls(
            attempt=attempt,
            invoked_at=invoked_at,
            due=due,
            output=output,
            failure=failure,
            reason=Reason(reason) if reason else None,
            error=error,
            given_up=bool(flags & 1),
            uploaded=bool(flags & 2),
            skipped=bool(flags & 4),
        )

    @property
    def in_flight(self) -> bool:
        """Whether the endpoint has accepted it and it has not been given up."""
        return self.invoked_at is not None and not self.given_up

    @property
    def waits(self) -> bool:
        """Whether it is to be invoked, now or later."""
        return self.invoked_at is None and not self.given_up and not self.skipped

    def deadline(self, options: JobOptions) -> float:
        """When nothing more is expected of its invocation (s since the epoch)."""
        return (self.invoked_at or 0.0) + options.max_wait_time


class Standing(Enum):
    """What has become of a tile."""

    SUCCEEDED = auto()
    FAILED = auto()
    IN_FLIGHT = auto()
    REFUSED = auto()
    """A failure object has appeared; reading it tells whether another attempt can help."""
    EXPIRED = auto()
    WAITING = auto()
    """Not invoked yet, or due to be invoked again."""


def standing(
    record: TileRecord | None,
    *,
    output_arrived: bool,
    failure_arrived: bool,
    options: JobOptions,
    now: float,
) -> Standing:
    """Judge one tile by its record and by what a listing showed. An output beats everything else."""
    if output_arrived or (record is not None and record.skipped):
        return Standing.SUCCEEDED
    if record is None:
        return Standing.WAITING
    if record.given_up:
        return Standing.FAILED
    if record.invoked_at is None:
        return Standing.WAITING
    if failure_arrived:
        return Standing.REFUSED
    return Standing.EXPIRED if now > record.deadline(options) else Standing.IN_FLIGHT


def try_again(record: TileRecord, reason: Reason, error: str, options: JobOptions, now: float) -> TileRecord:
    """The record after a failed attempt: due again after a backoff, or given up."""
    if record.attempt > options.max_retries:
        return give_up(record, reason, error)
    delay = next(backoff(options, start=record.attempt - 1))
    return TileRecord(
        attempt=record.attempt + 1,
        due=now + delay,
        reason=reason,
        error=in_one_line(error, _LONGEST_ERROR),
        uploaded=record.uploaded,
    )


def give_up(record: TileRecord, reason: Reason, error: str) -> TileRecord:
    """The record of a tile that goes into the report."""
    return replace(record, given_up=True, reason=reason, error=in_one_line(error, _LONGEST_ERROR))


def expire(record: TileRecord, options: JobOptions) -> TileRecord:
    """The record of a tile of which nothing was heard in time."""
    return give_up(record, Reason.TIMEOUT, nothing_within(options.max_wait_time))


def nothing_within(max_wait_time: float) -> str:
    """What to say of an invocation of which nothing was heard in time."""
    return (
        f"neither output nor failure within {max_wait_time:g} s of the invocation: "
        "raise ASYNC_SM_MAX_WAIT_TIME, or add instances to the endpoint"
    )


def failure_reason(body: bytes) -> tuple[Reason, str]:
    """Why an attempt failed, from the failure object that the endpoint wrote: whatever that is, one short line."""
    message = _message(body) or body[:_LONGEST_FAILURE].decode("utf-8", "replace")
    message = in_one_line(" ".join(message[:_LONGEST_FAILURE].split()), _LONGEST_ERROR) or "the failure object is empty"
    expired = any(word in message.lower() for word in _EXPIRED_WORDS)
    return (Reason.TIMEOUT if expired else Reason.MODEL), message


def _message(body: bytes) -> str | None:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(content, dict):
        return None
    texts = (content.get(key) for key in _MESSAGE_KEYS)
    return next((text for text in texts if isinstance(text, str) and text.strip()), None)


class PollingOptions(Protocol):
    """What a configuration and a job's options both say of polling; units as in ``AsyncEndpointConfig``."""

    @property
    def polling_interval(self) -> float:
        """Seconds to the first poll."""

    @property
    def max_polling_interval(self) -> float:
        """Longest time between two polls, s."""

    @property
    def exponential_backoff_multiplier(self) -> float:
        """Growth from one wait to the next."""


def backoff(options: PollingOptions, *, start: int = 0, jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait, again and again: from ``polling_interval``, growing, up to ``max_polling_interval``.

    Up to a tenth is taken off at random, so that a fleet does not poll in step.

    :param start: how many steps of growth to skip.
    """
    steps = start
    while True:
        # The power is cut off where no maximum can be: 1.5 ** 2000 is no float.
        growth = options.exponential_backoff_multiplier ** min(steps, 64)
        wait = min(options.polling_interval * growth, options.max_polling_interval)
        yield wait * (1 - 0.1 * jitter())
        steps += 1


def longest_wait(options: JobOptions, idle: int) -> float:
    """Seconds between two polls of a shard at most, after so many in a row that have found nothing new."""
    return max(_SHORTEST_WAIT, min(next(backoff(options, start=idle)), MAX_COUNTDOWN))


def next_poll(options: JobOptions, idle: int, deadlines: Iterable[float], now: float) -> float:
    """Seconds until a shard is polled again.

    :param idle: how many polls in a row have found nothing new.
    :param deadlines: when the tiles in flight expire; there is no use in sleeping past the first.
    """
    wait = longest_wait(options, idle)
    first = min(deadlines, default=now + wait)
    return max(_SHORTEST_WAIT, min(wait, first - now + _SHORTEST_WAIT))


def due_again(records: Mapping[int, TileRecord]) -> float | None:
    """When the first waiting tile is due (s since the epoch), or None if none waits."""
    return min((record.due for record in records.values() if record.waits), default=None)


class AsyncInferencePoller:
    """Waits for one invocation at a time, without a broker. Thread-safe.

    The first look comes when an output is likely to be there, as the endpoint's latest have taken; a second at an
    endpoint of which nothing is known. Further ones follow ever later. No wait is longer than the options have it:
    ``polling_interval`` to the first look, each further one longer by ``exponential_backoff_multiplier``, up to
    ``max_polling_interval``, less up to a tenth at random.

    :param sleep: waits so many seconds.
    :param clock: seconds, never going back.
    :param wall: seconds since the epoch, to see how long an output has been there.
    """

    def __init__(
        self,
        s3: S3Manager,
        config: AsyncEndpointConfig,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._s3 = s3
        self._config = config
        self._sleep = sleep
        self._clock = clock
        self._wall = wall
        self._paces: dict[str, Pace] = {}

    def poll_until_complete(
        self,
        accepted: Accepted,
        *,
        endpoint: str = "",
        inference_id: str = "",
        metrics: MetricsSink | None = None,
    ) -> S3Object:
        """Wait for the output of an accepted invocation.

        :param endpoint: goes into errors, as ``inference_id`` does.
        :return: the output object.
        :raises ModelError: the endpoint wrote a failure object.
        :raises AsyncInferenceTimeoutError: nothing appeared within ``max_wait_time``, or that object says that
            the request expired.
        :raises S3OperationError: S3 does not answer, or denies access.
        """
        began, pace = self._clock(), self._paces.get(endpoint)
        longest, foreseen = backoff(self._config), first_look(pace)
        with timing(metrics, Metric.POLLING_DURATION):
            while True:
                left = began + self._config.max_wait_time - self._clock()
                wait = max(0.0, min(next(longest), foreseen, left))
                self._sleep(wait)
                put(metrics, Metric.POLLING_ATTEMPTS)
                elapsed = self._clock() - began
                if output := self._s3.head(accepted.output):
                    # As old as it is, but no older than the look before.
                    age = min(max(self._wall() - output.last_modified.timestamp(), 0.0), wait)
                    self._paces[endpoint] = Pace.learned(self._paces.get(endpoint), elapsed - age)
                    return output
                foreseen = next_look(pace, waited=elapsed, missing=1, arrived=(), news=False)
                named = {"endpoint": endpoint, "inference_id": inference_id}
                if accepted.failure and (body := self._read(accepted.failure)) is not None:
                    reason, message = failure_reason(body)
                    kind = AsyncInferenceTimeoutError if reason is Reason.TIMEOUT else ModelError
                    raise kind(message, elapsed=elapsed, uri=str(accepted.failure), **named)
                if left <= 0:
                    text = nothing_within(self._config.max_wait_time)
                    raise AsyncInferenceTimeoutError(text, elapsed=elapsed, uri=str(accepted.output), **named)

    def _read(self, uri: S3Uri) -> bytes | None:
        try:
            return self._s3.get(uri)
        except ObjectNotFoundError:
            return None
