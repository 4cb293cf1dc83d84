"""``osml-tasks`` in processes that are forked from one which has imported what all of them import from elsewhere.

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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path

from osml_tasks.child_process import ChildProcess
from tests.quick_botocore import share_models
from tests.waiting import PATIENCE

# None of these reads the environment when it is imported.
_MODULES = (
    *("asyncio", "boto3", "botocore.httpsession", "celery.app.amqp", "celery.app.control", "celery.backends.redis"),
    *("celery.canvas", "celery.events", "celery.fixups.django", "celery.loaders.app", "celery.worker.worker", "click"),
    *("encodings.idna", "geojson", "http.client", "kombu.transport.redis", "obstore.auth.boto3", "obstore.store"),
    *("orjson", "pydantic_settings", "redis", "rich.live", "rich.progress", "xml.etree.ElementTree"),
)
_SERVICES = ("s3", "sagemaker", "sagemaker-runtime", "sts")
# A process takes its encoding and its own options from these when it starts.
_OF_THE_START = ("PYTHON", "LC_", "LANG")
_WHOLE_REQUEST = 1 << 20


def run(arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -m osml_tasks`` to its end, with this as its whole environment."""
    command = [sys.executable, "-m", "osml_tasks", *arguments]
    if _starts_otherwise(env):
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    with socket.socket(socket.AF_UNIX) as way, ThreadPoolExecutor(2) as readers:
        way.settimeout(PATIENCE)
        way.connect(_address())
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        request = {"arguments": list(arguments), "env": dict(env), "directory": str(Path.cwd())}
        socket.send_fds(way, [json.dumps(request).encode()], [its_out, its_err])
        way.shutdown(socket.SHUT_WR)
        os.close(its_out)
        os.close(its_err)
        answers = way.makefile()
        pid = int(answers.readline())
        texts = [readers.submit(_read, pipe) for pipe in (out, err)]
        try:
            status = int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, PATIENCE) from None
        return subprocess.CompletedProcess(command, status, *(text.result() for text in texts))


def _starts_otherwise(env: Mapping[str, str]) -> bool:
    ours = os.environ
    names = [name for name in (*env, *ours) if name.startswith(_OF_THE_START)]
    return any(env.get(name) != ours.get(name) for name in names)


def _read(pipe: int) -> str:
    with os.fdopen(pipe) as text:
        return text.read()


@cache
def _address() -> str:
    """Where the process listens that all are forked from; it is started for the first of them."""
    directory = Path(tempfile.mkdtemp(prefix="osml-forks-"))
    address = directory / "socket"
    process = ChildProcess("forks", [sys.executable, "-m", __name__, str(address)], directory=directory)
    process.start()
    atexit.register(shutil.rmtree, directory)
    atexit.register(process.stop, grace=0)
    process.wait_ready(address.exists, within=PATIENCE)
    return str(address)


def _import_much() -> None:
    for name in _MODULES:
        import_module(name)
    share_models()
    session = import_module("boto3").Session("key", "secret", region_name="us-east-1")
    for service in _SERVICES:
        session.client(service)
    gc.collect()
    gc.freeze()


def _next_request(listener: socket.socket) -> list[str]:
    """Wait for requests; returns in a process of its own for each, which has become what is asked for."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        way, _ = listener.accept()
        if os.fork() == 0:
            break
        way.close()
    # This one stays to say how its child ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listener.close()
    parts, pipes = [], list[int]()
    while part := socket.recv_fds(way, _WHOLE_REQUEST, 2):
        if not part[0]:
            break
        parts.append(part[0])
        pipes += part[1]
    request = json.loads(b"".join(parts))
    if pid := os.fork():
        way.sendall(b"%d\n" % pid)
        for pipe in pipes:
            os.close(pipe)
        _, status = os.waitpid(pid, 0)
        way.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    way.close()
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(pipe, number)
        os.close(pipe)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["directory"])
    random.seed()
    return list(request["arguments"])


def _main(address: str) -> None:
    _import_much()
    with socket.socket(socket.AF_UNIX) as listener:
        # It appears when it listens.
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        sys.argv[1:] = _next_request(listener)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module("osml_tasks", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1])
