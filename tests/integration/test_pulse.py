"""A worker's file tells whether it consumes; beat's, whether it publishes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from osml_tasks.celery import new_app
from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import Broker
from tests.integration.fleet import PATIENCE, REPOSITORY, clean_environment, wait_until

OWN_PATIENCE = 2.0
# A worker looks at itself every third of a second here; on a busy machine, a little less often.
SILENT = 2.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def app(broker: Broker) -> Celery:
    return new_app(broker.url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pulse"


def _celery(broker: Broker, file: Path, *arguments: str) -> ChildProcess:
    env = clean_environment() | {
        "PYTHONPATH": str(REPOSITORY),
        "CELERY_BROKER_URL": broker.url,
        "ARTIFACT_BUCKET": "in-bucket",
        "ASYNC_SM_OUTPUT_BUCKET": "out-bucket",
        "ASYNC_SM_PULSE_FILE": str(file),
        "ASYNC_SM_PULSE_PATIENCE": str(OWN_PATIENCE),
    }
    command = [sys.executable, "-m", "celery", "-A", "osml_tasks", *arguments]
    return ChildProcess("process", command, directory=file.parent, env=env, working_directory=file.parent)


@pytest.fixture
def worker(broker: Broker, file: Path) -> Iterator[ChildProcess]:
    process = _celery(broker, file, "worker", "-Q", "osml.poll", "-c", "1", "-n", "one@here")
    process.start()
    process.wait_ready(file.exists, within=PATIENCE)
    yield process
    process.stop(grace=0)


def _is_touched(file: Path) -> bool:
    """Whether it gets newer within a while that is generous for a worker that lives."""
    before = file.stat().st_mtime_ns
    until = time.monotonic() + SILENT
    while time.monotonic() < until:
        if file.stat().st_mtime_ns != before:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_with_nothing_to_do_touches_its_file_and_one_that_hangs_does_not(
    worker: ChildProcess, file: Path
) -> None:
    wait_until(lambda: _is_touched(file))
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not _is_touched(file))
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: _is_touched(file))


def test_a_worker_that_takes_nothing_of_what_waits_stops_touching_until_it_does_again(
    worker: ChildProcess, file: Path, app: Celery
) -> None:
    def leaves() -> bool:
        return bool(app.control.cancel_consumer("osml.poll", reply=True))

    wait_until(leaves)
    wait_until(lambda: _is_touched(file))
    app.send_task("osml_tasks.poll", kwargs={"job": "none", "shard": 0}, queue="osml.poll")
    wait_until(lambda: "it takes none: restart it" in worker.log_text())
    assert not _is_touched(file)
    app.control.add_consumer("osml.poll")
    wait_until(lambda: _is_touched(file))


def test_a_worker_without_its_broker_stops_touching_until_it_is_back(
    worker: ChildProcess, file: Path, broker: Broker
) -> None:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not _is_touched(file))
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    wait_until(lambda: _is_touched(file))


def test_beat_touches_its_file_when_it_starts_and_when_it_has_published(
    broker: Broker, file: Path, app: Celery
) -> None:
    (file.parent / "celeryconfig.py").write_text(
        "beat_schedule = {'often': {'task': 'osml_tasks.cleanup', 'schedule': 0.5}}\n"
    )
    beat = _celery(broker, file, "beat", "-s", str(file.parent / "schedule"))
    beat.start()
    try:
        beat.wait_ready(file.exists, within=PATIENCE)
        wait_until(lambda: _is_touched(file))
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        wait_until(lambda: not _is_touched(file))
        os.kill(broker.pid, signal.SIGCONT)
        wait_until(lambda: _is_touched(file))
    finally:
        beat.stop(grace=0)
