"""A broker that dies, forgets, or takes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos.faults import fault
from tests.chaos.guarded_rig import GuardedRig
from tests.chaos.rig import Rig
from tests.chaos.row import Row

AWAY_SECONDS = 60.0
FULL_SECONDS = 20.0
REFUSING_SECONDS = 10.0
OLD_SECONDS = 60.0


@fault("the broker restarts with its data")
def restart(rig: Rig) -> Row:
    trial = rig.start_job(200)
    for share in (0.2, 0.4, 0.6):
        trial.reach(share)
        rig.broker.kill()
        rig.broker.start_again()
        trial.struck()
    return trial.row(times=3)


@fault("the broker restarts without its data", quick=True)
def loss(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.4)
    rig.broker.kill()
    rig.broker.lose_data()
    rig.broker.start_again()
    trial.struck()
    return trial.row(times=1)


@fault("the broker is away for a minute")
def away(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.4)
    rig.broker.kill()
    time.sleep(AWAY_SECONDS)
    rig.broker.start_again()
    trial.struck()
    return trial.row(times=1)


@fault("the broker has no memory left for 20 s (maxmemory, noeviction)")
def full(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.4)
    broker = rig.broker.client
    broker.config_set("maxmemory-policy", "noeviction")
    broker.config_set("maxmemory", "1mb")  # less than it has
    try:
        time.sleep(FULL_SECONDS)
    finally:
        broker.config_set("maxmemory", "0")
    trial.struck()
    return trial.row(times=1)


@fault("the broker has too few replicas for 10 s (NOREPLICAS)", quick=True)
def without_replicas(rig: Rig) -> Row:
    return _refusing(rig, {"min-replicas-to-write": 1})


@fault("the broker is a replica for 10 s (READONLY)")
def replica(rig: Rig) -> Row:
    return _refusing(rig, {"replica-serve-stale-data": "yes"}, as_replica=True)


@fault("the broker is a replica without its master for 10 s (MASTERDOWN)")
def orphan(rig: Rig) -> Row:
    return _refusing(rig, {"replica-serve-stale-data": "no"}, as_replica=True)


@fault("the broker has too few replicas for 100 s (NOREPLICAS)")
def without_replicas_for_long(rig: Rig) -> Row:
    return _refusing(rig, {"min-replicas-to-write": 1}, seconds=100.0)


def _refusing(
    rig: Rig, settings: dict[str, str | int], *, as_replica: bool = False, seconds: float = REFUSING_SECONDS
) -> Row:
    """Have the broker answer, and refuse."""
    trial = rig.start_job(200)
    trial.reach(0.4)
    with _set(rig.broker.client, settings):
        if as_replica:
            # Of nobody: its data stay as they are.
            rig.broker.client.replicaof("127.0.0.1", "1")
        time.sleep(seconds)
        if as_replica:
            rig.broker.client.replicaof("no", "one")
    trial.struck()
    return trial.row(times=1)


@contextmanager
def _set(broker: Any, settings: dict[str, str | int]) -> Iterator[None]:
    before = {name: broker.config_get(name)[name] for name in settings}
    for name, value in settings.items():
        broker.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            broker.config_set(name, value)


@fault("the broker restarts with data that are a minute old")
def old(rig: Rig) -> Row:
    trial = rig.start_job(400, endpoint="slow")
    trial.reach(0.15)
    rig.broker.copy_data()
    time.sleep(OLD_SECONDS)
    assert trial.client.is_alive()
    rig.broker.kill()
    rig.broker.go_back()
    rig.broker.start_again()
    trial.struck()
    return trial.row(times=1)


@fault("the broker's master is killed under Sentinel, and its replica takes its place")
def failover(rig: Rig) -> Row:
    with GuardedRig(rig.directory / "guarded") as guarded:
        trial = guarded.start_job(200)
        trial.reach(0.4)
        guarded.broker.kill_master()
        trial.struck()
        return trial.row(times=1)
