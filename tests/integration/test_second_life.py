"""Jobs that go on after their end or after a loss, while late messages and deletions of their first life come.

Step by step in this process, so that a test says what happens between which two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from osml_tasks import assembly, job_cleanup, resume, retry
from osml_tasks import sweep as sweeping
from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.collection import _Collector, collect_shard
from osml_tasks.connections import Connections
from osml_tasks.errors import ExtensionConfigurationError, PartsMissingError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState, Shard
from osml_tasks.ledger import ResourceType
from osml_tasks.redis_keys import PREFIX
from osml_tasks.resume import resume_job
from osml_tasks.retry import retry_job
from osml_tasks.s3 import S3Uri
from osml_tasks.sweep import clean_up_jobs, remove_job, sweep
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, names, wait_until, write_tiles
from tests.integration.steps import Sent, collected, connected, ignore, make_job, sent_by, submitted, with_options


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        once = with_options(connections, max_retries=0)
        yield once
        for bucket in (INPUTS, OUTPUTS):
            once.s3.delete(found.uri for found in once.s3.list(S3Uri(bucket, "")))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What was published instead of a message."""
    return sent_by(monkeypatch, retry, resume)


def done(connections: Connections, shards: list[Shard]) -> None:
    for shard in shards:
        submitted(connections, shard)
        collected(connections, shard)


def assembled(connections: Connections, job_id: str) -> None:
    assemble_job(connections, job_id, len(connections.job(job_id).rounds))


def completed(connections: Connections, tiles: Path, bad: str = "fail_first") -> str:
    """A job with a tile that failed, and a retry would give one feature, or none."""
    script = {"fail_first": 1} if bad == "fail_first" else {"raw": "nonsense"}
    shards = make_job(connections, write_tiles(tiles, {f"{tiles.name}-good": {}, f"{tiles.name}-bad": script}))
    done(connections, shards)
    assembled(connections, shards[0].job)
    return shards[0].job


def once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, meanwhile: Callable[[], object]) -> None:
    """Have something happen right before a function is called for the next time."""
    real = getattr(module, name)

    def called(*arguments: Any, **keywords: Any) -> Any:
        monkeypatch.setattr(module, name, real)
        meanwhile()
        return real(*arguments, **keywords)

    monkeypatch.setattr(module, name, called)


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_retried_job_is_running_from_its_first_invocation_on(
    connections: Connections, sent: Sent, tiles: Path
) -> None:
    job = completed(connections, tiles)
    retry_job(connections, job)
    assert connections.records.state(job) is JobState.QUEUED
    submitted(connections, sent[0][1][0])
    assert connections.records.state(job) is JobState.RUNNING


def test_the_assembly_of_an_earlier_round_leaves_a_retry_alone(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(connections, tiles)
    redis = connections.records._redis
    # As if the worker had died before it ended the job: two messages of the first round, and the retry between.
    redis.hdel(f"{PREFIX}job:{job}", "ended", "finished", "assembled")
    connections.records.set_state(job, JobState.ASSEMBLING)

    def another_and_a_retry() -> None:
        assemble_job(connections, job, 1)
        assert retry_job(connections, job) == 1

    once(monkeypatch, assembly, "_write_report", another_and_a_retry)
    for _ in range(2):
        assemble_job(connections, job, 1)
        assert connections.records.status(job).finished is None
        assert not connections.records.state(job).is_over
    done(connections, sent[0][1])
    assembled(connections, job)
    report = JobHandle(connections, job).report()
    assert (report["succeeded"], report["failed"], report["features"]) == (2, 0, 2)
    assert len(JobHandle(connections, job).result()["features"]) == 2


def test_an_assembly_that_comes_too_early_says_so_and_changes_nothing(connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"early": {}}))
    submitted(connections, shard)
    with pytest.raises(PartsMissingError):
        assemble_job(connections, shard.job)
    assert connections.records.state(shard.job) is JobState.RUNNING


