"""Who is at which piece of work, so that nobody else does it at the same time; in Redis, each with an expiry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from osml_tasks.records import RECORD_SECONDS, server_time
from osml_tasks.redis_keys import PREFIX
from osml_tasks.two_clocks import earlier, later

_CLAIM = f"{PREFIX}claim:"
_TROUBLE = f"{PREFIX}trouble:"
_NOTE = f"{PREFIX}note:"
_SINCE = f"{PREFIX}since:"

# Takes or prolongs a claim, unless it is another's.
_TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""
# Prolongs a claim only if it is still one's own.
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 0"
# Deletes a claim only if it is still one's own.
_UNCLAIM = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Claims:
    """Claims of tasks to pieces of work, by name. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._take = redis.register_script(_TAKE)
        self._renew = redis.register_script(_RENEW)
        self._unclaim = redis.register_script(_UNCLAIM)

    def claim(self, name: str, token: str, seconds: int) -> bool:
        """Claim a piece of work for one task, or renew one's claim to it."""
        return bool(self._take(keys=[_CLAIM + name], args=[token, seconds]))

    def renew(self, name: str, token: str, seconds: int) -> bool:
        """Renew one's claim if it has not expired: after that another may have had it, and be done."""
        return bool(self._renew(keys=[_CLAIM + name], args=[token, seconds]))

    def unclaim(self, name: str, token: str) -> None:
        """Give a claim back, if it is still one's own."""
        self._unclaim(keys=[_CLAIM + name], args=[token])

    def first(self, name: str, value: str) -> str:
        """The value that was first given to a name; this one, if none was."""
        self._redis.set(_CLAIM + name, value, nx=True, ex=RECORD_SECONDS)
        return str(self._redis.get(_CLAIM + name).decode())

    def note(self, name: str, value: str) -> None:
        """Remember a value by a name."""
        self._redis.set(_NOTE + name, value, ex=RECORD_SECONDS)

    def noted(self, name: str) -> str | None:
        """The value that was remembered last, or None."""
        value = self._redis.get(_NOTE + name)
        return None if value is None else str(value.decode())

    def lasts(self, name: str, members: Iterable[int], forget_after: int) -> dict[int, float]:
        """For how long each of some numbers has been among those given with a name, without a break, s.

        :param forget_after: seconds without a call after which all are new.
        """
        key, now = _SINCE + name, server_time(self._redis)
        before = {int(number): float(since) for number, since in self._redis.hgetall(key).items()}
        since = {number: before.get(number, now) for number in members}
        with self._redis.pipeline() as pipe:
            pipe.delete(key)
            if since:
                pipe.hset(key, mapping=since)
                pipe.expire(key, forget_after)
            pipe.execute()
        return {number: now - first for number, first in since.items()}

    def forget(self, name: str, members: Iterable[int]) -> None:
        """Have some of these numbers begin anew."""
        if fields := list(members):
            self._redis.hdel(_SINCE + name, *fields)

    def trouble_is_over(self, name: str) -> None:
        """Note that a piece of work has gone well."""
        self._redis.unlink(_TROUBLE + name)

    def trouble_lasts(self, name: str, forget_after: int) -> float:
        """Note trouble with a piece of work, and for how long there has been some, s.

        :param forget_after: seconds without trouble after which it counts as over.
        """
        key = _TROUBLE + name
        now = server_time(self._redis)
        self._redis.set(key, later(now), nx=True, ex=forget_after)
        since = self._redis.getex(key, ex=forget_after)
        return max(0.0, earlier(now) - float(since or now))
