"""What the sweep does for jobs of which messages, records or both are lost, or older than what S3 has.

Step by step in this process, so that a test says what is lost between which two steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from osml_tasks import recovery, resume
from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.celery_settings import QUEUES
from osml_tasks.collection import collect_shard
from osml_tasks.connections import Connections
from osml_tasks.errors import JobNotFoundError
from osml_tasks.jobs import JobState, Progress, Shard
from osml_tasks.polling import TileRecord
from osml_tasks.recovery import restore_jobs, send_lost_messages
from osml_tasks.redis_keys import PREFIX
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.sweep import sweep
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, wait_until, write_tiles
from tests.integration.steps import (
    Sent,
    collected,
    connected,
    fail_and_forget,
    ignore,
    make_job,
    sent_by,
    submitted,
    with_options,
)

TWO_SHARDS = {f"t{number}": {} for number in range(6)}  # of four tiles and of two


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        yield connections
        for bucket in (INPUTS, OUTPUTS):
            connections.s3.delete(found.uri for found in connections.s3.list(S3Uri(bucket, "")))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What was published instead of a message."""
    return sent_by(monkeypatch, recovery, resume)


def lost(connections: Connections) -> None:
    """Lose everything that the server knows."""
    connections.records._redis.flushdb()


def sent_again(connections: Connections, sent: Sent) -> list[int]:
    """The shards whose messages are sent again once nothing has been heard of them for a second."""

    def some() -> bool:
        send_lost_messages(connections, silent=0.5)
        return bool(sent)

    wait_until(some)
    assert len(sent) == 1
    return [shard.shard for shard in sent[0][1]]


def test_shards_without_a_message_get_one(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    submitted(connections, shards[0])
    collected(connections, shards[0])
    assert sent_again(connections, sent) == [1]
    fail_and_forget(connections, shards[0].job)


def test_the_assembly_of_finished_shards_is_sent_again(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    for shard in shards:
        submitted(connections, shard)
        collected(connections, shard)
    assert sent_again(connections, sent) == []
    assemble_job(connections, shards[0].job)
    sent.clear()
    send_lost_messages(connections, silent=-1.0)
    assert not sent


def test_a_shard_is_missed_while_others_are_at_work(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS), endpoint="silent")
    submitted(connections, shards[0])

    def some() -> bool:
        collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore)
        send_lost_messages(connections, silent=1.5)
        return bool(sent)

    wait_until(some)
    assert [shard.shard for shard in sent[0][1]] == [1]
    # Not at each look, but when it has been silent for as long again.
    send_lost_messages(connections, silent=1.5)
    assert len(sent) == 1
    fail_and_forget(connections, shards[0].job)


