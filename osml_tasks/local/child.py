"""Server processes that belong to this one: started, waited for, stopped, and never left behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from osml_tasks.errors import ExtensionRuntimeError

LOOPBACK = "127.0.0.1"
START_ATTEMPTS = 3

# Below every system's range of ephemeral ports, so that no outgoing connection takes one meanwhile;
# a server that needs a twin port has it 10,000 above, still below that range.
_PORTS = range(10_000, 20_000)
TWIN_OFFSET = 10_000

_POLL_SECONDS = 0.02
_TAIL_LINES = 12
_PORT_TAKEN_MARKS = ("address already in use", "is not available on")

# The command replaces the shell (same process id); beside it stays a watcher that reads a pipe whose
# other end only the parent holds. When the parent dies, even by SIGKILL, the pipe ends, and the watcher
# ends the group. PR_SET_PDEATHSIG would not do: it fires when the starting *thread* ends, and only on
# Linux. The background part must not read fd 0: a shell points that at /dev/null.
_WATCHED = """
exec 3<&0 </dev/null
{ trap '' TERM; read -r _ || true; kill -TERM $$; n=0
  while kill -0 $$ && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
  kill -KILL 0
} <&3 >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class PortTakenError(ExtensionRuntimeError):
    """Another process took the port between choosing it and binding it; another port will do."""


def free_ports(count: int, *, twin_offset: int = 0) -> tuple[int, ...]:
    """Choose ports on the loopback interface that nothing listens on now.

    :param count: how many.
    :param twin_offset: where not 0, ``port + twin_offset`` is free as well.
    :raises ExtensionRuntimeError: there are not that many.
    """
    candidates = random.SystemRandom().sample(_PORTS, len(_PORTS))
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if _is_free(port) and (not twin_offset or _is_free(port + twin_offset)):
            found.append(port)
    if len(found) < count:
        raise ExtensionRuntimeError(f"no {count} free ports on {LOOPBACK}: stop some of the servers there")
    return tuple(found)


def free_port() -> int:
    """Choose one port on the loopback interface that nothing listens on now."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class ChildProcess:
    """A command in a session of its own, its output in ``directory/name.log``.

    It ends with this process, however this process ends. (A process that this one forks without
    ``exec`` shares that tie: then the command ends with the last of them.)

    :param env: its whole environment; ``None`` hands ours on.
    :param working_directory: where it runs; ``None`` for our own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        self._command = [str(part) for part in command]
        self._working_directory = working_directory
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The command's process id, ``None`` before start and after stop."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the command, without waiting for anything; does nothing where it was started."""
        if self._process is not None:
            return
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, self.name, *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._working_directory,
                env=self._env,
                start_new_session=True,
            )

    def wait_ready(self, ready: Callable[[], bool], *, within: float) -> None:
        """Wait until ``ready()``, at most ``within`` seconds.

        :raises PortTakenError: it ended because a port was taken.
        :raises ExtensionRuntimeError: it ended, or was not ready in time; ends with its last log lines.
        """
        deadline = time.monotonic() + within
        while not ready():
            self._raise_if_ended()
            if time.monotonic() > deadline:
                raise ExtensionRuntimeError(
                    f"{self.name} was not ready within {within:g} s; its log ends: {self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def _raise_if_ended(self) -> None:
        code = None if self._process is None else self._process.poll()
        if code is None:
            return
        tail = self._log_tail()
        taken = any(mark in self.log_text().lower() for mark in _PORT_TAKEN_MARKS)
        error = PortTakenError if taken else ExtensionRuntimeError
        raise error(f"{self.name} ended with code {code} while starting; its log ends: {tail}")

    def log_text(self) -> str:
        """What it has written so far."""
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _log_tail(self) -> str:
        lines = [line.strip() for line in self.log_text().splitlines() if line.strip()]
        return " | ".join(lines[-_TAIL_LINES:]) or "(empty)"

    def stop(self, *, grace: float = 5.0) -> None:
        """Stop it: SIGTERM, up to ``grace`` seconds, then SIGKILL for all of its group.

        May be called again. A ``grace`` of 0 goes straight to SIGKILL.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if grace > 0:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # The watcher still is in the group, so its number cannot have passed to another group.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


class LocalServer(ABC):
    """One server of the local stack: a child process, its directory, and how it gets ready.

    A context manager. ``launch`` and ``wait_ready`` are apart so that several servers get ready at a time.

    :param directory: for its files; ``None`` makes a temporary one and removes it at the end.
    """

    name: str

    def __init__(self, directory: Path | None = None) -> None:
        self._given_directory = directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._child: ChildProcess | None = None

    @property
    def directory(self) -> Path:
        """Where its files are, made where it is missing."""
        if self._given_directory is not None:
            self._given_directory.mkdir(parents=True, exist_ok=True)
            return self._given_directory.resolve()
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix=f"osml-{self.name}-")
        return Path(self._temporary.name)

    @property
    def pid(self) -> int | None:
        """The server's process id, ``None`` while it is not started."""
        return None if self._child is None else self._child.pid

    @abstractmethod
    def launch(self) -> None:
        """Start the process, without waiting for it."""

    @abstractmethod
    def wait_ready(self) -> None:
        """Wait until it serves.

        :raises PortTakenError: launch it again, it will choose other ports.
        :raises ExtensionRuntimeError: it ended, or took too long.
        """

    def start(self) -> None:
        """Launch it and wait until it serves, with other ports where one was taken meanwhile."""
        try:
            start_with_other_ports(self._launch_and_wait, self.stop)
        except BaseException:
            self.stop()
            raise

    def _launch_and_wait(self) -> None:
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """Stop it and remove its temporary directory. May be called again."""
        grace = self._grace()
        child, self._child = self._child, None
        temporary, self._temporary = self._temporary, None
        try:
            if child is not None:
                child.stop(grace=grace)
        finally:
            if temporary is not None:
                temporary.cleanup()

    def _grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return 5.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_with_other_ports(start: Callable[[], None], stop: Callable[[], None]) -> None:
    """Call ``start`` until no port collides, at most three times, with ``stop`` in between.

    :raises PortTakenError: a port collided each time.
    """
    for _ in range(START_ATTEMPTS - 1):
        try:
            start()
            return
        except PortTakenError:
            stop()
    start()
