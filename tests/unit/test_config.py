"""Every option, from keywords and from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy, Encryption, LogFormat
from osml_tasks.errors import ExtensionConfigurationError

BUCKETS = {"input_bucket": "tiles-in", "output_bucket": "tiles-out"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("ASYNC_SM_", "ARTIFACT_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("ARTIFACT_BUCKET", "bucket-a", "input_bucket", "bucket-a"),
        ("ASYNC_SM_INPUT_BUCKET", "bucket-b", "input_bucket", "bucket-b"),
        ("ASYNC_SM_OUTPUT_BUCKET", "bucket-c", "output_bucket", "bucket-c"),
        ("ASYNC_SM_INPUT_PREFIX", "/some//where", "input_prefix", "some/where/"),
        ("ASYNC_SM_OUTPUT_PREFIX", "out/", "output_prefix", "out/"),
        ("ASYNC_SM_FAILURE_BUCKET", "bucket-d", "failure_bucket", "bucket-d"),
        ("ASYNC_SM_EXPECTED_BUCKET_OWNER", "012345678901", "expected_bucket_owner", "012345678901"),
        ("ASYNC_SM_EXPECTED_OUTPUT_BUCKET_OWNER", "9" * 12, "expected_output_bucket_owner", "9" * 12),
        ("ASYNC_SM_S3_SSE", "aws:kms", "s3_sse", Encryption.KMS),
        ("ASYNC_SM_MAX_WAIT_TIME", "60", "max_wait_time", 60),
        ("ASYNC_SM_POLLING_INTERVAL", "0.5", "polling_interval", 0.5),
        ("ASYNC_SM_MAX_POLLING_INTERVAL", "120", "max_polling_interval", 120),
        ("ASYNC_SM_BACKOFF_MULTIPLIER", "2", "exponential_backoff_multiplier", 2),
        ("ASYNC_SM_MAX_RETRIES", "0", "max_retries", 0),
        ("ASYNC_SM_CLEANUP_ENABLED", "false", "cleanup_enabled", False),
        ("ASYNC_SM_CLEANUP_POLICY", "delayed", "cleanup_policy", CleanupPolicy.DELAYED),
        ("ASYNC_SM_CLEANUP_DELAY_SECONDS", "1", "cleanup_delay_seconds", 1),
        ("ASYNC_SM_WORKER_OPTIMIZATION", "0", "enable_worker_optimization", False),
        ("ASYNC_SM_SUBMISSION_WORKERS", "8", "submission_workers", 8),
        ("ASYNC_SM_POLLING_WORKERS", "3", "polling_workers", 3),
        ("ASYNC_SM_MAX_CONCURRENT_JOBS", "200", "max_concurrent_jobs", 200),
        ("ASYNC_SM_JOB_QUEUE_TIMEOUT", "9", "job_queue_timeout", 9),
        ("ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES", "0", "inline_payload_max_bytes", 0),
        ("ASYNC_SM_MAX_OUTPUT_BYTES", "1", "max_output_bytes", 1),
        ("ASYNC_SM_MAX_BLOCK_BYTES", "9", "max_block_bytes", 9),
        ("ASYNC_SM_MAX_IMAGE_MEMORY_BYTES", "536870912", "max_image_memory_bytes", 536_870_912),
        ("ASYNC_SM_MAX_CUT_SECONDS", "2.5", "max_cut_seconds", 2.5),
        ("ASYNC_SM_TILE_ROOTS", f"/a{os.pathsep}/b", "tile_roots", (Path("/a"), Path("/b"))),
        (
            "ASYNC_SM_ASSUME_ROLE_ARN",
            "arn:aws:iam::123456789012:role/r",
            "assume_role_arn",
            "arn:aws:iam::123456789012:role/r",
        ),
        ("ASYNC_SM_METRICS_ENABLED", "false", "metrics_enabled", False),
        ("ASYNC_SM_METRICS_NAMESPACE", "Fleet/A:1", "metrics_namespace", "Fleet/A:1"),
        ("ASYNC_SM_LOG_FORMAT", "json", "log_format", LogFormat.JSON),
    ],
)
def test_each_variable_sets_its_option_and_a_keyword_beats_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, option: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    others = {name: bucket for name, bucket in BUCKETS.items() if name != option}
    assert getattr(AsyncEndpointConfig(**others), option) == value
    plain = AsyncEndpointConfig(**BUCKETS | {option: value})
    assert getattr(plain, option) == value
    monkeypatch.setenv(variable, "!")
    assert AsyncEndpointConfig(**BUCKETS | {option: value}) == plain


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNC_SM_FAILURE_BUCKET", "")
    assert AsyncEndpointConfig(**BUCKETS).failure_bucket is None


def test_the_owner_of_the_input_bucket_owns_the_others_unless_theirs_is_said() -> None:
    buckets = BUCKETS | {"failure_bucket": "tiles-failed"}
    assert AsyncEndpointConfig(**buckets).bucket_owners == {}
    one = AsyncEndpointConfig(**buckets, expected_bucket_owner="1" * 12)
    assert one.bucket_owners == dict.fromkeys(buckets.values(), "1" * 12)
    two = AsyncEndpointConfig(**buckets, expected_bucket_owner="1" * 12, expected_output_bucket_owner="2" * 12)
    assert two.bucket_owners == {"tiles-in": "1" * 12, "tiles-out": "2" * 12, "tiles-failed": "2" * 12}
    outputs = AsyncEndpointConfig(**buckets, expected_output_bucket_owner="2" * 12)
    assert outputs.bucket_owners == {"tiles-out": "2" * 12, "tiles-failed": "2" * 12}
    shared = AsyncEndpointConfig(input_bucket="one", output_bucket="one", expected_output_bucket_owner="2" * 12)
    assert shared.bucket_owners == {"one": "2" * 12}


def test_missing_buckets_are_answered_in_a_line_each() -> None:
    with pytest.raises(ExtensionConfigurationError) as error:
        AsyncEndpointConfig()
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == ["input_bucket", "output_bucket"]
    assert "ARTIFACT_BUCKET" in lines[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": "many"},
        {"max_retries": -1},
        {"max_wait_time": 0},
        {"max_wait_time": float("nan")},
        {"polling_interval": float("inf")},
        {"inline_payload_max_bytes": 128_001},
        {"input_bucket": "Not A Bucket"},
        {"input_prefix": "a b"},
        {"cleanup_policy": "sometimes"},
        {"exponential_backoff_multiplier": 0.5},
        {"max_concurrent_jobs": 0},
        {"tile_roots": "relative/path"},
        {"assume_role_arn": "me"},
        {"external_id": "x"},
        {"polling_interval": 9, "max_polling_interval": 3},
        {"max_retrys": 3},
        {"metrics_namespace": "AWS/SageMaker"},
        {"metrics_namespace": ":a"},
        {"metrics_namespace": ""},
        {"metrics_namespace": "a" * 256},
        {"metrics_namespace": "a b\n"},
        {"log_format": "xml"},
        {"expected_bucket_owner": "1234"},
        {"expected_output_bucket_owner": "12345678901x"},
        {"s3_sse": "rot13"},
        {"s3_sse_kms_key_id": "alias/ours"},
        {"s3_sse_kms_key_id": "alias/ours", "s3_sse": "AES256"},
        {"s3_sse_kms_key_id": "two words", "s3_sse": "aws:kms"},
        {"output_bucket": "tiles-in", "expected_bucket_owner": "1" * 12, "expected_output_bucket_owner": "2" * 12},
    ],
)
def test_a_wrong_value_is_answered_in_one_line_that_names_it(wrong: dict[str, object]) -> None:
    with pytest.raises(ExtensionConfigurationError) as error:
        AsyncEndpointConfig(**BUCKETS | wrong)
    assert len(str(error.value).splitlines()) == 1
    assert all(option in str(error.value) for option in wrong)


def test_several_wrong_values_are_answered_in_a_line_each() -> None:
    with pytest.raises(ExtensionConfigurationError) as error:
        AsyncEndpointConfig(**BUCKETS, max_retries="x", max_wait_time=-1)
    assert len(str(error.value).splitlines()) == 2


def test_a_long_polling_interval_raises_the_longest_with_it() -> None:
    assert AsyncEndpointConfig(**BUCKETS, polling_interval=300).max_polling_interval == 300


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        AsyncEndpointConfig(**BUCKETS).max_retries = 5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cleanup_enabled": False, "cleanup_policy": "delayed", "tile_roots": (Path("/a b"), Path("/c"))},
        {"assume_role_arn": "arn:aws:iam::111122223333:role/r", "external_id": "xy", "failure_bucket": "failures"},
        {"polling_interval": 0.1, "max_polling_interval": 7.5, "input_prefix": "", "metrics_namespace": "A/b"},
    ],
)
def test_its_environment_gives_another_process_the_same_configuration(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AsyncEndpointConfig(**BUCKETS | options)
    for name, value in config.environment.items():
        monkeypatch.setenv(name, value)
    assert AsyncEndpointConfig() == config


def test_an_external_id_is_in_no_error_and_no_repr() -> None:
    role = {"assume_role_arn": "arn:aws:iam::111122223333:role/r"}
    with pytest.raises(ExtensionConfigurationError, match="external_id") as caught:
        AsyncEndpointConfig(**BUCKETS, **role, external_id=987654321)
    assert "987654321" not in str(caught.value)
    assert "sesame" not in repr(AsyncEndpointConfig(**BUCKETS, **role, external_id="sesame"))


def test_leftovers_are_older_than_anything_that_is_waited_for() -> None:
    with pytest.raises(ExtensionConfigurationError, match="ASYNC_SM_CLEANUP_LEFTOVER_SECONDS"):
        AsyncEndpointConfig(**BUCKETS, cleanup_leftover_seconds=60, max_wait_time=61)
