"""``osml-tasks`` and ``celery`` in processes forked from one that has imported what all of them import from elsewhere.

Such a process has its own environment, working directory, output and exit status, and imports the package itself;
it is spared half a second of CPU for Celery, boto3 and the rest. Run as a process, this is the one they come from.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from osml_tasks.child_process import ChildProcess
from tests.quick_botocore import share_models
from tests.waiting import PATIENCE

_REPOSITORY = Path(__file__).parents[2]
# None of these reads the environment when it is imported.
_MODULES = (
    *("asyncio", "boto3", "botocore.httpsession", "celery.app.amqp", "celery.app.control", "celery.apps.worker"),
    *("celery.backends.redis", "celery.beat", "celery.bin.celery", "celery.concurrency.prefork"),
    *(
        "celery.canvas",
        "celery.events",
        "celery.fixups.django",
        "celery.loaders.app",
        "celery.worker.consumer",
        "click",
    ),
    *("encodings.idna", "geojson", "http.client", "kombu.transport.redis", "obstore.store"),
    *("orjson", "pydantic_settings", "redis", "rich.live", "rich.progress", "xml.etree.ElementTree"),
)
_SERVICES = ("s3", "sagemaker", "sagemaker-runtime", "sts")
# A process takes its encoding, its own options and its libraries from these when it starts.
_OF_THE_START = ("PYTHON", "LC_", "LANG", "LD_")
BY_ITSELF = {"PYTHONHASHSEED": "random"}
"""Variables for a process that is to be started by itself all the same, so that its arguments can be seen."""


def run(arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -m osml_tasks`` to its end, with this as its whole environment."""
    command = [sys.executable, "-m", "osml_tasks", *arguments]
    if _starts_otherwise(env):
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    (out, its_out), (err, its_err) = os.pipe(), os.pipe()
    with ThreadPoolExecutor(2) as readers:
        process = _Forked(command, env, Path.cwd(), (its_out, its_err))
        os.close(its_out)
        os.close(its_err)
        texts = [readers.submit(_read, pipe) for pipe in (out, err)]
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            process.stdin.close()
        return subprocess.CompletedProcess(command, status, *(text.result() for text in texts))


class ForkedProcess(ChildProcess):
    """The same as a process that need not import so much, where its command is of ``osml_tasks`` or ``celery``."""

    def start(self) -> None:
        """Start the command, without waiting for anything; does nothing where it was started."""
        env = dict(os.environ) if self._env is None else self._env
        is_ours = self._command[:2] == [sys.executable, "-m"] and self._command[2] in ("osml_tasks", "celery")
        if self._process is not None or self.log_path is None or not is_ours or _starts_otherwise(env):
            super().start()
            return
        directory = self._working_directory or Path.cwd()
        with self.log_path.open("wb") as log:
            forked = _Forked(self._command, env, directory, (log.fileno(), log.fileno()))
        self._process = forked  # type: ignore[assignment]


class _Forked:
    """What can be told of a forked process, and done with it, as far as ``Popen`` has it for a child.

    :ivar pid: it leads a group and a session.
    :ivar stdin: the connection to who reports on it; when it is closed, the process ends.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], directory: Path, outputs: tuple[int, int]
    ) -> None:
        self._command = command
        self._status: int | None = None
        address = _address()
        request = {"module": command[2], "arguments": list(command[3:]), "env": dict(env), "directory": str(directory)}
        with tempfile.NamedTemporaryFile("w", dir=address.parent, delete=False) as file:
            json.dump(request, file)
        self.stdin = socket.socket(socket.AF_UNIX)
        self.stdin.settimeout(PATIENCE)
        self.stdin.connect(str(address))
        socket.send_fds(self.stdin, [file.name.encode()], list(outputs))
        self.pid = self._number()

    def _number(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            piece = self.stdin.recv(1)
            assert piece, "the process that all are forked from has ended"
            line += piece
        return int(line)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; says its exit status."""
        if self._status is None:
            if not select.select([self.stdin], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self._command), timeout or 0.0)
            self._status = self._number()
        return self._status

    def poll(self) -> int | None:
        """Its exit status, None while it goes on."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def _starts_otherwise(env: Mapping[str, str]) -> bool:
    ours = dict(os.environ) | {"PYTHONPATH": env.get("PYTHONPATH", str(_REPOSITORY))}
    theirs = dict(env) | {"PYTHONPATH": str(_REPOSITORY)}
    return any(ours.get(name) != theirs.get(name) for name in (*ours, *theirs) if name.startswith(_OF_THE_START))


def _read(pipe: int) -> str:
    with os.fdopen(pipe) as text:
        return text.read()


@cache
def _address() -> Path:
    """Where the process listens that all are forked from; it is started for the first of them."""
    directory = Path(tempfile.mkdtemp(prefix="osml-forks-"))
    address = directory / "socket"
    env = dict(os.environ) | {"PYTHONPATH": str(_REPOSITORY)}
    process = ChildProcess("forks", [sys.executable, "-m", __name__, str(address)], directory=directory, env=env)
    process.start()
    atexit.register(shutil.rmtree, directory)
    atexit.register(process.stop, grace=0)
    process.wait_ready(address.exists, within=PATIENCE)
    return address


def _import_much() -> None:
    for name in _MODULES:
        import_module(name)
    share_models()
    session = import_module("boto3").Session("key", "secret", region_name="us-east-1")
    for service in _SERVICES:
        session.client(service)
    gc.collect()
    gc.freeze()


def _next_request(listener: socket.socket) -> str:
    """Wait for requests; returns in a process of its own for each, which has become what is asked for.

    Says which module is to be run.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        way, _ = listener.accept()
        if os.fork() == 0:
            break
        way.close()
    # This one stays to say how its child ends.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listener.close()
    name, outputs, _, _ = socket.recv_fds(way, 4096, 2)
    file = Path(name.decode())
    request = json.loads(file.read_text())
    file.unlink()
    if pid := os.fork():
        for output in outputs:
            os.close(output)
        _report(way, pid)
        os._exit(0)
    way.close()
    os.setsid()
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["directory"])
    sys.path[0] = request["directory"]
    sys.argv[1:] = request["arguments"]
    random.seed()
    return str(request["module"])


def _report(way: socket.socket, pid: int) -> None:
    """Say a child's process id, and its exit status at its end; kill it where nobody listens any more."""
    way.sendall(b"%d\n" % pid)
    ended, pause = 0, 0.01
    while not ended:
        pause = min(0.2, pause * 1.1)
        if select.select([way], [], [], pause)[0]:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        ended, status = os.waitpid(pid, os.WNOHANG)
    with suppress(BrokenPipeError):
        way.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _main(address: str) -> None:
    _import_much()
    with socket.socket(socket.AF_UNIX) as listener:
        # It appears when it listens.
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        module = _next_request(listener)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1])
