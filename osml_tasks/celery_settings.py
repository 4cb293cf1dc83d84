"""Celery's settings, as this package needs them; ``celeryconfig.py`` beside a command goes before them."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
from celery.loaders.app import AppLoader
from kombu import Exchange, Queue
from kombu.utils.url import parse_url

from osml_tasks.cleanup import SWEEP_SECONDS
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.records import RECORD_SECONDS
from osml_tasks.redis_keys import PREFIX

SUBMIT_QUEUE = "osml.submit"
POLL_QUEUE = "osml.poll"
ASSEMBLE_QUEUE = "osml.assemble"
CLEANUP_QUEUE = "osml.cleanup"
QUEUES = (SUBMIT_QUEUE, POLL_QUEUE, ASSEMBLE_QUEUE, CLEANUP_QUEUE)

DEFAULT_BROKER_URL = "redis://127.0.0.1:6379/0"
OPERATORS_MODULE = "celeryconfig"
"""The module that an operator edits, in the directory where a command is called."""

DEFAULTS: dict[str, Any] = {
    "broker_url": DEFAULT_BROKER_URL,
    "broker_connection_retry_on_startup": True,
    # Over Redis, what a dead worker held comes back after so many seconds. No task and no countdown of ours
    # stays silent for half as long. Each worker looks for it every 10 s, not every tenth time only.
    # Over RabbitMQ, a message counts as sent once the broker has it.
    "broker_transport_options": {
        "global_keyprefix": PREFIX,
        "visibility_timeout": 90,
        "unacked_restore_throttle": 1,
        "confirm_publish": True,
    },
    "result_backend_transport_options": {"global_keyprefix": PREFIX},
    # A step that cannot send the next one would fail its chord, with all tiles done: a broker that
    # restarts is waited for, 45 s and what the attempts take.
    "task_publish_retry_policy": {"max_retries": 12, "interval_start": 0, "interval_step": 1, "interval_max": 5},
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "worker_consumer": "osml_tasks.admission:Consumer",
    "task_queues": [Queue(name, Exchange("osml"), routing_key=name) for name in QUEUES],
    "task_default_exchange": "osml",
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
    # Those that wait for a countdown do not count for it. They are few, at most a poll and a submit for each
    # shard in flight; a limit would have an idle worker refuse what is due now.
    "worker_eta_task_limit": None,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Flower and `celery events` see only what is sent; five small events a step of a shard.
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    # A chord counts its shards in keys that must outlive the longest job.
    "result_expires": RECORD_SECONDS,
    "beat_schedule": {
        "sweep": {
            "task": "osml_tasks.cleanup",
            "schedule": SWEEP_SECONDS,
            # By the clock of beat, which may be wrong; one more sweep does no harm.
            "options": {"expires": 3600},
        }
    },
}


SHORTEST_VISIBILITY_TIMEOUT = 90
"""Less, and a message would be delivered a second time while its task is at work or waits for its countdown, s."""


_CHECKED = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
_TLS_SETTINGS = ("broker_use_ssl", "redis_backend_use_ssl")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def tls_options(url: object, given: object) -> object:
    """How a server's certificate is looked at: where nobody says otherwise, ``rediss://`` has it checked.

    Left to themselves, kombu would take any certificate, Celery's result backend would refuse to start, and
    Flower would not see what stands in the URL.

    :param url: a broker's or result backend's.
    :param given: what an operator has set for it; the URL goes before that.
    """
    if not str(url).startswith("rediss://"):
        return given
    return {**_CHECKED, **(given if isinstance(given, dict) else {}), **parse_url(str(url)).get("ssl", {})}


def key_options(given: object) -> object:
    """Transport options with which Celery's keys begin as the fleet's own do, unless an operator says otherwise.

    :param given: what an operator has set: a file from before there was this prefix need not be changed.
    """
    return {"global_keyprefix": PREFIX, **(given if isinstance(given, dict) else {})}


def tls_complaints(settings: Mapping[str, Any]) -> Iterator[str]:
    """Which files for TLS are missing, a line each."""
    for setting in _TLS_SETTINGS:
        options = settings.get(setting)
        if not isinstance(options, dict):
            continue
        for name in _TLS_FILES:
            path = options.get(name)
            if path and not Path(path).is_file():
                yield f"{name} of {setting} is {path!r}: there is no such file, correct it here or in the URL"


def complaints(settings: Mapping[str, Any]) -> Iterator[str]:
    """What an operator's settings break, a line each."""
    yield from tls_complaints(settings)
    options = settings.get("broker_transport_options") or {}
    timeout = options.get("visibility_timeout")
    broker = str(settings.get("broker_url"))
    over_redis = broker.startswith(("redis", "valkey", "sentinel"))
    if over_redis and (timeout is None or timeout < SHORTEST_VISIBILITY_TIMEOUT):
        yield (
            f"visibility_timeout in broker_transport_options is {timeout or 'not set'}: "
            f"set it to {SHORTEST_VISIBILITY_TIMEOUT} s, or a little more"
        )
    if broker.startswith(("amqp", "pyamqp")) and options.get("confirm_publish") is not True:
        yield "confirm_publish in broker_transport_options is not on: RabbitMQ may lose what is sent, set it to True"
    for name in (
        "task_serializer",
        "result_serializer",
        "accept_content",
        "worker_consumer",
        "task_acks_late",
        "task_routes",
    ):
        if settings.get(name) != DEFAULTS[name]:
            yield f"{name} is {settings.get(name)!r}: leave it at {DEFAULTS[name]!r}"


class SettingsLoader(AppLoader):
    """Reads this package's settings, under an operator's: those of the module that ``CELERY_CONFIG_MODULE``
    names, or of ``celeryconfig.py`` in the current directory of a ``celery`` or ``osml-tasks`` command.

    A program that imports this package may have a ``celeryconfig.py`` of its own beside it, for an app of
    its own: that one is left alone.
    """

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Any:
        """All settings that are not Celery's own defaults."""
        return DEFAULTS | self._operators_settings(env)

    def _operators_settings(self, env: str) -> dict[str, Any]:
        module = os.environ.get(env)
        if module is None and _is_a_command() and Path(f"{OPERATORS_MODULE}.py").is_file():
            module = OPERATORS_MODULE
            _say_that_it_runs(Path(f"{OPERATORS_MODULE}.py").absolute())
        found = vars(self.import_from_cwd(module)) if module else {}
        return {name: value for name, value in found.items() if not name.startswith("_")}


@cache
def _say_that_it_runs(path: Path) -> None:
    """Say on standard error, once, that a file is run because it lies where a command is called.

    Nothing is said of the one of a clone that this package itself is run from.

    :raises ExtensionConfigurationError: anybody may have written it.
    """
    if path.parent == Path(__file__).parents[1]:
        return
    file, folder = path.stat(), path.parent.stat()
    strangers = file.st_uid not in (0, os.geteuid()) and folder.st_mode & stat.S_IWOTH
    if strangers or file.st_mode & stat.S_IWOTH:
        raise ExtensionConfigurationError(
            f"{path} lies where the command is called and may be anybody's: go elsewhere, or name the module to take "
            "with CELERY_CONFIG_MODULE"
        )
    click.echo(f"osml-tasks: takes the settings of {path}; CELERY_CONFIG_MODULE names others", err=True)


def _is_a_command() -> bool:
    context = click.get_current_context(silent=True)
    callback = None if context is None else context.find_root().command.callback
    return callback is not None and callback.__module__ in ("celery.bin.celery", "osml_tasks.cli")
