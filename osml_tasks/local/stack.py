"""The local stack as a whole: broker, S3, endpoint and workers, up in seconds and gone without a trace."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from osml_tasks.child_process import ChildProcess
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError
from osml_tasks.local.broker import Broker
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.local.server import LOOPBACK, LocalServer, start_with_other_ports
from osml_tasks.stopping import STOP_SECONDS

Part = TypeVar("Part")

ENDPOINT_START_SECONDS = 120.0
WORKERS_START_SECONDS = 240.0
WORKERS_STOP_SECONDS = STOP_SECONDS + 5.0

_ENDPOINT_READY = re.compile(r"^ready (http://\S+)$", re.MULTILINE)
# What leads to AWS itself: there is no STS here to assume a role at.
_NOT_OURS = ("AWS_", "ASYNC_SM_ASSUME_ROLE_ARN", "ASYNC_SM_EXTERNAL_ID")
# Not the line in which each Celery worker says so of itself.
_WORKERS_READY = re.compile(r"^ready$", re.MULTILINE)


@dataclass(frozen=True)
class StackOptions:
    """What the local stack consists of.

    :ivar model: ``module:function`` or the base URL of a container, for the endpoint.
    :ivar instances: of the endpoint; ``concurrency`` is what each takes at a time.
    :ivar latency: seconds added to every call of the model.
    :ivar endpoint_arguments: more arguments for ``python -m osml_tasks.local.endpoint_server``.
    :ivar workers: start workers too.
    :ivar tile_roots: directories whose files the workers may read.
    :ivar environment: more variables for everything that uses the stack; they beat its own.
    """

    endpoint_name: str = "bright-objects"
    model: str = "osml_tasks.local.model:find_bright_objects"
    instances: int = 1
    concurrency: int = 4
    latency: float = 0.0
    endpoint_arguments: tuple[str, ...] = ()
    input_bucket: str = "osml-input"
    output_bucket: str = "osml-output"
    workers: bool = False
    tile_roots: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class EndpointServer(LocalServer):
    """The local asynchronous endpoint in a process of its own; a context manager.

    :param env: variables that lead it to S3, over those of this process.
    """

    name = "endpoint"

    def __init__(self, options: StackOptions, env: Mapping[str, str], directory: Path | None = None) -> None:
        super().__init__(directory)
        self._options = options
        self._env = env
        self._url = ""

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return self._url

    def launch(self) -> None:
        """Start the server, without waiting for it."""
        if find_spec("aiohttp") is None:
            raise ExtensionConfigurationError("aiohttp is missing: install osml-tasks[local]")
        command = [sys.executable, "-m", "osml_tasks.local.endpoint_server", *self._arguments()]
        self._child = ChildProcess(self.name, command, directory=self.directory, env=_process_env(self._env))
        self._child.start()

    def _arguments(self) -> list[str]:
        options = self._options
        return [
            "--port=0",
            f"--name={options.endpoint_name}",
            f"--model={options.model}",
            f"--s3-output-path=s3://{options.output_bucket}/output",
            f"--s3-failure-path=s3://{options.output_bucket}/failure",
            f"--instances={options.instances}",
            f"--concurrency={options.concurrency}",
            f"--latency={options.latency}",
            *options.endpoint_arguments,
        ]

    def wait_ready(self) -> None:
        """Wait until it says where it serves."""
        if self._child is not None:
            self._child.wait_ready(self._has_said_url, within=ENDPOINT_START_SECONDS)

    def _has_said_url(self) -> bool:
        said = _ENDPOINT_READY.search("" if self._child is None else self._child.log_text())
        self._url = said.group(1) if said else ""
        return said is not None


class LocalStack:
    """Broker, object store, endpoint and, where asked for, workers; a context manager.

    All of it is on the loopback interface, in a temporary directory that is removed at the end, and ends
    with this process, however this process ends (after SIGKILL the directory stays).

    :raises ExtensionConfigurationError: the extra ``local`` is not installed (on start).
    :raises ExtensionRuntimeError: a part did not start; those that did are stopped again.
    """

    def __init__(self, options: StackOptions | None = None) -> None:
        self.options = options or StackOptions()
        self._undo = ExitStack()
        self._directory: Path | None = None
        self._broker: Broker | None = None
        self._object_store: ObjectStore | None = None
        self._endpoint: EndpointServer | None = None
        self._workers: ChildProcess | None = None

    @property
    def directory(self) -> Path:
        """The temporary directory: files and logs of each part."""
        return _started(self._directory)

    @property
    def broker(self) -> Broker:
        """The Valkey server."""
        return _started(self._broker)

    @property
    def object_store(self) -> ObjectStore:
        """The S3 server."""
        return _started(self._object_store)

    @property
    def endpoint(self) -> EndpointServer:
        """The asynchronous endpoint."""
        return _started(self._endpoint)

    @property
    def env(self) -> dict[str, str]:
        """Every variable that a client or a worker needs to use this stack, and nothing else."""
        options = self.options
        roots = os.pathsep.join(str(root.resolve()) for root in options.tile_roots)
        return {
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.broker.url,
            **_s3_env(self.object_store),
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.endpoint.url,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.endpoint.url,
            "ARTIFACT_BUCKET": options.input_bucket,
            "ASYNC_SM_OUTPUT_BUCKET": options.output_bucket,
            "ASYNC_SM_TILE_ROOTS": roots,
            **options.environment,
        }

    @property
    def process_env(self) -> dict[str, str]:
        """The whole environment for a process that uses this stack.

        Ours with :attr:`env` over it, and without our own profile, token, endpoints and role of AWS, which
        would otherwise mix with those of the stack.
        """
        return _process_env(self.env)

    def start(self) -> None:
        """Bring everything up; where a part fails, everything is down again."""
        try:
            start_with_other_ports(self._start_servers, self.stop)
            if self.options.workers:
                self.start_workers()
        except BaseException:
            self.stop()
            raise

    def _start_servers(self) -> None:
        """Launch all servers, then wait for each: they get ready at the same time."""
        options = self.options
        root = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="osml-stack-"))).resolve()
        self._directory = root
        self._broker = Broker(root / "broker")
        self._launch(self._broker)
        buckets = tuple(dict.fromkeys((options.input_bucket, options.output_bucket)))
        self._object_store = ObjectStore(root / "object-store", buckets, disposable=True)
        self._launch(self._object_store)
        s3_env = _s3_env(self._object_store) | dict(options.environment)
        self._endpoint = EndpointServer(options, s3_env, root / "endpoint")
        self._launch(self._endpoint)
        for server in (self._broker, self._object_store, self._endpoint):
            server.wait_ready()

    def _launch(self, server: LocalServer) -> None:
        self._undo.callback(server.stop)
        server.launch()

    def start_workers(self, *arguments: str, extra_env: Mapping[str, str] | None = None) -> None:
        """Start ``osml-tasks worker`` with ``arguments``, and wait until all its workers are ready.

        :param extra_env: variables for them, over those of the stack.
        :raises ExtensionRuntimeError: they are running, or did not get ready.
        """
        if self._workers is not None:
            raise ExtensionRuntimeError("the local workers are running: stop_workers() first")
        command = [sys.executable, "-m", "osml_tasks", "worker", *arguments]
        env = _process_env(self.env | dict(extra_env or {}))
        workers = ChildProcess("workers", command, directory=self.directory, env=env)
        self._workers = workers
        self._undo.callback(self.stop_workers)
        workers.start()
        workers.wait_ready(lambda: _WORKERS_READY.search(workers.log_text()) is not None, within=WORKERS_START_SECONDS)

    def stop_workers(self, *, grace: float = WORKERS_STOP_SECONDS) -> None:
        """Stop the workers: SIGTERM, up to ``grace`` seconds, then SIGKILL. May be called again."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.stop(grace=grace)

    def stop(self) -> None:
        """Stop everything, the last started first, and remove its directory. May be called again."""
        self._undo.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _started(part: Part | None) -> Part:
    if part is None:
        raise ExtensionRuntimeError("the local stack is not up: start() it first, or use it in a with statement")
    return part


def _s3_env(store: ObjectStore) -> dict[str, str]:
    return {
        **store.env,
        "AWS_ALLOW_HTTP": "true",  # obstore refuses plain HTTP otherwise
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": _past_proxies("NO_PROXY"),
        "no_proxy": _past_proxies("no_proxy"),
    }


def _past_proxies(variable: str) -> str:
    """Return ``variable`` with the loopback interface added: no proxy leads there."""
    ours = os.environ.get(variable)
    return ",".join(filter(None, (ours, LOOPBACK, "localhost")))


def _process_env(env: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    return {**ours, "PYTHONUNBUFFERED": "1", **env}
