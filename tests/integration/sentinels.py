"""A Valkey master with a replica, and three sentinels that put the one in the other's place."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.sentinel import Sentinel

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import Broker, server_binary
from osml_tasks.local.server import LOOPBACK, free_port
from tests.integration.fleet import wait_until

MASTER, PASSWORD = "osml", "the-masters-own"
_SENTINELS, _QUORUM = 3, 2
_DOWN_MILLISECONDS = 3000


class _Replica(Broker):
    def __init__(self, directory: Path, of: int) -> None:
        super().__init__(directory, persist=True)
        self._of = of

    def options(self) -> dict[str, str]:
        """See :class:`~osml_tasks.local.broker.Broker`."""
        return super().options() | {"replicaof": f"{LOOPBACK} {self._of}"}


class Sentinels:
    """Servers under Sentinel. A context manager.

    :param directory: for logs and data.
    :ivar url: of the three sentinels, as Celery has it; the master's name is :data:`MASTER`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._ports = [free_port() for _ in range(_SENTINELS)]
        self.url = ";".join(f"sentinel://:{PASSWORD}@{LOOPBACK}:{port}/0" for port in self._ports)

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
        self._running.close()

    def _start(self) -> None:
        self._master = self._running.enter_context(Broker(self._directory / "master", persist=True))
        port = int(self._master.url.rpartition(":")[2].partition("/")[0])
        replica = self._running.enter_context(_Replica(self._directory / "replica", port))
        for server in (self._master, replica):
            with redis.Redis.from_url(server.url) as client:
                client.config_set("masterauth", PASSWORD, "requirepass", PASSWORD)
        self._sentinel = Sentinel([(LOOPBACK, each) for each in self._ports], socket_timeout=2, password=PASSWORD)
        for each in self._ports:
            self._start_sentinel(each, port)
        wait_until(self._is_guarded)

    def _start_sentinel(self, port: int, master: int) -> None:
        lines = (
            f"port {port}",
            f"bind {LOOPBACK}",
            f"dir {self._directory}",
            f"sentinel monitor {MASTER} {LOOPBACK} {master} {_QUORUM}",
            f"sentinel down-after-milliseconds {MASTER} {_DOWN_MILLISECONDS}",
            f"sentinel failover-timeout {MASTER} 20000",
            f"sentinel auth-pass {MASTER} {PASSWORD}",
        )
        # A sentinel writes down there what it learns.
        file = self._directory / f"sentinel-{port}.conf"
        file.write_text("\n".join(lines) + "\n")
        command = [str(server_binary()), str(file), "--sentinel"]
        child = ChildProcess(f"sentinel-{port}", command, directory=self._directory)
        child.start()
        self._running.callback(child.stop, grace=5.0)

    def _is_guarded(self) -> bool:
        """Whether each sentinel knows the replica, in step with its master, and both others."""
        try:
            states = [one.sentinel_master(MASTER) for one in self._sentinel.sentinels]
            replicas = [one.sentinel_slaves(MASTER) for one in self._sentinel.sentinels]
        except redis.exceptions.RedisError:
            return False
        known = all(state["num-other-sentinels"] == _SENTINELS - 1 for state in states)
        return known and all(len(found) == 1 and found[0]["master-link-status"] == "ok" for found in replicas)

    @property
    def client(self) -> Any:
        """A Redis client of whichever server is the master."""
        return self._sentinel.master_for(MASTER)

    def kill_master(self) -> None:
        """Kill the first master; returns when another is in its place."""
        before = self._sentinel.discover_master(MASTER)
        assert self._master._child is not None
        self._master._child.stop(grace=0)
        wait_until(lambda: self._has_other(before))

    def _has_other(self, before: tuple[str, int]) -> bool:
        try:
            return self._sentinel.discover_master(MASTER) != before
        except redis.exceptions.RedisError:
            return False
