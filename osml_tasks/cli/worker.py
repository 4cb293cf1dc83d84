"""``osml-tasks worker``: Celery workers for all queues, as many processes as the configuration says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from osml_tasks.errors import ExtensionRuntimeError

if TYPE_CHECKING:
    from osml_tasks.config import AsyncEndpointConfig

START_SECONDS = 60.0
"""How long workers may take until they consume, s."""
STOP_SECONDS = 30.0
"""How long workers may take to finish what they are at, s."""


@dataclass(frozen=True, slots=True)
class CeleryWorker:
    """One ``celery worker``: its node name, queues and number of processes."""

    node: str
    queues: tuple[str, ...]
    concurrency: int
    beat: bool = False

    def command(self, loglevel: str) -> list[str]:
        """What to start."""
        options = ["-n", self.node, "-Q", ",".join(self.queues), "-c", str(self.concurrency), "-l", loglevel]
        beat = ["-B", "--scheduler", "celery.beat:Scheduler"] if self.beat else []
        return [sys.executable, "-m", "celery", "-A", "osml_tasks", "worker", *options, *beat]


@click.command
@click.option("--loglevel", "-l", default="WARNING", show_default=True, help="Celery's log level.")
@click.option("--beat/--no-beat", default=True, help="Sweep from here, too; one such process in a fleet is enough.")
def command(loglevel: str, beat: bool) -> int:
    """Run submit and poll workers with the configured concurrency, and one each for the other queues."""
    from osml_tasks.config import AsyncEndpointConfig

    workers = plan_workers(AsyncEndpointConfig(), beat=beat)
    with suppress(KeyboardInterrupt), _running(workers, loglevel) as processes:
        _wait_until_ready(workers, processes)
        click.echo("ready")
        _supervise(processes)
    return 0


def plan_workers(config: AsyncEndpointConfig, *, beat: bool) -> list[CeleryWorker]:
    """The workers of this host; ``submission_workers`` and ``polling_workers`` are their concurrency."""
    from osml_tasks.celery import ASSEMBLE_QUEUE, CLEANUP_QUEUE, POLL_QUEUE, SUBMIT_QUEUE

    at = f"{os.getpid()}@%h"
    return [
        CeleryWorker(f"submit-{at}", (SUBMIT_QUEUE,), config.submission_workers),
        CeleryWorker(f"poll-{at}", (POLL_QUEUE,), config.polling_workers),
        CeleryWorker(f"assemble-{at}", (ASSEMBLE_QUEUE, CLEANUP_QUEUE), 1, beat),
    ]


@contextmanager
def _running(workers: Sequence[CeleryWorker], loglevel: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    # Sessions of their own: a Ctrl-C is for this process, which then stops them one way only.
    processes = [subprocess.Popen(worker.command(loglevel), start_new_session=True) for worker in workers]
    try:
        yield processes
    finally:
        _stop(processes)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(workers: Sequence[CeleryWorker], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    from osml_tasks.preflight import listening

    host = f"@{os.uname().nodename}"
    waiting = {worker.node.replace("@%h", host) for worker in workers}
    until = time.monotonic() + START_SECONDS
    while waiting:
        _check_alive(processes)
        if time.monotonic() > until:
            raise ExtensionRuntimeError(f"workers {', '.join(sorted(waiting))} do not consume; see their log above")
        waiting -= listening(len(waiting), timeout=0.5, destination=sorted(waiting)).keys()


def _check_alive(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is not None:
            raise ExtensionRuntimeError(f"a Celery worker ended with status {process.returncode}; see its log above")


def _supervise(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    while True:
        _check_alive(processes)
        time.sleep(0.5)
