"""One real fleet for all integration tests: Valkey, SeaweedFS, endpoints and Celery workers as processes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from osml_tasks.local.broker import Broker
from osml_tasks.local.child import ChildProcess
from osml_tasks.local.object_store import ObjectStore
from tests.integration.endpoints import ELSEWHERE, OUTPUTS
from tests.integration.fleet import INPUTS, REPOSITORY, Fleet, clean_environment, wait_until

_ENDPOINTS_READY = re.compile(r"^ready (http://\S+)$", re.MULTILINE)
_WORKERS_READY = re.compile(r"^ready$", re.MULTILINE)


@pytest.fixture(scope="session")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    tiles = tmp_path_factory.mktemp("tiles")
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory / "broker"))
        store = running.enter_context(ObjectStore(directory / "s3", (INPUTS, OUTPUTS, ELSEWHERE)))
        here = {"PYTHONPATH": str(REPOSITORY)}
        endpoints = _start(
            running, "endpoints", ["-m", "tests.integration.endpoints"], directory, store.env | here, _ENDPOINTS_READY
        )
        url = _ENDPOINTS_READY.search(endpoints.log_text())
        assert url is not None
        env = {
            **store.env,
            "CELERY_BROKER_URL": broker.url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url[1],
            "AWS_ENDPOINT_URL_SAGEMAKER": url[1],
            "ARTIFACT_BUCKET": INPUTS,
            "ASYNC_SM_OUTPUT_BUCKET": OUTPUTS,
            "ASYNC_SM_POLLING_INTERVAL": "0.2",
            "ASYNC_SM_MAX_POLLING_INTERVAL": "0.5",
        }
        workers = _start(
            running,
            "workers",
            ["-m", "osml_tasks", "worker"],
            directory,
            env | {"ASYNC_SM_TILE_ROOTS": str(tiles), "ASYNC_SM_SUBMISSION_WORKERS": "2"},
            _WORKERS_READY,
        )
        yield Fleet(env, url[1], tiles, workers.log_text)


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    """The fleet; a test that leaves an object behind in any bucket has failed."""
    yield _fleet
    wait_until(lambda: not _fleet.objects())


@pytest.fixture
def tiles(_fleet: Fleet, request: pytest.FixtureRequest) -> Path:
    """A directory for this test's tiles that workers may read."""
    return Path(_fleet.tiles, re.sub(r"\W", "_", request.node.name))


def _start(
    running: ExitStack, name: str, arguments: list[str], directory: Path, env: dict[str, str], ready: re.Pattern[str]
) -> ChildProcess:
    child = ChildProcess(name, [sys.executable, *arguments], directory=directory, env=clean_environment() | env)
    child.start()
    running.callback(child.stop, grace=20.0)
    child.wait_ready(lambda: ready.search(child.log_text()) is not None, within=60.0)
    return child
