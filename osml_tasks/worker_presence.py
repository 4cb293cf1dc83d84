"""Whether workers listen on a fleet's queues: what they have noted, and only where that leaves gaps a question.

A worker that is busy answers late, and one of an earlier version notes nothing. So silence alone does not mean
that there is none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from osml_tasks.celery import state_client
from osml_tasks.celery_settings import QUEUES
from osml_tasks.consumers import Consumers

if TYPE_CHECKING:
    from celery import Celery

WAIT_SECONDS = 5.0
"""How long to ask for workers that have noted nothing, s."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The workers that are known to listen.

    :ivar counts: how many, at least, on each queue.
    """

    counts: Mapping[str, int]

    @property
    def missing(self) -> list[str]:
        """Queues that nobody is known to listen on."""
        return [queue for queue in QUEUES if not self.counts.get(queue)]

    @property
    def served(self) -> list[str]:
        """The other queues."""
        return [queue for queue in QUEUES if self.counts.get(queue)]


def find_listeners(app: Celery, wait: float = WAIT_SECONDS) -> Listeners:
    """Look who listens on each queue; asks, for as long as there is a gap and no longer, only where there is one.

    :param wait: how long to ask, s.
    """
    answers: dict[str, set[str]] = {}
    until = time.monotonic() + wait
    while True:
        found = Listeners(_noted(app))
        if found.missing:
            found = _joined(found, _counted_by_broker(app), _by_queue(answers))
        if not found.missing or time.monotonic() > until:
            return found
        answers |= listening(1.0, app, enough=partial(_fill, set(found.missing)))


def _fill(gap: set[str], answers: Mapping[str, set[str]]) -> bool:
    return gap <= set().union(*answers.values())


def _joined(*found: Listeners) -> Listeners:
    return Listeners({queue: max(one.counts.get(queue, 0) for one in found) for queue in QUEUES})


def _noted(app: Celery) -> dict[str, int]:
    try:
        return Consumers(state_client(app)).counts()
    except RedisError:
        # Such as a user who may not run scripts: nothing is known then.
        return {}


def _counted_by_broker(app: Celery) -> Listeners:
    """What the broker tells: RabbitMQ counts the consumers of each queue, Redis knows of none."""
    with app.connection_for_read() as connection:
        if connection.get_transport_cls().driver_type != "amqp":
            return Listeners({})
    from osml_tasks.queues import consumer_counts

    return Listeners(consumer_counts(app))


def _by_queue(answers: Mapping[str, set[str]]) -> Listeners:
    return Listeners(Counter(queue for queues in answers.values() for queue in queues))


class _EnoughError(Exception):
    """Ends the wait for answers."""


def listening(
    timeout: float, app: Celery, *, enough: Callable[[Mapping[str, set[str]]], bool] = lambda served: False
) -> dict[str, set[str]]:
    """The queues of workers that answer a question to all of them, by worker.

    :param timeout: how long to wait for another answer, s.
    :param app: whose broker is asked.
    :param enough: whether these answers will do; default: all that come in time are waited for.
    """
    served: dict[str, set[str]] = {}

    def note(answer: dict[str, list[dict[str, Any]]]) -> None:
        served.update({worker: {queue["name"] for queue in queues} for worker, queues in answer.items()})
        if enough(served):
            raise _EnoughError

    with suppress(_EnoughError):
        app.control.broadcast("active_queues", reply=True, timeout=timeout, callback=note)
    return served
