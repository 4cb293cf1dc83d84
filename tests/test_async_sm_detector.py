"""The detector on a real endpoint and a real S3, without a broker."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geojson
import pytest
from aws_embedded_metrics.logger.metrics_logger import MetricsLogger
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.detectors import AsyncSMDetector, _Stream
from osml_tasks.errors import (
    AsyncInferenceTimeoutError,
    EndpointUnusableError,
    ExtensionConfigurationError,
    ExtensionRuntimeError,
    ModelError,
    S3AccessError,
    ThrottledError,
    UnparsableOutputError,
)
from osml_tasks.metrics import AsyncMetricsTracker
from osml_tasks.s3 import S3OperationError, S3Uri
from tests.integration.fleet import INPUTS, Fleet, names, wait_until


def tile(name: str = "a", **script: Any) -> bytes:
    """A payload for the scripted model."""
    return json.dumps({"name": name} | script).encode()


def detector(endpoint: str = "scripted", **options: Any) -> AsyncSMDetector:
    return AsyncSMDetector(endpoint, AsyncEndpointConfig(**options))


@pytest.mark.usefixtures("brokerless")
@pytest.mark.parametrize("payload", [tile(features=2), io.BytesIO(tile(features=2))], ids=["bytes", "stream"])
def test_a_payload_gives_the_models_features_as_geojson(payload: Any) -> None:
    found = detector().find_features(payload)
    assert isinstance(found, geojson.FeatureCollection)
    assert names(found["features"]) == ["a", "a"]
    assert "inferenceMetadata" not in found["features"][0]["properties"]


@pytest.mark.parametrize("streamed", [False, True], ids=["bytes", "stream"])
def test_a_large_payload_goes_through_s3_and_a_small_one_does_not(brokerless: Fleet, streamed: bool) -> None:
    before = brokerless.stats("scripted")
    with detector() as one:
        for payload in (tile("small"), tile("large", padding="x" * 9_000_000)):
            found = one.find_features(io.BytesIO(payload) if streamed else payload)
            assert len(found["features"]) == 1
    after = brokerless.stats("scripted")
    assert [after[count] - before[count] for count in ("inline", "s3_input")] == [1, 1]


def test_an_object_in_s3_is_neither_copied_nor_deleted(brokerless: Fleet) -> None:
    brokerless.s3.put_object(Bucket=INPUTS, Key="mine/tile", Body=tile("mine"))
    assert names(detector().find_features(S3Uri(INPUTS, "mine/tile"))["features"]) == ["mine"]
    assert brokerless.objects() == [f"{INPUTS}/mine/tile"]
    brokerless.s3.delete_object(Bucket=INPUTS, Key="mine/tile")


@pytest.mark.usefixtures("brokerless")
def test_an_output_above_the_limit_is_not_read() -> None:
    metrics = AsyncMetricsTracker()
    with pytest.raises(UnparsableOutputError, match=r"bytes, more than the 1,000 that are read: .* raise ASYNC_SM_MAX"):
        detector(max_output_bytes=1000).find_features(tile(features=20), metrics)
    assert "S3DownloadCount" not in metrics.summary()
    assert len(detector(max_output_bytes=1000).find_features(tile(features=1))["features"]) == 1


@pytest.mark.usefixtures("brokerless")
def test_an_endpoint_that_takes_nothing_inline_is_asked_once() -> None:
    one = detector("refuses-inline")
    for name in ("a", "b"):
        metrics = AsyncMetricsTracker()
        assert names(one.find_features(tile(name), metrics)["features"]) == [name]
        assert metrics.get_metric("S3UploadCount") == 1


@pytest.mark.usefixtures("brokerless")
def test_an_endpoint_that_ignores_path_extensions_serves_as_well() -> None:
    assert names(detector("old-region").find_features(tile("a"))["features"]) == ["a"]


@pytest.mark.usefixtures("brokerless")
def test_a_failed_attempt_is_repeated() -> None:
    metrics = AsyncMetricsTracker()
    assert names(detector().find_features(tile("detector-wobbly", fail_first=2), metrics)["features"]) == [
        "detector-wobbly"
    ]
    assert metrics.get_metric("RetryCount") == 2


@pytest.mark.usefixtures("brokerless")
def test_a_model_that_keeps_failing_is_an_error_with_its_message() -> None:
    with pytest.raises(ModelError, match="call 2 of detector-hopeless is to fail") as caught:
        detector(max_retries=1).find_features(tile("detector-hopeless", fail_first=99))
    error = caught.value
    assert isinstance(error, ExtensionRuntimeError)
    assert (error.endpoint, error.inference_id[-2:]) == ("scripted", ".2")
    assert error.uri.startswith("s3://fleet-out/failure/")
    assert error.elapsed > 0


def test_silence_is_a_timeout(brokerless: Fleet) -> None:
    with pytest.raises(AsyncInferenceTimeoutError, match="ASYNC_SM_MAX_WAIT_TIME") as caught:
        detector("silent", max_wait_time=1).find_features(tile())
    error = caught.value
    assert (error.endpoint, error.inference_id in brokerless.invocations("silent")) == ("silent", True)
    assert error.elapsed >= 1
    assert error.uri.startswith("s3://fleet-out/output/")


def test_an_output_that_comes_too_late_is_deleted_in_the_end(brokerless: Fleet, tmp_path: Path) -> None:
    one, gate = detector("one-at-a-time", max_wait_time=0.3), tmp_path / "gate"
    with pytest.raises(AsyncInferenceTimeoutError):
        one.find_features(tile("late", after=str(gate)))
    gate.touch()
    wait_until(lambda: len(brokerless.objects()) == 1)
    assert one.get_resource_stats()["by_type"]["s3_object"] == 2
    assert one.cleanup_resources() == 0
    one.close()
    assert brokerless.objects() == []


@pytest.mark.usefixtures("brokerless")
def test_an_output_that_is_no_geojson_names_the_object() -> None:
    with pytest.raises(UnparsableOutputError, match=r"^s3://fleet-out/output/\S+: the output is not JSON") as caught:
        detector().find_features(tile(raw="no JSON"))
    assert caught.value.uri.startswith("s3://fleet-out/output/")


@pytest.mark.usefixtures("brokerless")
def test_an_endpoint_that_is_not_there_says_what_to_change() -> None:
    with pytest.raises(EndpointUnusableError, match="check the endpoint's name and region") as caught:
        detector("no-such-endpoint").find_features(tile())
    assert (caught.value.endpoint, bool(caught.value.inference_id)) == ("no-such-endpoint", True)


@pytest.fixture
def emptied(brokerless: Fleet) -> Iterator[Fleet]:
    """A test that has an endpoint write where nobody may delete."""
    yield brokerless
    wait_until(lambda: bool(brokerless.objects()))
    for found in brokerless.objects():
        bucket, _, key = found.partition("/")
        brokerless.s3.delete_object(Bucket=bucket, Key=key)


@pytest.mark.usefixtures("emptied")
def test_an_endpoint_that_writes_elsewhere_says_what_to_change() -> None:
    one = detector("elsewhere")
    with pytest.raises(EndpointUnusableError, match="set ASYNC_SM_OUTPUT_BUCKET=fleet-elsewhere"):
        one.find_features(tile())
    assert one.get_resource_stats()["total_resources"] == 0


def test_what_the_endpoint_throttles_is_repeated_until_the_retries_are_used_up(brokerless: Fleet) -> None:
    before = brokerless.stats("throttled")["throttled"]
    metrics = AsyncMetricsTracker()
    assert names(detector("throttled", max_retries=30).find_features(tile("t"), metrics)["features"]) == ["t"]
    assert brokerless.stats("throttled")["throttled"] >= before
    with pytest.raises(ThrottledError, match="throttled"):
        for _ in range(50):
            detector("throttled", max_retries=0).find_features(tile("t"))


def test_failure_objects_may_lie_beside_the_prefix_of_the_outputs(brokerless: Fleet) -> None:
    one = detector(output_prefix="output", max_retries=0)
    assert names(one.find_features(tile("a"))["features"]) == ["a"]
    with pytest.raises(ModelError):
        one.find_features(tile("detector-beside", fail_first=9))
    assert (one.get_resource_stats()["total_resources"], brokerless.objects()) == (0, [])


@pytest.mark.usefixtures("brokerless")
@pytest.mark.parametrize("streamed", [False, True], ids=["bytes", "stream"])
def test_an_upload_that_s3_refuses_is_an_s3_error(monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    one = detector(inline_payload_max_bytes=0)
    with pytest.raises(S3AccessError, match="was denied: SignatureDoesNotMatch") as caught:
        one.find_features(io.BytesIO(tile()) if streamed else tile())
    assert (caught.value.bucket, caught.value.key.startswith("async-inference/input/")) == (INPUTS, True)


@pytest.mark.usefixtures("brokerless")
def test_a_stream_that_was_read_before_is_read_again() -> None:
    stream = io.BytesIO(tile("again"))
    for _ in range(2):
        assert names(detector().find_features(stream)["features"]) == ["again"]


@pytest.mark.usefixtures("brokerless")
def test_a_bucket_that_is_not_there_is_an_s3_error_with_bucket_and_key() -> None:
    one = detector(input_bucket="no-such-bucket", inline_payload_max_bytes=0)
    one.s3.validate_bucket(INPUTS)
    with pytest.raises(S3OperationError, match="there is no bucket 'no-such-bucket'") as caught:
        one.s3.validate_bucket("no-such-bucket")
    assert (caught.value.bucket, caught.value.key) == ("no-such-bucket", "")


@pytest.mark.usefixtures("brokerless")
def test_threads_share_a_detector() -> None:
    wanted = [f"t{number:02d}" for number in range(24)]
    with detector() as one, ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda name: names(one.find_features(tile(name))["features"]), wanted))
        stats = one.get_resource_stats()
    assert found == [[name] for name in wanted]
    assert one.request_count == 24
    assert (stats["total_resources"], stats["outcomes"]["invocation"]["cleaned"]) == (0, 24)


def test_delayed_cleanup_waits_and_disabled_cleanup_waits_for_force(brokerless: Fleet) -> None:
    for options in ({"cleanup_policy": "delayed"}, {"cleanup_policy": "disabled"}, {"cleanup_enabled": False}):
        one = detector(inline_payload_max_bytes=0, **options)
        one.find_features(tile())
        assert len(brokerless.objects()) == 2
        assert one.cleanup_resources() == 0
        assert one.get_resource_stats()["by_type"]["s3_object"] == 2
        assert one.cleanup_resources(force=True) == 2
        assert (one.get_resource_stats()["total_resources"], brokerless.objects()) == (0, [])


def test_the_end_of_a_with_block_cleans_up_unless_that_is_disabled(brokerless: Fleet) -> None:
    with detector(cleanup_policy="delayed") as one:
        one.find_features(tile())
        assert len(brokerless.objects()) == 1
    assert brokerless.objects() == []
    with detector(cleanup_policy="disabled") as one:
        one.find_features(tile())
    assert len(brokerless.objects()) == 1
    one.cleanup_resources(force=True)


@pytest.mark.usefixtures("brokerless")
def test_a_tracker_gets_the_metrics_of_the_spec() -> None:
    metrics = AsyncMetricsTracker()
    detector(inline_payload_max_bytes=0).find_features(tile(features=3), metrics)
    durations = ("S3UploadDuration", "S3DownloadDuration", "TotalAsyncDuration", "PollingDuration")
    assert all(metrics.get_metric(name) > 0 for name in durations)
    assert metrics.get_metric("QueueTime") >= 0
    assert metrics.get_metric("S3UploadSize") == len(tile(features=3))
    assert (metrics.get_metric("FeatureCount"), metrics.get_metric("InvocationCount")) == (3, 1)
    assert metrics.get_metric("PollingAttempts") >= 1
    assert metrics.get_metric("TotalAsyncDuration") >= metrics.get_metric("PollingDuration")
    assert metrics.get_metric("CleanupCount") == 2


@pytest.mark.usefixtures("brokerless")
def test_cloudwatchs_logger_gets_them_with_operation_and_model_name() -> None:
    async def nowhere() -> Any:
        raise AssertionError("nobody flushes")

    logger = MetricsLogger(nowhere)
    detector().find_features(tile(), metrics=logger)
    assert logger.context.get_dimensions() == [{"Operation": "AsyncInference", "ModelName": "scripted"}]
    assert {"TotalAsyncDuration", "QueueTime", "PollingAttempts"} <= logger.context.metrics.keys()


@pytest.mark.usefixtures("brokerless")
def test_it_has_what_the_model_runner_asks_a_detector_for() -> None:
    one = AsyncSMDetector("scripted", endpoint_parameters={"CustomAttributes": "v=1", "ContentType": "image/png"})
    assert (one.endpoint, one.mode, one.request_count) == ("scripted", "SM_ENDPOINT_ASYNC", 0)
    assert one.find_features(payload=io.BytesIO(tile()), metrics=None)["type"] == "FeatureCollection"
    assert one.request_count == 1


@pytest.mark.usefixtures("brokerless")
def test_what_is_no_payload_is_refused_in_one_line_before_anything_is_sent() -> None:
    one = detector()
    wrong = {"open it in binary mode": io.StringIO("text"), "the payload is str": "text", "the payload is int": 7}
    for expected, payload in wrong.items():
        with pytest.raises(ExtensionConfigurationError, match=expected):
            one.find_features(payload)  # type: ignore[arg-type]
    with pytest.raises(ExtensionConfigurationError, match="Colour: an asynchronous endpoint takes Accept"):
        AsyncSMDetector("scripted", endpoint_parameters={"Colour": "red"})


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_stream_is_read_whole_whatever_was_read_ahead(content: bytes, ahead: int) -> None:
    source = io.BytesIO(content)
    for stream in (_Stream(source), _Stream(Dribbling(content)), _Stream(source)):  # type: ignore[arg-type]
        assert stream.look_ahead(ahead) == content[:ahead]
        assert b"".join(iter(lambda stream=stream: stream.read(7), b"")) == content


class Dribbling(io.RawIOBase):
    """A pipe: it gives three bytes at a time, whatever it is asked for."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, 3))
