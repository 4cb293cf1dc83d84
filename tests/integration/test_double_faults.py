"""Two faults that meet: ways to lose a feature, a job or an object where something else goes wrong meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from osml_tasks import assembly, detection, recovery, resume, retry
from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.collection import collect_shard
from osml_tasks.connections import Connections
from osml_tasks.detection import create_job
from osml_tasks.errors import S3OperationError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job, JobState, Progress, Shard
from osml_tasks.recovery import restore_jobs, send_lost_messages
from osml_tasks.redis_keys import PREFIX
from osml_tasks.resume import resume_job
from osml_tasks.retry import retry_job
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.sources import find_tiles
from osml_tasks.sweep import sweep
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, write_tiles
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

TWO_SHARDS = {f"t{number}": {} for number in range(6)}


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        yield with_options(connections, max_retries=0)
        for bucket in (INPUTS, OUTPUTS):
            connections.s3.delete(found.uri for found in connections.s3.list(S3Uri(bucket, "")))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What was published instead of a message."""
    return sent_by(monkeypatch, recovery, resume, retry)


def lost(connections: Connections) -> None:
    connections.records._redis.flushdb()


def restarted(monkeypatch: pytest.MonkeyPatch, connections: Connections, run: str) -> None:
    """As if the server had been started anew with its data."""
    monkeypatch.setattr(type(connections.records), "server_run", lambda self: run)


def done(connections: Connections, shards: list[Shard]) -> None:
    for shard in shards:
        submitted(connections, shard)
        collected(connections, shard)


def completed(connections: Connections, tiles: Path, script: dict[str, Any] | None = None, **names: Any) -> str:
    bad = {"fail_first": 1} if script is None else script
    shards = make_job(connections, write_tiles(tiles, {f"{tiles.name}-good": {}, f"{tiles.name}-bad": bad}), **names)
    done(connections, shards)
    assemble_job(connections, shards[0].job)
    return shards[0].job


