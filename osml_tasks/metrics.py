"""Timings, sizes and counts: added up in memory, and written as CloudWatch embedded metrics."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol, TextIO, TypedDict

logger = logging.getLogger(__name__)

OPERATION = "AsyncInference"
"""The dimension ``Operation`` of what workers and detectors measure."""

# As aws_embedded_metrics.unit.Unit spells them; importing that takes 0.2 s and 11 MB.
_SECONDS, _BYTES, _COUNT, _NONE = "Seconds", "Bytes", "Count", "None"


class Metric(StrEnum):
    """What is measured. Units stand in :data:`UNITS`."""

    TOTAL_ASYNC_DURATION = "TotalAsyncDuration"
    """From the first step of a task or call to its last."""
    S3_UPLOAD_DURATION = "S3UploadDuration"
    S3_UPLOAD_SIZE = "S3UploadSize"
    S3_UPLOAD_COUNT = "S3UploadCount"
    S3_DOWNLOAD_DURATION = "S3DownloadDuration"
    S3_DOWNLOAD_SIZE = "S3DownloadSize"
    S3_DOWNLOAD_COUNT = "S3DownloadCount"
    INVOCATION_DURATION = "InvocationDuration"
    """Time that the ``InvokeEndpointAsync`` calls took, not the model."""
    INVOCATION_COUNT = "InvocationCount"
    """Invocations that the endpoint accepted."""
    INLINE_COUNT = "InlineCount"
    """Invocations that carried their payload."""
    RETRY_COUNT = "RetryCount"
    THROTTLED_COUNT = "ThrottledCount"
    QUEUE_TIME = "QueueTime"
    """From an accepted invocation until its output object was last modified."""
    POLLING_DURATION = "PollingDuration"
    POLLING_ATTEMPTS = "PollingAttempts"
    TILES_SUCCEEDED = "TilesSucceeded"
    TILES_FAILED = "TilesFailed"
    TIMEOUT_COUNT = "TimeoutCount"
    FEATURE_COUNT = "FeatureCount"
    CLEANUP_COUNT = "CleanupCount"
    """Objects that were deleted."""
    CLEANUP_ERRORS = "CleanupErrors"


UNITS: Mapping[str, str] = {
    **dict.fromkeys(Metric, _COUNT),
    Metric.TOTAL_ASYNC_DURATION: _SECONDS,
    Metric.S3_UPLOAD_DURATION: _SECONDS,
    Metric.S3_DOWNLOAD_DURATION: _SECONDS,
    Metric.INVOCATION_DURATION: _SECONDS,
    Metric.POLLING_DURATION: _SECONDS,
    Metric.QUEUE_TIME: _SECONDS,
    Metric.S3_UPLOAD_SIZE: _BYTES,
    Metric.S3_DOWNLOAD_SIZE: _BYTES,
}
"""The CloudWatch unit of each metric."""


class MetricsSink(Protocol):
    """What takes a metric: an :class:`AsyncMetricsTracker`, or ``aws_embedded_metrics.MetricsLogger``."""

    def put_metric(self, name: str, value: float, /, unit: str = ...) -> object:
        """Take one value."""


class Summary(TypedDict):
    """What was put under one name."""

    count: int
    total: float
    min: float
    max: float
    mean: float
    unit: str


@dataclass(slots=True)
class _Aggregate:
    """All that is kept of the values of one name, however many they are."""

    count: int
    total: float
    min: float
    max: float
    unit: str

    def add(self, value: float, unit: str) -> None:
        self.count += 1
        self.total += value
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        if self.unit == _NONE:
            self.unit = unit

    def summary(self) -> Summary:
        mean = self.total / self.count
        return Summary(count=self.count, total=self.total, min=self.min, max=self.max, mean=mean, unit=self.unit)


class AsyncMetricsTracker:
    """Adds up what is put under each name; threads may share one.

    :param clock: says the time in seconds and never goes back. Default ``time.monotonic``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._aggregates: dict[str, _Aggregate] = {}

    def put_metric(self, name: str, value: float, unit: str = _NONE) -> None:
        """Add a value to a name, a :class:`Metric` or any other.

        :param unit: a CloudWatch unit. Default: that of :data:`UNITS`, if it has one.
        :raises ValueError: if the value is infinite or not a number, which would spoil the sum for good.
        """
        if not math.isfinite(value):
            raise ValueError(f"metric {name} is {value}: put a finite number")
        name = str(name)
        unit = UNITS.get(name, _NONE) if unit == _NONE else unit
        with self._lock:
            if aggregate := self._aggregates.get(name):
                aggregate.add(value, unit)
            else:
                self._aggregates[name] = _Aggregate(1, value, value, value, unit)

    def count(self, name: str, n: int = 1) -> None:
        """Add ``n`` to a name."""
        self.put_metric(name, n, UNITS.get(name, _COUNT))

    def timer(self, name: str) -> AbstractContextManager[None]:
        """Add the seconds that the block takes, even if it raises."""
        return timing(self, name)

    def get_metric(self, name: str) -> float | int:
        """The sum of all that was put under a name, durations, sizes and counts alike; 0 if nothing was."""
        with self._lock:
            aggregate = self._aggregates.get(name)
            return aggregate.total if aggregate else 0

    def summary(self) -> dict[str, Summary]:
        """Count, total, min, max, mean and unit for each name, in the order of their first values."""
        with self._lock:
            return {name: aggregate.summary() for name, aggregate in self._aggregates.items()}

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._aggregates.clear()


