"""``python -m benchmarks.broker_memory``: how much memory a job takes of its broker, waiting, running and over.

All figures are of one Valkey server that is broker, result backend and state of jobs, emptied before each
job. What a chord of one chain a tile, as plain Celery has it, takes for the same tiles stands beside.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import click
from rich.console import Console
from rich.table import Table

from benchmarks.broker_watch import used_bytes
from benchmarks.ways import OSML_ENVIRONMENT
from osml_tasks.celery import new_app
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import start_job
from osml_tasks.job_handle import JobHandle
from osml_tasks.local.stack import LocalStack, StackOptions
from osml_tasks.redis_keys import PREFIX
from osml_tasks.sources import SourceTile

ENDPOINT = "ships"
LOOK_SECONDS = 0.1
WARM_UP_TILES = 400
"""Of a job before those that are measured: it has connections opened and scripts loaded."""
SETTLE_SECONDS = 2.0
"""How long a job's end and the server's own accounts have before they are read, s."""

# By how a key begins: the first that fits.
KINDS = {
    "messages that wait": ("osml.", "peer-chord"),
    "messages that workers hold": (f"{PREFIX}unacked",),
    "shards parked": (f"{PREFIX}capacity:",),
    "tiles in flight": (f"{PREFIX}tiles:",),
    "progress of shards": (f"{PREFIX}progress:",),
    "chord's count": ("celery-",),
    "the rest": ("",),
}

_NOTES = """\
All is used_memory less mem_clients_normal, the buffers of connections. Waiting: published, and no worker there.
Peak: the most that it rose above what it was with idle workers, looked at ten times a second. Over: what is left
when the job is over and its result was taken away. By kind: MEMORY USAGE of the keys."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the server has at one moment, bytes.

    :ivar used: ``used_memory`` less the buffers of connections.
    :ivar kinds: of it, what the keys of each kind take.
    """

    used: int
    kinds: Counter[str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that was published: bytes above the empty server."""

    shards: int
    used: int
    kinds: Counter[str]


@dataclass(frozen=True, slots=True)
class Running:
    """A job from its start to its end: bytes above the server with idle workers.

    :ivar peak: the most there was.
    :ivar half: keys by kind when half of the tiles were through.
    :ivar over: what was left.
    :ivar left: keys by kind of that.
    """

    peak: int
    half: Counter[str]
    over: int
    left: Counter[str]


class Bench:
    """A stack of its own, and one client."""

    def __init__(self, stack: LocalStack) -> None:
        os.environ.update(stack.env)
        self._stack = stack
        self._connections: Connections = connect(AsyncEndpointConfig(), new_app(stack.broker.url), boto3.Session())
        self._redis: Any = self._connections.app.backend.client
        # One object for all tiles: the broker does not see the difference.
        self._tile = self._connections.input_uri("tiles/tile.png")
        self._connections.s3.put(self._tile, b"tile")

    def waiting(self, tiles: int) -> Waiting:
        """Publish a job that nobody takes up."""
        self._redis.flushall()
        before = self._memory()
        job = self._publish(tiles)
        after = self._memory()
        return Waiting(job.status().job.shards, after.used - before.used, after.kinds)

    def waiting_chord(self, tiles: int) -> Waiting:
        """Publish a chord of one chain a tile."""
        from celery import chain, chord

        from benchmarks.peer_chord import app, join, poll_one, submit_one

        self._redis.flushall()
        before = self._memory()
        names = [f"/tiles/tile-{number:05d}.png" for number in range(tiles)]
        chord([chain(submit_one.s(name, ENDPOINT), poll_one.s(name)) for name in names], app=app)(join.s("/result"))
        after = self._memory()
        return Waiting(tiles, after.used - before.used, after.kinds)

    def running(self, tiles: int) -> Running:
        """Run a job to its end."""
        self._redis.flushall()
        with self._workers():
            self._watch(self._publish(WARM_UP_TILES), WARM_UP_TILES)
            before = self._memory()
            job = self._publish(tiles)
            peak, half = self._watch(job, tiles)
            job.discard()
            after = self._memory()
            return Running(peak - before.used, half, after.used - before.used, after.kinds)

    def _watch(self, job: JobHandle, tiles: int) -> tuple[int, Counter[str]]:
        peak, half = 0, Counter[str]()
        while (status := job.status()).finished is None:
            peak = max(peak, self._used())
            if not half and status.progress.finished >= tiles / 2:
                half = self._kinds()
            time.sleep(LOOK_SECONDS)
        return peak, half

    @contextmanager
    def _workers(self) -> Iterator[None]:
        self._stack.start_workers()
        try:
            yield
        finally:
            self._stack.stop_workers()

    def _publish(self, tiles: int) -> JobHandle:
        sources = [SourceTile(f"{self._tile}?{number}", None, self._tile, 0) for number in range(tiles)]
        return start_job(self._connections, sources, ENDPOINT)

    def _used(self) -> int:
        return used_bytes(self._redis)

    def _memory(self) -> Memory:
        time.sleep(SETTLE_SECONDS)
        return Memory(self._used(), self._kinds())

    def _kinds(self) -> Counter[str]:
        kinds: Counter[str] = Counter()
        for key in self._redis.scan_iter(count=1000):
            name = key.decode()
            kind = next(kind for kind, heads in KINDS.items() if name.startswith(heads))
            kinds[kind] += self._redis.memory_usage(key, samples=0) or 0
        return kinds


