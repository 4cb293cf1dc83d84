"""Who is at which piece of work, so that nobody else does it at the same time; in Redis, each with an expiry."""

from __future__ import annotations

from typing import Any

from osml_tasks.records import RECORD_SECONDS, server_time

_CLAIM = "osml:claim:"
_TROUBLE = "osml:trouble:"

# Deletes a claim only if it is still one's own.
_UNCLAIM = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Claims:
    """Claims of tasks to pieces of work, by name. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._unclaim = redis.register_script(_UNCLAIM)

    def claim(self, name: str, token: str, seconds: int) -> bool:
        """Claim a piece of work for one task, or renew one's claim to it."""
        key = _CLAIM + name
        if self._redis.set(key, token, nx=True, ex=seconds):
            return True
        if self._redis.get(key) != token.encode():
            return False
        self._redis.expire(key, seconds)
        return True

    def unclaim(self, name: str, token: str) -> None:
        """Give a claim back, if it is still one's own."""
        self._unclaim(keys=[_CLAIM + name], args=[token])

    def first(self, name: str, value: str) -> str:
        """The value that was first given to a name; this one, if none was."""
        self._redis.set(_CLAIM + name, value, nx=True, ex=RECORD_SECONDS)
        return str(self._redis.get(_CLAIM + name).decode())

    def trouble_lasts(self, name: str, forget_after: int) -> float:
        """Note trouble with a piece of work, and for how long there has been some, s.

        :param forget_after: seconds without trouble after which it counts as over.
        """
        key = _TROUBLE + name
        now = server_time(self._redis)
        self._redis.set(key, now, nx=True, ex=forget_after)
        since = self._redis.getex(key, ex=forget_after)
        return now - float(since or now)
