"""Capacity under any order of requests, returns, lost jobs and leases that run out, on two endpoints."""

from __future__ import annotations

from collections.abc import Iterable

import fakeredis
from hypothesis import given, settings
from hypothesis import strategies as st

from osml_tasks.capacity import KEY_PREFIX, Capacity, Grant
from osml_tasks.jobs import Shard

LIMITS = {"ships": 10, "planes": 7}
SHARDS = {
    shard.name: shard for job in ("a", "ab", "b") for shard in (Shard(job, n, 0, 2 * n + 1, 0, 0) for n in range(4))
}


class Fleet:
    """What the workers of one endpoint have been told, beside what the script believes."""

    def __init__(self, redis: fakeredis.FakeRedis, endpoint: str) -> None:
        self.redis = redis
        self.capacity = Capacity(redis)
        self.endpoint = endpoint
        self.limit = LIMITS[endpoint]
        self.held: dict[str, int] = {}
        self.waiting: set[str] = set()
        self.not_taken_up: set[str] = set()

    def request(self, name: str) -> None:
        held_before = name in self.held
        shard = SHARDS[name]
        grant = self.capacity.request(self.endpoint, shard, shard.tiles, self.limit, name)
        self.waiting.add(name)
        self._told(grant.messages, not_to=name)
        if held_before or grant.held:
            assert grant.held
            self.waiting.discard(name)
            self.not_taken_up.discard(name)
            self.held.setdefault(name, shard.tiles)
        self._check()

    def keep(self, name: str, amount: int) -> None:
        amount = min(amount, self.held.get(name, 0))
        grant = self.capacity.keep(self.endpoint, SHARDS[name], amount)
        self.not_taken_up.discard(name)
        if amount:
            self.held[name] = amount
        else:
            self.held.pop(name, None)
        self._told(grant.messages)
        self._check()

    def forget(self, job: str) -> None:
        grant = self.capacity.forget(self.endpoint, job)
        gone = {name for name in SHARDS if name.startswith(f"{job}/")}
        assert {name for name in grant.messages if name in gone} == (self.waiting | self.not_taken_up) & gone
        for name in gone:
            self.held.pop(name, None)
            self.waiting.discard(name)
            self.not_taken_up.discard(name)
        self._told(name for name in grant.messages if name not in gone)
        self._check()

    def lower(self, place: int, amount: int) -> None:
        """Some holder's tiles finish."""
        if self.held:
            self.keep(sorted(self.held)[place % len(self.held)], amount)

    def lose(self, place: int) -> None:
        """The lease of some holder runs out."""
        if not self.held:
            return
        name = sorted(self.held)[place % len(self.held)]
        del self.held[name]
        self.redis.zadd(f"{KEY_PREFIX}{self.endpoint}:leases", {name: 1})
        if name in self.not_taken_up:
            self.not_taken_up.discard(name)
            self.waiting.add(name)
        self._told(self.capacity.grant(self.endpoint).messages)
        self._check()

    def _told(self, messages: Iterable[str], not_to: str = "") -> None:
        for name in messages:
            assert name != not_to
            assert name in self.waiting
            self.waiting.discard(name)
            self.held[name] = SHARDS[name].tiles
            self.not_taken_up.add(name)

    def _check(self) -> None:
        assert sum(self.held.values()) <= self.limit
        assert self.held or not self.waiting
        assert all(self.redis.ttl(key) > 0 for key in self.redis.scan_iter())

    def drain(self) -> None:
        while self.held:
            self.keep(next(iter(self.held)), 0)
        assert not self.waiting
        assert self.capacity.grant(self.endpoint) == Grant(False, ())


endpoints = st.sampled_from([*LIMITS])
names = st.sampled_from([*SHARDS])
places = st.integers(0, 9)
steps = st.lists(
    st.tuples(endpoints, st.just("request"), names)
    | st.tuples(endpoints, st.just("request"), names)
    | st.tuples(endpoints, st.just("keep"), names, st.integers(0, 6))
    | st.tuples(endpoints, st.just("lower"), places, st.integers(0, 3))
    | st.tuples(endpoints, st.just("lose"), places)
    | st.tuples(endpoints, st.just("forget"), st.sampled_from(["a", "ab", "b"])),
    # Hypothesis makes short lists unless it is told how long they have to be.
    min_size=20,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_the_limit_holds_and_each_parked_message_comes_out_once(taken: list[tuple[str, str, str | int]]) -> None:
    redis = fakeredis.FakeRedis()
    fleets = {endpoint: Fleet(redis, endpoint) for endpoint in LIMITS}
    for endpoint, verb, *arguments in taken:
        getattr(fleets[endpoint], verb)(*arguments)
    for fleet in fleets.values():
        fleet.drain()


def test_a_message_comes_out_as_it_went_in() -> None:
    capacity = Capacity(fakeredis.FakeRedis())
    message = '{"a": ["\\u00e9/é", "\\"", null, [], {}, 1e22], "newline": "\\n"}'
    capacity.request("ships", SHARDS["a/00000"], 1, 1, "")
    assert capacity.request("ships", SHARDS["b/00000"], 1, 1, message) == Grant(False, ())
    assert capacity.grant("ships") == Grant(False, ())
    assert capacity.keep("ships", SHARDS["a/00000"], 0).messages == (message,)
