"""The ways that are compared: which client each has, and which workers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fleet import Workers, chord_workers, no_workers, osml_workers
from benchmarks.tiles import INLINE_LIMIT

OSML_ENVIRONMENT = {
    "ASYNC_SM_MAX_CONCURRENT_JOBS": "400",
    "ASYNC_SM_POLLING_INTERVAL": "20",
    "ASYNC_SM_SUBMISSION_WORKERS": "2",
    "ASYNC_SM_POLLING_WORKERS": "1",
}
"""The configuration of osml-tasks, where a scenario does not say otherwise."""

Client = Callable[[Path, str, Path], list[str]]


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    :ivar name: short; the name of its endpoints begins with it.
    :ivar title: what the tables say.
    :ivar client: its command, for a directory of tiles, an endpoint and a result.
    :ivar workers: starts them.
    :ivar environment: variables of clients and workers.
    :ivar warm_up: further variables of the client in the warm-up.
    :ivar warm_up_tiles: how many tiles that has.
    """

    name: str
    title: str
    client: Client
    workers: Workers = no_workers
    environment: dict[str, str] = field(default_factory=dict)
    warm_up: dict[str, str] = field(default_factory=dict)
    warm_up_tiles: int = 32


def _peer(module: str, *arguments: str) -> Client:
    def command(tiles: Path, endpoint: str, result: Path) -> list[str]:
        return _python(f"benchmarks.{module}", str(tiles), endpoint, str(result), *arguments)

    return command


def _osml(tiles: Path, endpoint: str, result: Path) -> list[str]:
    files = ["-o", str(result), "--report", str(result.with_suffix(".report.json"))]
    return _python("osml_tasks", "detect", str(tiles), "--endpoint", endpoint, "--no-stage", *files)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


ONE_BY_ONE = Way(
    "one-by-one",
    "one after the other",
    _peer("peer_one_by_one"),
    # Not the default, which would make it six times as slow.
    environment={"ASYNC_SM_POLLING_INTERVAL": "0.1", "ASYNC_SM_MAX_POLLING_INTERVAL": "0.1"},
    warm_up_tiles=2,
)
POLL_EACH = Way("poll-each", "boto3, 8 threads, a poll a job", _peer("peer_poll_each"))
THREADS = Way("threads", "boto3, 8 threads, LIST", _peer("peer_threads", "0"))
THREADS_INLINE = Way("threads-inline", "boto3, 8 threads, LIST, small inline", _peer("peer_threads", str(INLINE_LIMIT)))
CHORD = Way("chord", "Celery chord, a chain a tile", _peer("peer_chord_client"), chord_workers)
OSML = Way(
    "osml-tasks",
    "osml-tasks",
    _osml,
    osml_workers,
    OSML_ENVIRONMENT,
    # Shards of 4 tiles, so that every worker process has its share; and soon over.
    {
        "ASYNC_SM_MAX_CONCURRENT_JOBS": "16",
        "ASYNC_SM_POLLING_INTERVAL": "0.5",
        "ASYNC_SM_MAX_POLLING_INTERVAL": "1",
    },
)

WAYS = (ONE_BY_ONE, POLL_EACH, THREADS, THREADS_INLINE, CHORD, OSML)
