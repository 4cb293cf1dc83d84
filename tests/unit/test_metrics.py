"""What is measured adds up, and one line of it is what CloudWatch reads."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aws_embedded_metrics.environment.environment_detector import resolve_environment
from aws_embedded_metrics.logger.metrics_logger import MetricsLogger
from aws_embedded_metrics.unit import Unit
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks import metrics
from osml_tasks.metrics import UNITS, AsyncMetricsTracker, Metric, MetricsSink, emit, timing
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
SPEC = {"S3UploadDuration", "S3DownloadDuration", "TotalAsyncDuration", "QueueTime", "PollingAttempts"}
EMIT = """
from osml_tasks.metrics import AsyncMetricsTracker, Metric, emit
tracker = AsyncMetricsTracker()
tracker.count(Metric.TILES_SUCCEEDED, 50)
emit(tracker, namespace="OSML/Tasks", operation="poll", model_name="ships", properties={"JobId": "j"})
"""


NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_warning_was_given_yet() -> None:
    metrics._warn.cache_clear()


def written(tracker: AsyncMetricsTracker, **options: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    emit(tracker, **{"namespace": "OSML/Tasks", "operation": "poll", "model_name": "ships"} | options, stream=stream)
    assert not stream.getvalue() or stream.getvalue().endswith("\n")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def run(program: str, **environment: str) -> str:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("AWS_EMF_")}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env=plain | environment, timeout=PATIENCE
    ).stdout


def test_every_metric_has_a_unit_that_cloudwatch_knows() -> None:
    assert set(Metric) >= SPEC
    assert set(UNITS) == set(Metric)
    assert set(UNITS.values()) <= {unit.value for unit in Unit}
    for metric in Metric:
        kind = metric.removesuffix("Duration").removesuffix("Time")
        assert UNITS[metric] == ("Seconds" if kind != metric else "Bytes" if metric.endswith("Size") else "Count")


@given(st.lists(st.integers(-(10**12), 10**12) | st.floats(-1e12, 1e12), min_size=1))
def test_a_summary_says_what_was_put(values: list[float]) -> None:
    tracker = AsyncMetricsTracker()
    for value in values:
        tracker.put_metric("Anything", value, "Bytes")
    summary = tracker.summary()["Anything"]
    assert (summary["count"], summary["min"], summary["max"]) == (len(values), min(values), max(values))
    assert summary["total"] == tracker.get_metric("Anything") == pytest.approx(sum(values), abs=1e-3)
    assert summary["mean"] == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert summary["unit"] == "Bytes"


def test_a_name_that_was_never_put_is_0() -> None:
    assert AsyncMetricsTracker().get_metric("QueueTime") == 0


def test_a_metric_and_its_name_are_the_same() -> None:
    tracker = AsyncMetricsTracker()
    tracker.put_metric(Metric.S3_UPLOAD_SIZE, 7)
    tracker.put_metric("S3UploadSize", 5)
    assert tracker.get_metric("S3UploadSize") == tracker.get_metric(Metric.S3_UPLOAD_SIZE) == 12
    assert tracker.summary()["S3UploadSize"]["unit"] == "Bytes"


def test_the_first_unit_of_a_name_stays() -> None:
    tracker = AsyncMetricsTracker()
    for unit in ("None", "Bytes", "Count"):
        tracker.put_metric("Mine", 1, unit)
    assert tracker.summary()["Mine"]["unit"] == "Bytes"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_would_spoil_a_sum_is_refused(value: float) -> None:
    tracker = AsyncMetricsTracker()
    with pytest.raises(ValueError, match="QueueTime"):
        tracker.put_metric(Metric.QUEUE_TIME, value)
    assert tracker.summary() == {}


def test_reset_forgets_everything() -> None:
    tracker = AsyncMetricsTracker()
    tracker.count(Metric.RETRY_COUNT, 3)
    tracker.reset()
    assert (tracker.get_metric(Metric.RETRY_COUNT), tracker.summary()) == (0, {})


def test_threads_lose_nothing() -> None:
    tracker = AsyncMetricsTracker()

    def work(_: int) -> None:
        for _ in range(2000):
            tracker.count("A")
            with tracker.timer("B"):
                tracker.count("A", 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    summary = tracker.summary()
    assert (summary["A"]["count"], summary["A"]["total"], summary["B"]["count"]) == (32_000, 48_000, 16_000)


def test_a_timer_counts_a_block_that_raises() -> None:
    clock = Clock()
    tracker = AsyncMetricsTracker(clock)
    with pytest.raises(KeyError), tracker.timer(Metric.INVOCATION_DURATION):
        clock.now += 2.5
        raise KeyError
    with timing(tracker, Metric.INVOCATION_DURATION):
        clock.now += 1
    assert tracker.summary()["InvocationDuration"] == {
        "count": 2,
        "total": 3.5,
        "min": 1,
        "max": 2.5,
        "mean": 1.75,
        "unit": "Seconds",
    }


def test_timing_works_without_metrics() -> None:
    ran = []
    with timing(None, Metric.QUEUE_TIME):
        ran.append(1)
    assert ran


def test_a_metrics_logger_of_the_library_is_a_sink() -> None:
    sink = MetricsLogger(resolve_environment)
    accepted: MetricsSink = sink
    with timing(accepted, Metric.S3_UPLOAD_DURATION):
        pass
    accepted.put_metric(Metric.S3_UPLOAD_SIZE, 5, unit="Bytes")
    assert {name: metric.unit for name, metric in sink.context.metrics.items()} == {
        "S3UploadDuration": "Seconds",
        "S3UploadSize": "Bytes",
    }


def test_a_line_is_in_the_embedded_metric_format() -> None:
    tracker = AsyncMetricsTracker()
    tracker.put_metric(Metric.QUEUE_TIME, 1.5)
    tracker.put_metric(Metric.QUEUE_TIME, 4.5)
    tracker.put_metric(Metric.TOTAL_ASYNC_DURATION, 9.0)
    tracker.put_metric(Metric.S3_DOWNLOAD_SIZE, 1024)
    tracker.count(Metric.TILES_SUCCEEDED, 2)
    (line,) = written(tracker, properties={"JobId": "j-1", "Shard": "3"})
    aws = line.pop("_aws")
    assert isinstance(aws["Timestamp"], int)
    assert aws["CloudWatchMetrics"] == [
        {
            "Namespace": "OSML/Tasks",
            "Dimensions": [["Operation", "ModelName"]],
            "Metrics": [
                {"Name": "QueueTime", "Unit": "Seconds"},
                {"Name": "TotalAsyncDuration", "Unit": "Seconds"},
                {"Name": "S3DownloadSize", "Unit": "Bytes"},
                {"Name": "TilesSucceeded", "Unit": "Count"},
            ],
        }
    ]
    assert line == {
        "Operation": "poll",
        "ModelName": "ships",
        "JobId": "j-1",
        "Shard": "3",
        "QueueTime": 6.0,
        "TotalAsyncDuration": 9.0,
        "S3DownloadSize": 1024,
        "TilesSucceeded": 2,
        "Statistics": {"QueueTime": {"count": 2, "min": 1.5, "max": 4.5, "mean": 3.0}},
    }


def test_a_hundred_names_with_many_values_are_one_line() -> None:
    tracker = AsyncMetricsTracker()
    for value in range(300):
        for name in range(100):
            tracker.put_metric(f"M{name}", value)
    (line,) = written(tracker)
    assert len(line["_aws"]["CloudWatchMetrics"][0]["Metrics"]) == 100
    assert line["M99"] == sum(range(300))


def test_a_line_with_every_metric_is_short_enough_for_a_pipe_to_keep_together() -> None:
    tracker = AsyncMetricsTracker()
    for metric, unit in UNITS.items():
        for _ in range(1000):
            tracker.put_metric(metric, 1234.5678901 if unit == "Seconds" else 9_999_999)
    stream = io.StringIO()
    emit(
        tracker,
        namespace="OSML/Tasks",
        operation="assemble",
        model_name="m" * 63,
        properties={"JobId": "j" * 40, "Shard": "00001"},
        stream=stream,
    )
    assert len(stream.getvalue()) <= 4096  # PIPE_BUF on Linux


def test_a_line_is_one_write_and_then_a_flush() -> None:
    calls: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            calls.append(text[-1])
            return len(text)

        def flush(self) -> None:
            calls.append("flush")

    tracker = AsyncMetricsTracker()
    tracker.count("A")
    emit(tracker, namespace="N", operation="o", model_name="m", stream=Stream())
    assert calls == ["\n", "flush"]


def test_an_empty_tracker_writes_nothing() -> None:
    assert written(AsyncMetricsTracker()) == []


def test_what_cannot_be_written_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    tracker = AsyncMetricsTracker()
    tracker.count("A")
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w")
    closed = io.StringIO()
    closed.close()
    with caplog.at_level(logging.WARNING, "osml_tasks.metrics"):
        for _ in range(3):
            emit(tracker, namespace="N", operation="o", model_name="m", stream=broken)
            emit(tracker, namespace="N", operation="o", model_name="m", stream=closed)
    with pytest.raises(BrokenPipeError):
        broken.close()
    first, second = caplog.messages
    assert "BrokenPipeError" in first
    assert "closed file" in second
    assert "ASYNC_SM_METRICS_ENABLED" in first


def test_a_name_that_cloudwatch_refuses_does_not_stop_the_work(caplog: pytest.LogCaptureFixture) -> None:
    tracker = AsyncMetricsTracker()
    tracker.put_metric("Length", 1, "Furlongs")
    assert written(tracker) == []
    assert "Furlongs" in caplog.text


def test_without_a_standard_output_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    tracker = AsyncMetricsTracker()
    tracker.count("A")
    emit(tracker, namespace="N", operation="o", model_name="m")
    assert caplog.messages == []


@pytest.mark.parametrize("environment", ["", "Local", "local", "Lambda"])
def test_a_line_passes_by_a_replaced_stdout_and_goes_to_no_network(environment: str) -> None:
    program = f"""
