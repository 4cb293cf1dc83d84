"""What the local endpoint refuses, and in which words."""

from __future__ import annotations

import re
import string

import botocore.session
import pytest
from botocore.model import ServiceModel, Shape
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.local.endpoint_s3 import bucket_and_key
from osml_tasks.local.endpoint_settings import EndpointSettings, Faults
from osml_tasks.local.validation import (
    MAX_BODY_BYTES,
    InvocationRequest,
    ServiceError,
    check_signing_time,
    parse_request,
)

BODY = b"tile"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
FILENAME = "X-Amzn-SageMaker-Filename"
EXTENSION = "X-Amzn-SageMaker-S3OutputPathExtension"
INPUT_LOCATION = "X-Amzn-SageMaker-InputLocation"
TTL = "X-Amzn-SageMaker-RequestTTLSeconds"
TIMEOUT = "X-Amzn-SageMaker-InvocationTimeoutSeconds"


def parse(headers: dict[str, str], body: bytes = BODY, name: str = "detector") -> InvocationRequest:
    return parse_request(name, headers, body)


def message_of(headers: dict[str, str], body: bytes = BODY, name: str = "detector") -> str:
    with pytest.raises(ServiceError) as caught:
        parse(headers, body, name)
    assert (caught.value.status, caught.value.code) == (400, "ValidationError")
    return str(caught.value)


def settings(**changes: object) -> EndpointSettings:
    required = {"name": "detector", "model": "m:f", "s3_output_path": "s3://bucket/out"}
    return EndpointSettings(**{**required, **changes})  # type: ignore[arg-type]


def botocore_members() -> list[tuple[str, Shape]]:
    data = botocore.session.get_session().get_component("data_loader")
    model = ServiceModel(data.load_service_model("sagemaker-runtime", "service-2"))
    shape = model.operation_model("InvokeEndpointAsync").input_shape
    headers = [member for member in shape.members.values() if member.serialization.get("location") == "header"]
    return [(member.serialization["name"], member) for member in headers]


def test_a_request_without_options_has_the_defaults_of_the_service() -> None:
    request = parse({})
    assert request == InvocationRequest(endpoint_name="detector", body=BODY)
    assert (request.request_ttl, request.invocation_timeout) == (21_600, 900)


def test_every_header_reaches_its_field() -> None:
    request = parse(
        {
            "X-Amzn-SageMaker-Content-Type": "image/png",
            "X-Amzn-SageMaker-Accept": "application/json",
            "X-Amzn-SageMaker-Custom-Attributes": "a=b",
            INFERENCE_ID: "job-1.0",
            INPUT_LOCATION: "s3://bucket/key",
            EXTENSION: "job/shard",
            FILENAME: "tile-1.out",
            TTL: "60",
            TIMEOUT: "3600",
        },
        body=b"",
    )
    assert request == InvocationRequest(
        endpoint_name="detector",
        input_location="s3://bucket/key",
        content_type="image/png",
        accept="application/json",
        custom_attributes="a=b",
        inference_id="job-1.0",
        path_extension="job/shard",
        filename="tile-1.out",
        request_ttl=60,
        invocation_timeout=3600,
    )


def test_the_message_is_worded_as_aws_words_it() -> None:
    value = "i" * 65
    assert message_of({INFERENCE_ID: value}) == (
        f"1 validation error detected: Value '{value}' at 'inferenceId' failed to satisfy constraint: "
        "Member must have length less than or equal to 64"
    )


def test_all_violations_are_named() -> None:
    message = message_of({TTL: "59", TIMEOUT: "3601"})
    assert message.startswith("2 validation errors detected: Value '59' at 'requestTTLSeconds'")
    assert "Member must have value greater than or equal to 60; Value '3601'" in message
    assert message.endswith("Member must have value less than or equal to 3600")


def test_a_sensitive_value_is_not_repeated() -> None:
    message = message_of({"X-Amzn-SageMaker-Custom-Attributes": "secret" * 200})
    assert "Value at 'customAttributes'" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (INFERENCE_ID, ""),
        (INFERENCE_ID, " starts with a space"),
        (INPUT_LOCATION, "http://host/key"),
        (INPUT_LOCATION, "bucket/key"),
        (INPUT_LOCATION, "file:///etc/passwd"),
        (EXTENSION, ""),
        (EXTENSION, "s3://bucket"),
        (EXTENSION, "a b"),
        (FILENAME, ""),
        (FILENAME, ".hidden"),
        (FILENAME, "two.dots.out"),
        (FILENAME, "a/b"),
        (FILENAME, "f" * 33),
        (TTL, "1_000"),
        (TTL, "soon"),
        (TTL, "9" * 5_000),
        (TIMEOUT, "0"),
    ],
)
def test_a_value_out_of_its_constraint_is_refused(header: str, value: str) -> None:
    assert "failed to satisfy constraint" in message_of({header: value}, body=b"")


@pytest.mark.parametrize("name", ["", "-starts", "ends-", "under_score", "n" * 64])
def test_a_malformed_endpoint_name_is_refused(name: str) -> None:
    assert "at 'endpointName'" in message_of({}, name=name)


def test_body_and_input_location_exclude_each_other() -> None:
    assert "mutually exclusive" in message_of({INPUT_LOCATION: "s3://bucket/key"})


def test_one_of_body_and_input_location_is_required() -> None:
    assert "One of Body and InputLocation is required" in message_of({}, body=b"")


