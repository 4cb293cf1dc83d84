"""Capacity by its rules, with the real script on fakeredis."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osml_tasks.capacity import KEY_PREFIX, Capacity
from osml_tasks.jobs import Shard


@pytest.fixture
def redis() -> Any:
    return fakeredis.FakeRedis()


@pytest.fixture
def capacity(redis: Any) -> Capacity:
    return Capacity(redis)


def shard(number: int, tiles: int = 10, job: str = "job") -> Shard:
    return Shard(job, number, number * tiles, tiles, 0, 0)


def ask(capacity: Capacity, wanted: Shard, limit: int = 20, endpoint: str = "ships") -> bool:
    return capacity.request(endpoint, wanted, wanted.tiles, limit, wanted.name).held


def test_a_shard_gets_its_whole_need_or_nothing(capacity: Capacity) -> None:
    assert [ask(capacity, shard(number, 8)) for number in range(3)] == [True, True, False]


def test_what_is_freed_goes_to_who_waits(capacity: Capacity) -> None:
    assert [ask(capacity, shard(number)) for number in range(4)] == [True, True, False, False]
    assert capacity.keep("ships", shard(0), 4).messages == ()
    assert capacity.keep("ships", shard(1), 6).messages == (shard(2).name,)
    assert ask(capacity, shard(2))
    assert capacity.keep("ships", shard(0), 0).messages == ()
    assert capacity.keep("ships", shard(1), 0).messages == (shard(3).name,)


def test_a_holder_that_asks_again_still_holds(capacity: Capacity) -> None:
    assert ask(capacity, shard(0))
    assert ask(capacity, shard(0))
    assert [ask(capacity, shard(1)), ask(capacity, shard(2))] == [True, False]


def test_who_asks_twice_waits_once(capacity: Capacity) -> None:
    ask(capacity, shard(0, 20))
    assert not ask(capacity, shard(1))
    assert not ask(capacity, shard(1))
    assert capacity.keep("ships", shard(0, 20), 0).messages == (shard(1).name,)
    assert capacity.keep("ships", shard(1), 0).messages == ()


def test_two_messages_of_one_shard_both_get_their_turn(capacity: Capacity) -> None:
    """They may belong to two chords of one job: each counts its own."""
    ask(capacity, shard(0, 20))
    for chord in ("A", "B", "A"):
        assert not capacity.request("ships", shard(1), 10, 20, f"chord {chord}", chord).held
    assert capacity.keep("ships", shard(0, 20), 0).messages == ("chord A", "chord B")
    assert capacity.keep("ships", shard(1), 0).messages == ()


def test_another_message_of_a_shard_takes_nothing_from_it(capacity: Capacity, redis: Any) -> None:
    ask(capacity, shard(0, 20))
    for chord in ("A", "B"):
        assert not capacity.request("ships", shard(1), 10, 20, f"chord {chord}", chord).held
    capacity.keep("ships", shard(0, 20), 0)
    assert capacity.keep("ships", shard(1), 4).messages == ()
    assert redis.hgetall(f"{KEY_PREFIX}ships:held") == {shard(1).name.encode(): b"4"}
    assert redis.zscore(f"{KEY_PREFIX}ships:leases", shard(1).name) > redis.time()[0] + 200


def test_a_message_that_was_granted_and_perhaps_never_sent_comes_out_when_its_job_is_forgotten(
    capacity: Capacity,
) -> None:
    ask(capacity, shard(0, 20, "other"))
    ask(capacity, shard(0, 10, "gone"))
    assert capacity.keep("ships", shard(0, 20, "other"), 0).messages == ("gone/00000",)
    assert capacity.forget("ships", "gone").messages == ("gone/00000",)


def test_a_newcomer_does_not_overtake_who_waits(capacity: Capacity) -> None:
    ask(capacity, shard(0, 15))
    assert not ask(capacity, shard(1, 10))
    assert not ask(capacity, shard(2, 1, job="later"))


def test_jobs_take_turns(capacity: Capacity) -> None:
    ask(capacity, shard(0, 20, "holder"))
    for number in range(3):
        ask(capacity, shard(number, 20, "large"))
    ask(capacity, shard(0, 20, "small"))
    order = []
    held = shard(0, 20, "holder")
    for _ in range(4):
        (message,) = capacity.keep("ships", held, 0).messages
        order.append(message)
        job, number = message.split("/")
        held = shard(int(number), 20, job)
        assert ask(capacity, held)
    assert order == ["large/00000", "small/00000", "large/00001", "large/00002"]


def test_endpoints_do_not_wait_for_each_other(capacity: Capacity) -> None:
    assert ask(capacity, shard(0, 20), endpoint="ships")
    assert ask(capacity, shard(1, 20), endpoint="planes")


def test_a_need_beyond_the_limit_is_granted_alone(capacity: Capacity) -> None:
    assert ask(capacity, shard(0, 50))
    assert not ask(capacity, shard(1, 1))


def test_a_forgotten_job_frees_what_it_held_and_waits_no_more(capacity: Capacity) -> None:
    for number in range(3):
        ask(capacity, shard(number, 10, "gone"))
    ask(capacity, shard(0, 10, "other"))
    # What it had parked comes out, too: it finds the job over, and so its chord comes to its end.
    assert capacity.forget("ships", "gone").messages == ("gone/00002", "other/00000")
    assert capacity.keep("ships", shard(0, 10, "other"), 0).messages == ()
    assert ask(capacity, shard(1, 20, "other"))


def test_a_job_is_not_mistaken_for_one_whose_name_begins_alike(capacity: Capacity) -> None:
    ask(capacity, shard(0, 20, "job-1"))
    capacity.forget("ships", "job")
    assert not ask(capacity, shard(0, 10, "other"))


def test_a_lease_that_ran_out_counts_no_more(capacity: Capacity, redis: Any) -> None:
    ask(capacity, shard(0, 20))
    redis.zadd(f"{KEY_PREFIX}ships:leases", {shard(0).name: 1})
    assert ask(capacity, shard(1, 20))


def test_a_grant_that_nobody_took_up_is_given_again(capacity: Capacity, redis: Any) -> None:
    ask(capacity, shard(0, 20))
    ask(capacity, shard(1, 20))
    assert capacity.keep("ships", shard(0), 0).messages == (shard(1).name,)
    redis.zadd(f"{KEY_PREFIX}ships:leases", {shard(1).name: 1})
    assert capacity.grant("ships").messages == (shard(1).name,)


def test_who_has_what_is_said_by_job_and_changes_nothing(capacity: Capacity, redis: Any) -> None:
    ask(capacity, shard(0, 15, "one"))
    ask(capacity, shard(0, 5, "two"))
    for number, job, chord in ((1, "one", "A"), (1, "one", "B"), (2, "one", "A"), (1, "two", "A")):
        capacity.request("ships", shard(number, 10, job), 10, 20, "message", chord)
    redis.zadd(f"{KEY_PREFIX}ships:leases", {shard(0, 15, "one").name: 1})
    before = {key: redis.dump(key) for key in redis.scan_iter()}
    use = capacity.use("ships")
    assert (dict(use.in_flight), dict(use.parked)) == ({"one": 15, "two": 5}, {"one": 2, "two": 1})
    assert {key: redis.dump(key) for key in redis.scan_iter()} == before


def test_an_endpoint_that_nobody_uses_has_neither(capacity: Capacity) -> None:
    assert (dict(capacity.use("ships").in_flight), dict(capacity.use("ships").parked)) == ({}, {})


def test_no_key_is_kept_for_ever(capacity: Capacity, redis: Any) -> None:
    for number in range(4):
        ask(capacity, shard(number))
    capacity.keep("ships", shard(0), 3)
    keys = list(redis.keys())
    assert len(keys) >= 4
    assert all(redis.ttl(key) > 0 for key in keys)


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 9)), min_size=20, max_size=60)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_limit_holds_and_every_shard_is_served_whatever_the_order(steps: list[tuple[str, int, int]]) -> None:
    """Shards ask, finish tile by tile and end in any order; afterwards all that waited have had their turn."""
    redis = fakeredis.FakeRedis()
    capacity, limit = Capacity(redis), 25
    running: dict[str, int] = {}
    waiting: set[str] = set()
    granted: Counter[str] = Counter()

    def take_up(messages: tuple[str, ...]) -> None:
        for message in messages:
            job, number = message.split("/")
            waiting.discard(message)
            granted[message] += 1
            assert ask(capacity, shard(int(number), 9, job), limit)
            running[message] = 9

    def lower(name: str, amount: int) -> None:
        job, number = name.split("/")
        running[name] = amount
        if not amount:
            del running[name]
        take_up(capacity.keep("ships", shard(int(number), 9, job), amount).messages)

    for job, number, amount in steps:
        name = shard(number, 9, job).name
        if name in running:
            lower(name, min(amount, running[name]))
        elif name not in waiting and not granted[name]:
            answer = capacity.request("ships", shard(number, 9, job), 9, limit, name)
            (running if answer.held else {}).update({name: 9})
            granted[name] += answer.held
            if not answer.held:
                waiting.add(name)
            take_up(answer.messages)
        assert sum(running.values()) <= limit
    while running:
        lower(next(iter(running)), 0)
    assert not waiting
    assert set(granted.values()) <= {0, 1}