def test_a_shard_that_waits_for_capacity_is_not_sent_again(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(with_options(connections, max_concurrent_jobs=4), write_tiles(tiles, TWO_SHARDS), "silent")
    for shard in shards:
        submitted(connections, shard)
    parked = connections.capacity.in_hand("silent", shards[0].job).parked
    assert parked
    assert sent_again(connections, sent) == [shard.shard for shard in shards if shard.shard not in parked]
    fail_and_forget(connections, shards[0].job)


@pytest.mark.parametrize("queue", [queue for queue in QUEUES if queue != "osml.cleanup"])
def test_nothing_is_sent_while_its_message_may_wait_in_a_queue(
    connections: Connections, sent: Sent, tiles: Path, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    monkeypatch.setattr(recovery, "queue_lengths", lambda app: dict.fromkeys(QUEUES, 0) | {queue: 1})
    send_lost_messages(connections, silent=-1.0)
    assert not sent
    monkeypatch.setattr(recovery, "queue_lengths", lambda app: dict.fromkeys(QUEUES, 0))
    send_lost_messages(connections, silent=-1.0)
    assert sent
    fail_and_forget(connections, shards[0].job)


def test_a_job_whose_client_was_killed_over_staging_is_ended(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(connections, write_tiles(tiles, TWO_SHARDS))[0].job
    connections.s3.delete([connections.input_uri(connections.job(job).record_key)])
    send_lost_messages(connections, silent=-1.0)
    assert not connections.records.state(job).is_over
    monkeypatch.setattr(recovery, "STAGING_SECONDS", -1.0)
    send_lost_messages(connections, silent=-1.0)
    assert "all tiles were staged" in str(connections.records.status(job).error)
    assert not sent


def test_a_job_is_restored_once_after_the_server_lost_everything(
    connections: Connections, sent: Sent, tiles: Path
) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    submitted(connections, shards[0])
    collected(connections, shards[0])
    lost(connections)
    restore_jobs(connections)
    assert [(job.job_id, [shard.shard for shard in again]) for job, again in sent] == [(shards[0].job, [1])]
    assert connections.records.status(shards[0].job).progress.succeeded == 4
    restore_jobs(connections)
    assert len(sent) == 1
    fail_and_forget(connections, shards[0].job)


def test_a_completed_job_is_restored_with_its_result(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    for shard in shards:
        submitted(connections, shard)
        collected(connections, shard)
    assemble_job(connections, shards[0].job)
    lost(connections)
    restore_jobs(connections)
    status = connections.records.status(shards[0].job)
    assert (status.state, status.progress.succeeded, sent) == (JobState.COMPLETED, 6, [])


def test_a_cancelled_job_is_not_restored(connections: Connections, sent: Sent, tiles: Path) -> None:
    slow = with_options(connections, cleanup_policy="delayed")
    job = make_job(slow, write_tiles(tiles, TWO_SHARDS))[0].job
    end_job(slow, job, JobState.CANCELLED, "its caller cancelled it", publish=ignore)
    assert list(connections.s3.list(connections.input_uri(f"{connections.config.input_prefix}{job}/")))
    lost(connections)
    restore_jobs(connections)
    with pytest.raises(JobNotFoundError):
        connections.records.job(job)


def test_a_job_of_another_fleet_is_left_alone(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(connections, write_tiles(tiles, TWO_SHARDS))
    lost(connections)
    monkeypatch.setattr(recovery, "state_address", lambda app: "redis://elsewhere:6379/0")
    restore_jobs(connections)
    assert not sent


def stale(connections: Connections, shard: Shard) -> None:
    """Have the records say of a finished shard that it is at work since long ago, as an old snapshot may."""
    redis = connections.records._redis
    redis.hset(f"{PREFIX}progress:{shard.job}", shard.shard, b"[4,0,0,0,0]")
    began = connections.records.now() - 10_000
    connections.records.set_tiles(
        shard, {index: TileRecord(invoked_at=began) for index in range(shard.first, shard.first + shard.tiles)}
    )


def test_records_older_than_a_part_learn_of_it(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    submitted(connections, shards[0])
    collected(connections, shards[0])
    stale(connections, shards[0])
    restore_jobs(connections)
    assert connections.records.progress(shards[0]) == Progress(4, 4, 0, 4, 1)
    assert not connections.records.tiles(shards[0])
    assert not sent
    fail_and_forget(connections, shards[0].job)


def test_a_poll_with_old_records_leaves_the_part_as_it_is(connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    submitted(connections, shards[0])
    collected(connections, shards[0])
    part = connections.input_uri(connections.job(shards[0].job).part_key(0))
    before = connections.s3.get(part)
    stale(connections, shards[0])
    assert collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore).poll_in is None
    assert connections.s3.get(part) == before
    assert connections.records.progress(shards[0]) == Progress(4, 4, 0, 4, 1)
    fail_and_forget(connections, shards[0].job)


def test_an_output_of_an_attempt_that_the_records_do_not_know_is_found(connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, {"t": {"fail_first": 1, "name": tiles.name}}))
    submitted(connections, shards[0])

    def second_is_invoked() -> bool:
        collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore)
        submitted(connections, shards[0])
        record = connections.records.tiles(shards[0])[0]
        return record.attempt == 2 and record.in_flight

    wait_until(second_is_invoked)
    wait_until(lambda: any("-2.out" in found.uri.key for found in connections.s3.list(S3Uri(OUTPUTS, "output"))))
    # Then the records fall back to the first.
    connections.records.set_tiles(shards[0], {0: TileRecord(invoked_at=connections.records.now())})
    collected(connections, shards[0])
    assert connections.records.progress(shards[0]).succeeded == 1
    fail_and_forget(connections, shards[0].job)


def test_an_output_that_no_listing_shows_is_found_before_its_tile_is_given_up(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_job(connections, write_tiles(tiles, {"t": {"name": tiles.name}}))
    submitted(connections, shards[0])
    wait_until(lambda: any(connections.s3.list(S3Uri(OUTPUTS, "output"))))
    connections.records.set_tiles(shards[0], {0: TileRecord(invoked_at=connections.records.now() - 10_000)})
    with monkeypatch.context() as late:
        late.setattr(S3Manager, "list", lambda self, prefix: iter(()))
        collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore)
    assert connections.records.progress(shards[0]).succeeded == 1
    fail_and_forget(connections, shards[0].job)


def test_the_whole_sweep_restores_and_sends(connections: Connections, sent: Sent, tiles: Path) -> None:
    job = make_job(connections, write_tiles(tiles, TWO_SHARDS))[0].job
    lost(connections)
    assert sweep(connections) == []
    assert [(one.job_id, len(shards)) for one, shards in sent] == [(job, 2)]
    fail_and_forget(connections, job)
