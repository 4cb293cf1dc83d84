"""A sign of life in the age of a file: for health checks that cost nothing and tell working from merely running.

``celery worker`` touches the file that ``ASYNC_SM_PULSE_FILE`` names every few seconds for as long as it
consumes, ``celery beat`` at its start and whenever it has published.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.bootsteps import StartStopStep
from celery.signals import after_task_publish, beat_init
from celery.worker import state

from osml_tasks.celery import app

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "ASYNC_SM_PULSE_FILE"
PATIENCE_VARIABLE = "ASYNC_SM_PULSE_PATIENCE"
PATIENCE_SECONDS = 60.0
"""How long a worker may leave messages waiting while it has slots free, s."""
LOOK_SECONDS = 5.0
"""How often a worker looks at itself, s."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker sees of itself.

    :ivar waiting: messages in its queues.
    :ivar busy: whether every slot of its pool has a task.
    :ivar accepted: tasks that it has begun since its start.
    """

    waiting: int
    busy: bool
    accepted: int


class Consumption:
    """Judges by a row of looks whether a worker consumes.

    One that is connected, has slots free, and takes nothing of what waits does not: Celery has been seen so
    after its broker was restarted.

    :param patience: for how long that may be so, s.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._accepted = 0
        self._well_at = float("-inf")

    def goes_on(self, look: Look, now: float) -> bool:
        """Whether it consumes, by this look and those before.

        :param now: of a clock that only goes forward, s.
        """
        if not look.waiting or look.busy or look.accepted != self._accepted or self._well_at == float("-inf"):
            self._accepted, self._well_at = look.accepted, now
        return now - self._well_at < self._patience


class Pulse(StartStopStep):
    """The part of a worker's consumer that looks and touches; it stands still while there is no connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: Any) -> None:
        patience = _patience(os.environ)
        self._every = min(LOOK_SECONDS, patience / 6)
        self._consumption = Consumption(patience)
        # Now, because a queue that somebody tells the worker to leave is on no list any more.
        self._queues = tuple(consumer.app.amqp.queues.consume_from.values())
        self._timer: Any = None
        self._silent = False

    def include_if(self, _: Any) -> bool:
        """Only where a file is named."""
        return bool(os.environ.get(VARIABLE))

    def start(self, consumer: Any) -> None:
        """Begin with a new connection."""
        self._look_and_touch(consumer)
        self._timer = consumer.timer.call_repeatedly(self._every, self._look_and_touch, (consumer,))

    def stop(self, consumer: Any) -> None:
        """End with it."""
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None

    def _look_and_touch(self, consumer: Any) -> None:
        try:
            look = self._look(consumer)
        except Exception as error:
            logger.warning("no sign of life, because the worker's queues cannot be counted: %s", error)
            return
        if self._consumption.goes_on(look, time.monotonic()):
            self._silent = False
            touch()
        elif not self._silent:
            self._silent = True
            logger.error("%s messages wait in this worker's queues, and it takes none: restart it", look.waiting)

    def _look(self, consumer: Any) -> Look:
        channel = consumer.connection.default_channel
        return Look(
            # To declare what is there changes nothing, and every kind of broker answers it with the count.
            waiting=sum(queue(channel).queue_declare().message_count for queue in self._queues),
            busy=len(state.active_requests) >= consumer.pool.num_processes,
            accepted=state.all_total_count[0],
        )


def _patience(environment: Mapping[str, str]) -> float:
    given = environment.get(PATIENCE_VARIABLE) or PATIENCE_SECONDS
    try:
        return float(given)
    except ValueError:
        raise SystemExit(f"osml-tasks: {PATIENCE_VARIABLE} is {given!r}: set it to a number of seconds") from None


def touch(**_: Any) -> None:
    """Make the file as new as now, if one is named."""
    if name := os.environ.get(VARIABLE):
        try:
            Path(name).touch()
        except OSError as error:
            logger.warning("%s, which is %r, cannot be written: %s", VARIABLE, name, error.strerror)


@beat_init.connect
def _follow_beat(**_: Any) -> None:
    """Only where beat is a process of its own: it would hide the silence of the worker it is part of."""
    touch()
    after_task_publish.connect(touch, weak=False)


app.steps["consumer"].add(Pulse)
