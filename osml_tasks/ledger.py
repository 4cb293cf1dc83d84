"""What is to be cleaned up and when, what could not be, and how much has been.

Two ledgers: one in Redis, which a whole fleet shares and which survives any process, and one in
memory, for a detector that has no broker.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from threading import Lock
from typing import Any, Protocol

import orjson

from osml_tasks.redis_keys import PREFIX
from osml_tasks.two_clocks import earlier

LEDGER_SECONDS = 7 * 24 * 3600
"""How long entries outlive their last use, s; a sweep that runs keeps them for as long as it takes."""

_DUE = f"{PREFIX}cleanup:due:"
_HELD = f"{PREFIX}cleanup:held:"
_FAILURES = f"{PREFIX}cleanup:failures:"
_COUNTS = f"{PREFIX}cleanup:counts"


class ResourceType(StrEnum):
    """What there is to clean up."""

    S3_OBJECT = "s3_object"
    TEMPORARY_FILE = "temporary_file"
    INVOCATION = "invocation"
    WORKER = "worker"
    JOB = "job"
    """Whatever an ended job has left in S3."""


class Outcome(StrEnum):
    """What has become of a resource."""

    REGISTERED = "registered"
    CLEANED = "cleaned"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CleanupFailure:
    """A resource that could not be cleaned up; it is tried again.

    :ivar objects: how many objects are left of it.
    :ivar error: why, in one line that names one of them.
    :ivar attempts: how often it was tried.
    """

    objects: int
    error: str
    attempts: int


Counts = dict[ResourceType, dict[Outcome, int]]


class Ledger(Protocol):
    """Entries are names of resources of one type, each with the time at which it is to be cleaned up."""

    lasting: bool
    """Whether entries outlive this process: then somebody else sees to what is not due yet."""

    def now(self) -> float:
        """The time that entries are compared with, s since the epoch."""

    def schedule(self, kind: ResourceType, entries: Mapping[str, float]) -> None:
        """Enter resources, or change the times (s since the epoch) at which they are due."""

    def hold(self, kind: ResourceType, names: Iterable[str]) -> None:
        """Enter resources that are never due: only a forced cleanup deletes them."""

    def strike(self, kind: ResourceType, names: Iterable[str]) -> None:
        """Take resources off, with what was noted of them."""

    def entries(self, kind: ResourceType) -> dict[str, float]:
        """All resources of a type, and when they are due (s since the epoch, or infinity)."""

    def due(self, kind: ResourceType, now: float, most: int = 100) -> list[str]:
        """Resources that are due, the most overdue first."""

    def note_failure(self, kind: ResourceType, name: str, objects: int, error: str) -> CleanupFailure:
        """Write down that a resource could not be cleaned up, once more."""

    def failures(self, kind: ResourceType) -> dict[str, CleanupFailure]:
        """What could not be cleaned up so far."""

    def count(self, kind: ResourceType, outcome: Outcome, number: int = 1) -> None:
        """Add to the statistics."""

    def counts(self) -> Counts:
        """The statistics: a number for each type and outcome. What is done twice may count twice."""


def no_counts() -> Counts:
    """Statistics before anything has happened."""
    return {kind: dict.fromkeys(Outcome, 0) for kind in ResourceType}


@dataclass
class MemoryLedger:
    """The ledger of one process, gone with it. Thread-safe."""

    clock: Callable[[], float] = time.time
    lasting: bool = False
    _due: dict[ResourceType, dict[str, float]] = field(default_factory=lambda: {kind: {} for kind in ResourceType})
    _failures: dict[tuple[ResourceType, str], CleanupFailure] = field(default_factory=dict)
    _counts: Counts = field(default_factory=no_counts)
    _lock: Lock = field(default_factory=Lock)

    def now(self) -> float:
        """See :class:`Ledger`."""
        return self.clock()

    def schedule(self, kind: ResourceType, entries: Mapping[str, float]) -> None:
        """See :class:`Ledger`."""
        with self._lock:
            self._due[kind].update(entries)

    def hold(self, kind: ResourceType, names: Iterable[str]) -> None:
        """See :class:`Ledger`."""
        self.schedule(kind, dict.fromkeys(names, inf))

    def strike(self, kind: ResourceType, names: Iterable[str]) -> None:
        """See :class:`Ledger`."""
        with self._lock:
            for name in names:
                self._due[kind].pop(name, None)
                self._failures.pop((kind, name), None)

    def entries(self, kind: ResourceType) -> dict[str, float]:
        """See :class:`Ledger`."""
        with self._lock:
            return dict(self._due[kind])

    def due(self, kind: ResourceType, now: float, most: int = 100) -> list[str]:
        """See :class:`Ledger`."""
        found = heapq.nsmallest(most, ((when, name) for name, when in self.entries(kind).items() if when <= now))
        return [name for _, name in found]

    def note_failure(self, kind: ResourceType, name: str, objects: int, error: str) -> CleanupFailure:
        """See :class:`Ledger`."""
        with self._lock:
            before = self._failures.get((kind, name))
            failure = CleanupFailure(objects, error, 1 + (before.attempts if before else 0))
            self._failures[kind, name] = failure
            return failure

    def failures(self, kind: ResourceType) -> dict[str, CleanupFailure]:
        """See :class:`Ledger`."""
        with self._lock:
            return {name: failure for (of, name), failure in self._failures.items() if of is kind}

    def count(self, kind: ResourceType, outcome: Outcome, number: int = 1) -> None:
        """See :class:`Ledger`."""
        with self._lock:
            self._counts[kind][outcome] += number

    def counts(self) -> Counts:
        """See :class:`Ledger`."""
        with self._lock:
            return {kind: dict(outcomes) for kind, outcomes in self._counts.items()}


class RedisLedger:
    """The ledger of a fleet. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    lasting = True

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def now(self) -> float:
        """See :class:`Ledger`; the server's time, one clock for all workers, unless this machine's is behind it."""
        seconds, microseconds = self._redis.time()
        return earlier(float(seconds + microseconds / 1e6))

    def schedule(self, kind: ResourceType, entries: Mapping[str, float]) -> None:
        """See :class:`Ledger`."""
        if entries:
            self._redis.zadd(_DUE + kind, dict(entries))
            self._redis.expire(_DUE + kind, LEDGER_SECONDS)

    def hold(self, kind: ResourceType, names: Iterable[str]) -> None:
        """See :class:`Ledger`; what is held is forgotten after :data:`LEDGER_SECONDS`."""
        held = dict.fromkeys(names, self.now() + LEDGER_SECONDS)
        if held:
            self._redis.zadd(_HELD + kind, held)
            self._redis.expire(_HELD + kind, LEDGER_SECONDS)
            self._redis.zrem(_DUE + kind, *held)

    def strike(self, kind: ResourceType, names: Iterable[str]) -> None:
        """See :class:`Ledger`."""
        gone = list(names)
        if gone:
            self._redis.zrem(_DUE + kind, *gone)
            self._redis.zrem(_HELD + kind, *gone)
            self._redis.hdel(_FAILURES + kind, *gone)

    def entries(self, kind: ResourceType) -> dict[str, float]:
        """See :class:`Ledger`."""
        self._redis.zremrangebyscore(_HELD + kind, "-inf", self.now())
        held = {name.decode(): inf for name in self._redis.zrange(_HELD + kind, 0, -1)}
        return held | {name.decode(): when for name, when in self._redis.zrange(_DUE + kind, 0, -1, withscores=True)}

    def due(self, kind: ResourceType, now: float, most: int = 100) -> list[str]:
        """See :class:`Ledger`."""
        self._redis.expire(_DUE + kind, LEDGER_SECONDS)
        self._redis.expire(_FAILURES + kind, LEDGER_SECONDS)
        return [name.decode() for name in self._redis.zrangebyscore(_DUE + kind, "-inf", now, start=0, num=most)]

    def note_failure(self, kind: ResourceType, name: str, objects: int, error: str) -> CleanupFailure:
        """See :class:`Ledger`."""
        text = self._redis.hget(_FAILURES + kind, name)
        failure = CleanupFailure(objects, error, 1 + (orjson.loads(text)[2] if text else 0))
        self._redis.hset(_FAILURES + kind, name, orjson.dumps([objects, error, failure.attempts]))
        self._redis.expire(_FAILURES + kind, LEDGER_SECONDS)
        return failure

    def failures(self, kind: ResourceType) -> dict[str, CleanupFailure]:
        """See :class:`Ledger`."""
        found = self._redis.hgetall(_FAILURES + kind)
        return {name.decode(): CleanupFailure(*orjson.loads(text)) for name, text in found.items()}

    def count(self, kind: ResourceType, outcome: Outcome, number: int = 1) -> None:
        """See :class:`Ledger`."""
        if number:
            self._redis.hincrby(_COUNTS, f"{kind} {outcome}", number)
            self._redis.expire(_COUNTS, LEDGER_SECONDS)

    def counts(self) -> Counts:
        """See :class:`Ledger`."""
        counts = no_counts()
        for name, number in self._redis.hgetall(_COUNTS).items():
            kind, outcome = name.decode().split()
            counts[ResourceType(kind)][Outcome(outcome)] = int(number)
        return counts
