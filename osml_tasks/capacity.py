"""How much may be in flight at an endpoint, over the whole fleet, and who waits for some of it.

A shard holds its share as a lease that expires, lowers it as its tiles finish, and gives the rest
back at its end. A shard that gets nothing is parked: its message lies in a list of its endpoint and
is published again by whoever frees enough for it. Waiting costs neither a worker nor a retry.
The rules are in ``capacity.lua``, which Redis runs as one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from osml_tasks.jobs import Shard
from osml_tasks.redis_keys import PREFIX

LEASE_SECONDS = 300
"""How long a share is held without a word from its shard, s. Longer than any step between two words."""
GRANT_SECONDS = 60
"""How long a share waits for the message that its shard was granted it with, s; then the shard waits again."""

KEY_PREFIX = f"{PREFIX}capacity:"
# What an endpoint's keys are called after its name, in the script's order.
_KEYS = ("held", "leases", "turns", "granted", "parked", "waiting")


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a request.

    :ivar held: whether the asking shard holds its share.
    :ivar messages: messages of other shards that hold theirs now, or of a job that was forgotten: to be
        published by the caller.
    """

    held: bool
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """Who has what of an endpoint's capacity at one moment.

    :ivar in_flight: tiles that the shards of each job hold: invoked and not through, or about to be invoked.
    :ivar parked: shards of each job that wait for capacity.
    """

    in_flight: Mapping[str, int]
    parked: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Hand:
    """The shards of one job that its endpoint's capacity knows, by their numbers."""

    held: frozenset[int]
    parked: frozenset[int]


class Capacity:
    """The capacity of all endpoints, kept in Redis (6.2 or newer) or Valkey.

    :param redis: a client of the server that holds the fleet's state.
    :param lease: s; every process of a fleet has to give the same.
    :param grant: s, likewise.
    """

    def __init__(self, redis: Any, *, lease: int = LEASE_SECONDS, grant: int = GRANT_SECONDS) -> None:
        source = files("osml_tasks").joinpath("capacity.lua").read_text("utf-8")
        self._lease = lease
        self._grant = grant
        self._redis = redis
        self._script: Callable[..., list[bytes | str]] = redis.register_script(source)

    def request(self, endpoint: str, shard: Shard, need: int, limit: int, message: str, ticket: str = "") -> Grant:
        """Take a shard's whole need, or leave its message to be published when there is room.

        :param need: tiles of the shard that are not through yet.
        :param limit: most tiles in flight at this endpoint (``max_concurrent_jobs``).
        :param message: what to publish when the shard's turn has come.
        :param ticket: tells this message from others of the shard, which may belong to another chord; one
            that comes again waits once.
        """
        return self._call(endpoint, "request", shard.name, need, limit, self._lease, shard.job, message, ticket)

    def keep(self, endpoint: str, shard: Shard, amount: int) -> Grant:
        """Hold on to ``amount`` tiles and renew the lease; 0 gives everything back."""
        return self._call(endpoint, "keep", shard.name, amount, self._lease)

    def forget(self, endpoint: str, job_id: str) -> Grant:
        """Give back all that a job holds; what it has parked is among the messages."""
        return self._call(endpoint, "forget", job_id)

    def grant(self, endpoint: str) -> Grant:
        """End leases that ran out and grant what that frees."""
        return self._call(endpoint, "grant", "")

    def use(self, endpoint: str) -> Use:
        """Who holds capacity and who waits for some; changes nothing, so that a lease that ran out still counts."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(_key(endpoint, "held"))
            pipe.hkeys(_key(endpoint, "parked"))
            held, parked = pipe.execute()
        in_flight: Counter[str] = Counter()
        for shard, amount in held.items():
            in_flight[_job(_text(shard))] += int(amount)
        # Several messages of one shard may be parked; their names differ by what follows the shard's.
        shards = {_text(field).split(" ")[0] for field in parked}
        return Use(in_flight, Counter(map(_job, shards)))

    def in_hand(self, endpoint: str, job_id: str) -> Hand:
        """Which shards of a job hold capacity now, and which wait for some."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hkeys(_key(endpoint, "held"))
            pipe.hkeys(_key(endpoint, "parked"))
            held, parked = pipe.execute()
        return Hand(_numbers(held, job_id), _numbers(parked, job_id))

    def _call(self, endpoint: str, *arguments: str | int) -> Grant:
        keys = [_key(endpoint, name) for name in _KEYS]
        held, *messages = self._script(keys=keys, args=(*arguments, self._grant))
        return Grant(_text(held) == "1", tuple(map(_text, messages)))


def _key(endpoint: str, name: str) -> str:
    return f"{KEY_PREFIX}{endpoint}:{name}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _job(shard: str) -> str:
    return shard.rpartition("/")[0]


def _numbers(fields: Iterable[bytes | str], job_id: str) -> frozenset[int]:
    shards = (_text(field).split(" ")[0] for field in fields)
    return frozenset(int(shard.rpartition("/")[2]) for shard in shards if _job(shard) == job_id)