@contextmanager
def timing(metrics: MetricsSink | None, name: str) -> Iterator[None]:
    """Put the seconds that the block takes, even if it raises; with None for ``metrics``, just run it."""
    clock = metrics.clock if isinstance(metrics, AsyncMetricsTracker) else time.monotonic
    start = clock()
    try:
        yield
    finally:
        if metrics is not None:
            metrics.put_metric(name, clock() - start, _SECONDS)


def put(metrics: MetricsSink | None, name: str, value: float = 1) -> None:
    """Put one value of a :class:`Metric`, in its unit; with None for ``metrics``, nothing."""
    if metrics is not None:
        metrics.put_metric(name, value, UNITS.get(name, _NONE))


def emit(
    tracker: AsyncMetricsTracker,
    *,
    namespace: str,
    operation: str,
    model_name: str,
    properties: Mapping[str, str] = {},
    stream: TextIO | None = None,
) -> None:
    """Write what a tracker holds as one line of CloudWatch's embedded metric format; nothing if it is empty.

    Each name's value is its total. Of durations that were put more than once, count, min, max and mean
    stand in the property ``Statistics``: CloudWatch makes no metrics of them, Logs Insights finds them.
    A line that cannot be written is a warning, once, and no error: metrics never stop the work.

    :param operation: the dimension ``Operation``.
    :param model_name: the dimension ``ModelName``.
    :param properties: what else the line says, such as ``JobId``; no dimensions.
    :param stream: where to write. Default: to an agent, where ``AWS_EMF_ENVIRONMENT`` has one by what
        aws-embedded-metrics makes of it; else to the process's own standard output, if it has one.
    """
    summary = tracker.summary()
    if not summary:
        return
    try:
        _write(summary, namespace, {"Operation": operation, "ModelName": model_name}, dict(properties), stream)
    except Exception as error:
        _warn(f"{type(error).__name__}: {error}")


def _write(
    summary: dict[str, Summary],
    namespace: str,
    dimensions: dict[str, str],
    properties: dict[str, Any],
    stream: TextIO | None,
) -> None:
    # Here, because this brings aiohttp with it.
    from aws_embedded_metrics.config import get_config
    from aws_embedded_metrics.environment.environment_detector import resolve_environment, resolve_environment_sync
    from aws_embedded_metrics.logger.metrics_context import MetricsContext
    from aws_embedded_metrics.logger.metrics_logger import MetricsLogger
    from aws_embedded_metrics.serializers.log_serializer import LogSerializer
    from aws_embedded_metrics.sinks.stdout_sink import StdoutSink

    if statistics := _statistics(summary):
        properties["Statistics"] = statistics
    context = MetricsContext(namespace, properties)
    context.set_dimensions([dimensions])
    for name, values in summary.items():
        context.put_metric(name, values["total"], values["unit"])

    if stream is None and get_config().environment:
        environment = resolve_environment_sync()
        if not isinstance(environment.get_sink(), StdoutSink):
            MetricsLogger(resolve_environment, context).flush_sync()
            return
        environment.configure_context(context)
    # Not the sink's sys.stdout: Celery puts its log in place of that, and a prefix on each line of it.
    if (stream := stream or sys.__stdout__) is not None:
        # In one call, so that lines of several processes do not mix; more than one line from 101 names on.
        stream.write("".join(f"{line}\n" for line in LogSerializer.serialize(context)))
        stream.flush()


def _statistics(summary: dict[str, Summary]) -> dict[str, dict[str, float]]:
    """What a sum does not tell about durations, to the microsecond."""
    return {
        name: {"count": values["count"]} | {key: round(values[key], 6) for key in ("min", "max", "mean")}
        for name, values in summary.items()
        if values["unit"] == _SECONDS and values["count"] > 1
    }


@lru_cache(maxsize=16)
def _warn(error: str) -> None:
    """Say it once a process: the next shards would only repeat it."""
    logger.warning("metrics are not written (%s): turn them off with ASYNC_SM_METRICS_ENABLED=false", error)
