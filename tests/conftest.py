"""One real fleet for all tests that want one: Valkey, SeaweedFS, endpoints and Celery workers as processes."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.integration.crew import Crew
    from tests.integration.fleet import Fleet

# What a shell starts in the background does not hear Ctrl-C, and so would not what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What one of some thousand processes has compiled serves the others.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


# What takes longest comes first, so that in the end no process is left with it alone; then what has most to wait.
_SLOWEST_FIRST = (
    *(
        "test_aws_credentials",
        "test_chaos",
        "test_job_life",
        "test_scaling",
        "test_docs_snippets",
        "test_command_line",
        "test_images",
    ),
    *(
        "test_worker_pool",
        "test_main_job",
        "test_operations",
        "test_fleet_capacity",
        "test_cluster_mode",
        "test_iam_guide",
        "test_pulse",
    ),
    *(
        "test_aws_jobs",
        "test_aws_answers",
        "test_aws_names",
        "test_map_page",
        "test_compose",
        "test_messages",
        "test_rabbitmq",
        "test_examples",
        "test_s3_settings",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the slowest files come first, then the integration tests, and at last the unit tests."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.stem
        return _SLOWEST_FIRST.index(name) if name in _SLOWEST_FIRST else len(_SLOWEST_FIRST), "unit" in item.path.parts

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Spare all tests to read the models of botocore again and again, if any of them has imported it."""
    if "botocore" in sys.modules:
        from tests.quick_botocore import share_models

        share_models()


@pytest.fixture(scope="session")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # Here, because a unit test needs none of it.
    from osml_tasks.local.broker import Broker
    from osml_tasks.local.object_store import ObjectStore
    from tests.integration.endpoints import ELSEWHERE, OUTPUTS
    from tests.integration.fleet import ENDPOINTS_READY, INPUTS, WORKERS_READY, Fleet, start_python

    directory = tmp_path_factory.mktemp("fleet")
    tiles = tmp_path_factory.mktemp("tiles")
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory / "broker"))
        store = running.enter_context(ObjectStore(directory / "s3", (INPUTS, OUTPUTS, ELSEWHERE), disposable=True))
        endpoints = start_python(
            running, "endpoints", ["-m", "tests.integration.endpoints"], directory, store.env, ENDPOINTS_READY
        )
        url = ENDPOINTS_READY.search(endpoints.log_text())
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
        workers = start_python(
            running,
            "workers",
            ["-m", "osml_tasks", "worker"],
            directory,
            env
            | {"ASYNC_SM_TILE_ROOTS": str(tiles), "ASYNC_SM_SUBMISSION_WORKERS": "2"}
            | {"ASYNC_SM_TILE_BUCKETS": f"s3://{INPUTS} s3://{ELSEWHERE}"},
            WORKERS_READY,
        )
        yield Fleet(env, url[1], tiles, workers.log_text)


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    """The fleet; a test that leaves an object behind in any bucket has failed."""
    yield _fleet
    _fleet.wait_empty()


@pytest.fixture
def tiles(_fleet: Fleet, request: pytest.FixtureRequest) -> Path:
    """A directory for this test's tiles that workers may read."""
    return Path(_fleet.tiles, re.sub(r"\W", "_", request.node.name))


@pytest.fixture
def here(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The fleet, with this process's environment leading to it: for callers from Python."""
    from tests.integration.fleet import clean_environment

    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    for name, value in fleet.env.items():
        monkeypatch.setenv(name, value)
    return fleet


@pytest.fixture
def brokerless(here: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The same, less the broker."""
    monkeypatch.delenv("CELERY_BROKER_URL")
    return here


@pytest.fixture
def workers(here: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Workers to start, stop and kill one by one, with this process's environment leading to their broker."""
    from tests.integration.crew import crew

    with crew(here, tmp_path) as made:
        for name, value in made.fleet.env.items():
            monkeypatch.setenv(name, value)
        yield made
