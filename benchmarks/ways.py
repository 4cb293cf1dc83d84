"""The ways that are compared: which client each has, and which workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from celery import Celery

from benchmarks.arena import Arena
from benchmarks.measure import child_pids
from benchmarks.tiles import INLINE_LIMIT
from osml_tasks.child_process import ChildProcess

CHORD_WORKERS = 4
WORKER_START_SECONDS = 30.0

OSML_ENVIRONMENT = {
    "ASYNC_SM_MAX_CONCURRENT_JOBS": "400",
    "ASYNC_SM_POLLING_INTERVAL": "10",
    "ASYNC_SM_SUBMISSION_WORKERS": "2",
    "ASYNC_SM_POLLING_WORKERS": "1",
}
"""The configuration of osml-tasks in the measured run."""
OSML_WARM_UP = {"ASYNC_SM_MAX_CONCURRENT_JOBS": "16"}
"""Shards of 4 tiles in the warm-up, so that every worker process has its share."""

Workers = Callable[[Arena], AbstractContextManager[list[int]]]
Client = Callable[[Path, str, Path], list[str]]


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    :ivar name: short; the name of its endpoint too.
    :ivar title: what the table says.
    :ivar client: its command, for a directory of tiles, an endpoint and a result.
    :ivar workers: starts them, yields the process ids that their CPU is counted from.
    :ivar warm_up: variables of the client in the warm-up.
    """

    name: str
    title: str
    client: Client
    workers: Workers
    warm_up: dict[str, str] = field(default_factory=dict)


@contextmanager
def _no_workers(arena: Arena) -> Iterator[list[int]]:
    yield []


@contextmanager
def _osml_workers(arena: Arena) -> Iterator[list[int]]:
    before = child_pids()
    arena.stack.start_workers()
    try:
        yield sorted(child_pids() - before)
    finally:
        arena.stack.stop_workers()


@contextmanager
def _chord_workers(arena: Arena) -> Iterator[list[int]]:
    options = ["-c", str(CHORD_WORKERS), "-n", "peer-chord@%h", "-l", "WARNING"]
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.peer_chord", "worker", *options]
    workers = ChildProcess("peer-chord", command, directory=arena.stack.directory, env=arena.env)
    workers.start()
    try:
        workers.wait_ready(lambda: _answers_ping(arena), within=WORKER_START_SECONDS)
        yield [pid for pid in (workers.pid,) if pid is not None]
    finally:
        workers.stop(grace=10.0)


def _answers_ping(arena: Arena) -> bool:
    """Whether a Celery worker is there."""
    with Celery(broker=arena.stack.broker.url, set_as_current=False) as app:
        return bool(app.control.ping(timeout=0.5))


def _threads_client(inline_max: int) -> Client:
    def command(tiles: Path, endpoint: str, result: Path) -> list[str]:
        return _python("benchmarks.peer_threads", str(tiles), endpoint, str(result), str(inline_max))

    return command


def _chord_client(tiles: Path, endpoint: str, result: Path) -> list[str]:
    return _python("benchmarks.peer_chord_client", str(tiles), endpoint, str(result))


def _osml_client(tiles: Path, endpoint: str, result: Path) -> list[str]:
    files = ["-o", str(result), "--report", str(result.with_suffix(".report.json"))]
    return _python("benchmarks.timed_detect", "detect", str(tiles), "--endpoint", endpoint, "--no-stage", *files)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


THREADS = Way("threads", "(b) boto3, 8 threads, LIST", _threads_client(0), _no_workers)
THREADS_INLINE = Way("threads-inline", "(b2) the same, small inline", _threads_client(INLINE_LIMIT), _no_workers)
CHORD = Way("chord", "(a) chord, one chain a tile", _chord_client, _chord_workers)
OSML = Way("osml-tasks", "osml-tasks", _osml_client, _osml_workers, OSML_WARM_UP)

WAYS = (THREADS, THREADS_INLINE, CHORD, OSML)
"""In the order in which they run."""