def test_a_job_that_s3_did_not_give_is_restored_by_the_next_sweep(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(connections, write_tiles(tiles, TWO_SHARDS))[0].job
    lost(connections)
    with monkeypatch.context() as trouble:

        def refuse(self: object, uri: object) -> bytes:
            raise S3OperationError("503 SlowDown", uri=str(uri))

        trouble.setattr(S3Manager, "get", refuse)
        restore_jobs(connections)
    restore_jobs(connections)
    assert [one.job_id for one, _ in sent] == [job]
    fail_and_forget(connections, job)


@pytest.mark.parametrize("loss", ["all", "none"])
def test_a_report_of_an_earlier_round_does_not_end_a_retry(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    job = completed(connections, tiles)
    report = connections.input_uri(connections.job(job).report_key)
    text = connections.s3.get(report)
    assert retry_job(connections, job) == 1
    # A second assembly of the first round was slow; or the deletion was refused; or the client killed before it.
    connections.s3.put(report, text)
    lost(connections) if loss == "all" else restarted(monkeypatch, connections, "second")
    restore_jobs(connections)
    assert not connections.records.state(job).is_over
    fail_and_forget(connections, job)


def test_a_doubled_assembly_leaves_nothing_of_a_job_that_was_discarded(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    job = shards[0].job
    done(connections, shards)
    real = assembly._write_report

    def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(assembly, "_write_report", real)
        assemble_job(connections, job)
        JobHandle(connections, job).discard()
        real(*arguments)

    monkeypatch.setattr(assembly, "_write_report", meanwhile)
    assemble_job(connections, job)
    sweep(connections)
    assert [str(found.uri) for found in connections.s3.list(S3Uri(INPUTS, "")) if job in str(found.uri)] == []


def test_a_resumed_retry_is_restored_after_a_second_loss(connections: Connections, sent: Sent, tiles: Path) -> None:
    job = completed(connections, tiles)
    retry_job(connections, job)
    end_job(connections, job, JobState.FAILED, "for some reason", publish=ignore)
    lost(connections)
    resume_job(connections, job)
    assert not connections.records.state(job).is_over
    sent.clear()
    lost(connections)
    restore_jobs(connections)
    assert [one.job_id for one, _ in sent] == [job]
    fail_and_forget(connections, job)


def test_a_job_resumed_at_another_server_is_restored_there(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(connections, write_tiles(tiles, TWO_SHARDS))[0].job
    lost(connections)
    for module in ("osml_tasks.job_copy", "osml_tasks.recovery"):
        monkeypatch.setattr(f"{module}.state_address", lambda app: "redis://elsewhere:6379/0")
    resume_job(connections, job)
    sent.clear()
    lost(connections)
    restore_jobs(connections)
    assert [one.job_id for one, _ in sent] == [job]
    fail_and_forget(connections, job)


def test_a_job_whose_records_are_lost_while_its_client_stages_is_not_lost(
    connections: Connections, sent: Sent, tiles: Path
) -> None:
    def lose(staged: int) -> None:
        if staged == 3:
            lost(connections)
            restore_jobs(connections)

    found = find_tiles([str(write_tiles(tiles, TWO_SHARDS))])
    job, shards = create_job(connections, found, "scripted", stage=True, on_staged=lose)
    restore_jobs(connections)  # the next sweep
    submitted(connections, shards[0])
    fail_and_forget(connections, job.job_id)


def test_a_client_that_stages_large_tiles_is_not_taken_for_dead(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = S3Manager.put
    monkeypatch.setattr(recovery, "STAGING_SECONDS", 2.0)
    monkeypatch.setattr(detection, "_SIGN_EVERY", 0.5, raising=False)

    def slow(self: S3Manager, uri: S3Uri, body: Any, *rest: Any, **more: Any) -> None:
        if not uri.key.endswith((".json", ".jsonl")):
            time.sleep(6)  # a gigabyte over a slow line, beside 15 others: longer than STAGING_SECONDS
        real(self, uri, body, *rest, **more)

    monkeypatch.setattr(S3Manager, "put", slow)
    made: list[Job] = []
    found = find_tiles([str(write_tiles(tiles, {"t": {}}))])
    client = threading.Thread(target=lambda: made.append(create_job(connections, found, "scripted", stage=True)[0]))
    client.start()
    while client.is_alive():
        send_lost_messages(connections, silent=1.0)
        time.sleep(0.3)
    status = connections.records.status(made[0].job_id)
    assert (status.state, status.error) == (JobState.QUEUED, None)
    fail_and_forget(connections, made[0].job_id)


def test_the_sweep_goes_on_without_the_right_to_ask_for_info(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise NoPermissionError("this user has no permissions to run the 'info' command")

    monkeypatch.setattr(connections.records._redis, "info", refuse)
    job = make_job(connections, write_tiles(tiles, TWO_SHARDS))[0].job
    sweep(connections)
    lost(connections)
    sweep(connections)
    assert [one.job_id for one, _ in sent] == [job]
    fail_and_forget(connections, job)


def test_answers_outside_of_a_jobs_directories_are_deleted_after_a_poll_that_died(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {f"{tiles.name}-good": {}, f"{tiles.name}-bad": {"fail_first": 9}}
    shards = make_job(connections, write_tiles(tiles, bad), endpoint="old-region")
    submitted(connections, shards[0])
    records = type(connections.records)
    real = records.set_progress

    def killed(self: Any, shard: Shard, progress: Any) -> None:
        if progress.shards_finished:
            raise KeyboardInterrupt
        real(self, shard, progress)

    with monkeypatch.context() as death:
        death.setattr(records, "set_progress", killed)
        with pytest.raises(KeyboardInterrupt):
            collected(connections, shards[0])
    collected(connections, shards[0])
    assemble_job(connections, shards[0].job)
    JobHandle(connections, shards[0].job).discard()
    sweep(connections)
    assert [str(found.uri) for found in connections.s3.list(S3Uri(OUTPUTS, ""))] == []


def test_the_copy_of_the_paths_is_written_once(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = S3Manager.put

    def note(self: S3Manager, uri: S3Uri, *rest: Any, **more: Any) -> None:
        written.append(uri.key.rpartition("/")[2])
        real(self, uri, *rest, **more)

    monkeypatch.setattr(S3Manager, "put", note)
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS), endpoint="old-region")
    submitted(connections, shards[0])
    assert written.count("paths.json") <= 1
    fail_and_forget(connections, shards[0].job)


def test_a_slow_second_sweep_does_not_begin_a_job_again(
    connections: Connections, sent: Sent, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(connections, write_tiles(tiles, TWO_SHARDS))[0].job
    lost(connections)
    real = resume.planned_shards

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(resume, "planned_shards", real)
        shards = real(*arguments)
        restore_jobs(connections)  # another sweep, on another worker, that S3 answers sooner
        end_job(connections, job, JobState.CANCELLED, "its caller cancelled it", publish=ignore)
        return shards

    monkeypatch.setattr(resume, "planned_shards", meanwhile)
    restore_jobs(connections)
    assert connections.records.state(job) is JobState.CANCELLED


def test_a_poll_without_records_counts_the_part(connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS))
    done(connections, shards[:1])
    connections.records._redis.delete(f"{PREFIX}progress:{shards[0].job}")
    assert collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore).poll_in is None
    assert connections.records.progress(shards[0]) == Progress(4, 4, 0, 4, 1)
    fail_and_forget(connections, shards[0].job)


def test_the_report_of_old_records_counts_what_the_parts_have(connections: Connections, tiles: Path) -> None:
    bad = {f"{tiles.name}-bad": {"raw": "nonsense"}}
    shards = make_job(connections, write_tiles(tiles, TWO_SHARDS | bad))
    done(connections, shards)
    connections.records._redis.delete(f"{PREFIX}progress:{shards[0].job}")
    assemble_job(connections, shards[0].job)
    report = JobHandle(connections, shards[0].job).report()
    assert (report["succeeded"], report["failed"], report["features"], len(report["failures"])) == (6, 1, 6, 1)


def test_a_wrong_password_after_a_restart_is_said_at_once(
    connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis.exceptions import AuthenticationError

    from osml_tasks import outage

    patience = outage.Patience("job", seconds=1e9)
    patience.ask(lambda: 1)

    def wrong() -> int:
        raise AuthenticationError("invalid username-password pair or user is disabled.")

    with pytest.raises(AuthenticationError):
        patience.ask(wrong)
