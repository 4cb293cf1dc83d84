"""Flower on a real fleet whose broker has a password: what it shows of a job, and what it must not show."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import redis

from osml_tasks.celery import new_app
from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from tests.integration.fleet import PATIENCE, WORKERS_READY, Fleet, start_python, wait_until, write_tiles

BROKER_PASSWORD = "the-brokers-own"
LOGIN = "operator:the-dashboards-own"
FLOWER_READY = re.compile(r"Visit me at", re.MULTILINE)
SHARDS = 5
STEPS = {"submit", "poll", "assemble", "cleanup"}
PAGES = ("/", "/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks", "/api/queues/length")
OPEN = ("/metrics", "/healthcheck")


@dataclass(frozen=True)
class Dashboard:
    """A running Flower.

    :ivar job: a job of five shards that has run before its eyes.
    :ivar fleet: whose tasks it shows.
    """

    url: str
    job: str
    fleet: Fleet
    flower: ChildProcess

    def get(self, path: str, login: str | None = LOGIN) -> tuple[int, str]:
        """Status and text of a page."""
        secret = {} if login is None else {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        try:
            with urlopen(Request(self.url + path, headers=secret), timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks that it knows."""
        return list(json.loads(self.get("/api/tasks")[1]).values())

    def workers(self) -> dict[str, Any]:
        """All workers that it knows, asked anew."""
        return dict(json.loads(self.get("/api/workers?refresh=1")[1]))

    def finished(self) -> set[str]:
        """The steps of which it has seen one of this job succeed."""
        done = [task for task in self.tasks() if task["state"] == "SUCCESS" and self.job in task["kwargs"]]
        return {task["name"].removeprefix("osml_tasks.") for task in done}


@pytest.fixture(scope="module")
def dashboard(_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    directory = tmp_path_factory.mktemp("flower")
    tiles = write_tiles(_fleet.tiles / "flower", {f"t{number:02d}": {} for number in range(20)})
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory))
        with redis.Redis.from_url(broker.url) as server:
            server.config_set("requirepass", BROKER_PASSWORD)
        url = broker.url.replace("://", f"://:{BROKER_PASSWORD}@")
        # Shards of 4, of which one waits for capacity: so a parked message is sent again, too.
        env = {**_fleet.env, "CELERY_BROKER_URL": url, "ASYNC_SM_MAX_CONCURRENT_JOBS": "16"}
        worker_env = env | {"ASYNC_SM_TILE_ROOTS": str(_fleet.tiles), "ASYNC_SM_SUBMISSION_WORKERS": "1"}
        start_python(running, "workers", ["-m", "osml_tasks", "worker"], directory, worker_env, WORKERS_READY)
        port = free_port()
        options = ["--address=127.0.0.1", f"--port={port}", "--read-only", "--purge-offline-workers=60"]
        flower = start_python(
            running,
            "flower",
            ["-m", "celery", "-A", "osml_tasks", "flower", *options],
            directory,
            env | {"FLOWER_BASIC_AUTH": LOGIN},
            FLOWER_READY,
        )
        fleet = Fleet(env, _fleet.endpoints_url, _fleet.tiles, str)
        found = Dashboard(f"http://127.0.0.1:{port}", "", fleet, flower)
        wait_until(lambda: len(found.workers()) == 3)
        outcome = fleet.detect(tiles, "-e", "slow", "--no-stage", folder=directory)
        assert outcome.status == 0, outcome.err
        found = replace(found, job=outcome.report["job_id"])
        new_app(url).send_task("osml_tasks.cleanup", kwargs={"job": found.job}, ignore_result=True)
        wait_until(lambda: found.finished() == STEPS)
        yield found
    _fleet.wait_empty()


def test_each_task_shows_its_job_shard_and_queue(dashboard: Dashboard) -> None:
    shown = {(task["name"], task["args"], task["routing_key"]) for task in dashboard.tasks()}
    for shard in range(SHARDS):
        label = f"job={dashboard.job} shard={shard} tiles={4 * shard}..{4 * shard + 3}"
        assert ("osml_tasks.submit", label, "osml.submit") in shown
        assert ("osml_tasks.poll", label, "osml.poll") in shown
    for step in ("assemble", "cleanup"):
        assert (f"osml_tasks.{step}", f"job={dashboard.job}", f"osml.{step}") in shown


