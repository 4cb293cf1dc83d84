"""``osml-tasks worker``: Celery workers for all queues, as many processes as the configuration says."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from osml_tasks.errors import ExtensionRuntimeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osml_tasks.celery_worker import CeleryWorker


@click.command
@click.option(
    "--loglevel",
    "-l",
    default="INFO",
    show_default=True,
    type=click.Choice(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"), case_sensitive=False),
    help="Celery's log level.",
)
@click.option("--beat/--no-beat", default=True, help="Sweep from here, too; one such process in a fleet is enough.")
def command(loglevel: str, beat: bool) -> int:
    """Run submit and poll workers with the configured concurrency, and one each for the other queues."""
    from osml_tasks.celery_worker import AssemblyWorker, AsyncResultsWorker, AsyncSubmissionWorker, running
    from osml_tasks.config import AsyncEndpointConfig

    config = AsyncEndpointConfig()
    workers = [
        AsyncSubmissionWorker(config, loglevel=loglevel),
        AsyncResultsWorker(config, loglevel=loglevel),
        AssemblyWorker(config, loglevel=loglevel, beat=beat),
    ]
    with suppress(KeyboardInterrupt), running(workers):
        click.echo("ready")
        try:
            _supervise(workers)
        finally:
            # A second order must not break off what the first has begun: workers end in their time.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    return 0


def _supervise(workers: Sequence[CeleryWorker]) -> None:
    """Go on for as long as all of them do.

    :raises ExtensionRuntimeError: one has ended.
    """
    while True:
        for worker in workers:
            if not worker.is_alive():
                raise ExtensionRuntimeError(f"worker {worker.node} has ended; see its log above")
        time.sleep(0.5)
