"""What a Celery worker does of itself: checks its configuration, says that it lives, and that it stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery.signals import heartbeat_sent, worker_init, worker_ready, worker_shutdown, worker_shutting_down
from celery.worker import state as celery_state

from osml_tasks.celery import app, state_client
from osml_tasks.celery_settings import complaints
from osml_tasks.clock import clock_complaint, s3_time
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.handing_back import HandBack
from osml_tasks.ledger import Outcome, RedisLedger, ResourceType
from osml_tasks.stopping import WORKER

LEASE_SECONDS = 120
"""How long a worker counts as alive after its last heartbeat, s."""
_RENEW_SECONDS = 30

logger = logging.getLogger(__name__)
app.steps["worker"].add(HandBack)


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


def _backend_complaint() -> Iterator[str]:
    try:
        state_client(app)
    except ExtensionConfigurationError as error:
        yield str(error)


class _Lease:
    """This worker's entry in the fleet's ledger: for its statistics, so that no trouble with it stops the work."""

    def __init__(self) -> None:
        self._renewed = float("-inf")

    def begin(self, node: str) -> None:
        self._write(lambda ledger: ledger.count(ResourceType.WORKER, Outcome.REGISTERED))
        self.renew(node)

    def renew(self, node: str) -> bool:
        """Renew it if that is due; says whether it was."""
        if time.monotonic() - self._renewed < _RENEW_SECONDS:
            return False
        self._renewed = time.monotonic()
        self._write(lambda ledger: ledger.schedule(ResourceType.WORKER, {node: ledger.now() + LEASE_SECONDS}))
        return True

    def end(self, node: str) -> None:
        self._write(lambda ledger: ledger.strike(ResourceType.WORKER, [node]))
        self._write(lambda ledger: ledger.count(ResourceType.WORKER, Outcome.CLEANED))

    def _write(self, change: Callable[[RedisLedger], None]) -> None:
        try:
            change(RedisLedger(state_client(app)))
        except Exception as error:
            logger.warning("the fleet's statistics do not hear of this worker: %s", error)


_lease = _Lease()


@worker_ready.connect
def _begin(sender: Any, **_: Any) -> None:
    _lease.begin(sender.hostname)


@heartbeat_sent.connect
def _renew(sender: Any, **_: Any) -> None:
    if _lease.renew(sender.eventer.hostname):
        _stop_if_the_clock_is_wrong()


def _stop_if_the_clock_is_wrong() -> None:
    if complaint := clock_complaint(state_client(app), lambda: s3_time(AsyncEndpointConfig())):
        logger.critical("this worker stops: %s", complaint)
        celery_state.should_stop = 1  # type: ignore[assignment]


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    # In the signal's handler already: a task of a solo pool runs in this very thread.
    WORKER.begin()


@worker_shutdown.connect
def _end(sender: Any, **_: Any) -> None:
    _lease.end(sender.hostname)
