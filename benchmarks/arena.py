"""Where all runs take place: one local stack, whose S3 server counts its requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import redis

from benchmarks.measure import cpu_seconds, s3_requests
from osml_tasks.local import stack as stack_module
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.local.server import LOOPBACK, free_port
from osml_tasks.local.stack import LocalStack, StackOptions

WARM_UP = "warm-up"
"""The endpoint of runs that are not measured."""


class CountingStore(ObjectStore):
    """The stack's S3 server with its Prometheus counters switched on."""

    _metrics_port = 0

    @property
    def metrics_url(self) -> str:
        """Where the counters are."""
        return f"http://{LOOPBACK}:{self._metrics_port}/metrics"

    def launch(self) -> None:
        """Start the server, without waiting for it."""
        self._metrics_port = free_port()
        super().launch()

    def _flags(self) -> list[str]:
        return [*super()._flags(), f"-metricsPort={self._metrics_port}", f"-metricsIp={LOOPBACK}"]


class Arena:
    """The stack as the runs see it."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack

    @property
    def env(self) -> dict[str, str]:
        """The environment of every client and worker."""
        return self.stack.process_env

    @property
    def endpoint_url(self) -> str:
        """The server of the endpoints."""
        return self.stack.endpoint.url

    def server_cpu_seconds(self) -> float:
        """CPU seconds so far of endpoint, S3 server and broker."""
        pids = (self.stack.endpoint.pid, self.stack.object_store.pid, self.stack.broker.pid)
        return cpu_seconds(pid for pid in pids if pid is not None)

    def s3_requests(self) -> int:
        """Requests that the S3 server has answered so far, those of the endpoint included."""
        store = self.stack.object_store
        assert isinstance(store, CountingStore)
        return s3_requests(store.metrics_url)

    def objects(self) -> int:
        """How many objects are in the buckets."""
        return sum(1 for bucket in self._buckets() for _ in bucket.objects.all())

    def empty(self) -> None:
        """Remove every object and everything in the broker."""
        for bucket in self._buckets():
            bucket.objects.delete()
        with redis.Redis.from_url(self.stack.broker.url) as broker:
            broker.flushall()

    def _buckets(self) -> Iterator[Any]:
        env = self.env
        s3 = boto3.resource(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_REGION"],
        )
        options = self.stack.options
        yield from (s3.Bucket(name) for name in (options.input_bucket, options.output_bucket))


@contextmanager
def open_arena(
    endpoints: Sequence[str], *, slots: int, latency: float, tile_root: Path, environment: Mapping[str, str]
) -> Iterator[Arena]:
    """Bring the stack up, without workers.

    :param endpoints: one for each run, so that each has counts of its own; all alike.
    :param slots: instances of each endpoint, one invocation at a time each.
    :param latency: of the model, s.
    """
    options = StackOptions(
        endpoint_name=WARM_UP,
        model="benchmarks.model:twenty_features",
        instances=slots,
        concurrency=1,
        latency=latency,
        endpoint_arguments=tuple(f"--name={name}" for name in endpoints),
        tile_roots=(tile_root,),
        environment=environment,
    )
    stack = LocalStack(options)
    # LocalStack takes no flags for its S3 server.
    with patch.object(stack_module, "ObjectStore", CountingStore):
        stack.start()
    try:
        yield Arena(stack)
    finally:
        stack.stop()