def test_of_two_retries_at_once_one_begins(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(connections, tiles, "nonsense")

    def a_whole_round() -> None:
        retry_job(connections, job)
        done(connections, sent[0][1])
        assembled(connections, job)

    once(monkeypatch, retry, "_begin_round", a_whole_round)
    with pytest.raises(ExtensionConfigurationError, match="by somebody else meanwhile"):
        retry_job(connections, job)
    assert (len(sent), connections.records.status(job).progress.failed) == (1, 1)
    assert retry_job(connections, job) == 1


def test_what_is_being_deleted_cannot_be_retried(
    fleet: Fleet, connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(connections, tiles)

    def a_retry() -> None:
        with pytest.raises(ExtensionConfigurationError, match="by somebody else meanwhile"):
            retry_job(connections, job)

    once(monkeypatch, job_cleanup, "delete_job", a_retry)
    JobHandle(connections, job).discard()
    assert (connections.records.state(job), fleet.objects()) == (JobState.COMPLETED, [])


def test_a_sweep_leaves_a_retry_alone_that_has_just_begun(
    fleet: Fleet, connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = with_options(connections, cleanup_policy="delayed", cleanup_delay_seconds=0)
    job = completed(patient, tiles)
    JobHandle(patient, job).discard()
    once(monkeypatch, sweeping, "_delete_ended", lambda: retry_job(patient, job))
    patient.resources.ledger.schedule(ResourceType.JOB, {job: 0})
    sweep(patient)
    done(patient, sent[0][1])
    assembled(patient, job)
    assert len(JobHandle(patient, job).result()["features"]) == 2


def test_a_sweep_for_late_outputs_leaves_those_of_a_retry(
    fleet: Fleet, connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(connections, tiles)

    def retried() -> None:
        retry_job(connections, job)
        submitted(connections, sent[0][1][0])
        wait_until(lambda: any(f"{job}/00001/" in key for key in fleet.objects()))

    once(monkeypatch, sweeping, "delete_job", retried)
    connections.resources.ledger.schedule(ResourceType.JOB, {job: 0})
    sweep(connections)
    collected(connections, sent[0][1][0])
    assert connections.records.status(job).progress.succeeded == 2


def test_a_retry_keeps_what_the_jobs_id_promises(
    fleet: Fleet, connections: Connections, sent: Sent, tiles: Path
) -> None:
    job = completed(with_options(connections, cleanup_policy="disabled"), tiles)
    retry_job(with_options(connections, cleanup_policy="immediate", max_wait_time=1234), job)
    assert connections.job(job).options.max_wait_time == 1234
    done(connections, sent[0][1])
    assembled(connections, job)
    assert any("/parts/" in key for key in fleet.objects())


@pytest.mark.parametrize("step", ["write_job", "publish_job"])
def test_a_retry_that_is_interrupted_goes_on_by_resume_even_if_the_broker_is_lost_later(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    job = completed(connections, tiles)
    with monkeypatch.context() as dying:
        dying.setattr(retry, step, killed)
        with pytest.raises(KeyboardInterrupt):
            retry_job(connections, job)
    assert resume_job(connections, job, force=True).shards == 1
    done(connections, sent[0][1])
    assembled(connections, job)
    connections.records._redis.flushdb()
    resume_job(connections, job)
    status = connections.records.status(job)
    assert (status.state, len(status.job.rounds), status.progress.succeeded) == (JobState.COMPLETED, 2, 2)
    assert sorted(names(JobHandle(connections, job).result()["features"])) == [
        f"{tiles.name}-bad",
        f"{tiles.name}-good",
    ]


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_retry_that_ends_early_loses_nothing_and_goes_on_by_resume(
    connections: Connections, sent: Sent, tiles: Path, state: JobState
) -> None:
    job = completed(connections, tiles)
    retry_job(connections, job)
    submitted(connections, sent[0][1][0])
    end_job(connections, job, state, "the endpoint is gone", publish=ignore)
    connections.resources.ledger.schedule(ResourceType.JOB, {job: 0})
    sweep(connections)
    with pytest.raises(ExtensionConfigurationError, match="go on with it with osml-tasks resume"):
        retry_job(connections, job)
    assert resume_job(connections, job).finished == 1
    done(connections, sent[1][1])
    assembled(connections, job)
    handle = JobHandle(connections, job)
    assert (handle.status().error, len(handle.result()["features"])) == (None, 2)
    handle.discard()
    with pytest.raises(ExtensionConfigurationError, match="already: there is nothing to resume"):
        resume_job(connections, job)


def test_a_resumed_round_counts_each_tile_once(connections: Connections, sent: Sent, tiles: Path) -> None:
    job = completed(connections, tiles)
    retry_job(connections, job)
    connections.records._redis.flushdb()
    assert (resume_job(connections, job).finished, connections.records.status(job).progress.failed) == (1, 0)
    done(connections, sent[1][1])
    assembled(connections, job)
    report = JobHandle(connections, job).report()
    assert (report["succeeded"], report["failed"], report["features"]) == (2, 0, 2)


def test_a_job_that_lost_its_last_message_only_is_ended_by_resume(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_job(connections, write_tiles(tiles, {"last": {}}))
    done(connections, shards)
    job = shards[0].job
    with monkeypatch.context() as dying:
        dying.setattr(type(connections.records), "end", killed)
        with pytest.raises(KeyboardInterrupt):
            assembled(connections, job)
    assert resume_job(connections, job, force=True).shards == 0
    assert sent[0][1] == []
    assembled(connections, job)
    assert len(JobHandle(connections, job).result()["features"]) == 1


def test_a_job_of_which_a_worker_wrote_after_the_loss_is_resumed(
    connections: Connections, sent: Sent, tiles: Path
) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"half": {}}))
    records = connections.records
    records._redis.flushdb()
    records.start(shard.job, 1.0)
    records.set_state(shard.job, JobState.ASSEMBLING)
    records.expect_late(shard.job, 2.0)
    assert resume_job(connections, shard.job).shards == 1
    assert records.state(shard.job) is JobState.QUEUED


def test_lost_counts_are_counted_again(connections: Connections, sent: Sent, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"count{number}": {} for number in range(8)}))
    done(connections, shards[:1])
    connections.records._redis.delete(f"{PREFIX}progress:{shards[0].job}")
    # A message that comes late, and must not have it all invoked again.
    assert collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore).resubmit_in is None
    resume_job(connections, shards[0].job, force=True)
    done(connections, sent[0][1])
    assembled(connections, shards[0].job)
    assert JobHandle(connections, shards[0].job).report()["succeeded"] == 8


