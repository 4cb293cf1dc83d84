"""A RabbitMQ node of the tests' own: on free ports, in a directory of its own, gone at the end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.server import LOOPBACK, LocalServer, free_ports

# Not the one in the path: that changes to the user of the system's own node.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER, PASSWORD = "fleet", "sesame-4711"
START_SECONDS = 240.0


def is_installed() -> bool:
    """Whether there is a RabbitMQ to start, with Erlang's port mapper."""
    return SERVER.is_file() and shutil.which("epmd") is not None


class RabbitMQ(LocalServer):
    """A RabbitMQ node; a context manager. The port mapper is its own as well, so that none stays behind."""

    name = "rabbitmq"

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        self._port = 0
        self._mapper: ChildProcess | None = None

    @property
    def url(self) -> str:
        """``amqp://USER:PASSWORD@127.0.0.1:PORT//``."""
        return f"amqp://{USER}:{PASSWORD}@{LOOPBACK}:{self._port}//"

    def launch(self) -> None:
        """Start port mapper and node, without waiting for either."""
        self._port, node_port, mapper_port = free_ports(3)
        home = self.directory
        (home / "rabbitmq.conf").write_text(f"default_user = {USER}\ndefault_pass = {PASSWORD}\n")
        (home / "plugins").write_text("[].\n")
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),  # where the cookie is
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"osml-{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(node_port),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_LOGS": "-",  # to our log of it
        }
        self._mapper = ChildProcess("epmd", ["epmd"], directory=home, env=env)
        self._mapper.start()
        self._child = ChildProcess(self.name, [str(SERVER)], directory=home, env=env)
        self._child.start()

    def wait_ready(self) -> None:
        """Wait until it takes connections."""
        child = self._child
        if child is not None:
            child.wait_ready(lambda: "Server startup complete" in child.log_text(), within=START_SECONDS)

    def restart(self) -> None:
        """Stop the node and start it again, with what it has on disk."""
        child = self._child
        if child is not None:
            child.stop(grace=self._grace())
            child.start()
            self.wait_ready()

    def stop(self) -> None:
        """Stop both. May be called again."""
        mapper, self._mapper = self._mapper, None
        try:
            super().stop()
        finally:
            if mapper is not None:
                mapper.stop()

    def _grace(self) -> float:
        return 15.0
