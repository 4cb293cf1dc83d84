"""The servers of the local stack: each a child process on ports of its own, with a directory for its files."""

from __future__ import annotations

import random
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from osml_tasks.child_process import ChildProcess, PortTakenError
from osml_tasks.errors import ExtensionRuntimeError

LOOPBACK = "127.0.0.1"
START_ATTEMPTS = 3

# Below every system's range of ephemeral ports, so that no outgoing connection takes one meanwhile;
# a server that needs a twin port has it 10,000 above, still below that range.
_PORTS = range(10_000, 20_000)
TWIN_OFFSET = 10_000


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

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.is_alive()

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
