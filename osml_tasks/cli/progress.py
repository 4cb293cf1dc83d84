"""How a job's progress is shown: a live line on a terminal, a plain one every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from osml_tasks.job_handle import JobHandle
    from osml_tasks.job_status import JobStatus

PLAIN_LINE_SECONDS = 5.0

_TERMINAL_VARIABLES = {"FORCE_COLOR", "TTY_COMPATIBLE"}
"""With one of these, rich may take anything for a terminal."""


def follow(handle: JobHandle) -> JobStatus:
    """Show a job's progress on standard error until it has ended."""
    click.echo(f"job {handle.job_id}", err=True)
    console = _terminal()
    return _follow_live(handle, console) if console else _follow_plainly(handle)


@contextmanager
def show_staging(tiles: int) -> Iterator[Callable[[int], None]]:
    """Show how many of so many tiles are staged; yields what to call with their number."""
    console = _terminal() if tiles else None
    if console is None:
        yield _plain_staging(tiles)
        return
    with _bar(console, "{task.description}") as bar:
        task = bar.add_task("staged", total=tiles)
        yield lambda staged: bar.update(task, completed=staged)


def _terminal() -> Console | None:
    """Standard error, if a live line can be shown there."""
    # Loaded only where it may say so: with a pipe or a file, that is a good part of what a command takes to start.
    if not (sys.stderr.isatty() or _TERMINAL_VARIABLES & os.environ.keys()):
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal else None


def _plain_staging(tiles: int) -> Callable[[int], None]:
    every = _Every(PLAIN_LINE_SECONDS)

    def show(staged: int) -> None:
        if staged == tiles or every.is_time():
            click.echo(f"staged {staged}/{tiles}", err=True)

    return show


def _follow_live(handle: JobHandle, console: Console) -> JobStatus:
    with _bar(console, "{task.description}", "{task.fields[counts]}") as bar:
        task = bar.add_task("queued", total=None, counts="")

        def show(status: JobStatus) -> None:
            counts = _counts(status, _rate(status))
            done = status.progress.finished
            bar.update(task, description=status.state.value, completed=done, total=status.job.tiles, counts=counts)

        return handle.wait(on_status=show)


def _follow_plainly(handle: JobHandle) -> JobStatus:
    every = _Every(PLAIN_LINE_SECONDS)

    def show(status: JobStatus) -> None:
        if every.is_time() or status.finished is not None:
            rate = _rate(status)
            left = (status.job.tiles - status.progress.finished) / rate if rate else None
            ending = f", {left:.0f} s left" if left else ""
            done = f"finished {status.progress.finished}/{status.job.tiles}"
            click.echo(f"{status.state}: {done}, {_counts(status, rate)}{ending}", err=True)

    return handle.wait(on_status=show)


def _counts(status: JobStatus, rate: float | None) -> str:
    progress = status.progress
    speed = f", {rate:.1f} tiles/s" if rate else ""
    return f"invoked {progress.invoked}, failed {progress.failed}{speed}"


def _rate(status: JobStatus) -> float | None:
    """Tiles finished a second since the first invocation; None while there is nothing to say."""
    if status.started is None or not status.progress.finished:
        return None
    seconds = (status.finished or time.time()) - status.started
    return status.progress.finished / seconds if seconds > 0 else None


def _bar(console: Console, *texts: str) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    head, *tail = texts
    columns = [TextColumn(head), BarColumn(), MofNCompleteColumn(), *map(TextColumn, tail), TimeRemainingColumn()]
    return Progress(*columns, console=console)


class _Every:
    """Says when a while has passed since it last said so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def is_time(self) -> bool:
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True
