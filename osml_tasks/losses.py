"""Work that workers are lost at: how often, and at which tile; in Redis, with an expiry.

A message whose worker was killed comes back. Where that happens again and again something in the work itself kills
them, and without a count it would go on for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from osml_tasks.records import RECORD_SECONDS
from osml_tasks.redis_keys import PREFIX

MOST_LOSSES = 3
"""So many workers may be lost at one tile; the next one reports it."""
MOST_LOSSES_OF_JOB = 5
"""The same for what is about a job as a whole, where two may be at the same for a while."""

_KEY = f"{PREFIX}losses:"
_TRY = "try:"
_TILE = "tile:"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A piece of work that is being done.

    :ivar losses: how many workers have begun it before and neither ended it nor said that they could not.
    """

    redis: Any
    key: str
    losses: int

    @property
    def is_careful(self) -> bool:
        """Whether to do one tile at a time, so that it shows at which of them workers are lost."""
        return self.losses > 0

    def forget(self) -> None:
        """Begin to count anew."""
        self.redis.unlink(self.key)

    @contextmanager
    def at_tile(self, index: int) -> Iterator[str]:
        """Be at one tile of it; gives what to report of the tile instead of doing it, if too many were lost at it."""
        field = f"{_TILE}{index}"
        count = int(self.redis.hincrby(self.key, field, 1)) - 1
        if count >= MOST_LOSSES:
            yield (
                f"{count} workers were lost at this tile, each killed or out of memory: look at it, and at the log of "
                "the system they ran on"
            )
            return
        try:
            yield ""
        finally:
            with suppress(RedisError):
                self.redis.hdel(self.key, field)


class Losses:
    """Counts workers that are lost. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    @contextmanager
    def at_work(self, name: str) -> Iterator[Attempt]:
        """Be at a piece of work; what was counted is forgotten when it ends well."""
        key, field = _KEY + name, f"{_TRY}{uuid4().hex}"
        with self._redis.pipeline() as pipe:
            pipe.hkeys(key)
            pipe.hset(key, field, 1)
            pipe.expire(key, RECORD_SECONDS)
            before = pipe.execute()[0]
        losses = sum(one.decode().startswith(_TRY) for one in before)
        try:
            yield Attempt(self._redis, key, losses)
        except BaseException:
            with suppress(RedisError):
                self._redis.hdel(key, field)
            raise
        with suppress(RedisError):
            self._redis.unlink(key)
