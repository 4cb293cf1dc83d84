"""One invocation of an asynchronous endpoint, and what its refusals mean."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from osml_tasks.aws.credentials import expired
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import (
    ClockSkewError,
    CredentialsExpiredError,
    EndpointUnusableError,
    InvocationError,
    RejectedError,
    ThrottledError,
)
from osml_tasks.one_line import in_one_line
from osml_tasks.patience import clock_is_off, may_pass
from osml_tasks.s3 import S3Uri

MAX_INPUT_BYTES = 1_000_000_000
"""The largest input object of an asynchronous endpoint (service documentation: 1 GB)."""

# InputLocation, as botocore's service model has it. It is a header: a control character would end it, and a
# blank at its end be lost, so that another object would be read.
_LOCATION = re.compile(r"[^\x00-\x1f\x7f]{0,1023}[^\x00-\x20\x7f]")
_OPERATION = "InvokeEndpointAsync"
# Codes that no other request will fare better with.
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The endpoint's answer: where output and, if the endpoint keeps them, failure will appear."""

    output: S3Uri
    failure: S3Uri | None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What an invocation is called, and how long it may take.

    :ivar path_extension: what is added to the endpoint's output path.
    :ivar filename: name of the output object.
    :ivar content_type: MIME type of the payload.
    :ivar ttl: longest time in the endpoint's queue, s.
    :ivar timeout: longest time in the model, s.
    :ivar more: further members of the request, as SageMaker names them, such as ``CustomAttributes``.
    """

    endpoint: str
    inference_id: str
    path_extension: str
    filename: str
    content_type: str
    ttl: int
    timeout: int
    more: Mapping[str, str] = field(default_factory=dict)


def content_type(name: str) -> str:
    """The MIME type of a tile, from its name."""
    if name.lower().endswith((".ntf", ".nitf")):
        return "image/nitf"
    # With a slash in front no name is taken for an URL: one of "data:" would bring a type of its own.
    guess, compression = mimetypes.guess_type(f"/{name}")
    return guess if guess and not compression else "application/octet-stream"


def queue_limits(max_wait_time: float) -> tuple[int, int]:
    """``RequestTTLSeconds`` and ``InvocationTimeoutSeconds`` for a longest wait in seconds.

    Nobody looks for an output after ``max_wait_time``, so the endpoint need not start on it either.
    """
    return round(min(max(max_wait_time, 60), 21_600)), round(min(max(max_wait_time, 1), 3_600))


def longest_life(max_wait_time: float) -> float:
    """How long after an invocation its output may still appear, s: all its time in queue and model."""
    return float(sum(queue_limits(max_wait_time)))


def invoke(client: Any, invocation: Invocation, payload: bytes | S3Uri) -> Accepted:
    """Call ``InvokeEndpointAsync`` with a payload inline, or with where it lies in S3.

    :raises ThrottledError: the same call may succeed later.
    :raises RejectedError: this call never will.
    :raises EndpointUnusableError: no call to this endpoint will.
    :raises ClockSkewError: no call from this machine will, until its clock is right.
    :raises CredentialsExpiredError: no call will, until the credentials are renewed.
    :raises RoleRefusedError: the client's role cannot be assumed.
    """
    named = {"endpoint": invocation.endpoint, "inference_id": invocation.inference_id}
    if not isinstance(payload, bytes) and not _LOCATION.fullmatch(str(payload)):
        raise RejectedError(
            f"endpoint {invocation.endpoint!r} cannot be told of {in_one_line(str(payload), 200)}: a URI has "
            "1,024 characters at most, no control character, and no blank at its end; rename the object",
            **named,
        )
    source = {"Body": payload} if isinstance(payload, bytes) else {"InputLocation": str(payload)}
    try:
        answer = client.invoke_endpoint_async(
            EndpointName=invocation.endpoint,
            ContentType=invocation.content_type,
            InferenceId=invocation.inference_id,
            S3OutputPathExtension=invocation.path_extension,
            Filename=invocation.filename,
            RequestTTLSeconds=invocation.ttl,
            InvocationTimeoutSeconds=invocation.timeout,
            **invocation.more,
            **source,
        )
    except (ClientError, BotoCoreError, RuntimeError) as error:
        raise _verdict(error, invocation) from error
    failure = answer.get("FailureLocation")
    return Accepted(S3Uri.parse(answer["OutputLocation"]), S3Uri.parse(failure) if failure else None)


def check_answer(answer: Accepted, config: AsyncEndpointConfig, endpoint: str) -> None:
    """Refuse an endpoint whose outputs or failures this program was not told to read.

    :raises EndpointUnusableError: with the setting to change.
    """
    if answer.output.bucket != config.output_bucket:
        raise EndpointUnusableError(
            f"endpoint {endpoint!r} writes its outputs to bucket {answer.output.bucket!r}, configured is "
            f"{config.output_bucket!r}: set ASYNC_SM_OUTPUT_BUCKET={answer.output.bucket}"
        )
    if answer.output.has_odd_parts:
        raise EndpointUnusableError(
            f"endpoint {endpoint!r} writes its outputs to {answer.output.parent}, a key with an empty or dotted part "
            "that cannot be listed: correct the S3OutputPath of its configuration"
        )
    if not answer.output.key.startswith(config.output_prefix):
        raise EndpointUnusableError(
            f"endpoint {endpoint!r} writes its outputs to {answer.output.parent}, which is not under the "
            f"configured prefix {config.output_prefix!r}: correct ASYNC_SM_OUTPUT_PREFIX, or leave it empty"
        )
    if answer.failure and answer.failure.bucket not in config.readable_output_buckets:
        raise EndpointUnusableError(
            f"endpoint {endpoint!r} writes its failures to bucket {answer.failure.bucket!r}: "
            f"set ASYNC_SM_FAILURE_BUCKET={answer.failure.bucket}"
        )


def _in_one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def _verdict(error: ClientError | BotoCoreError | RuntimeError, invocation: Invocation) -> Exception:
    """What a failed call means."""
    endpoint = invocation.endpoint
    if line := expired(error):
        return CredentialsExpiredError(f"endpoint {endpoint!r} cannot be invoked: {line}")
    named = {"endpoint": endpoint, "inference_id": invocation.inference_id}
    if isinstance(error, ClientError):
        if skew := _clock_is_off(error):
            return ClockSkewError(f"endpoint {endpoint!r}: {skew}")
        kind, text = _refusal(error)
        return kind(f"endpoint {endpoint!r}: {text}", **named)
    return _unanswered(error, endpoint, named) if isinstance(error, BotoCoreError) else error


def _unanswered(error: BotoCoreError, endpoint: str, named: dict[str, str]) -> InvocationError:
    text = _in_one_line(error)
    if isinstance(error, ParamValidationError):
        return RejectedError(f"endpoint {endpoint!r}: {text}", **named)
    if may_pass(error):
        return ThrottledError(f"endpoint {endpoint!r} is out of reach: {text}", **named)
    # No credentials, or none to be had: the same for every tile.
    return EndpointUnusableError(f"endpoint {endpoint!r}: {text}", **named)


def _clock_is_off(error: ClientError) -> str | None:
    told, answer = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    refusal = _in_one_line(f"{told.get('Code', '')}: {told.get('Message', '')}")
    return clock_is_off(refusal, answer.get("HTTPHeaders", {}).get("date", ""))


def _refusal(error: ClientError) -> tuple[type[ThrottledError | RejectedError | EndpointUnusableError], str]:
    """Sort a service error by what can be done about it, and say it in one line."""
    code = error.response.get("Error", {}).get("Code", "")
    message = _in_one_line(error.response.get("Error", {}).get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"{code}: {message}".rstrip(".")
    if error.operation_name != _OPERATION:
        # Of a profile that assumes a role, say: botocore asks for its credentials inside our call.
        text = f"no credentials, {error.operation_name} failed: {text}"
    if may_pass(error):
        return ThrottledError, text
    if error.operation_name != _OPERATION:
        return EndpointUnusableError, f"{text}: check the role that AWS_PROFILE names, and who may assume it"
    if code in _DENIED or status in (401, 403):
        return EndpointUnusableError, f"{text}: check the credentials and their permissions"
    if "endpoint" in message.lower() and "not found" in message.lower():
        return EndpointUnusableError, f"{text}: check the endpoint's name and region"
    return RejectedError, text