@click.command(context_settings={"show_default": True})
@click.option("--tiles", multiple=True, default=(1000, 10_000, 100_000), help="Sizes of jobs.")
@click.option("--run-up-to", default=10_000, help="Run the jobs of up to so many tiles, too.")
@click.option("--in-flight", default=200, help="max_concurrent_jobs; a shard has a quarter of it, 50 tiles at most.")
def command(tiles: tuple[int, ...], run_up_to: int, in_flight: int) -> int:
    """Measure what jobs take of the broker's memory."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    environment = OSML_ENVIRONMENT | {"ASYNC_SM_MAX_CONCURRENT_JOBS": str(in_flight)}
    options = StackOptions(
        endpoint_name=ENDPOINT, model="benchmarks.model:twenty_features", concurrency=32, environment=environment
    )
    with LocalStack(options) as stack:
        bench = Bench(stack)
        bench.waiting(WARM_UP_TILES)
        chord = bench.waiting_chord(min(tiles))
        waiting = {count: _told(f"publishing {count} tiles", bench.waiting, count) for count in tiles}
        running = {
            count: _told(f"running {count} tiles", bench.running, count) for count in tiles if count <= run_up_to
        }
    console.print(_table(waiting, running, {min(tiles): chord}))
    console.print(_kinds_table(waiting, running))
    console.print(_NOTES, style="dim", highlight=False, soft_wrap=True)
    return 0


def _told(what: str, measure: Any, tiles: int) -> Any:
    click.echo(what, err=True)
    return measure(tiles)


def _table(waiting: dict[int, Waiting], running: dict[int, Running], chords: dict[int, Waiting]) -> Table:
    table = Table(title="memory of the broker")
    heads = ("", "tiles", "shards", "waiting, kB", "bytes/shard", "bytes/tile", "peak, kB", "bytes/tile", "over, kB")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for tiles, published in waiting.items():
        table.add_row("osml-tasks", *_published(tiles, published), *_ran(tiles, running.get(tiles)), style="bold")
    for tiles, published in chords.items():
        table.add_row("a chord, one chain a tile", *_published(tiles, published), "-", "-", "-")
    return table


def _published(tiles: int, job: Waiting) -> list[str]:
    numbers = (tiles, job.shards, job.used / 1000, job.used / job.shards, job.used / tiles)
    return [f"{number:,.0f}" for number in numbers]


def _ran(tiles: int, job: Running | None) -> list[str]:
    if job is None:
        return ["-", "-", "-"]
    return [f"{number:,.0f}" for number in (job.peak / 1000, job.peak / tiles, job.over / 1000)]


def _kinds_table(waiting: dict[int, Waiting], running: dict[int, Running]) -> Table:
    columns = {f"{tiles:,}\nwaiting": job.kinds for tiles, job in waiting.items()}
    for tiles, job in running.items():
        columns |= {f"{tiles:,}\nhalf way": job.half, f"{tiles:,}\nover": job.left}
    table = Table("keys by kind, kB", title="what takes it")
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for kind in KINDS:
        table.add_row(kind, *(f"{kinds[kind] / 1000:,.1f}" for kinds in columns.values()))
    return table


if __name__ == "__main__":
    sys.exit(command())
