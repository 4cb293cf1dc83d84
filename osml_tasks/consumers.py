"""Which workers consume which queues, as the workers themselves note it.

A question that has to be answered in time says of a fleet with all cores taken that there is none. So each worker
writes down what it consumes, and does so again long before that expires; it takes it back when it stops, and what
a killed one has noted expires.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from osml_tasks.celery_settings import QUEUES
from osml_tasks.redis_keys import PREFIX

NOTE_SECONDS = 120
"""How long a worker counts as one that consumes after it has last said so, s."""
RENEW_SECONDS = 30
"""How often it says so, s."""

KEY_PREFIX = f"{PREFIX}consumers:"

# A sorted set for each queue: nodes, by the second at which their notes expire. One clock for all: the server's.
_KEYS = [KEY_PREFIX + queue for queue in QUEUES]

# Notes node ARGV[1] for ARGV[2] s at those queues whose place in ARGV[3] and on has a 1, and at no others.
_NOTE = """
local now = tonumber(redis.call('TIME')[1])
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if ARGV[2 + i] == '1' then
        redis.call('ZADD', key, now + ARGV[2], ARGV[1])
        redis.call('EXPIRE', key, ARGV[2])
    else
        redis.call('ZREM', key, ARGV[1])
    end
end
"""
_COUNT = """
local now, counts = tonumber(redis.call('TIME')[1]), {}
for i, key in ipairs(KEYS) do counts[i] = redis.call('ZCOUNT', key, '(' .. now, '+inf') end
return counts
"""


class Consumers:
    """What workers have noted, kept in Redis. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    :param seconds: how long a note holds.
    """

    def __init__(self, redis: Any, *, seconds: int = NOTE_SECONDS) -> None:
        self._redis = redis
        self._seconds = seconds
        self._note: Callable[..., None] = redis.register_script(_NOTE)
        self._count: Callable[..., list[int]] = redis.register_script(_COUNT)

    def note(self, node: str, queues: Collection[str]) -> None:
        """Note that a worker consumes these queues from now on, and no others; with none, that it consumes nothing."""
        consumed = [int(queue in queues) for queue in QUEUES]
        self._note(keys=_KEYS, args=[node, self._seconds, *consumed])

    def counts(self) -> dict[str, int]:
        """How many workers consume each queue, by what they have noted."""
        return dict(zip(QUEUES, self._count(keys=_KEYS), strict=True))

    def has_noted(self, node: str, queues: Collection[str]) -> bool:
        """Whether a worker consumes all of these queues."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for queue in queues:
                pipe.zscore(KEY_PREFIX + queue, node)
            (now, _), *expiries = pipe.execute()
        return all(expiry is not None and expiry > now for expiry in expiries)
