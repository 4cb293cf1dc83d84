"""What a task does about errors of the broker, of S3 and of its own."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import OutOfMemoryError

from osml_tasks import task_errors
from osml_tasks.errors import MessageRefusedError, PartsMissingError, S3OperationError
from osml_tasks.jobs import JobState, Shard
from osml_tasks.task_errors import job_at_stake

SHARD = Shard(job="j", shard=0, first=0, tiles=1, start=0, end=9).to_message()
GONE = OperationalError("connection refused")
TROUBLES = [GONE, Reject(GONE, requeue=False), NoConnectionError("gone"), OutOfMemoryError("maxmemory")]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Stands for the end of a job."""
    end_job = Mock()
    monkeypatch.setattr(task_errors, "end_job", end_job)
    return end_job


def attempt(error: Exception, here: Mock | None = None) -> None:
    """A task that fails in this way."""
    task = Mock(retry=Mock(return_value=Retry()))
    task.name = "osml_tasks.poll"
    with job_at_stake(lambda: here or Mock(), task, SHARD):
        raise error


@pytest.mark.parametrize("trouble", TROUBLES, ids=["no message sent", "none at a retry", "no answer", "no memory"])
def test_the_message_at_hand_comes_again_where_the_broker_is_in_trouble(ended: Mock, trouble: Exception) -> None:
    with pytest.raises(Reject) as rejected:
        attempt(trouble)
    assert rejected.value.requeue
    ended.assert_not_called()


def test_trouble_while_a_job_is_ended_does_not_lose_its_end(ended: Mock) -> None:
    ended.side_effect = NoConnectionError("gone")
    with pytest.raises(Reject) as rejected:
        attempt(ValueError("a defect"))
    assert rejected.value.requeue


def test_what_would_never_be_sent_ends_the_job(ended: Mock) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        attempt(Reject(ValueError("no JSON"), requeue=False))
    assert ended.call_args.args[1:] == ("j", JobState.FAILED, "no JSON")


def test_a_refused_message_ends_no_job(ended: Mock) -> None:
    with pytest.raises(Ignore):
        attempt(MessageRefusedError("it is forged"))
    ended.assert_not_called()


@pytest.mark.parametrize(("idle", "parked", "ends"), [(1.0, 0, False), (1e6, 0, True), (1e6, 3, False)])
def test_an_assembly_waits_for_shards_as_long_as_their_job_gives_signs_of_life(
    ended: Mock, idle: float, parked: int, ends: bool
) -> None:
    here = Mock()
    here.claims.trouble_lasts.return_value = 1e6
    here.records.idle_seconds.return_value = idle
    here.capacity.in_hand.return_value.parked = frozenset(range(parked))
    with pytest.raises(PartsMissingError if ends else Retry):
        attempt(PartsMissingError("1 of 2 parts are missing"), here)
    assert ended.called == ends


def test_trouble_with_s3_counts_only_as_long_as_nothing_goes_well(ended: Mock) -> None:
    here = Mock()
    here.claims.trouble_lasts.return_value = 1.0
    with pytest.raises(Retry):
        attempt(S3OperationError("503"), here)
    here.claims.trouble_is_over.assert_not_called()
    with pytest.raises(Retry):
        attempt(Retry(), here)
    here.claims.trouble_is_over.assert_called_once()
