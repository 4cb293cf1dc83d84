"""RabbitMQ as the broker, with the state in Valkey: the main job, a worker that is killed, a broker that restarts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from kombu import Producer, Queue

from osml_tasks.celery import new_app, state_client
from osml_tasks.child_process import ChildProcess
from osml_tasks.consumers import KEY_PREFIX, Consumers
from osml_tasks.worker_presence import find_listeners
from tests.integration.fleet import (
    PATIENCE,
    REPOSITORY,
    WORKERS_READY,
    Fleet,
    clean_environment,
    names,
    start_python,
    wait_until,
    write_tiles,
)
from tests.integration.rabbitmq import RabbitMQ, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason="RabbitMQ is not installed: apt-get install rabbitmq-server")


@dataclass(frozen=True)
class RabbitFleet(Fleet):
    """Workers that take their messages from RabbitMQ.

    :ivar broker: which tests may restart.
    """

    broker: RabbitMQ


@pytest.fixture(scope="module")
def _rabbit_fleet(_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitFleet]:
    directory = tmp_path_factory.mktemp("rabbitmq")
    state = _fleet.env["CELERY_BROKER_URL"].removesuffix("/0") + "/4"
    with ExitStack() as running:
        broker = running.enter_context(RabbitMQ(directory))
        env = dict(_fleet.env) | {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": state}
        workers = start_python(
            running,
            "rabbit-workers",
            ["-m", "osml_tasks", "worker"],
            directory,
            env | {"ASYNC_SM_TILE_ROOTS": str(_fleet.tiles)},
            WORKERS_READY,
        )
        yield RabbitFleet(env, _fleet.endpoints_url, _fleet.tiles, workers.log_text, broker)


@pytest.fixture
def rabbit_fleet(_rabbit_fleet: RabbitFleet, fleet: Fleet) -> RabbitFleet:
    """These workers, for a test that leaves no object."""
    return _rabbit_fleet


def test_a_job_with_failing_tiles_and_parked_shards_comes_back_exactly(
    rabbit_fleet: RabbitFleet, tiles: Path, tmp_path: Path
) -> None:
    scripts = {f"tile-{number:03d}": {"features": number % 3} for number in range(60)}
    scripts |= {f"twice-{number}": {"fail_first": 2} for number in range(3)}
    expected = [name for name, script in sorted(scripts.items()) for _ in range(script.get("features", 1))]
    write_tiles(tiles, scripts | {"zz-hopeless": {"fail_first": 99}})
    outcome = rabbit_fleet.detect(tiles, "-e", "scripted", folder=tmp_path, ASYNC_SM_MAX_CONCURRENT_JOBS="16")
    assert (outcome.status, names(outcome.features)) == (3, expected), outcome.err
    assert [Path(failure["tile"]).name for failure in outcome.report["failures"]] == ["zz-hopeless"]
    assert f"INFO parked job={outcome.report['job_id']}" in rabbit_fleet.worker_log()


def test_the_other_commands_serve_there_too(rabbit_fleet: RabbitFleet, tiles: Path, tmp_path: Path) -> None:
    checked = rabbit_fleet.run("check", "--endpoint", "scripted")
    assert (checked.returncode, "every queue is served: 1 on osml.submit" in checked.stdout) == (0, True), (
        checked.stdout
    )
    assert "amqp://fleet:**@127.0.0.1" in checked.stdout
    write_tiles(tiles, {"a": {}, "b": {}})
    job = rabbit_fleet.run("detect", tiles, "-e", "scripted", "--no-wait").stdout.strip()
    assert rabbit_fleet.run("watch", job).returncode == 0
    assert json.loads(rabbit_fleet.run("status", job, "--json").stdout)["succeeded"] == 2
    assert rabbit_fleet.run("cleanup", "--job", job).returncode == 0


def test_consumers_are_counted_where_workers_have_noted_nothing(rabbit_fleet: RabbitFleet) -> None:
    app = new_app(rabbit_fleet.env["CELERY_BROKER_URL"], rabbit_fleet.env["CELERY_RESULT_BACKEND"])
    state = state_client(app)
    wait_until(lambda: all(Consumers(state).counts().values()))
    state.delete(*state.keys(f"{KEY_PREFIX}*"))
    # Nobody is asked: the broker knows.
    assert find_listeners(app, wait=0).missing == []


def test_state_without_redis_is_refused_in_one_line(rabbit_fleet: RabbitFleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    for arguments in (("detect", tiles, "-e", "scripted", "-o", tmp_path / "out"), ("status", "j"), ("worker",)):
        done = rabbit_fleet.run(*arguments, CELERY_RESULT_BACKEND=None)
        assert done.returncode == 2
        assert "set CELERY_RESULT_BACKEND to a Redis URL" in done.stderr
        assert rabbit_fleet.broker.url not in done.stderr


def test_what_a_killed_worker_held_comes_back_at_once(rabbit_fleet: RabbitFleet, tiles: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    scripts = {f"t{number:02d}": {"features": 2, "after": str(gate)} for number in range(48)}
    env = clean_environment() | {"PYTHONPATH": str(REPOSITORY)} | dict(rabbit_fleet.env)
    celery = [sys.executable, "-m", "celery", "-A", "osml_tasks", "worker", "-n", "victim@here", "-Q", "osml.poll"]
    victim = ChildProcess("victim", [*celery, "-c", "2"], directory=tmp_path, env=env)
    app = new_app(rabbit_fleet.env["CELERY_BROKER_URL"], rabbit_fleet.env["CELERY_RESULT_BACKEND"])
    inspect = app.control.inspect(destination=["victim@here"], timeout=20.0, limit=1)
    victim.start()
    try:
        victim.wait_ready(lambda: inspect.ping() is not None, within=PATIENCE)
        client = rabbit_fleet.start(
            *("detect", write_tiles(tiles, scripts), "-e", "slow", "-o", tmp_path / "out.geojson"),
            ASYNC_SM_MAX_CONCURRENT_JOBS="24",
            ASYNC_SM_POLLING_INTERVAL="3",
            ASYNC_SM_MAX_POLLING_INTERVAL="3",
        )
        # Messages that it has and may not work on yet.
        wait_until(lambda: any((inspect.scheduled() or {}).get("victim@here", ())))
    finally:
        victim.stop(grace=0)
    gate.touch()
    _, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, err
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert names(features) == [name for name in scripts for _ in range(2)]


def test_a_broker_that_restarts_loses_nothing(rabbit_fleet: RabbitFleet, tiles: Path, tmp_path: Path) -> None:
    scripts = {f"t{number:02d}": {"features": 2} for number in range(48)}
    client = rabbit_fleet.start(
        *("detect", write_tiles(tiles, scripts), "-e", "slow", "-o", tmp_path / "out.geojson"),
        ASYNC_SM_MAX_CONCURRENT_JOBS="24",
    )
    assert client.stderr is not None
    job = next(line.split()[1] for line in client.stderr if line.startswith("job "))
    wait_until(lambda: f"INFO submit job={job}" in rabbit_fleet.worker_log())
    rabbit_fleet.broker.restart()
    _, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, err
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert names(features) == [name for name in scripts for _ in range(2)]


def test_what_is_no_message_of_this_program_is_one_line_and_gone(rabbit_fleet: RabbitFleet) -> None:
    task = {"task": "osml_tasks.poll", "id": "1"}
    forged: list[tuple[object, dict[str, object]]] = [
        (b"\x80\x04.", {"headers": task, "content_type": "application/x-python-serialize"}),
        (b"\xff", {"headers": task, "content_type": "application/json", "content_encoding": "utf-8"}),
        (b"no JSON", {"headers": task, "content_type": "application/json", "content_encoding": "utf-8"}),
        ("null", {"headers": task, "content_type": "application/json", "content_encoding": "utf-8"}),
        ([[], {}, None], {"headers": {"task": ["osml_tasks.poll"], "id": "1"}}),
        ([[], {}, None], {"headers": {"task": "celery.backend_cleanup", "id": "1"}}),
        ([[], {}, None], {"headers": {"id": "1"}}),
        ([[], {"job": "../x"}, None], {"headers": task}),
        ([["x" * 2_000_000], {}, None], {"headers": task, "compression": "gzip"}),
    ]
    before = len(rabbit_fleet.worker_log())
    with new_app(rabbit_fleet.env["CELERY_BROKER_URL"]).connection_for_write() as connection:
        for body, options in forged:
            Producer(connection).publish(body, exchange="", routing_key="osml.poll", serializer="json", **options)
        queue = Queue("osml.poll", channel=connection.default_channel)
        wait_until(lambda: rabbit_fleet.worker_log()[before:].count("message refused: ") == len(forged))
        wait_until(lambda: queue.queue_declare(passive=True).message_count == 0)
    said = rabbit_fleet.worker_log()[before:]
    assert "Traceback" not in said
    assert len(said) < 500 * len(forged)