import io, sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event in {NETWORK} else None)
sys.stdout = io.StringIO()
{EMIT}
print(sys.stdout.getvalue(), opened, file=sys.__stdout__)
"""
    line, rest = run(program, AWS_EMF_ENVIRONMENT=environment, AWS_LAMBDA_FUNCTION_VERSION="7").splitlines()
    assert json.loads(line)["TilesSucceeded"] == 50
    assert json.loads(line).get("functionVersion") == ("7" if environment == "Lambda" else None)
    assert rest == " []"


def test_the_library_says_where_to_if_its_variable_is_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as agent:
        agent.settimeout(PATIENCE)
        endpoint = f"tcp://127.0.0.1:{agent.getsockname()[1]}"
        assert run(EMIT, AWS_EMF_ENVIRONMENT="default", AWS_EMF_AGENT_ENDPOINT=endpoint) == ""
        connection, _ = agent.accept()
        with connection, connection.makefile() as lines:
            (line,) = [json.loads(text) for text in lines]
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Operation", "ModelName"]]
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "OSML/Tasks"
    assert (line["JobId"], line["TilesSucceeded"]) == ("j", 50)


def test_measuring_loads_nothing_heavy() -> None:
    program = "from osml_tasks.metrics import AsyncMetricsTracker as T; T().count('A')\nimport sys; print(*sys.modules)"
    assert not {"aws_embedded_metrics", "aiohttp", "pydantic", "celery"} & set(run(program).split())
