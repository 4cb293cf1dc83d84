"""What a task does where the broker takes no message."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from celery.exceptions import Reject, Retry
from kombu.exceptions import OperationalError

from osml_tasks import tasks
from osml_tasks.errors import PartsMissingError
from osml_tasks.jobs import JobState, Shard

SHARD = Shard(job="j", shard=0, first=0, tiles=1, start=0, end=9).to_message()
GONE = OperationalError("connection refused")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Stands for the end of a job."""
    end_job = Mock()
    monkeypatch.setattr(tasks, "connections", Mock())
    monkeypatch.setattr(tasks, "end_job", end_job)
    return end_job


@pytest.mark.parametrize("raised", [GONE, Reject(GONE, requeue=False)], ids=["while at work", "at its retry"])
def test_the_message_at_hand_comes_again_if_the_next_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, ended: Mock, raised: Exception
) -> None:
    monkeypatch.setattr(tasks, "collect_shard", Mock(side_effect=raised))
    with pytest.raises(Reject) as rejected:
        tasks.poll(**SHARD)
    assert rejected.value.requeue
    ended.assert_not_called()


def test_what_would_never_be_sent_ends_the_job(monkeypatch: pytest.MonkeyPatch, ended: Mock) -> None:
    monkeypatch.setattr(tasks, "collect_shard", Mock(side_effect=Reject(ValueError("no JSON"), requeue=False)))
    with pytest.raises(ValueError, match="no JSON"):
        tasks.poll(**SHARD)
    assert ended.call_args.args[1:] == ("j", JobState.FAILED, "no JSON")


@pytest.mark.parametrize("idle", [1.0, 1e6])
def test_an_assembly_waits_for_shards_as_long_as_their_job_gives_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, ended: Mock, idle: float
) -> None:
    here = Mock()
    here.claims.trouble_lasts.return_value = 1e6
    here.records.idle_seconds.return_value = idle
    monkeypatch.setattr(tasks, "connections", lambda: here)
    monkeypatch.setattr(tasks, "assemble_job", Mock(side_effect=PartsMissingError("1 of 2 parts are missing")))
    monkeypatch.setattr(tasks.assemble, "retry", Mock(return_value=Retry()))
    with pytest.raises(Retry if idle == 1.0 else PartsMissingError):
        tasks.assemble(job="j")
    assert ended.called == (idle > 1)
