"""Workers that are lost are counted, with the real commands on fakeredis."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest

from osml_tasks.losses import MOST_LOSSES, Losses
from osml_tasks.records import RECORD_SECONDS
from osml_tasks.redis_keys import PREFIX

_KEPT: list[Any] = []  # what is collected as garbage would end


@pytest.fixture
def redis() -> Any:
    return fakeredis.FakeRedis()


@pytest.fixture
def losses(redis: Any) -> Losses:
    return Losses(redis)


def lose(losses: Losses, tile: int | None = None) -> None:
    """Begin a piece of work, and never be heard of again."""
    _KEPT.append(work := losses.at_work("work"))
    attempt = work.__enter__()
    if tile is not None:
        _KEPT.append(at_tile := attempt.at_tile(tile))
        at_tile.__enter__()


def test_work_that_ends_well_leaves_nothing(losses: Losses, redis: Any) -> None:
    for _ in range(2):
        with losses.at_work("work") as attempt, attempt.at_tile(3) as lost:
            assert (attempt.losses, lost) == (0, "")
    assert redis.keys() == []


def test_work_that_says_why_it_does_not_go_on_is_no_loss(losses: Losses) -> None:
    with pytest.raises(KeyError), losses.at_work("work"):
        raise KeyError
    with losses.at_work("work") as attempt:
        assert not attempt.is_careful


def test_who_is_not_heard_of_again_is_a_loss_until_the_work_is_done(losses: Losses) -> None:
    lose(losses)
    lose(losses)
    with losses.at_work("work") as attempt:
        assert (attempt.losses, attempt.is_careful) == (2, True)
    with losses.at_work("work") as attempt:
        assert attempt.losses == 0


def test_the_tile_that_it_happens_at_is_told_from_the_others(losses: Losses) -> None:
    lose(losses)
    for _ in range(MOST_LOSSES):
        lose(losses, 7)
    with losses.at_work("work") as attempt:
        with attempt.at_tile(6) as lost:
            assert lost == ""
        with attempt.at_tile(7) as lost:
            assert lost.startswith(f"{MOST_LOSSES} workers were lost at this tile")


def test_other_work_counts_by_itself(losses: Losses) -> None:
    lose(losses)
    with losses.at_work("other") as attempt:
        assert attempt.losses == 0


def test_counts_end_by_themselves(losses: Losses, redis: Any) -> None:
    lose(losses)
    assert 0 < redis.ttl(f"{PREFIX}losses:work") <= RECORD_SECONDS


def test_what_was_counted_can_be_forgotten(losses: Losses) -> None:
    lose(losses)
    with pytest.raises(KeyError), losses.at_work("work") as attempt:
        attempt.forget()
        raise KeyError
    with losses.at_work("work") as attempt:
        assert attempt.losses == 0
