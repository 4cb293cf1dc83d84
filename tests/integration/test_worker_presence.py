"""Whether a client knows of the fleet's workers: of busy ones that answer nothing, and not of dead ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osml_tasks.capacity import Capacity
from osml_tasks.celery_settings import QUEUES
from osml_tasks.consumers import KEY_PREFIX, NOTE_SECONDS, Consumers
from osml_tasks.jobs import Shard
from tests.integration.crew import ALL, POLL, REST, SUBMIT, Crew
from tests.integration.fleet import wait_until, write_tiles

STAGED = "staged 1/1\n"
UNKNOWN = (
    f"osml-tasks: no worker is known to listen on {', '.join(QUEUES)}: start one with 'osml-tasks worker', "
    "or 'celery -A osml_tasks worker'; a job waits for it\n"
)


def _counts(workers: Crew) -> dict[str, int]:
    return Consumers(workers.broker).counts()


def _let_notes_expire(workers: Crew) -> None:
    for key in workers.broker.keys(f"{KEY_PREFIX}*"):
        for node in workers.broker.zrange(key, 0, -1):
            workers.broker.zincrby(key, -NOTE_SECONDS, node)


def _finish(workers: Crew, job: str, folder: Path) -> None:
    done = workers.fleet.run("result", job, "-o", folder / "out.geojson")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((folder / "out.geojson").read_text())["features"]) == 1


def test_a_job_starts_while_all_workers_are_too_busy_to_answer(workers: Crew, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    quiet = ("--without-heartbeat", "--without-gossip", "--without-mingle")
    crew = [workers.start("submit", SUBMIT, 1, *quiet), workers.start("rest", f"{POLL},{REST}", 1, "--pool", "threads")]
    for worker in crew:
        worker.freeze()
    try:
        started = workers.fleet.run("detect", tiles, "-e", "scripted", "--no-wait")
        checked = workers.fleet.run("check")
    finally:
        for worker in crew:
            worker.thaw()
    assert (started.returncode, started.stderr) == (0, STAGED)
    assert (checked.returncode, "ok    workers: every queue is served" in checked.stdout) == (0, True), checked.stdout
    _finish(workers, started.stdout.strip(), tmp_path)


def test_workers_that_note_nothing_are_asked(workers: Crew, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    workers.start("all", ALL, 1)
    # As before this program's workers noted anything, or after their server has lost its data.
    workers.broker.delete(*workers.broker.keys(f"{KEY_PREFIX}*"))
    started = workers.fleet.run("detect", tiles, "-e", "scripted", "--no-wait")
    assert (started.returncode, started.stderr) == (0, STAGED)
    _finish(workers, started.stdout.strip(), tmp_path)


def test_killed_workers_are_forgotten_and_a_job_waits_for_others(workers: Crew, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    workers.start("doomed", ALL, 1).kill()
    assert _counts(workers) == dict.fromkeys(QUEUES, 1)
    _let_notes_expire(workers)
    started = workers.fleet.run("detect", tiles, "-e", "scripted", "--no-wait")
    assert (started.returncode, started.stderr) == (0, UNKNOWN + STAGED)
    job = started.stdout.strip()
    checked = workers.fleet.run("check")
    assert checked.returncode == 2
    assert f"FAIL  workers: {UNKNOWN.removeprefix('osml-tasks: ')}" in checked.stdout
    waited = workers.fleet.run("watch", job, ASYNC_SM_JOB_QUEUE_TIMEOUT="1")
    assert waited.returncode == 2
    assert (
        f"osml-tasks: job {job} has not begun in 1 s (ASYNC_SM_JOB_QUEUE_TIMEOUT): no worker is known to listen on "
        f"osml.submit: start one with 'osml-tasks worker'. It waits on, and 'osml-tasks watch {job}' follows it\n"
    ) in waited.stderr
    workers.start("another", ALL, 1)
    _finish(workers, job, tmp_path)


def test_a_fleet_that_is_there_in_part_is_refused_before_it_costs_anything(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles, {"a": {}})
    workers.start("submit", SUBMIT, 1)
    refused = workers.fleet.run("detect", tiles, "-e", "scripted", "--no-wait")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "osml-tasks: no worker listens on osml.poll, osml.assemble, osml.cleanup, while others do on osml.submit: "
        "start one with 'osml-tasks worker', or 'celery -A osml_tasks worker -Q osml.poll,osml.assemble,osml.cleanup'\n"
    )


def test_a_job_that_no_worker_has_room_for_says_so(workers: Crew, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    crew = [workers.start("submit", SUBMIT, 1), workers.start("rest", f"{POLL},{REST}", 1)]
    crew[0].freeze()
    try:
        started = workers.fleet.run("detect", tiles, "-e", "scripted", "--no-wait")
        job = started.stdout.strip()
        waited = workers.fleet.run("watch", job, ASYNC_SM_JOB_QUEUE_TIMEOUT="1")
    finally:
        crew[0].thaw()
    assert waited.returncode == 2
    assert (
        "the workers on osml.submit (1) are busy with other jobs, or hang: start more, or wait. It w" in waited.stderr
    )
    _finish(workers, job, tmp_path)


def test_a_job_that_other_jobs_keep_from_its_endpoint_says_so(workers: Crew, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    workers.start("all", ALL, 1)
    capacity = Capacity(workers.broker)
    taken = Shard("20200101-000000-00000000", 0, 0, 8, 0, 0)
    assert capacity.request("scripted", taken, 8, 8, "").held
    variables = {"ASYNC_SM_MAX_CONCURRENT_JOBS": "8", "ASYNC_SM_JOB_QUEUE_TIMEOUT": "1"}
    job = workers.fleet.run("detect", tiles, "-e", "scripted", "--no-wait", **variables).stdout.strip()
    wait_until(lambda: job in capacity.use("scripted").parked)
    waited = workers.fleet.run("watch", job, **variables)
    assert waited.returncode == 2
    assert (
        "other jobs have all of endpoint 'scripted', wait or raise ASYNC_SM_MAX_CONCURRENT_JOBS. It w" in waited.stderr
    )
    workers.app.signature(json.loads(capacity.keep("scripted", taken, 0).messages[0])).apply_async()
    _finish(workers, job, tmp_path)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_stops_takes_its_note_back(workers: Crew, pool: str) -> None:
    worker = workers.start("all", ALL, 1, "--pool", pool)
    assert _counts(workers) == dict.fromkeys(QUEUES, 1)
    worker.terminate()
    wait_until(lambda: worker.has_ended)
    assert _counts(workers) == dict.fromkeys(QUEUES, 0)
    assert "the fleet does not hear of this worker" not in worker.process.log_text()
