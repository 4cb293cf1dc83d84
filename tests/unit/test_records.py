"""What the fleet knows of its jobs, with the real commands on fakeredis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fakeredis
import pytest

from osml_tasks.errors import JobNotFoundError
from osml_tasks.jobs import Job, JobOptions, JobState, Progress, Reason, Round, Shard
from osml_tasks.metrics import AsyncMetricsTracker
from osml_tasks.polling import TileRecord
from osml_tasks.records import RECORD_SECONDS, JobRecords, OutputPaths
from osml_tasks.redis_keys import PREFIX
from osml_tasks.s3 import S3Uri

OPTIONS = JobOptions(3600.0, 5.0, 60.0, 1.5, 3, 100, 128_000, "immediate")
JOB = Job("job-1", "ships", (Round(20, 10),), 1e9, "tiles", "in/", "outputs", OPTIONS)
SHARDS = [Shard("job-1", number, number * 10, 10, 0, 0) for number in range(2)]


@pytest.fixture
def redis() -> Any:
    return fakeredis.FakeRedis()


@pytest.fixture
def records(redis: Any) -> JobRecords:
    records = JobRecords(redis)
    records.create(JOB)
    return records


def test_a_new_job_is_queued_and_nothing_else(records: JobRecords) -> None:
    status = records.status("job-1")
    assert (status.job, status.state, status.progress) == (JOB, JobState.QUEUED, Progress())
    assert (status.started, status.finished, status.error) == (None, None, None)
    assert not status.misconfigured
    assert not status.fetched
    assert records.job("job-1") == JOB
    assert records.endpoints() == ["ships"]


@pytest.mark.parametrize("question", ["job", "state", "status"])
def test_a_job_without_a_record_is_not_found(records: JobRecords, question: str) -> None:
    with pytest.raises(JobNotFoundError, match="job-2"):
        getattr(records, question)("job-2")


def test_a_job_that_was_not_found_is_found_once_it_is_there(records: JobRecords) -> None:
    with pytest.raises(JobNotFoundError):
        records.job("job-2")
    records.create(replace(JOB, job_id="job-2"))
    assert records.job("job-2").job_id == "job-2"


def test_the_first_invocation_starts_a_job_and_later_ones_change_nothing(records: JobRecords) -> None:
    records.start("job-1", 10.5)
    records.set_state("job-1", JobState.ASSEMBLING)
    records.start("job-1", 11.5)
    status = records.status("job-1")
    assert (status.started, status.state) == (10.5, JobState.ASSEMBLING)


def test_a_job_ends_once_and_its_first_end_counts(records: JobRecords) -> None:
    assert records.end("job-1", JobState.FAILED, "no such endpoint", misconfigured=True)
    assert not records.end("job-1", JobState.COMPLETED)
    records.close("job-1", 20.0)
    records.close("job-1", 30.0)
    status = records.status("job-1")
    assert (status.state, status.error, status.misconfigured) == (JobState.FAILED, "no such endpoint", True)
    assert status.finished == 20


@pytest.mark.parametrize(
    "afterthought",
    [
        lambda records: records.start("job-1", 10.5),
        lambda records: records.set_state("job-1", JobState.ASSEMBLING),
    ],
    ids=["start", "set_state"],
)
def test_a_job_that_has_ended_stays_so_whatever_a_late_worker_writes(
    records: JobRecords, afterthought: Callable[[JobRecords], None]
) -> None:
    records.end("job-1", JobState.CANCELLED)
    afterthought(records)
    assert records.state("job-1") is JobState.CANCELLED


def test_progress_of_shards_adds_up_and_a_shard_that_writes_twice_counts_once(records: JobRecords) -> None:
    for _ in range(2):
        records.set_progress(SHARDS[0], Progress(10, 9, 1, 40, 1))
    records.set_progress(SHARDS[1], Progress(3))
    records.set_progress(SHARDS[1], Progress(10, 2))
    assert records.progress(SHARDS[0]) == Progress(10, 9, 1, 40, 1)
    assert records.status("job-1").progress == Progress(20, 11, 1, 40, 1)
    assert records.progress(Shard("job-9", 0, 0, 1, 0, 0)) == Progress()


def test_records_of_tiles_are_read_back_by_index_until_they_are_dropped(records: JobRecords) -> None:
    known = {3: TileRecord(invoked_at=1.5, output="s3://outputs/ü"), 12: TileRecord(attempt=2, reason=Reason.MODEL)}
    records.set_tiles(SHARDS[0], known)
    records.set_tiles(SHARDS[0], {3: TileRecord(given_up=True)})
    records.set_tiles(SHARDS[1], {})
    assert records.tiles(SHARDS[0]) == known | {3: TileRecord(given_up=True)}
    assert records.tiles(SHARDS[1]) == {}
    records.drop_tiles(SHARDS)
    records.drop_tiles([])
    assert records.tiles(SHARDS[0]) == {}


def test_late_outputs_are_expected_up_to_the_latest_time_that_was_named(records: JobRecords) -> None:
    assert records.late_until("job-1") == 0
    for until in (20.5, 30.5, 10.5):
        records.expect_late("job-1", until)
    assert records.late_until("job-1") == 30.5


def test_the_first_worker_to_say_where_outputs_lie_is_believed(records: JobRecords) -> None:
    assert records.paths("job-1") == OutputPaths(None, None)
    first = OutputPaths("s3://outputs/a", None)
    assert records.learn_paths("job-1", first) == first
    assert records.learn_paths("job-1", OutputPaths("s3://outputs/b", "s3://outputs/c")) == first
    assert records.paths("job-1") == first


def test_inline_is_refused_once(records: JobRecords) -> None:
    assert not records.inline_refused("job-1")
    assert records.refuse_inline("job-1")
    assert not records.refuse_inline("job-1")
    assert records.inline_refused("job-1")


def test_a_finished_shard_stays_finished_whatever_a_poll_writes_that_was_overtaken(records: JobRecords) -> None:
    records.set_progress(SHARDS[0], Progress(10, 9, 1, 40, 1))
    records.set_progress(SHARDS[0], Progress(10, 3))
    assert records.progress(SHARDS[0]) == Progress(10, 9, 1, 40, 1)
    records.set_progress(SHARDS[0], Progress(10, 10, 0, 44, 1))
    assert records.progress(SHARDS[0]).features == 44


def finished(records: JobRecords, state: JobState) -> None:
    records.end("job-1", state, "why")
    records.close("job-1", 20.0)


AGAIN = replace(JOB, rounds=(*JOB.rounds, Round(1, 1)))


def test_a_completed_job_goes_on_with_one_round_more_and_once(records: JobRecords) -> None:
    assert not records.reopen(AGAIN, {})
    finished(records, JobState.COMPLETED)
    assert not records.reopen(JOB, {})
    assert records.reopen(AGAIN, {1: Progress(9, 9, 0, 5, 1)})
    assert not records.reopen(AGAIN, {})
    status = records.status("job-1")
    assert (status.job, status.state, status.finished, status.error) == (AGAIN, JobState.QUEUED, None, None)
    assert records.progress(SHARDS[1]).features == 5


def test_a_failed_job_goes_on_with_the_rounds_that_it_has(records: JobRecords) -> None:
    finished(records, JobState.FAILED)
    assert not records.reopen(AGAIN, {})
    assert records.reopen(JOB, {})


def test_what_ends_one_round_does_not_end_the_next(records: JobRecords) -> None:
    finished(records, JobState.COMPLETED)
    records.reopen(AGAIN, {})
    assert not records.mark_assembled("job-1", 1)
    assert not records.end("job-1", JobState.COMPLETED, rounds=1)
    records.close("job-1", 30.0)
    assert records.status("job-1").finished is None
    assert records.mark_assembled("job-1", 2)
    assert records.end("job-1", JobState.COMPLETED, rounds=2)


def test_a_job_is_removed_or_goes_on_but_not_both(records: JobRecords) -> None:
    assert not records.remove("job-1")
    finished(records, JobState.COMPLETED)
    assert records.remove("job-1")
    assert not records.reopen(AGAIN, {})


def test_parts_of_a_record_are_no_record(records: JobRecords, redis: Any) -> None:
    redis.hdel(f"{PREFIX}job:job-1", "job")
    for question in (records.state, records.status, records.job):
        with pytest.raises(JobNotFoundError):
            question("job-1")
    records.expect_late("job-1", 5.0)
    records.create(JOB)
    assert (records.state("job-1"), records.late_until("job-1")) == (JobState.QUEUED, 0)


def test_a_result_is_assembled_and_fetched_when_that_was_noted(records: JobRecords) -> None:
    assert not records.is_assembled("job-1")
    assert records.mark_assembled("job-1", 1)
    assert records.is_assembled("job-1")
    assert not records.mark_fetched("job-1")
    records.end("job-1", JobState.COMPLETED)
    assert records.mark_fetched("job-1")
    assert records.status("job-1").fetched


def test_answered_locations_are_gathered_over_all_shards(records: JobRecords) -> None:
    records.set_tiles(SHARDS[0], {0: TileRecord(invoked_at=1.0, output="s3://outputs/0", failure="s3://failures/0")})
    records.set_tiles(SHARDS[1], {10: TileRecord(invoked_at=1.0, output="s3://outputs/10"), 11: TileRecord()})
    assert set(records.locations(JOB)) == {
        S3Uri("outputs", "0"),
        S3Uri("failures", "0"),
        S3Uri("outputs", "10"),
    }


def test_the_clock_is_the_servers(records: JobRecords) -> None:
    assert abs(records.now() - time.time()) < 5


def measured() -> AsyncMetricsTracker:
    metrics = AsyncMetricsTracker()
    metrics.count("PollingAttempts", 2)
    metrics.put_metric("QueueTime", 1.5)
    return metrics


def test_what_the_steps_of_a_shard_measure_adds_up_and_is_taken_once(records: JobRecords) -> None:
    for _ in range(2):
        records.add_metrics(SHARDS[0], measured())
    records.add_metrics(SHARDS[1], AsyncMetricsTracker())
    assert records.take_metrics(SHARDS[0]) == {"PollingAttempts": 4, "QueueTime": 3}
    assert records.take_metrics(SHARDS[0]) == records.take_metrics(SHARDS[1]) == {}


def test_idle_time_goes_on_from_the_last_write(records: JobRecords, redis: Any) -> None:
    assert records.idle_seconds("job-2") is None
    redis.expire(f"{PREFIX}job:job-1", RECORD_SECONDS - 100)
    assert records.idle_seconds("job-1") == pytest.approx(100, abs=2)
    records.refuse_inline("job-1")
    assert records.idle_seconds("job-1") == pytest.approx(0, abs=2)


def test_the_roots_of_all_endpoints_are_remembered(records: JobRecords) -> None:
    records.learn_paths("job-1", OutputPaths("s3://outputs/a", "s3://failures/b"))
    assert records.roots() == [S3Uri("failures", "b"), S3Uri("outputs", "a")]


WRITES: dict[str, Callable[[JobRecords], object]] = {
    "start": lambda records: records.start("job-1", 1.0),
    "set_state": lambda records: records.set_state("job-1", JobState.RUNNING),
    "end": lambda records: records.end("job-1", JobState.FAILED, "no"),
    "close": lambda records: records.close("job-1", 2.0),
    "mark_assembled": lambda records: records.mark_assembled("job-1", 1),
    "mark_fetched": lambda records: records.mark_fetched("job-1"),
    "refuse_inline": lambda records: records.refuse_inline("job-1"),
    "learn_paths": lambda records: records.learn_paths("job-1", OutputPaths("s3://outputs/a", None)),
    "set_progress": lambda records: records.set_progress(SHARDS[0], Progress(1)),
    "set_tiles": lambda records: records.set_tiles(SHARDS[0], {0: TileRecord()}),
    "add_metrics": lambda records: records.add_metrics(SHARDS[0], measured()),
    "expect_late": lambda records: records.expect_late("job-1", 1.0),
}


@pytest.mark.parametrize("write", WRITES)
def test_no_write_leaves_a_key_for_ever(records: JobRecords, redis: Any, write: str) -> None:
    WRITES[write](records)
    assert all(0 < redis.ttl(key) <= 2 * RECORD_SECONDS for key in redis.scan_iter())


@pytest.mark.parametrize("write", WRITES)
def test_no_write_brings_a_job_back_whose_record_has_expired(redis: Any, write: str) -> None:
    records = JobRecords(redis)
    WRITES[write](records)
    assert all(0 < redis.ttl(key) <= 2 * RECORD_SECONDS for key in redis.scan_iter())
    with pytest.raises(JobNotFoundError):
        records.status("job-1")


def test_the_record_of_a_job_that_makes_progress_does_not_expire(records: JobRecords, redis: Any) -> None:
    redis.expire(f"{PREFIX}job:job-1", 60)
    records.set_progress(SHARDS[0], Progress(1))
    assert redis.ttl(f"{PREFIX}job:job-1") > 60