def test_a_body_has_its_limit() -> None:
    assert parse({}, body=bytes(MAX_BODY_BYTES)).body == bytes(MAX_BODY_BYTES)
    assert "'body'" in message_of({}, body=bytes(MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(("header", "shape"), botocore_members())
def test_limits_are_those_of_botocores_model(header: str, shape: Shape) -> None:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    outside, inside = (
        ([str(low - 1), str(high + 1)], [str(low), str(high)])
        if shape.type_name == "integer"
        else ([sample(header, high + 1)], [sample(header, high)])
    )
    body = b"" if header == INPUT_LOCATION else BODY
    for value in outside:
        assert "Member must have" in message_of({header: value}, body=body)
    for value in inside:
        parse({header: value}, body=body)


NOON = 1_795_521_600.0  # 2026-11-24T12:00:00Z


@pytest.mark.parametrize("signed", ["20261124T115501Z", "20261124T120459Z", None])
def test_a_signature_of_the_right_time_is_taken(signed: str | None) -> None:
    check_signing_time({"Authorization": "AWS4-HMAC-SHA256 ..."} | ({"X-Amz-Date": signed} if signed else {}), NOON)
    check_signing_time({"X-Amz-Date": "20000101T000000Z"}, NOON)


@pytest.mark.parametrize(
    ("signed", "message"),
    [
        (
            "20261124T114959Z",
            "Signature expired: 20261124T114959Z is now earlier than 20261124T115500Z (20261124T120000Z - 5 min.)",
        ),
        (
            "20261124T121001Z",
            "Signature not yet current: 20261124T121001Z is still later than "
            "20261124T120500Z (20261124T120000Z + 5 min.)",
        ),
        ("noon", "Date is not valid: noon"),
    ],
)
def test_a_signature_of_a_wrong_time_is_refused_in_the_words_of_aws(signed: str, message: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        check_signing_time({"Authorization": "AWS4-HMAC-SHA256 ...", "X-Amz-Date": signed}, NOON)
    assert (refusal.value.status, refusal.value.code) == (403, "InvalidSignatureException")
    assert str(refusal.value) == message


def sample(header: str, length: int) -> str:
    start = "s3://bucket/" if header == INPUT_LOCATION else ""
    return start + "a" * (length - len(start))


@given(value=st.text(max_size=40))
def test_a_file_name_passes_only_as_the_service_describes_it(value: str) -> None:
    allowed = string.ascii_letters + string.digits
    valid = (
        0 < len(value) <= 32 and value[0] in allowed and set(value) <= set(f"{allowed}-_.") and value.count(".") <= 1
    )
    if valid:
        assert parse({FILENAME: value}).filename == value
    else:
        assert "at 'filename'" in message_of({FILENAME: value})


@given(value=st.integers())
def test_a_time_to_live_passes_only_within_its_range(value: int) -> None:
    if 60 <= value <= 21_600:
        assert parse({TTL: str(value)}).request_ttl == value
    else:
        message_of({TTL: str(value)})


@given(
    values=st.dictionaries(st.sampled_from([name for name, _ in botocore_members()]), st.text()),
    body=st.binary(),
)
def test_any_headers_give_a_request_or_a_validation_error(values: dict[str, str], body: bytes) -> None:
    try:
        request = parse(values, body)
    except ServiceError as error:
        assert re.search(r"validation errors? detected|Provide exactly one", str(error))
    else:
        assert (request.body is None) != (request.input_location is None)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/a/b.png", ("bucket", "a/b.png")),
        ("https://bucket.s3.us-east-1.amazonaws.com/a/b%20c.png", ("bucket", "a/b c.png")),
        ("https://s3.us-east-1.amazonaws.com/my.bucket/b.png", ("my.bucket", "b.png")),
    ],
)
def test_an_address_gives_bucket_and_key(location: str, expected: tuple[str, str]) -> None:
    assert bucket_and_key(location) == expected


@pytest.mark.parametrize("location", ["s3://bucket", "s3:///key", "https://example.com/a", "https://s3.amazonaws.com/"])
def test_another_address_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match=re.escape(location)):
        bucket_and_key(location)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "under_score"},
        {"s3_output_path": "bucket/out"},
        {"s3_failure_path": "s3://UPPER/f"},
        {"s3_failure_path": "s3://bucket/a//b"},
        {"instances": 0},
        {"concurrency": -1},
        {"latency": -0.1},
        {"latency": float("nan")},
        {"latency_jitter": 1.1},
        {"late_rate": 2},
        {"late_seconds": float("inf")},
        {"twice_rate": -1},
        {"twice_seconds": -1},
        {"throttle_rate": -0.1},
        {"model_error_rate": float("nan")},
    ],
)
def test_a_setting_out_of_range_is_named(change: dict[str, object]) -> None:
    with pytest.raises(ExtensionConfigurationError, match=next(iter(change))):
        settings(**change)


@given(rate=st.sampled_from([0.1, 0.5, 0.9]), seed=st.integers(0, 1_000))
def test_faults_repeat_and_come_at_their_rate(rate: float, seed: int) -> None:
    runs = [
        [Faults(settings(drop_rate=rate, seed=seed)).drops(f"id-{number}") for number in range(400)] for _ in range(2)
    ]
    assert runs[0] == runs[1]
    # Six standard deviations of 400 draws.
    assert abs(sum(runs[0]) / 400 - rate) < 6 * (rate * (1 - rate) / 400) ** 0.5


def test_a_throttled_call_gets_through_when_repeated() -> None:
    faults = Faults(settings(throttle_rate=0.5))
    for number in range(100):
        assert not all(faults.throttles(f"id-{number}") for _ in range(50))


@given(jitter=st.floats(0, 1), inference_id=st.text(string.ascii_letters))
def test_jitter_stays_within_its_fraction(jitter: float, inference_id: str) -> None:
    latency = Faults(settings(latency=2.0, latency_jitter=jitter)).latency(inference_id)
    assert 2 * (1 - jitter) - 1e-9 <= latency <= 2 * (1 + jitter) + 1e-9
