"""How a worker gives up what it holds when it is to stop: a step of Celery's worker.

Celery by itself returns the messages that wait in a worker's memory, countdowns above all, when the last
running task has ended. Here they go back at once, and running tasks have their time, see ``stopping``.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.worker.components import Pool

from osml_tasks.stopping import WORKER

_BEGUN_SECONDS = 1.0
"""How long a process of the pool may take to say that it has begun a task, s."""

logger = logging.getLogger(__name__)


class HandBack(bootsteps.StartStopStep):
    """Returns waiting messages to their queues and waits for running tasks, before the rest of the worker closes."""

    requires = (Pool,)

    def close(self, worker: Any) -> None:
        """The first thing that happens in a worker which is to stop."""
        began = time.monotonic()
        WORKER.begin()
        try:
            _stop_consuming(worker.consumer)
            _return(worker.state.scheduled_requests)
            worker.consumer.presence.withdraw(worker.consumer)
            # Here a task that has begun is known as such: none begins any more.
            _run(worker, until=lambda: not _waiting(worker.state), deadline=began + _BEGUN_SECONDS)
            _return(_waiting(worker.state))
            _run(worker, until=lambda: _is_idle(worker), deadline=began + WORKER.limit)
            _kill_what_runs(worker)
        except Exception as error:
            # Nothing may keep a worker from stopping: what it holds then comes back by itself.
            logger.warning("the broker does not take messages back, they come back after a while: %r", error)


def _stop_consuming(consumer: Any) -> None:
    if consumer.task_consumer:
        consumer.task_consumer.cancel()
        # A read that is under way may still bring a message; above its limit kombu would not look at it.
        consumer.task_consumer.qos(prefetch_count=0)


def _waiting(state: Any) -> list[Any]:
    """Requests that no process of the pool has begun."""
    return [request for request in tuple(state.reserved_requests) if request not in state.active_requests]


def _return(requests: Iterable[Any]) -> None:
    """Put the messages of requests back into their queues; should one begin after all, its task refuses."""
    for request in tuple(requests):
        request.reject(requeue=True)


def _is_idle(worker: Any) -> bool:
    """Whether no task runs, and no read from Redis is under way: what it brings goes back, too."""
    channel = getattr(worker.consumer.task_consumer, "channel", None)
    return not worker.state.active_requests and not getattr(channel, "_in_poll", None)


def _run(worker: Any, *, until: Callable[[], bool], deadline: float) -> None:
    """Have the worker's event loop go on, with results, acknowledgements and heartbeats."""

    def goes_on() -> bool:
        # A second Ctrl-C, or SIGQUIT, waits for nothing.
        return not until() and time.monotonic() < deadline and not worker.state.should_terminate

    if worker.hub is None:
        # A broker for which Celery has threads instead.
        while goes_on():
            time.sleep(0.1)
        return
    # The loop sleeps until something happens, or until its next timer is due.
    tick = worker.hub.call_repeatedly(0.5, lambda: None)
    loop = worker.hub.create_loop()
    try:
        while goes_on():
            next(loop)
    finally:
        tick.cancel()


def _kill_what_runs(worker: Any) -> None:
    """End the processes of tasks that did not return in time; their messages go back with the connection's end."""
    overdue = {request.worker_pid for request in tuple(worker.state.active_requests)} - {os.getpid(), None}
    if not overdue:
        return
    logger.warning("%d tasks did not end within %g s of the order to stop and are killed", len(overdue), WORKER.limit)
    for process in overdue:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    worker.pool.terminate()
