"""Celery's consumer of messages, which outlives a broker that goes away twice within seconds."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

logger = logging.getLogger(__name__)


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """What a worker consumes with; named in the setting ``worker_consumer``."""

    def on_connection_error_after_connected(self, exc: Exception) -> Any:
        """Let go of a connection that is lost, so that there can be another."""
        try:
            return super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            # kombu 5.7 closes a Redis channel again whose client is gone already. By then nothing is left to be done.
            logger.debug("the lost connection was closed before: %s", error)
            return None
