"""How Celery's workers and beat log: its own handlers, level and file, with this package's lines in them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from celery import current_task
from celery.signals import after_setup_logger, after_setup_task_logger, celeryd_init, worker_process_init
from celery.utils.log import ColorFormatter, get_multiprocessing_logger

from osml_tasks.config import LogConfig
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.logs import about, formatter
from osml_tasks.redaction import Redaction

# A line each for a task that was received and for one that succeeded: the steps say more.
_TWICE_A_TASK = ("celery.worker.strategy", "celery.app.trace")
# At DEBUG these write whole requests, payloads and signatures included; at INFO where each client came from.
_INDISCREET = ("botocore", "boto3", "urllib3")
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class _Origin(logging.Filter):
    """Adds to a record which worker it comes from and, within a task, which job and shard that is at.

    So Celery's own lines of a failed task, and those of libraries, are found by job as well.
    """

    node = socket.gethostname()  # until a worker says its name; beat has no other

    def filter(self, record: logging.LogRecord) -> bool:
        record.node = self.node
        record.fields = self._at_work() | getattr(record, "fields", {})
        return True

    def _at_work(self) -> dict[str, Any]:
        arguments = (current_task.request.kwargs if current_task else None) or {}
        job, shard = arguments.get("job"), arguments.get("shard")
        fields: dict[str, Any] = about(
            job=job if isinstance(job, str) and len(job) <= 40 else None,
            shard=shard if isinstance(shard, int) else None,
        )["fields"]
        return fields


_origin = _Origin()


@celeryd_init.connect
def _set_up_early(sender: str, instance: Any, options: dict[str, Any], **_: Any) -> None:
    """Before Celery's first warnings, which would be lines of another form."""
    _origin.node = sender
    instance.app.log.setup(options.get("loglevel"), options.get("logfile"), hostname=sender)


@worker_process_init.connect
def _name_process(sender: str, **_: Any) -> None:
    _origin.node = sender


@after_setup_logger.connect
@after_setup_task_logger.connect
def _format(logger: logging.Logger, loglevel: int | None, **_: Any) -> None:
    """Put our formatter in place of Celery's; handlers that an operator has made are left alone."""
    try:
        config = LogConfig()
    except ExtensionConfigurationError as error:
        raise SystemExit(f"osml-tasks: {error}") from None
    ours = formatter(config.log_format, Redaction(_secrets(config)))
    multiprocessing = get_multiprocessing_logger() or logger
    for handler in (*logger.handlers, *multiprocessing.handlers):
        if isinstance(handler.formatter, ColorFormatter):
            handler.setFormatter(ours)
            handler.addFilter(_origin)
    _quiet(loglevel or logging.WARNING)


def _secrets(config: LogConfig) -> Iterator[str]:
    yield from filter(None, (config.external_id, *map(os.environ.get, _SECRET_VARIABLES)))


def _quiet(level: int) -> None:
    for name in _INDISCREET + (_TWICE_A_TASK if level > logging.DEBUG else ()):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
