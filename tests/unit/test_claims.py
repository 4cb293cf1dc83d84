"""Claims to pieces of work, with the real commands on fakeredis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from osml_tasks.claims import Claims
from osml_tasks.records import RECORD_SECONDS
from osml_tasks.redis_keys import PREFIX


@pytest.fixture
def redis() -> Any:
    return fakeredis.FakeRedis()


@pytest.fixture
def claims(redis: Any) -> Claims:
    return Claims(redis)


def test_a_claim_is_one_tasks_until_it_gives_it_back(claims: Claims) -> None:
    assert claims.claim("work", "mine", 60)
    assert not claims.claim("work", "yours", 60)
    assert claims.claim("other work", "yours", 60)
    claims.unclaim("work", "yours")
    assert not claims.claim("work", "yours", 60)
    claims.unclaim("work", "mine")
    assert claims.claim("work", "yours", 60)


def test_a_claim_that_has_expired_is_not_renewed(claims: Claims, redis: Any) -> None:
    claims.claim("work", "mine", 60)
    assert claims.renew("work", "mine", 900)
    assert redis.ttl(f"{PREFIX}claim:work") > 60
    redis.delete(f"{PREFIX}claim:work")
    assert not claims.renew("work", "mine", 60)
    claims.claim("work", "yours", 60)
    assert not claims.renew("work", "mine", 60)


def test_claiming_again_renews_a_claim(claims: Claims, redis: Any) -> None:
    claims.claim("work", "mine", 10)
    assert claims.claim("work", "mine", 900)
    assert redis.ttl(f"{PREFIX}claim:work") > 10


def test_a_claim_ends_by_itself(claims: Claims) -> None:
    claims.claim("work", "mine", 1)
    time.sleep(1.1)
    assert claims.claim("work", "yours", 60)


def test_trouble_is_counted_from_its_first_note(claims: Claims) -> None:
    assert claims.trouble_lasts("s3", 60) == 0
    time.sleep(0.02)
    assert 0.01 < claims.trouble_lasts("s3", 60) < 5
    assert claims.trouble_lasts("other", 60) == 0


def test_trouble_is_over_when_none_was_noted_for_a_while(claims: Claims) -> None:
    claims.trouble_lasts("s3", 1)
    time.sleep(1.1)
    assert claims.trouble_lasts("s3", 1) == 0


def test_the_first_value_of_a_name_stays(claims: Claims) -> None:
    assert [claims.first("a", "1"), claims.first("a", "2"), claims.first("b", "3")] == ["1", "1", "3"]


WRITES: dict[str, Callable[[Claims], object]] = {
    "claim": lambda claims: claims.claim("work", "mine", 60),
    "trouble_lasts": lambda claims: claims.trouble_lasts("work", 60),
    "first": lambda claims: claims.first("name", "value"),
}


@pytest.mark.parametrize("write", WRITES)
def test_no_write_leaves_a_key_for_ever(claims: Claims, redis: Any, write: str) -> None:
    WRITES[write](claims)
    assert all(0 < redis.ttl(key) <= RECORD_SECONDS for key in redis.scan_iter())
