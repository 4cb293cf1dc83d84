"""A whole fleet of its own to break: broker, S3, endpoints, supervised workers and beat, all as processes."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from osml_tasks.celery import new_app
from osml_tasks.child_process import ChildProcess
from osml_tasks.jobs import JobState
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.records import JobRecords
from tests.chaos.supervised import Supervised
from tests.chaos.trial import Trial
from tests.chaos.valkey import Valkey
from tests.integration.crew import POLL, REST, SUBMIT
from tests.integration.endpoints import ELSEWHERE, OUTPUTS
from tests.integration.fleet import (
    ENDPOINTS_READY,
    INPUTS,
    REPOSITORY,
    Fleet,
    clean_environment,
    start_python,
    wait_until,
)
from tests.integration.forked import ForkedProcess
from tests.waiting import PATIENCE

CELERY = (sys.executable, "-m", "celery")
PREFIX = "async-inference/input/"
_WORKER_READY = re.compile(r" ready\.( worker=\S+)?$", re.MULTILINE)
_BEAT_READY = re.compile(r"beat: Starting")
_WORKERS = {
    "submit-1": (SUBMIT, 2),
    "submit-2": (SUBMIT, 2),
    "poll-1": (POLL, 1),
    "poll-2": (POLL, 1),
    "assemble": (REST, 1),
}


class Rig:
    """A fleet that faults are tried on, one after the other. A context manager.

    :param directory: for logs, data and tiles.
    :ivar workers: the Celery workers, by name.
    :ivar env: the variables that lead a client to the fleet.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running = ExitStack()
        self._trials = 0
        self._ends = ExitStack()
        self.broker = Valkey(directory / "broker")
        self.store = ObjectStore(directory / "s3", (INPUTS, OUTPUTS, ELSEWHERE), disposable=True)
        self.workers: dict[str, Supervised] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        self._running.close()

    def _start(self) -> None:
        self._running.enter_context(self.broker)
        self._running.enter_context(self.store)
        url = self._start_endpoints()
        tiles = self.directory / "tiles"
        tiles.mkdir()
        self.env = {
            **self.store.env,
            **self.broker_env(),
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url,
            "AWS_ENDPOINT_URL_SAGEMAKER": url,
            "ARTIFACT_BUCKET": INPUTS,
            "ASYNC_SM_OUTPUT_BUCKET": OUTPUTS,
            "ASYNC_SM_MAX_CONCURRENT_JOBS": "48",
            "ASYNC_SM_POLLING_INTERVAL": "0.5",
            "ASYNC_SM_MAX_POLLING_INTERVAL": "1",
        }
        self.fleet = Fleet(self.env, url, tiles, self.log_text)
        whole = clean_environment() | self.env | {"PYTHONPATH": str(REPOSITORY), "ASYNC_SM_TILE_ROOTS": str(tiles)}
        for name, (queues, concurrency) in _WORKERS.items():
            command = worker_command(name, queues, concurrency)
            self.workers[name] = Supervised(name, command, self.directory, whole, _WORKER_READY)
        beat = [*CELERY, "-A", "osml_tasks", "beat", "--scheduler", "celery.beat:Scheduler", "-l", "INFO"]
        self.beat = Supervised("beat", [*beat, "--pidfile="], self.directory, whole, _BEAT_READY)
        for process in self.processes():
            self._running.callback(process.stop)
            process.start()
        for process in self.processes():
            process.wait_ready()

    def broker_env(self) -> dict[str, str]:
        """The variables that lead to the broker."""
        return {"CELERY_BROKER_URL": self.broker.url}

    def _start_endpoints(self) -> str:
        endpoints = start_python(
            self._running,
            "endpoints",
            ["-m", "tests.chaos.endpoints"],
            self.directory,
            self.store.env,
            ENDPOINTS_READY,
        )
        url = ENDPOINTS_READY.search(endpoints.log_text())
        assert url is not None
        return url[1]

    def processes(self) -> Iterator[Supervised]:
        """Workers and beat."""
        yield from self.workers.values()
        yield self.beat

    def ends(self) -> Counter[str]:
        """How often each of them has ended by itself and was not to."""
        return Counter({process.name: process.ends for process in self.processes()})

    def log_text(self) -> str:
        """What all workers have written."""
        return "".join(worker.log_text() for worker in self.workers.values())

    def start_job(
        self,
        tiles: int,
        *options: str,
        endpoint: str = "steady",
        scripts: Mapping[str, Mapping[str, Any]] | None = None,
        command: tuple[str, ...] = (),
        **variables: str,
    ) -> Trial:
        """Have a client start a job and wait for it, as a process.

        :param options: more of ``osml-tasks detect``.
        :param scripts: what each tile tells the model; see :func:`tests.integration.models.scripted`.
        :param command: what runs ``osml-tasks``, in place of ``python -m osml_tasks``.
        :param variables: more for the client.
        """
        trial = self.new_trial(tiles, endpoint=endpoint, scripts=scripts)
        trial.start(*options, command=command, **variables)
        return trial

    def new_trial(
        self, tiles: int, *, endpoint: str = "steady", scripts: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Trial:
        """A job that nobody has started yet."""
        self._trials += 1
        trial = Trial(self, self.directory / f"trial-{self._trials}", tiles, endpoint, scripts or {})
        self._ends.callback(trial.end)
        return trial

    def client(
        self, name: str, *arguments: str | Path, command: tuple[str, ...] = (), **variables: str
    ) -> ChildProcess:
        """Start ``osml-tasks``, with its output in a log; it ends with the trial at the latest."""
        call, env = self.fleet.command(*arguments, **variables)
        call = [*command, *call[3:]] if command else call
        client = ForkedProcess(
            f"client-{self._trials}-{name}",
            call,
            directory=self.directory,
            env=env | {"PYTHONPATH": str(REPOSITORY)},
            working_directory=self.directory,
        )
        client.start()
        self._ends.callback(client.stop, grace=0)
        return client

    def change_workers(self, *names: str, by: Sequence[str] = (), wait: bool = True, **variables: str) -> None:
        """Stop workers, and start them in another way or with more variables, until the fault is over.

        :param names: which; default: all.
        :param by: what runs Celery's command line, in place of ``python -m celery``.
        :param wait: whether they are to be ready when this returns.
        """
        chosen = [self.workers[name] for name in names] or list(self.workers.values())
        for worker in chosen:
            worker.change(worker_command(worker.name, *_WORKERS[worker.name], by=by), **variables)
        for worker in chosen if wait else ():
            worker.wait_ready()

    def state(self, job_id: str) -> JobState:
        """Where a job is in its life."""
        return JobRecords(self.broker.client).state(job_id)

    def at_work(self, worker: str) -> list[int]:
        """The process ids of a worker's children that are at a task."""
        return [int(request["worker_pid"]) for request in self._ask("active", worker)]

    def holds_message(self, worker: str) -> bool:
        """Whether a worker is at a task, or has one that waits for its countdown."""
        return any(self._ask(kind, worker) for kind in ("active", "scheduled", "reserved"))

    def _ask(self, what: str, worker: str) -> list[dict[str, Any]]:
        node = f"{worker}@rig"
        asked = new_app(self.broker.url, self.broker.url).control.inspect(destination=[node], timeout=20.0)
        return list((getattr(asked, what)() or {}).get(node, ()))

    def in_flight(self) -> int:
        """How many tiles the fleet counts as in flight."""
        load = json.loads(self.fleet.run("queues", "--json").stdout)
        return sum(int(endpoint["in_flight"]) for endpoint in load["endpoints"].values())

    def objects(self) -> list[str]:
        """All objects of all buckets."""
        s3 = self.fleet.s3
        pages = s3.get_paginator("list_objects_v2")
        buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        return [
            f"{bucket}/{found['Key']}"
            for bucket in buckets
            for page in pages.paginate(Bucket=bucket)
            for found in page.get("Contents", ())
        ]

    def job_ids(self) -> set[str]:
        """The jobs that have objects in the input bucket."""
        listed = self.fleet.s3.list_objects_v2(Bucket=INPUTS, Prefix=PREFIX, Delimiter="/")
        return {found["Prefix"].removeprefix(PREFIX).rstrip("/") for found in listed.get("CommonPrefixes", ())}

    def is_idle(self) -> bool:
        """Whether no endpoint has anything in hand that it would write."""
        with urlopen(f"{self.fleet.endpoints_url}/stats") as answer:
            return not any(counts["in_flight"] for counts in json.load(answer).values())

    def sweep(self, within: float = PATIENCE) -> list[str]:
        """Do what the sweep does, again and again, until no object is left or the time is up, s; says what is left.

        What counts as a leftover after days counts as one after 5 s here; jobs must be over.
        """
        soon = {"ASYNC_SM_MAX_WAIT_TIME": "5", "ASYNC_SM_CLEANUP_LEFTOVER_SECONDS": "5"}

        def nothing_is_left() -> bool:
            if self.objects():
                self.fleet.run("cleanup", "--force", **soon)
            return not self.objects()

        try:
            wait_until(self.is_idle, within)
            wait_until(nothing_is_left, within)
        except AssertionError:
            return self.objects()
        return []

    def mend(self) -> bool:
        """Bring everything back to what it was before a fault; says whether that has gone well."""
        self._ends.close()
        self.broker.start_again()
        broken = [process for process in self.processes() if process.is_changed]
        for process in broken:
            process.change()
        for process in self.processes():
            process.wait_ready()
        return not self.sweep(within=20)


def worker_command(name: str, queues: str, concurrency: int, by: Sequence[str] = ()) -> list[str]:
    """The call of a worker."""
    options = ["-n", f"{name}@rig", "-l", "INFO", "-Q", queues, "-c", str(concurrency)]
    return [*(by or CELERY), "-A", "osml_tasks", "worker", *options]
