"""The Celery app: ``celery -A osml_tasks worker``, ``celery -A osml_tasks beat``.

Broker and result backend come from ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``; the jobs'
state is kept where the results are.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.utils.url import maybe_sanitize_url

from osml_tasks.broker_url import check_broker_url, check_master_name, check_result_backend
from osml_tasks.celery_settings import DEFAULT_BROKER_URL, key_options, tls_options
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.outage import REFUSALS, recognise_refusals

recognise_refusals()


class _App(Celery):
    """An app with this package's settings, under those of an operator."""

    loader_cls = "osml_tasks.celery_settings:SettingsLoader"
    amqp_cls = "osml_tasks.labels:LabelledMessages"
    task_cls = "osml_tasks.checked_task:CheckedTask"

    def _load_config(self) -> Any:
        settings = super()._load_config()  # type: ignore[misc]
        if not settings.result_backend:
            settings.result_backend = settings.broker_url
        for name in ("broker_transport_options", "result_backend_transport_options"):
            settings[name] = key_options(settings[name])
        _check_urls(settings)
        settings.broker_use_ssl = tls_options(settings.broker_url, settings.broker_use_ssl)
        settings.redis_backend_use_ssl = tls_options(settings.result_backend, settings.redis_backend_use_ssl)
        return settings

    def _get_backend(self) -> Any:
        backend = super()._get_backend()  # type: ignore[misc]
        # A result is kept for a server that takes none now, as for one that is away.
        if errors := getattr(backend, "connection_errors", None):
            backend.connection_errors = (*errors, *REFUSALS)
        return backend


def _check_urls(settings: Any) -> None:
    # Celery takes a list of brokers, too, and backends that are no URL; those fail where they are used.
    if isinstance(settings.broker_url, str):
        check_broker_url(settings.broker_url)
        check_master_name("broker_transport_options", settings.broker_url, settings.broker_transport_options)
    if isinstance(settings.result_backend, str):
        check_result_backend(settings.result_backend)
        options = settings.result_backend_transport_options
        check_master_name("result_backend_transport_options", settings.result_backend, options)


class _Publisher(_App):
    """An app of a client, which follows its jobs by their records.

    Celery itself would subscribe to the result of each shard, and complain of a broker that is gone
    when the last of these subscriptions is collected.
    """

    def _get_backend(self) -> Any:
        backend = super()._get_backend()
        backend.add_pending_result = lambda result, **_: result
        backend.remove_pending_result = lambda result: result
        return backend


def new_app(broker_url: str | None = None, result_backend: str | None = None) -> Celery:
    """An app for publishing jobs, with this package's settings; it cannot wait for a task's result.

    :param broker_url: default: ``CELERY_BROKER_URL``, or a server on this machine. The variable wins.
    :param result_backend: where the state of jobs is; default: where the messages are.
    """
    publisher = _Publisher("osml_tasks", set_as_current=False)
    given = {"broker_url": broker_url, "result_backend": result_backend}
    publisher.conf.update({name: value for name, value in given.items() if value})
    return publisher


@lru_cache(maxsize=1)
def client_app() -> Celery:
    """This process's app for publishing jobs, configured as :data:`app` is at its first use."""
    client = _Publisher("osml_tasks", set_as_current=False)
    client.conf.update(dict(app.conf))
    return client


def broker_is_configured() -> bool:
    """Whether somebody has said where the broker is."""
    return bool(os.environ.get("CELERY_BROKER_URL")) or app.conf.broker_url != DEFAULT_BROKER_URL


def state_client(app: Celery) -> Any:
    """A Redis client of an app's result backend, as Celery has set it up; the jobs' state lives there too.

    :raises ExtensionConfigurationError: if the result backend is anything but Redis or Valkey.
    """
    try:
        client = getattr(app.backend, "client", None)
    except (ImproperlyConfigured, ImportError):
        client = None
    except ValueError as error:
        where = maybe_sanitize_url(str(app.conf.result_backend))
        raise ExtensionConfigurationError(
            f"the result backend {where} cannot be used: {' '.join(str(error).split())}"
        ) from None
    if not hasattr(client, "register_script"):
        where = maybe_sanitize_url(str(app.conf.result_backend))
        raise ExtensionConfigurationError(
            f"the result backend {where} keeps no job state: set CELERY_RESULT_BACKEND to a Redis URL"
        )
    return client


def state_address(app: Celery) -> str:
    """Where an app's jobs have their state, without user, password and options."""
    parts = urlsplit(str(app.conf.result_backend))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_MODULES = ["osml_tasks.tasks", "osml_tasks.worker_signals", "osml_tasks.celery_logs", "osml_tasks.pulse"]
app = _App("osml_tasks", include=_MODULES, set_as_current=False)
