"""When a worker counts as one that consumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from osml_tasks.pulse import Consumption, Look, _patience, touch

IDLE = Look(waiting=0, busy=False, accepted=0)
IGNORANT = Look(waiting=3, busy=False, accepted=0)


def test_a_worker_with_empty_queues_consumes_for_ever() -> None:
    consumption = Consumption(60)
    assert all(consumption.goes_on(IDLE, now) for now in range(0, 1000, 5))


def test_one_that_leaves_messages_waiting_does_so_for_its_patience_and_no_longer() -> None:
    consumption = Consumption(60)
    assert consumption.goes_on(IDLE, 0)
    assert all(consumption.goes_on(IGNORANT, now) for now in range(5, 60, 5))
    assert not any(consumption.goes_on(IGNORANT, now) for now in range(60, 200, 5))


def test_one_that_is_busy_or_accepts_tasks_may_leave_as_many_waiting_as_there_are() -> None:
    consumption = Consumption(60)
    assert all(consumption.goes_on(Look(waiting=900, busy=True, accepted=7), now) for now in range(0, 1000, 5))
    assert all(consumption.goes_on(Look(waiting=900, busy=False, accepted=now), now) for now in range(1000, 2000, 5))


def test_one_that_takes_a_message_after_all_consumes_again() -> None:
    consumption = Consumption(60)
    assert consumption.goes_on(IGNORANT, 0)
    assert not consumption.goes_on(IGNORANT, 60)
    assert consumption.goes_on(Look(waiting=2, busy=False, accepted=1), 65)
    assert consumption.goes_on(Look(waiting=2, busy=False, accepted=1), 124)


def test_the_patience_is_a_number_of_seconds() -> None:
    assert _patience({}) == _patience({"ASYNC_SM_PULSE_PATIENCE": ""}) == 60
    assert _patience({"ASYNC_SM_PULSE_PATIENCE": "2.5"}) == 2.5
    with pytest.raises(SystemExit, match="ASYNC_SM_PULSE_PATIENCE is 'long': set it to a number of seconds"):
        _patience({"ASYNC_SM_PULSE_PATIENCE": "long"})


def test_a_file_that_cannot_be_written_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNC_SM_PULSE_FILE", str(tmp_path / "there"))
    touch()
    assert (tmp_path / "there").exists()
    monkeypatch.setenv("ASYNC_SM_PULSE_FILE", str(tmp_path / "no" / "such"))
    touch()
    assert "cannot be written: No such file or directory" in caplog.text