def test_a_poll_that_comes_again_still_says_what_it_is_about(dashboard: Dashboard) -> None:
    again = [task for task in dashboard.tasks() if task["name"] == "osml_tasks.poll" and task["retries"]]
    assert again
    assert all(f"job={dashboard.job} shard=" in task["args"] for task in again)


def test_the_job_and_a_shard_of_it_can_be_searched_for(dashboard: Dashboard) -> None:
    for words, wanted in ((dashboard.job, 2 * SHARDS + 2), (f"kwargs:job={dashboard.job} kwargs:shard=2", 2)):
        table = "draw=1&start=0&length=50&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
        status, text = dashboard.get(f"/tasks/datatable?{table}&search[value]={quote(words)}")
        assert (status, json.loads(text)["recordsFiltered"]) == (200, wanted), words


def test_prometheus_gets_events_runtimes_and_workers(dashboard: Dashboard) -> None:
    text = dashboard.get("/metrics", login=None)[1]
    found = re.findall(r'^flower_events_total{task="osml_tasks\.(\w+)",type="task-(\w+)",worker=', text, re.MULTILINE)
    assert {(step, event) for step in STEPS for event in ("received", "started", "succeeded")} <= set(found)
    assert ("poll", "retried") in found
    # Sending belongs to no worker: it is forgotten with those that are offline.
    assert "sent" not in {event for _, event in found}
    for step in STEPS:
        assert f'flower_task_runtime_seconds_count{{task="osml_tasks.{step}"' in text
    assert len(re.findall(r"^flower_worker_online{.*} 1\.0$", text, re.MULTILINE)) == 3


def test_a_job_that_fails_as_a_whole_is_a_failed_task(dashboard: Dashboard) -> None:
    """An alert of docs/operations.md rests on that."""
    tiles = write_tiles(dashboard.fleet.tiles / "flower-fails", {"a": {}})
    _, env = dashboard.fleet.command()
    # From Python: the command would see beforehand that there is no such endpoint.
    call = f"import osml_tasks; print(osml_tasks.detect({str(tiles)!r}, endpoint='none', stage=False).wait(120).state)"
    done = subprocess.run(
        [sys.executable, "-c", call], env=env, check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "failed\n"
    failed = re.compile(r'^flower_events_total{task="osml_tasks.submit",type="task-failed",worker=', re.MULTILINE)
    wait_until(lambda: failed.search(dashboard.get("/metrics", login=None)[1]) is not None)


def test_the_queues_have_their_lengths(dashboard: Dashboard) -> None:
    lengths = json.loads(dashboard.get("/api/queues/length")[1])["active_queues"]
    assert {queue["name"] for queue in lengths} == {f"osml.{step}" for step in STEPS}


@pytest.mark.parametrize("login", [None, "operator:guessed"])
def test_without_the_password_only_metrics_and_health_are_shown(dashboard: Dashboard, login: str | None) -> None:
    task = dashboard.tasks()[0]["uuid"]
    assert {dashboard.get(path, login)[0] for path in (*PAGES, f"/task/{task}")} == {401}
    assert {dashboard.get(path, login)[0] for path in OPEN} == {200}


def test_it_shows_the_brokers_password_nowhere(dashboard: Dashboard) -> None:
    workers = dashboard.workers()
    paths = [*PAGES, *OPEN]
    paths += [f"/worker/{name}" for name in workers] + [f"/task/{task['uuid']}" for task in dashboard.tasks()]
    texts = {path: dashboard.get(path) for path in paths}
    assert {status for status, _ in texts.values()} == {200}
    # The page of a worker has its settings, or this would prove nothing.
    assert all("visibility_timeout" in texts[f"/worker/{name}"][1] for name in workers)
    shown = [path for path, (_, text) in texts.items() if BROKER_PASSWORD in text]
    assert shown == []
    assert BROKER_PASSWORD not in dashboard.flower.log_text()


def test_a_dashboard_to_look_at_does_not_stop_workers(dashboard: Dashboard) -> None:
    name = next(iter(dashboard.workers()))
    token = base64.b64encode(LOGIN.encode()).decode()
    request = Request(f"{dashboard.url}/api/worker/shutdown/{name}", method="POST", data=b"")
    request.add_header("Authorization", f"Basic {token}")
    with pytest.raises(HTTPError, match="403"):
        urlopen(request, timeout=PATIENCE)
