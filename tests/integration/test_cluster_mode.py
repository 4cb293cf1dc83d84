"""A fleet on a server in cluster mode: all that is done at a time is in one slot, or the server refuses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis

from osml_tasks.celery import new_app
from osml_tasks.errors import JobTimeoutError
from osml_tasks.jobs import JobState
from osml_tasks.local.server import free_port
from osml_tasks.recovery import SILENT_SECONDS
from osml_tasks.redis_keys import PREFIX
from tests.integration.crew import ALL, Crew, Worker, numbered
from tests.integration.fleet import PATIENCE, Fleet, names, start_python, strange_app, wait_until, write_tiles
from tests.integration.one_shard import OneShard
from tests.integration.test_fleet_capacity import let_time_pass, sweep_as_after
from tests.integration.test_flower import FLOWER_READY


@dataclass(frozen=True)
class Clustered:
    """A fleet on such a server.

    :ivar server: a Redis client of the server.
    :ivar logs: what each process has written.
    """

    fleet: Fleet
    crew: Crew
    server: Any
    logs: list[Callable[[], str]]
    flower_url: str
    workers: dict[str, Worker] = field(default_factory=dict)

    def start_worker(self, name: str) -> Worker:
        """Start a worker that does everything."""
        worker = self.crew.start(name, ALL, 2, "-B", "-s", str(self.crew.directory / name))
        self.logs.append(worker.process.log_text)
        self.workers[name] = worker
        return worker


@pytest.fixture(scope="module")
def clustered(_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    directory = tmp_path_factory.mktemp("clustered")
    with ExitStack() as running:
        broker = running.enter_context(OneShard(directory / "broker"))
        env = {**_fleet.env, "CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": broker.url}
        fleet = Fleet(env, _fleet.endpoints_url, _fleet.tiles, str)
        crew = Crew(fleet, running, directory, new_app(broker.url, broker.url))
        port = free_port()
        command = ["-m", "celery", "-A", "osml_tasks", "flower", "--address=127.0.0.1", f"--port={port}"]
        flower = start_python(
            running, "flower", command, directory, env | {"FLOWER_UNAUTHENTICATED_API": "true"}, FLOWER_READY
        )
        server = running.enter_context(redis.Redis.from_url(broker.url, decode_responses=True))
        made = Clustered(fleet, crew, server, [flower.log_text], f"http://127.0.0.1:{port}")
        made.start_worker("all")
        yield made
    wait_until(lambda: not _fleet.objects())


@pytest.fixture(autouse=True)
def nothing_is_refused(clustered: Clustered) -> Iterator[None]:
    """A test fails where the server refused anything for its keys, or has one that is not the fleet's."""
    yield
    errors = clustered.server.info("errorstats")
    assert not {"errorstat_CROSSSLOT", "errorstat_MOVED", "errorstat_CLUSTERDOWN"} & set(errors), errors
    assert [log() for log in clustered.logs if "CROSSSLOT" in log()] == []
    assert [key for key in clustered.server.scan_iter() if not key.startswith(PREFIX)] == []


def test_the_server_refuses_what_is_in_several_slots(clustered: Clustered) -> None:
    with pytest.raises(redis.exceptions.RedisError, match=r"same slot|CROSSSLOT"):
        clustered.server.delete("one", "another")
    clustered.server.config_resetstat()


def test_a_job_that_waits_for_capacity_fails_retries_and_cleans_up(clustered: Clustered, tmp_path: Path) -> None:
    # The model counts by name what it was called with.
    scripts = {f"slot{number:02d}": {} for number in range(40)}
    scripts |= {"slot03": {"fail_first": 1}, "slot07": {"fail_first": 5}}
    tiles = write_tiles(tmp_path / "tiles", scripts)
    run = clustered.fleet.run
    options = {"ASYNC_SM_MAX_CONCURRENT_JOBS": "8", "ASYNC_SM_CLEANUP_POLICY": "delayed"}
    outcome = clustered.fleet.detect(tiles, "-e", "scripted", "--keep", folder=tmp_path, **options)
    job = outcome.report["job_id"]
    assert (outcome.status, len(outcome.features)) == (3, 39), outcome.err
    assert any(f"INFO parked job={job}" in log() for log in clustered.logs)
    again = run("retry", job, "-o", tmp_path / "again.geojson")
    assert again.returncode == 0, again.stderr
    for call in (["status", job], ["jobs"], ["queues"], ["check", "-e", "scripted"], ["cleanup", "--force"]):
        done = run(*call)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_is_cancelled(clustered: Clustered, tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "tiles", numbered(40))
    run = clustered.fleet.run
    job = run("detect", tiles, "-e", "slow", "--no-wait").stdout.strip()
    assert run("cancel", job).returncode == 0
    wait_until(lambda: clustered.fleet.stats("slow")["in_flight"] == 0)
    wait_until(lambda: run("cleanup", "--force").stdout.startswith("0 deleted"))


@pytest.mark.usefixtures("here")
def test_what_a_killed_worker_held_comes_back(
    clustered: Clustered, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in clustered.fleet.env.items():
        monkeypatch.setenv(name, value)
    write_tiles(tiles, numbered(60))
    doomed = clustered.start_worker("doomed")
    with clustered.crew.job(tiles, "slow", max_concurrent_jobs=16) as job:
        wait_until(lambda: job.progress().finished >= 10)
        doomed.kill()
        wait_until(lambda: clustered.fleet.stats("slow")["in_flight"] == 0)
        if not job.status().state.is_over:
            let_time_pass(clustered.crew)
        try:
            job.wait(60)
        except JobTimeoutError:
            # A message may go with a worker at the moment when it is taken.
            sweep_as_after(clustered.crew, job.job_id, 2 * SILENT_SECONDS)
        assert job.wait(PATIENCE).state is JobState.COMPLETED
        assert len(job.result()["features"]) == 60


def test_an_application_calls_by_name(clustered: Clustered, tmp_path: Path) -> None:
    fleet = clustered.fleet
    fleet.s3.put_object(Bucket="fleet-in", Key="imagery/a", Body=b'{"name": "a"}')
    app = strange_app(fleet.env["CELERY_BROKER_URL"])
    arguments = {"sources": ["s3://fleet-in/imagery/"], "endpoint": "scripted"}
    report = app.send_task("osml_tasks.detect", kwargs=arguments, queue="osml.submit").get(timeout=PATIENCE)
    assert fleet.run("result", report["job_id"], "-o", tmp_path / "out.geojson").returncode == 0
    fleet.s3.delete_object(Bucket="fleet-in", Key="imagery/a")


def test_flower_sees_workers_tasks_and_queues(clustered: Clustered) -> None:
    def flower(path: str) -> Any:
        with urlopen(clustered.flower_url + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    wait_until(lambda: "all@crew" in flower("/api/workers?refresh=1"))
    wait_until(lambda: "osml_tasks.cleanup" in str(flower("/api/tasks")))
    assert len(flower("/api/queues/length")["active_queues"]) == 4


def test_a_job_goes_on_after_everything_is_lost(clustered: Clustered, tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "tiles", numbered(40))
    run = clustered.fleet.run
    job = run("detect", tiles, "-e", "slow", "--no-wait", ASYNC_SM_MAX_CONCURRENT_JOBS="8").stdout.strip()
    clustered.workers.pop("all").kill()
    clustered.server.flushall()
    clustered.start_worker("next")
    done = run("resume", job, "-o", tmp_path / "out.geojson")
    assert done.returncode == 0, done.stderr
    assert len(names(json.loads((tmp_path / "out.geojson").read_text())["features"])) == 40
