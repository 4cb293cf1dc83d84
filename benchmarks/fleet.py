"""The workers of a way: started before what is measured, and stopped after it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from celery import Celery

from osml_tasks.child_process import ChildProcess

START_SECONDS = 60.0
STOP_SECONDS = 40.0
CHORD_WORKERS = 4

_READY = re.compile(r"^ready$", re.MULTILINE)

Workers = Callable[[Mapping[str, str], Path], AbstractContextManager[list[int]]]
"""Starts workers in an environment, with their logs in a directory; yields the roots of their process trees."""


@contextmanager
def no_workers(env: Mapping[str, str], directory: Path) -> Iterator[list[int]]:
    """Of a way that does all in its client."""
    yield []


@contextmanager
def osml_workers(env: Mapping[str, str], directory: Path) -> Iterator[list[int]]:
    """``osml-tasks worker``: as many processes as the environment says."""
    workers = ChildProcess("workers", [sys.executable, "-m", "osml_tasks", "worker"], directory=directory, env=env)
    with _running(workers, lambda: _READY.search(workers.log_text()) is not None) as pids:
        yield pids


@contextmanager
def chord_workers(env: Mapping[str, str], directory: Path) -> Iterator[list[int]]:
    """The plain Celery worker of the peer with a chord."""
    options = ["-c", str(CHORD_WORKERS), "-n", "peer-chord@%h", "-l", "WARNING"]
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.peer_chord", "worker", *options]
    workers = ChildProcess("peer-chord", command, directory=directory, env=env)
    with _running(workers, lambda: _answers_ping(env["CELERY_BROKER_URL"])) as pids:
        yield pids


@contextmanager
def _running(workers: ChildProcess, ready: Callable[[], bool]) -> Iterator[list[int]]:
    workers.start()
    try:
        workers.wait_ready(ready, within=START_SECONDS)
        yield [pid for pid in (workers.pid,) if pid is not None]
    finally:
        workers.stop(grace=STOP_SECONDS)


def _answers_ping(broker: str) -> bool:
    with Celery(broker=broker, set_as_current=False) as app:
        return bool(app.control.ping(timeout=0.5))
