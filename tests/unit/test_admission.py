"""When a message of another clock is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from osml_tasks.admission import bound_countdown
from osml_tasks.polling import MAX_COUNTDOWN


def seconds_left(task: str, ahead: float) -> float:
    headers = {"task": task, "eta": (datetime.now(UTC) + timedelta(seconds=ahead)).isoformat()}
    bound_countdown(headers)
    return (datetime.fromisoformat(headers["eta"]) - datetime.now(UTC)).total_seconds()


def test_no_step_of_a_job_waits_longer_than_a_countdown_lasts() -> None:
    assert seconds_left("osml_tasks.poll", 600) == pytest.approx(MAX_COUNTDOWN, abs=2)


@pytest.mark.parametrize("ahead", [-600, -1, 5, MAX_COUNTDOWN - 1])
def test_what_a_right_clock_says_stays(ahead: float) -> None:
    assert seconds_left("osml_tasks.submit", ahead) == pytest.approx(ahead, abs=2)


def test_a_caller_may_have_a_job_begin_later() -> None:
    assert seconds_left("osml_tasks.detect", 600) == pytest.approx(600, abs=2)


def test_a_message_that_is_due_at_once_says_no_time() -> None:
    headers = {"task": "osml_tasks.poll", "eta": None}
    bound_countdown(headers)
    assert headers["eta"] is None
