"""When a shard is looked at: what is learned of an endpoint, and what follows from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.pace import CLOSEST_SECONDS, UNKNOWN_SECONDS, Pace, Paces, first_look, next_look

SECONDS = st.floats(0, 3600)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def appeared(*seconds: float) -> list[datetime]:
    return [BEGAN + timedelta(seconds=one) for one in seconds]


@given(st.lists(SECONDS, min_size=1, max_size=20), st.floats(0.1, 600))
def test_whatever_was_before_a_steady_endpoint_is_known_after_some_shards(before: list[float], steady: float) -> None:
    pace = Pace.of(before[0])
    for seconds in before[1:]:
        pace = pace.after(seconds)
    for _ in range(30):
        pace = pace.after(steady)
    assert steady * 0.99 - 0.01 <= pace.likely <= steady * 1.01 + 0.1


@given(SECONDS, st.lists(SECONDS, max_size=20))
def test_a_first_look_comes_when_most_shards_are_through(first: float, others: list[float]) -> None:
    pace = Pace.of(first)
    for seconds in others:
        pace = pace.after(seconds)
    assert first_look(pace) >= max(CLOSEST_SECONDS, pace.mean)
    assert pace.mean <= max(first, *others, 0.0) * (1 + 1e-9)


def test_nothing_is_known_of_a_new_endpoint() -> None:
    assert first_look(None) == UNKNOWN_SECONDS


def test_the_rest_of_a_shard_comes_at_the_rate_of_what_is_there() -> None:
    arrived = appeared(0, 1, 2, 3)  # within four seconds, for a listing's times are whole ones
    wait = next_look(Pace(30, 1), waited=5, missing=8, arrived=arrived, news=True)
    assert wait == pytest.approx(8)


def test_nothing_new_is_waited_for_as_long_as_shards_take() -> None:
    assert next_look(Pace(30, 2), waited=5, missing=8, arrived=[], news=False) == pytest.approx(27)


@pytest.mark.parametrize("pace", [None, Pace(3, 1)])
def test_what_is_overdue_is_looked_for_ever_more_seldom(pace: Pace | None) -> None:
    waited, looks = 5.0, 0
    while waited < 3600:
        wait = next_look(pace, waited=waited, missing=1, arrived=appeared(1), news=False)
        assert wait <= max(CLOSEST_SECONDS, waited / 3)
        waited, looks = waited + wait, looks + 1
    assert looks < 30


@given(st.none() | st.builds(Pace, SECONDS, SECONDS), SECONDS, st.integers(1, 1000), st.lists(SECONDS), st.booleans())
def test_no_look_follows_another_at_once(
    pace: Pace | None, waited: float, missing: int, arrived: list[float], news: bool
) -> None:
    wait = next_look(pace, waited=waited, missing=missing, arrived=appeared(*arrived), news=news)
    assert wait >= CLOSEST_SECONDS


def test_what_one_worker_learns_the_others_know() -> None:
    redis: Any = fakeredis.FakeRedis()
    one, other = Paces(redis), Paces(redis)
    assert other.of("ships") is None
    one.learn("ships", 8.0)
    assert other.of("ships") == Pace(8.0, 2.0)
    other.learn("ships", 4.0)
    assert one.of("ships") == Pace(6.0, 3.0)
    assert one.of("planes") is None
    assert all(redis.ttl(key) > 0 for key in redis.scan_iter())
