"""Celery workers to start and stop from Python, each a process that ends with this one."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from osml_tasks.celery import app as default_app
from osml_tasks.celery import state_client
from osml_tasks.celery_settings import ASSEMBLE_QUEUE, CLEANUP_QUEUE, POLL_QUEUE, SUBMIT_QUEUE
from osml_tasks.child_process import ChildProcess
from osml_tasks.config import AsyncEndpointConfig, LogFormat
from osml_tasks.consumers import Consumers
from osml_tasks.ledger import ResourceType
from osml_tasks.stopping import STOP_SECONDS

if TYPE_CHECKING:
    from celery import Celery

    from osml_tasks.cleanup import ResourceManager

START_SECONDS = 180.0
"""How long a worker may take until it consumes, s."""

# glibc otherwise gives each of a worker's threads memory of its own, which holds on to what pixels have left.
_SPARING = {"MALLOC_ARENA_MAX": "2"}
_numbers = count(1)


class CeleryWorker:
    """A Celery worker, as a process that ends with this one. A context manager.

    :param config: default: from the environment. The worker gets all of it.
    :param env: more variables for it.
    :param app: whose broker it is to listen to, for seeing whether it does; default: the package's app.
    :param log_directory: where its log goes; default: to the output of this process.
    :param loglevel: Celery's. Default ``WARNING``.
    :param beat: whether it starts the sweep, too; one such worker in a fleet is enough.
    :param resources: what keeps account of it; default: nothing.
    """

    name: ClassVar[str]
    queues: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        config: AsyncEndpointConfig | None = None,
        *,
        env: Mapping[str, str] | None = None,
        app: Celery = default_app,
        log_directory: Path | None = None,
        loglevel: str = "WARNING",
        beat: bool = False,
        resources: ResourceManager | None = None,
    ) -> None:
        self.config = config or AsyncEndpointConfig()
        self._app = app
        self._resources = resources
        # Nodes of one name would be taken for one worker, by Celery and by Flower.
        label = f"{self.name}-{os.getpid()}-{next(_numbers)}"
        self.node = f"{label}@{socket.gethostname()}"
        # Celery's banner is no JSON.
        quiet = ["--quiet"] if self.config.log_format is LogFormat.JSON else []
        command = [sys.executable, "-m", "celery", *quiet, "-A", "osml_tasks", "worker"]
        command += ["-n", self.node, "-l", loglevel]
        command += ["-Q", ",".join(self.queues), "-c", str(self.concurrency)]
        command += ["-B", "--scheduler", "celery.beat:Scheduler"] if beat else []
        environment = {**_SPARING, **os.environ, **self.config.environment, **(env or {})}
        self._process = ChildProcess(label, command, directory=log_directory, env=environment)

    @property
    def concurrency(self) -> int:
        """How many tasks it does at a time."""
        return 1

    def start(self) -> None:
        """Start it, without waiting for it."""
        if self._resources is not None:
            self._resources.register_worker(self.node, self._end)
        self._process.start()

    def wait_ready(self, within: float = START_SECONDS) -> None:
        """Wait until it consumes, at most so many seconds.

        :raises ExtensionRuntimeError: it ended, or does not consume in time.
        """
        self._process.wait_ready(self._consumes, within=within)

    def _consumes(self) -> bool:
        return Consumers(state_client(self._app)).has_noted(self.node, self.queues)

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Let it end or return what it is at, which takes up to ``stopping.STOP_SECONDS``. May be called again."""
        if self._resources is None:
            self._end()
        else:
            self._resources.release(ResourceType.WORKER, self.node)

    def _end(self) -> None:
        self._process.stop(grace=STOP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class AsyncSubmissionWorker(CeleryWorker):
    """A Celery worker that uploads and invokes; ``submission_workers`` shards at a time."""

    name = "submit"
    queues = (SUBMIT_QUEUE,)

    @property
    def concurrency(self) -> int:
        """``submission_workers``."""
        return self.config.submission_workers


class AsyncResultsWorker(CeleryWorker):
    """A Celery worker that polls and downloads; ``polling_workers`` shards at a time."""

    name = "poll"
    queues = (POLL_QUEUE,)

    @property
    def concurrency(self) -> int:
        """``polling_workers``."""
        return self.config.polling_workers


class AssemblyWorker(CeleryWorker):
    """A Celery worker that assembles results and cleans up."""

    name = "assemble"
    queues = (ASSEMBLE_QUEUE, CLEANUP_QUEUE)


@contextmanager
def running(workers: Sequence[CeleryWorker]) -> Iterator[None]:
    """Have workers run while a block does: started at the same time, and stopped at the same time."""
    with ExitStack() as started:
        started.callback(stop_all, workers)
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_ready()
        yield


def stop_all(workers: Sequence[CeleryWorker]) -> None:
    """Stop workers at the same time."""
    with ThreadPoolExecutor(max(1, len(workers))) as pool:
        list(pool.map(CeleryWorker.stop, workers))
