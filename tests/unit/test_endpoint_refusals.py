"""What an invocation says, and what the service's refusals mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import boto3
import botocore.exceptions as aws
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.endpoint import Accepted, Invocation, content_type, invoke, queue_limits
from osml_tasks.errors import (
    ClockSkewError,
    CredentialsExpiredError,
    EndpointUnusableError,
    InvocationError,
    RejectedError,
    ThrottledError,
)
from osml_tasks.s3 import S3Uri

INVOCATION = Invocation("ships", "job-1.0000000.1", "job-1/00000", "0000000-1.out", "image/png", 3600, 900)
URI = S3Uri("tiles", "in/job-1/a.png")


class Endpoint:
    """A client that gives one answer, or raises it."""

    def __init__(self, answer: dict[str, str] | Exception) -> None:
        self._answer = answer

    def invoke_endpoint_async(self, **_: Any) -> dict[str, str]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def refused(code: str, status: int, message: str = "no", operation: str = "InvokeEndpointAsync") -> aws.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return aws.ClientError(answer, operation)


def refusal(error: Exception) -> InvocationError:
    with pytest.raises(InvocationError) as caught:
        invoke(Endpoint(error), INVOCATION, b"tile")
    assert "'ships'" in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("payload", "member"),
    [(b"tile", {"Body": b"tile"}), (URI, {"InputLocation": "s3://tiles/in/job-1/a.png"})],
)
def test_an_invocation_carries_its_names_and_either_body_or_location(
    payload: bytes | S3Uri, member: dict[str, object]
) -> None:
    client = boto3.Session(region_name="us-east-1").client("sagemaker-runtime")
    answer = {"OutputLocation": "s3://outputs/a.out", "FailureLocation": "s3://failures/a.out"}
    sent = {
        "EndpointName": "ships",
        "ContentType": "image/png",
        "InferenceId": "job-1.0000000.1",
        "S3OutputPathExtension": "job-1/00000",
        "Filename": "0000000-1.out",
        "RequestTTLSeconds": 3600,
        "InvocationTimeoutSeconds": 900,
    }
    with Stubber(client) as stub:
        stub.add_response("invoke_endpoint_async", answer, sent | member)
        accepted = invoke(client, INVOCATION, payload)
    assert accepted == Accepted(S3Uri("outputs", "a.out"), S3Uri("failures", "a.out"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("InvalidSignatureException", "Signature expired: 20261124T114959Z is now earlier than 20261124T115500Z"),
        ("SignatureDoesNotMatch", "Signature not yet current: 20261124T121001Z is still later"),
        ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
        ("RequestExpired", "Request has expired."),
    ],
)
@pytest.mark.parametrize("operation", ["InvokeEndpointAsync", "AssumeRole"])
def test_a_wrong_clock_is_this_machines_fault_and_nobody_elses(code: str, message: str, operation: str) -> None:
    error = refused(code, 403, message, operation)
    there = datetime.now(UTC) - timedelta(seconds=605)
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"date": format_datetime(there, usegmt=True)}
    with pytest.raises(
        ClockSkewError, match=r"^endpoint 'ships': .*clock is off by 60\d s: set it, for instance by NTP"
    ) as caught:
        invoke(Endpoint(error), INVOCATION, b"tile")
    assert not isinstance(caught.value, InvocationError)


def test_another_signature_that_is_refused_is_a_matter_of_credentials() -> None:
    error = refused("InvalidSignatureException", 403, "The request signature we calculated does not match")
    assert isinstance(refusal(error), EndpointUnusableError)


@pytest.mark.parametrize("key", ["a\nb", "a\r\n b", "a\tb", "\x00", "\x7f", "a ", "k" * 1013])
def test_an_object_that_no_request_can_name_is_rejected_without_a_request(key: str) -> None:
    with pytest.raises(RejectedError, match="rename the object") as caught:
        invoke(Endpoint(AssertionError("a request was made")), INVOCATION, S3Uri("bucket", key))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=100).filter(lambda key: not key.endswith(" ")))
def test_an_object_of_any_other_name_is_asked_for_by_its_name(key: str) -> None:
    asked: list[object] = []

    class Recorder(Endpoint):
        def invoke_endpoint_async(self, **request: Any) -> dict[str, str]:
            asked.append(request["InputLocation"])
            return super().invoke_endpoint_async()

    invoke(Recorder({"OutputLocation": "s3://outputs/a.out"}), INVOCATION, S3Uri("bucket", key))
    assert asked == [f"s3://bucket/{key}"]


@pytest.mark.parametrize("failure", [{}, {"FailureLocation": ""}])
def test_an_endpoint_need_not_keep_failures(failure: dict[str, str]) -> None:
    answer = {"OutputLocation": "s3://outputs/a.out"} | failure
    assert invoke(Endpoint(answer), INVOCATION, b"tile").failure is None


@pytest.mark.parametrize(
    "error",
    [
        refused("ThrottlingException", 400),
        refused("TooManyRequestsException", 429),
        refused("Throttling", 400),
        refused("ServiceUnavailable", 503),
        refused("InternalFailure", 500),
        refused("InternalServerError", 500),
        refused("SomethingNew", 502),
        refused("", 429),
        aws.EndpointConnectionError(endpoint_url="https://runtime"),
        aws.ConnectTimeoutError(endpoint_url="https://runtime"),
        aws.ReadTimeoutError(endpoint_url="https://runtime"),
        aws.ConnectionClosedError(endpoint_url="https://runtime"),
    ],
)
def test_what_may_pass_is_throttled(error: Exception) -> None:
    assert isinstance(refusal(error), ThrottledError)


@pytest.mark.parametrize(
    "error",
    [
        refused("ValidationError", 400, "Endpoint ships of account 123456789012 not found."),
        refused("AccessDeniedException", 403),
        refused("UnrecognizedClientException", 400),
        refused("InvalidSignatureException", 403),
        refused("SomethingNew", 401),
        aws.NoCredentialsError(),
        aws.PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"),
    ],
)
def test_what_no_call_can_get_past_makes_the_endpoint_unusable(error: Exception) -> None:
    assert isinstance(refusal(error), EndpointUnusableError)


@pytest.mark.parametrize(
    "error",
    [
        refused("ExpiredTokenException", 400),
        refused("ExpiredToken", 403, operation="AssumeRole"),
        aws.CredentialRetrievalError(provider="process", error_msg="exit 1"),
        aws.MetadataRetrievalError(error_msg="nobody answers"),
        aws.TokenRetrievalError(provider="sso", error_msg="expired"),
        aws.UnauthorizedSSOTokenError(),
        aws.SSOTokenLoadError(error_msg="expired"),
        aws.LoginRefreshRequired(),
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    ],
)
def test_credentials_that_have_expired_are_no_fault_of_endpoint_or_tile(error: Exception) -> None:
    with pytest.raises(CredentialsExpiredError, match=r"^endpoint 'ships' .*expired.*: renew them") as caught:
        invoke(Endpoint(error), INVOCATION, b"tile")
    assert "\n" not in str(caught.value)


def test_another_fault_of_the_program_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^a fault$"):
        invoke(Endpoint(RuntimeError("a fault")), INVOCATION, b"tile")


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("ValidationError", 400)])
def test_a_role_that_a_profile_cannot_assume_is_told_from_the_endpoint(code: str, status: int) -> None:
    error = refusal(refused(code, status, operation="AssumeRole"))
    assert isinstance(error, EndpointUnusableError)
    assert "AssumeRole failed" in str(error)
    assert isinstance(refusal(refused("Throttling", 400, operation="AssumeRole")), ThrottledError)


@pytest.mark.parametrize(
    "error",
    [
        refused("ValidationError", 400, "Body is not supported in this region"),
        refused("ValidationError", 400, "1 validation error detected"),
        refused("", 400),
        aws.ParamValidationError(report="Filename is too long"),
    ],
)
def test_what_is_wrong_with_one_request_rejects_that_one(error: Exception) -> None:
    assert isinstance(refusal(error), RejectedError)


def test_a_refusal_without_any_member_is_still_a_refusal() -> None:
    assert isinstance(refusal(aws.ClientError({}, "InvokeEndpointAsync")), RejectedError)


@given(st.text(), st.text(), st.integers(100, 599))
def test_any_refusal_is_one_of_the_four(code: str, message: str, status: int) -> None:
    with pytest.raises((ThrottledError, RejectedError, EndpointUnusableError, CredentialsExpiredError)):
        invoke(Endpoint(refused(code, status, message)), INVOCATION, URI)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("dir/a.JPG", "image/jpeg"),
        ("a.tif", "image/tiff"),
        ("s3://bucket/a.tiff", "image/tiff"),
        ("a.ntf", "image/nitf"),
        ("A.NITF", "image/nitf"),
        ("a.json", "application/json"),
        ("a", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("data:text/x-evil,", "application/octet-stream"),
        ("http://x/a.png", "image/png"),
    ],
)
def test_a_tiles_type_is_told_by_its_name(name: str, kind: str) -> None:
    assert content_type(name) == kind


def test_a_compressed_image_is_not_called_an_image() -> None:
    assert not content_type("a.tif.gz").startswith("image/")


@given(st.text() | st.text("data:/,;=a\né", max_size=12).map("data:".__add__))
def test_any_name_has_a_type(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9.+-]+/[a-zA-Z0-9.+_-]+", content_type(name))


@pytest.mark.parametrize(
    ("wait", "limits"),
    [(0.4, (60, 1)), (30, (60, 30)), (600, (600, 600)), (3600, (3600, 3600)), (1e6, (21_600, 3600))],
)
def test_an_endpoint_need_not_work_for_longer_than_anyone_waits(wait: float, limits: tuple[int, int]) -> None:
    assert queue_limits(wait) == limits


@given(st.floats(0.001, 1e9))
def test_queue_limits_are_what_the_service_takes(wait: float) -> None:
    ttl, timeout = queue_limits(wait)
    assert 60 <= ttl <= 21_600
    assert 1 <= timeout <= 3600
