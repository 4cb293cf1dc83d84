"""How a worker has the fleet know of it: which queues it consumes, and that it lives."""

from __future__ import annotations

import logging
from threading import Lock
from typing import Any, ClassVar

from celery.bootsteps import StartStopStep
from celery.concurrency.solo import TaskPool as SoloPool
from celery.utils.timer2 import Timer

from osml_tasks.celery import state_client
from osml_tasks.consumers import NOTE_SECONDS, RENEW_SECONDS, Consumers
from osml_tasks.ledger import RedisLedger, ResourceType

logger = logging.getLogger(__name__)


class Presence(StartStopStep):
    """The part of a worker's consumer that notes both, again and again for as long as there is a connection.

    Not at Celery's heartbeats, which may be turned off. No trouble with it stops the work.
    """

    # After Control: who finds the note may ask the worker something right away.
    requires = ("celery.worker.consumer.tasks:Tasks", "celery.worker.consumer.control:Control")
    every: ClassVar[float] = RENEW_SECONDS

    def __init__(self, consumer: Any, **_: Any) -> None:
        consumer.presence = self
        # A task of a solo pool holds up the worker's own timer. And that pool never forks, which threads do not like.
        self._timer = Timer() if isinstance(consumer.pool, SoloPool) else consumer.timer
        self._entry: Any = None
        self._lock = Lock()
        self._withdrawn = False

    def start(self, consumer: Any) -> None:
        """Begin with a new connection."""
        self._renew(consumer)
        self._entry = self._timer.call_repeatedly(self.every, self._renew, (consumer,))

    def stop(self, consumer: Any) -> None:
        """End with it; what was noted holds for a while."""
        if self._entry is not None:
            self._timer.cancel(self._entry)
            self._entry = None

    def withdraw(self, consumer: Any) -> None:
        """Take back what was noted, for good: this worker begins no other task."""
        self.stop(consumer)
        with self._lock:
            if not self._withdrawn:
                self._withdrawn = True
                self._note(consumer, ())

    shutdown = withdraw

    def _renew(self, consumer: Any) -> None:
        with self._lock:
            if not self._withdrawn:
                # Anew each time: a worker may be told to leave a queue, or to take another.
                self._note(consumer, tuple(consumer.app.amqp.queues.consume_from))

    def _note(self, consumer: Any, queues: tuple[str, ...]) -> None:
        try:
            redis = state_client(consumer.app)
            Consumers(redis).note(consumer.hostname, queues)
            if queues:
                ledger = RedisLedger(redis)
                ledger.schedule(ResourceType.WORKER, {consumer.hostname: ledger.now() + NOTE_SECONDS})
        except Exception as error:
            logger.warning("the fleet does not hear of this worker: %s", error)
