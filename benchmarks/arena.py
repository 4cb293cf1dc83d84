"""Where all runs take place: one broker, one S3 server that counts its requests, and endpoints for each stage."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import redis

from benchmarks.delayed_way import DelayedWay
from benchmarks.processes import cpu_seconds
from osml_tasks.local.broker import Broker
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.local.server import LOOPBACK, LocalServer, free_port
from osml_tasks.local.stack import EndpointServer, StackOptions

WARM_UP = "warm-up"
"""The endpoint of runs that are not measured."""
INPUT_BUCKET, OUTPUT_BUCKET = "osml-input", "osml-output"
IMAGE_BUCKET = "osml-images"
"""Where images are that nobody has copied for a job; never emptied."""
TWENTY_FEATURES = "benchmarks.model:twenty_features"

_S3_REQUESTS = re.compile(r"^SeaweedFS_s3_request_total\{.*\} (\S+)$", re.MULTILINE)
_SENT = re.compile(r'^SeaweedFS_s3_bucket_traffic_sent_bytes_total\{bucket="([^"]+)"\} (\S+)$', re.MULTILINE)
_OURS = ("AWS_", "ASYNC_SM_", "ARTIFACT_", "CELERY_")


class CountingStore(ObjectStore):
    """The local stack's S3 server with its Prometheus counters switched on."""

    _metrics_port = 0

    def launch(self) -> None:
        """Start the server, without waiting for it."""
        self._metrics_port = free_port()
        super().launch()

    def _flags(self) -> list[str]:
        return [*super()._flags(), f"-metricsPort={self._metrics_port}", f"-metricsIp={LOOPBACK}"]

    def requests(self) -> int:
        """How many requests it has answered so far, failed ones included."""
        return round(sum(map(float, _S3_REQUESTS.findall(self._metrics()))))

    def sent_bytes(self, bucket: str) -> int:
        """How many bytes of a bucket's objects it has sent so far."""
        return round(float(dict(_SENT.findall(self._metrics())).get(bucket, 0)))

    def _metrics(self) -> str:
        with urlopen(f"http://{LOOPBACK}:{self._metrics_port}/metrics") as answer:
            return str(answer.read().decode())


@dataclass(frozen=True)
class Arena:
    """Broker and S3 server, up for all runs.

    :ivar directory: for logs.
    :ivar tile_root: whose files workers may read.
    """

    broker: Broker
    store: CountingStore
    directory: Path
    tile_root: Path

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of every client and worker, but for its endpoint: nothing of ours leads elsewhere."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {
            **ours,
            "PYTHONUNBUFFERED": "1",
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.broker.url,
            **self.store.env,
            "AWS_ALLOW_HTTP": "true",  # obstore refuses plain HTTP otherwise
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": LOOPBACK,
            "no_proxy": LOOPBACK,
            "ARTIFACT_BUCKET": INPUT_BUCKET,
            "ASYNC_SM_OUTPUT_BUCKET": OUTPUT_BUCKET,
            "ASYNC_SM_TILE_ROOTS": str(self.tile_root),
        }

    def objects(self) -> int:
        """How many objects are in the buckets of jobs."""
        return sum(1 for bucket in self._buckets() for _ in bucket.objects.all())

    def empty(self) -> None:
        """Remove every object of jobs and everything in the broker."""
        for bucket in self._buckets():
            bucket.objects.delete()
        with redis.Redis.from_url(self.broker.url) as broker:
            broker.flushall()

    def add_image(self, path: Path) -> str:
        """Copy an image to S3; says its URI."""
        self._s3().Bucket(IMAGE_BUCKET).upload_file(str(path), path.name)
        return f"s3://{IMAGE_BUCKET}/{path.name}"

    def _buckets(self) -> list[Any]:
        s3 = self._s3()
        return [s3.Bucket(name) for name in (INPUT_BUCKET, OUTPUT_BUCKET)]

    def _s3(self) -> Any:
        return boto3.resource(
            "s3",
            endpoint_url=self.store.endpoint_url,
            aws_access_key_id=self.store.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.store.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.store.env["AWS_REGION"],
        )


@dataclass(frozen=True)
class Stage:
    """The arena with endpoints of one kind.

    :ivar endpoint: the server of all of them.
    :ivar way: that of the requests which are counted, or held back, before they come to a server.
    """

    arena: Arena
    endpoint: EndpointServer
    way: DelayedWay

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of every client and worker."""
        names = {
            "s3": "AWS_ENDPOINT_URL_S3",
            "runtime": "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
            "control": "AWS_ENDPOINT_URL_SAGEMAKER",
        }
        direct = {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.endpoint.url}
        return self.arena.env | direct | {names[name]: url for name, url in self.way.urls.items() if name in names}

    def stats(self, endpoint: str) -> dict[str, Any]:
        """The counts of one endpoint since its start."""
        with urlopen(f"{self.endpoint.url}/stats") as answer:
            return dict(json.load(answer)[endpoint])

    def control_requests(self) -> int:
        """Questions to SageMaker's control plane so far."""
        return self.way.requests()["control"]

    def server_cpu_seconds(self) -> dict[str, float]:
        """CPU seconds so far of endpoint, S3 server and broker, by their names."""
        servers: tuple[LocalServer, ...] = (self.endpoint, self.arena.store, self.arena.broker)
        return {server.name: cpu_seconds([server.pid]) for server in servers if server.pid is not None}


@contextmanager
def open_arena(directory: Path, tile_root: Path) -> Iterator[Arena]:
    """Bring broker and S3 server up.

    :param directory: for their files and logs; empty.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(directory / "broker"))
        store = CountingStore(directory / "object-store", (INPUT_BUCKET, OUTPUT_BUCKET, IMAGE_BUCKET), disposable=True)
        stack.enter_context(store)
        yield Arena(broker, store, directory, tile_root)


@contextmanager
def open_stage(
    arena: Arena,
    endpoints: Sequence[str],
    *,
    slots: int,
    latency: float,
    delay: float = 0.0,
    model: str = TWENTY_FEATURES,
) -> Iterator[Stage]:
    """Serve endpoints, all alike, and one for warm-ups.

    :param endpoints: one for each run, so that each has counts of its own.
    :param slots: of each, one invocation at a time each.
    :param latency: of the model, s.
    :param delay: what each AWS request of clients and workers is held back for, s; the endpoint's own are not.
    :param model: ``module:function``.
    """
    options = StackOptions(
        endpoint_name=WARM_UP,
        model=model,
        instances=slots,
        latency=latency,
        concurrency=1,
        endpoint_arguments=tuple(f"--name={name}" for name in endpoints),
        input_bucket=INPUT_BUCKET,
        output_bucket=OUTPUT_BUCKET,
    )
    with EndpointServer(options, _s3_of(arena.env), arena.directory / "endpoint") as endpoint:
        everything = {"s3": arena.store.endpoint_url, "runtime": endpoint.url} if delay else {}
        with DelayedWay({"control": endpoint.url, **everything}, delay, arena.directory / "way") as way:
            yield Stage(arena, endpoint, way)


def _s3_of(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(("AWS_", "NO_PROXY", "no_proxy"))}
