"""When a worker's clock counts as wrong: Redis is asked first, S3 has the casting vote."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as NoConnectionError

from osml_tasks.clock import clock_complaint

NOW = 1_800_000_000.0


class Server:
    """As much of a Redis client as tells the time, in s since the epoch."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time(self) -> tuple[int, int]:
        if self._seconds is None:
            raise NoConnectionError("gone")
        return int(self._seconds), 0


def no_answer() -> float:
    raise OSError("S3 is out of reach")


@pytest.mark.parametrize("off", [-29, 0, 29])
def test_a_clock_that_is_about_right_is_taken(off: int) -> None:
    assert clock_complaint(Server(NOW - off), no_answer, lambda: NOW) is None


@pytest.mark.parametrize(("off", "word"), [(600, "600 s fast"), (-600, "600 s slow")])
def test_a_wrong_clock_is_named_with_its_error(off: int, word: str) -> None:
    said = clock_complaint(Server(NOW - off), lambda: NOW - off, lambda: NOW)
    assert said is not None
    assert word in said
    assert "set it" in said


def test_where_s3_agrees_with_the_worker_the_brokers_clock_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    assert clock_complaint(Server(NOW - 600), lambda: NOW, lambda: NOW) is None
    assert "the broker's clock is 600 s off" in caplog.text


def test_without_s3_the_broker_is_believed() -> None:
    assert "600 s fast" in str(clock_complaint(Server(NOW - 600), no_answer, lambda: NOW))


def test_a_server_that_does_not_answer_keeps_no_worker_from_starting() -> None:
    assert clock_complaint(Server(None), no_answer, lambda: NOW) is None
