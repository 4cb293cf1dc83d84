"""The Celery app: ``celery -A osml_tasks worker``, ``celery -A osml_tasks beat``.

Broker and result backend come from ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``; the jobs'
state is kept where the results are.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu import Queue

from osml_tasks.cleanup import SWEEP_SECONDS
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.records import RECORD_SECONDS

SUBMIT_QUEUE = "osml.submit"
POLL_QUEUE = "osml.poll"
ASSEMBLE_QUEUE = "osml.assemble"
CLEANUP_QUEUE = "osml.cleanup"
QUEUES = (SUBMIT_QUEUE, POLL_QUEUE, ASSEMBLE_QUEUE, CLEANUP_QUEUE)

DEFAULT_BROKER_URL = "redis://127.0.0.1:6379/0"

_SETTINGS: dict[str, Any] = {
    "broker_connection_retry_on_startup": True,
    # What a dead worker held comes back after this many seconds. No task and no countdown of ours
    # stays silent for half as long.
    "broker_transport_options": {"visibility_timeout": 90},
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "task_queues": [Queue(name) for name in QUEUES],
    "task_default_queue": CLEANUP_QUEUE,
    "task_create_missing_queues": False,
    "task_routes": {
        "osml_tasks.detect": {"queue": SUBMIT_QUEUE},
        "osml_tasks.submit": {"queue": SUBMIT_QUEUE},
        "osml_tasks.poll": {"queue": POLL_QUEUE},
        "osml_tasks.assemble": {"queue": ASSEMBLE_QUEUE},
        "osml_tasks.cleanup": {"queue": CLEANUP_QUEUE},
    },
    # A message is given back only after its work is done, or when the process doing it was killed.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # A chord counts its shards in keys that must outlive the longest job.
    "result_expires": RECORD_SECONDS,
    "beat_schedule": {
        "sweep": {
            "task": "osml_tasks.cleanup",
            "schedule": SWEEP_SECONDS,
            "options": {"expires": SWEEP_SECONDS},
        }
    },
}


class _Publisher(Celery):
    """An app of a client, which follows its jobs by their records.

    Celery itself would subscribe to the result of each shard, and complain of a broker that is gone
    when the last of these subscriptions is collected.
    """

    def _get_backend(self) -> Any:
        backend = super()._get_backend()  # type: ignore[misc]
        backend.add_pending_result = lambda result, **_: result
        backend.remove_pending_result = lambda result: result
        return backend


def new_app(broker_url: str | None = None, result_backend: str | None = None) -> Celery:
    """An app for publishing jobs, with this package's settings; it cannot wait for a task's result.

    :param broker_url: default: ``CELERY_BROKER_URL``, or a server on this machine. The variable wins.
    :param result_backend: where the state of jobs is; default: where the messages are.
    """
    return _configured(_Publisher("osml_tasks", set_as_current=False), broker_url, result_backend)


@lru_cache(maxsize=1)
def client_app() -> Celery:
    """This process's app for publishing jobs, configured as :data:`app` is at its first use."""
    client = _Publisher("osml_tasks", set_as_current=False)
    client.conf.update(dict(app.conf))
    return client


def _configured(app: Celery, broker_url: str | None = None, result_backend: str | None = None) -> Celery:
    broker = broker_url or os.environ.get("CELERY_BROKER_URL") or DEFAULT_BROKER_URL
    app.conf.update(_SETTINGS, broker_url=broker, result_backend=result_backend or broker)
    return app


def broker_is_configured() -> bool:
    """Whether somebody has said where the broker is."""
    return bool(os.environ.get("CELERY_BROKER_URL")) or app.conf.broker_url != DEFAULT_BROKER_URL


def state_client(app: Celery) -> Any:
    """A Redis client of an app's result backend, as Celery has set it up; the jobs' state lives there too.

    :raises ExtensionConfigurationError: if the result backend is anything but Redis or Valkey.
    """
    client = getattr(app.backend, "client", None)
    if not hasattr(client, "register_script"):
        raise ExtensionConfigurationError(
            f"the result backend {app.backend.as_uri()} keeps no job state: set CELERY_RESULT_BACKEND to a Redis URL"
        )
    return client


_MODULES = ["osml_tasks.tasks", "osml_tasks.worker_signals"]
app = _configured(Celery("osml_tasks", include=_MODULES, set_as_current=False))
