"""Every service of docker-compose.yml runs, a job goes through them, workers come and go, and nothing is left."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from redis import Redis

from osml_tasks.celery import new_app
from tests.compose_file import example
from tests.integration.composed import Composed, Container
from tests.integration.fleet import PATIENCE, names, wait_until, write_tiles

ORDER = ["broker", "local-s3", "local-endpoint", "submit-worker", "poll-worker", "assemble-worker", "beat", "flower"]
PASSWORD = "0f-broker_9"
FLOWER_PASSWORD = "seen-by-flower-only"


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    """A ``.env`` with the passwords set, and the endpoint's model."""
    variables = example(with_defaults=False) | {
        "BROKER_PASSWORD": PASSWORD,
        "FLOWER_PASSWORD": FLOWER_PASSWORD,
        "LOCAL_ENDPOINT_MODEL": "tests.integration.models:scripted",
    }
    composed = Composed(tmp_path, variables)
    try:
        yield composed
    finally:
        list(composed.kill())


def _ask_flower(composed: Composed, path: str, password: str | None = None) -> tuple[int, Any]:
    request = Request(f"http://127.0.0.1:{composed.ports['5555']}{path}")
    if password is not None:
        token = base64.b64encode(f"flower:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, None


def _begun(composed: Composed, worker: Container) -> int:
    """How many tasks a poll worker has begun."""
    node = f"poll@{worker.host}"
    app = new_app(worker.environment["CELERY_BROKER_URL"])
    stats = app.control.inspect([node], timeout=20.0).stats() or {}
    return sum(stats.get(node, {}).get("total", {}).values())


def test_the_whole_file_runs_a_job_while_workers_come_and_go(composed: Composed, tmp_path: Path) -> None:
    for name in ORDER:
        composed.start(name)
    assert set(ORDER) | {"cli"} == set(composed.services)
    for container in composed.running:
        composed.wait_healthy(container)

    gate = tmp_path / "gate"
    scripts = {f"t{number:02d}": {"features": 2} | ({"after": str(gate)} if number % 2 else {}) for number in range(60)}
    tiles = write_tiles(tmp_path / "tiles", scripts)
    result, report = tmp_path / "ships.geojson", tmp_path / "report.json"
    client = composed.call("detect", tiles, "-e", "bright-objects", "-o", result, "--report", report)

    second = composed.start("poll-worker")
    composed.wait_healthy(second)
    wait_until(lambda: _begun(composed, second) > 0)
    composed.stop(second)
    assert client.poll() is None, "the job was to go on meanwhile"
    gate.touch()

    _, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, err
    assert names(json.loads(result.read_text())["features"]) == [name for name in sorted(scripts) for _ in range(2)]
    assert (json.loads(report.read_text())["succeeded"], json.loads(report.read_text())["failed"]) == (60, 0)

    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers"):
        assert _ask_flower(composed, path)[0] == 401, path
        assert _ask_flower(composed, path, "guessed")[0] == 401, path
        assert _ask_flower(composed, path, FLOWER_PASSWORD)[0] == 200, path

    everything = [process for container in composed.running for process in container.family()]
    for container in list(reversed(composed.running)):
        composed.stop(container)
    assert psutil.wait_procs(everything, timeout=PATIENCE)[1] == []


def test_a_broker_without_its_password_answers_nobody(composed: Composed) -> None:
    broker = composed.start("broker")
    composed.wait_healthy(broker)
    stranger = new_app(f"redis://127.0.0.1:{composed.ports['6379']}/0")
    with pytest.raises(Exception, match="Authentication required"):
        stranger.connection_for_write().ensure_connection(max_retries=0, timeout=PATIENCE)
    shown = [part for process in broker.family() for part in process.cmdline()]
    assert not any(PASSWORD in part for part in shown)


def test_the_broker_keeps_over_a_restart_what_it_was_told(composed: Composed) -> None:
    def told(broker: Container) -> Any:
        composed.wait_healthy(broker)
        return Redis(port=composed.ports["6379"], password=PASSWORD)

    first = composed.start("broker")
    assert told(first).set("kept", "yes")
    composed.stop(first)
    state = told(composed.start("broker"))
    assert state.get("kept") == b"yes"
    assert state.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
