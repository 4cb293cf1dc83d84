"""Workers that stop and start while jobs run."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from osml_tasks.celery_settings import QUEUES
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState
from osml_tasks.pace import Paces
from osml_tasks.redis_keys import PREFIX
from tests.integration.crew import POLL, REST, SUBMIT, Crew, Worker, numbered
from tests.integration.faulty_way import FaultyWay
from tests.integration.fleet import PATIENCE, WORKERS_READY, names, start_python, wait_until, write_tiles

HASTY, GRACE = "tests.integration.hasty", 1.0
"""An app whose tasks have that long, s, when they are to stop, and AWS five seconds more."""


def assert_exact(crew: Crew, job: JobHandle, tiles: int, endpoint: str) -> None:
    """Every tile once in the result, in order, and invoked once."""
    assert job.wait(PATIENCE).state is JobState.COMPLETED
    assert names(job.result()["features"]) == [*numbered(tiles)]
    invoked = [name for name in crew.fleet.invocations(endpoint) if name.startswith(job.job_id)]
    assert Counter(Counter(invoked).values()) == {1: tiles}


def stopped(worker: Worker) -> None:
    """Wait until a worker that was told to stop has done so, of itself and with success."""
    wait_until(lambda: worker.has_ended)
    assert worker.status == 0, worker.process.log_text()[-2000:]


def test_what_waits_is_at_another_worker_while_the_old_one_still_works(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles / "patient", numbered(60))
    write_tiles(tiles / "busy", numbered(20))
    workers.launch("submit", f"{SUBMIT},{REST}", 2)
    with FaultyWay(workers.fleet.env["AWS_ENDPOINT_URL_S3"]) as s3:
        old = workers.start("old", POLL, 2, AWS_ENDPOINT_URL_S3=s3.url)
        new = workers.start("new", "osml.cleanup", 2)
        options = {"max_concurrent_jobs": 80}
        patience = {"polling_interval": 10, "max_polling_interval": 10}
        Paces(workers.broker).learn("slow", 60.0)
        with workers.job(tiles / "patient", "slow", **options, **patience) as patient:
            wait_until(lambda: len(workers.requests("scheduled", old)) == 3)
            waiting = workers.requests("scheduled", old)
            s3.delay = 3600
            with workers.job(tiles / "busy", "scripted", **options) as busy:
                wait_until(lambda: s3.waiting > 0)
                workers.app.control.add_consumer(POLL, destination=[new.node], reply=True, timeout=20.0)
                old.terminate()
                wait_until(lambda: waiting <= workers.requests("scheduled", new))
                assert busy.progress().shards_finished == 0
                s3.delay = 0
                stopped(old)
                assert_exact(workers, busy, 20, "scripted")
            assert_exact(workers, patient, 60, "slow")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_pool_returns_all_that_waits(workers: Crew, pool: str) -> None:
    worker = workers.start("poll", POLL, 2, "-P", pool)
    for _ in range(12):
        workers.app.send_task("osml_tasks.poll", kwargs={"job": "nobodys"}, countdown=60, queue=POLL)
    wait_until(lambda: len(workers.requests("scheduled", worker)) == 12)
    assert workers.broker.llen(PREFIX + POLL) == 0
    worker.terminate()
    stopped(worker)
    assert (workers.broker.llen(PREFIX + POLL), workers.broker.hlen(f"{PREFIX}unacked")) == (12, 0)


def test_a_submit_that_has_no_time_left_is_gone_on_with_elsewhere(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles, numbered(80))
    workers.launch("poll", f"{POLL},{REST}", 1)
    with FaultyWay(workers.fleet.endpoints_url) as runtime:
        runtime.delay = 2.0
        old = workers.start("old", SUBMIT, 1, app=HASTY, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=runtime.url)
        before = len(workers.fleet.invocations("scripted"))
        with workers.job(tiles, "scripted", max_concurrent_jobs=320) as job:
            wait_until(lambda: len(workers.fleet.invocations("scripted")) > before)
            old.terminate()
            stopped(old)
            assert 0 < len(workers.fleet.invocations("scripted")) - before < 80
            assert workers.broker.llen(PREFIX + SUBMIT) == 1
            assert workers.broker.keys(f"{PREFIX}claim:*/submit") == []
            workers.launch("new", SUBMIT, 1)
            assert_exact(workers, job, 80, "scripted")


@pytest.mark.parametrize("step", [POLL, REST])
def test_a_write_that_has_no_time_left_is_begun_anew_elsewhere(workers: Crew, tiles: Path, step: str) -> None:
    """A part of a shard, and the result of a job: half of it leaves nothing."""
    write_tiles(tiles, numbered(20))
    others = ",".join(queue for queue in QUEUES if queue not in step.split(","))
    workers.launch("others", others, 2)
    with FaultyWay(workers.fleet.env["AWS_ENDPOINT_URL_S3"]) as s3:
        s3.delay = 3600
        old = workers.start("old", step, 1, app=HASTY, AWS_ENDPOINT_URL_S3=s3.url)
        with workers.job(tiles, "scripted", max_concurrent_jobs=16 if step == REST else 80) as job:
            wait_until(lambda: s3.waiting > 0)
            old.terminate()
            wait_until(lambda: "Warm shutdown" in old.process.log_text())
            time.sleep(1.5 * GRACE)
            s3.delay = 0
            stopped(old)
            assert "message returned" in old.process.log_text()
            workers.launch("new", step, 1)
            assert_exact(workers, job, 20, "scripted")


def test_a_task_that_hangs_is_killed_in_the_end_and_done_elsewhere(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles, numbered(20))
    workers.launch("others", f"{SUBMIT},{REST}", 2)
    with FaultyWay(workers.fleet.env["AWS_ENDPOINT_URL_S3"]) as s3:
        s3.delay = 3600
        old = workers.start("old", POLL, 2, app=HASTY, AWS_ENDPOINT_URL_S3=s3.url)
        with workers.job(tiles, "scripted", max_concurrent_jobs=80) as job:
            wait_until(lambda: s3.waiting > 0)
            old.terminate()
            stopped(old)
            assert "did not end within 6 s" in old.process.log_text()
            workers.launch("new", POLL, 2)
            assert_exact(workers, job, 20, "scripted")


def test_a_new_worker_takes_its_share_while_a_job_runs(workers: Crew, tiles: Path, tmp_path: Path) -> None:
    has_joined, has_its_share = tmp_path / "joined", tmp_path / "share"
    gates = [None] * 32 + [has_joined] * 160 + [has_its_share] * 8
    scripts = [{"after": str(gate)} if gate else {} for gate in gates]
    write_tiles(tiles, dict(zip(numbered(200), scripts, strict=True)))
    workers.launch("rest", REST, 1)
    first = {queue: workers.launch(f"first-{queue}", queue, 1) for queue in (SUBMIT, POLL)}
    with workers.job(tiles, "slow", max_concurrent_jobs=32) as job:
        wait_until(lambda: job.progress().finished >= 8)
        second = {queue: workers.launch(f"second-{queue}", queue, 1) for queue in (SUBMIT, POLL)}
        for worker in second.values():
            worker.wait_ready()
        joined = job.progress()
        has_joined.touch()
        wait_until(lambda: all(done_by(workers, worker) >= 3 for worker in second.values()))
        assert joined.finished < job.progress().finished < 200
        has_its_share.touch()
        assert all(done_by(workers, worker) > 3 for worker in first.values())
        assert_exact(workers, job, 200, "slow")


def done_by(crew: Crew, worker: Worker) -> int:
    """How many submit and poll tasks a worker has begun."""
    return sum((crew.ask("stats", worker.node) or {"total": {}})["total"].values())


def test_the_configured_numbers_are_the_concurrency_and_one_signal_ends_them_all(workers: Crew) -> None:
    env = dict(workers.fleet.env) | {"ASYNC_SM_SUBMISSION_WORKERS": "3", "ASYNC_SM_POLLING_WORKERS": "5"}
    command = ["-m", "osml_tasks", "worker"]
    supervisor = Worker("", start_python(workers.running, "all", command, workers.directory, env, WORKERS_READY))
    stats = workers.app.control.inspect(timeout=20.0, limit=3).stats()
    concurrency = {node.partition("-")[0]: answer["pool"]["max-concurrency"] for node, answer in stats.items()}
    assert concurrency == {"submit": 3, "poll": 5, "assemble": 1}
    for _ in range(3):
        supervisor.terminate()
    stopped(supervisor)
    assert not [answer["pid"] for answer in stats.values() if psutil.pid_exists(answer["pid"])]
