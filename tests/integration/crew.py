"""Workers that a test starts, stops and kills one by one, on a broker of their own."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celery import Celery

from osml_tasks.celery import new_app, state_client
from osml_tasks.child_process import ChildProcess
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import connect
from osml_tasks.detection import start_job
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState
from osml_tasks.local.broker import Broker
from osml_tasks.sources import find_tiles
from tests.integration.fleet import PATIENCE, REPOSITORY, Fleet, clean_environment, wait_until
from tests.integration.forked import ForkedProcess

SUBMIT, POLL, REST = "osml.submit", "osml.poll", "osml.assemble,osml.cleanup"
ALL = f"{SUBMIT},{POLL},{REST}"
_READY = re.compile(r" ready\.( worker=\S+)?$", re.MULTILINE)


def numbered(count: int, prefix: str = "t") -> dict[str, dict[str, int]]:
    """Scripts of so many tiles that are called by their numbers."""
    return {f"{prefix}{number:04d}": {} for number in range(count)}


@dataclass(frozen=True)
class Worker:
    """A Celery worker as a process."""

    node: str
    process: ChildProcess

    def wait_ready(self) -> None:
        """Wait until it consumes."""
        self.process.wait_ready(lambda: _READY.search(self.process.log_text()) is not None, within=PATIENCE)

    def terminate(self) -> None:
        """Send it SIGTERM, and it alone."""
        os.kill(self._pid, signal.SIGTERM)

    def freeze(self) -> None:
        """Have it and its pool stand still, as if others had all of the machine."""
        os.killpg(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have them go on."""
        os.killpg(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with its pool, as if its machine had gone."""
        os.killpg(self._pid, signal.SIGKILL)

    @property
    def has_ended(self) -> bool:
        """Whether it has exited."""
        return not self.process.is_alive()

    @property
    def status(self) -> int | None:
        """Its exit status; None before it has exited."""
        assert self.process._process is not None
        return self.process._process.poll()

    @property
    def _pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


@dataclass(frozen=True)
class Crew:
    """Workers on a broker of their own; S3 and endpoints are the shared fleet's.

    :ivar running: ends them.
    :ivar app: what they listen to.
    """

    fleet: Fleet
    running: ExitStack
    directory: Path
    app: Celery

    def start(
        self, name: str, queues: str, concurrency: int, *more: str, app: str = "osml_tasks", **env: str
    ) -> Worker:
        """Start a worker; returns when it consumes."""
        worker = self.launch(name, queues, concurrency, *more, app=app, **env)
        worker.wait_ready()
        return worker

    def launch(
        self, name: str, queues: str, concurrency: int, *more: str, app: str = "osml_tasks", **env: str
    ) -> Worker:
        """Start a worker, without waiting for it."""
        node = f"{name}@crew"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", node, "-l", "INFO"]
        command += ["-Q", queues, "-c", str(concurrency), *more]
        whole = clean_environment() | {"PYTHONPATH": str(REPOSITORY), "ASYNC_SM_TILE_ROOTS": str(self.fleet.tiles)}
        process = ForkedProcess(name, command, directory=self.directory, env=whole | dict(self.fleet.env) | env)
        process.start()
        # How workers stop by themselves is a test's matter; at its end it would take time.
        self.running.callback(process.stop, grace=0)
        return Worker(node, process)

    @contextmanager
    def job(self, tiles: Path, endpoint: str, **options: Any) -> Iterator[JobHandle]:
        """Start a job of what is in a directory; one that is not over at the end is cancelled."""
        config = AsyncEndpointConfig(**{"polling_interval": 0.2, "max_polling_interval": 0.5} | options)
        with closing(connect(config, self.app)) as connections:
            handle = start_job(connections, find_tiles([str(tiles)]), endpoint, stage=False)
            try:
                yield handle
            finally:
                handle.cancel()
                if handle.status().state is JobState.CANCELLED:
                    # What the endpoint still has in hand it will write.
                    wait_until(lambda: self.fleet.stats(endpoint)["in_flight"] == 0)
                handle.discard()

    def ask(self, what: str, node: str, timeout: float = 20.0) -> Any:
        """What a worker answers to ``celery inspect``; None if it does not answer in time, s."""
        answers = getattr(self.app.control.inspect(destination=[node], timeout=timeout), what)() or {}
        return answers.get(node)

    def requests(self, kind: str, worker: Worker) -> set[str]:
        """The ids of the tasks that a worker has ``scheduled``, ``reserved`` or ``active``."""
        found = self.ask(kind, worker.node) or []
        return {request.get("request", request)["id"] for request in found}

    @property
    def broker(self) -> Any:
        """A Redis client of the broker."""
        return state_client(self.app)


@contextmanager
def crew(fleet: Fleet, directory: Path) -> Iterator[Crew]:
    """A broker, and whatever workers are started on it."""
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory / "broker"))
        env = dict(fleet.env) | {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": broker.url}
        yield Crew(replace(fleet, env=env), running, directory, new_app(broker.url, broker.url))