def test_the_outputs_of_an_ended_job_are_known_again(
    fleet: Fleet, connections: Connections, sent: Sent, tiles: Path
) -> None:
    patient = with_options(connections, cleanup_policy="delayed", cleanup_delay_seconds=3600)
    job = completed(patient, tiles)
    connections.records._redis.flushdb()
    resume_job(patient, job)
    clean_up_jobs(patient, force=True)
    assert fleet.objects() == []


@pytest.mark.parametrize(("name", "text"), [("report", b"{"), ("report", b'{"succeeded": 1}'), ("paths", b"[1]")])
def test_a_copy_that_cannot_be_read_is_as_good_as_none(
    connections: Connections, sent: Sent, tiles: Path, name: str, text: bytes
) -> None:
    job = completed(connections, tiles)
    connections.s3.put(connections.input_uri(f"{connections.job(job).prefix}{name}.json"), text)
    connections.records._redis.flushdb()
    assert resume_job(connections, job).finished == 1


def test_a_poll_that_was_overtaken_takes_nothing_back(fleet: Fleet, connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"one": {}, "two": {}}))
    submitted(connections, shard)
    wait_until(lambda: sum(shard.name in key for key in fleet.objects()) == 2)
    overtaken = _Collector(connections, connections.job(shard.job), shard, ignore)
    collected(connections, shard)
    assert overtaken.look(idle=0, seen=0).poll_in is None
    assert connections.records.progress(shard).succeeded == 2


def test_a_live_job_without_records_is_deleted_only_by_force(connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"{tiles.name}-{number}": {} for number in range(2)}))
    submitted(connections, shards[0])
    job = shards[0].job
    connections.records._redis.flushdb()
    with pytest.raises(ExtensionConfigurationError, match=f"{job} is not deleted, there are no records of it"):
        remove_job(connections, job)
    assert any(job in found.uri.key for found in connections.s3.list(S3Uri(INPUTS, "")))
    wait_until(lambda: len(list(connections.s3.list(S3Uri(OUTPUTS, "")))) == 2)
    assert remove_job(connections, job, force=True).failed == 0
    assert [found.uri for bucket in (INPUTS, OUTPUTS) for found in connections.s3.list(S3Uri(bucket, ""))] == []
    assert connections.records.state(job) is JobState.CANCELLED


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_a_job_that_is_over_is_deleted_without_records(connections: Connections, tiles: Path, end: str) -> None:
    if end == "completed":
        job = completed(connections, tiles)
    else:
        job = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}))[0].job
        end_job(connections, job, JobState.FAILED, "for the test")
    connections.records._redis.flushdb()
    assert remove_job(connections, job).failed == 0
    assert not any(job in found.uri.key for found in connections.s3.list(S3Uri(INPUTS, "")))


def test_tiles_that_a_client_stages_are_not_deleted_without_force(connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"{tiles.name}-any": {}}))
    job = connections.job(shards[0].job)
    connections.s3.delete([connections.input_uri(job.record_key)])
    connections.records._redis.flushdb()
    with pytest.raises(ExtensionConfigurationError, match="its client is still running"):
        remove_job(connections, job.job_id)
    assert remove_job(connections, job.job_id, force=True).cleaned > 0
