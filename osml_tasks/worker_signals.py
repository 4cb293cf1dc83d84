"""What a Celery worker does of itself: checks its configuration, says that it lives, and that it stops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from celery.bootsteps import StartStopStep
from celery.signals import beat_init, worker_init, worker_ready, worker_shutdown, worker_shutting_down
from celery.worker import state as celery_state

from osml_tasks.celery import app, state_client
from osml_tasks.celery_settings import complaints
from osml_tasks.clock import clock_complaint, s3_time
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.handing_back import HandBack
from osml_tasks.kombu_patches import wait_out_refusals
from osml_tasks.ledger import Outcome, RedisLedger, ResourceType
from osml_tasks.presence import Presence
from osml_tasks.stopping import WORKER

CLOCK_SECONDS = 30
"""How often a worker looks at the clock, s."""

logger = logging.getLogger(__name__)


@worker_init.connect
def check_configuration(**_: Any) -> None:
    """Stop a worker that could do nothing, before it takes a message."""
    try:
        config = AsyncEndpointConfig()
    except ExtensionConfigurationError as error:
        raise SystemExit(f"osml-tasks: {error}") from None
    if broken := [*complaints(app.conf), *_backend_complaint()]:
        raise SystemExit("\n".join(f"osml-tasks: {complaint}" for complaint in broken))
    if complaint := clock_complaint(state_client(app), lambda: s3_time(config)):
        raise SystemExit(f"osml-tasks: {complaint}")
    if config.metrics_enabled:
        # Once here, rather than in each process after the fork, where it would cost 0.2 s of a job.
        import aws_embedded_metrics  # noqa: F401


# Before there is a connection.
worker_init.connect(wait_out_refusals)
beat_init.connect(wait_out_refusals)


def _backend_complaint() -> Iterator[str]:
    try:
        state_client(app)
    except ExtensionConfigurationError as error:
        yield str(error)


class ClockCheck(StartStopStep):
    """The part of a worker's consumer that looks at this machine's clock from time to time."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Begin with a new connection."""
        self._entry = consumer.timer.call_repeatedly(CLOCK_SECONDS, _stop_if_the_clock_is_wrong)

    def stop(self, consumer: Any) -> None:
        """End with it."""
        if self._entry is not None:
            consumer.timer.cancel(self._entry)
            self._entry = None


def _stop_if_the_clock_is_wrong() -> None:
    if complaint := clock_complaint(state_client(app), lambda: s3_time(AsyncEndpointConfig())):
        logger.critical("this worker stops: %s", complaint)
        celery_state.should_stop = 1  # type: ignore[assignment]


app.steps["worker"].add(HandBack)
app.steps["consumer"] |= {Presence, ClockCheck}


@worker_ready.connect
def _begin(**_: Any) -> None:
    _tell(lambda ledger: ledger.count(ResourceType.WORKER, Outcome.REGISTERED))


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    # In the signal's handler already: a task of a solo pool runs in this very thread.
    WORKER.begin()


@worker_shutdown.connect
def _end(sender: Any, **_: Any) -> None:
    _tell(lambda ledger: ledger.strike(ResourceType.WORKER, [sender.hostname]))
    _tell(lambda ledger: ledger.count(ResourceType.WORKER, Outcome.CLEANED))


def _tell(change: Callable[[RedisLedger], None]) -> None:
    """Have the fleet's statistics hear of this worker; no trouble with them stops the work."""
    try:
        change(RedisLedger(state_client(app)))
    except Exception as error:
        logger.warning("the fleet's statistics do not hear of this worker: %s", error)
