"""What an ``InvokeEndpointAsync`` request may contain, and the errors the service answers with.

The limits are those of botocore's model of ``sagemaker-runtime``; botocore itself enforces only some
of them before it sends, so a request that passes here would pass at the service too. Messages are
worded as AWS words them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_BODY_BYTES = 128_000
DEFAULT_REQUEST_TTL_S = 21_600
DEFAULT_INVOCATION_TIMEOUT_S = 900
SIGNATURE_MINUTES = 5
"""How far the clock that a request was signed by may be off, min."""
_SIGNED_AT = "%Y%m%dT%H%M%SZ"
_HEADER_PREFIX = "X-Amzn-SageMaker-"


class ServiceError(Exception):
    """An error the service answers with.

    :ivar status: the HTTP status.
    :ivar code: the AWS error code, as botocore shows it in ``ClientError.response``.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "ValidationError") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def throttled() -> ServiceError:
    """Return the answer to a caller that calls too often."""
    return ServiceError("Rate exceeded", code="ThrottlingException")


def unavailable() -> ServiceError:
    """Return the answer of a service that is out of order for now."""
    return ServiceError("The service is unavailable. Try your call again.", status=503, code="ServiceUnavailable")


def endpoint_not_found(name: str) -> ServiceError:
    """Return the answer to an invocation of an endpoint that does not exist."""
    return ServiceError(f"Endpoint {name} of account 000000000000 not found.")


def inline_refused() -> ServiceError:
    """Return the answer of a region that does not know inline payloads to a request with a body."""
    return ServiceError(
        "1 validation error detected: Value null at 'inputLocation' failed to satisfy constraint: "
        "Member must not be null. InputLocation is required."
    )


def check_signing_time(headers: Mapping[str, str], now: float) -> None:
    """Refuse a signed request whose ``X-Amz-Date`` is too far from now, as AWS does; nothing else of it is checked.

    :param headers: a case-insensitive mapping.
    :param now: epoch seconds.
    :raises ServiceError: code ``InvalidSignatureException``.
    """
    signed, here = headers.get("X-Amz-Date", ""), datetime.fromtimestamp(now, UTC)
    if "Authorization" not in headers or not signed:
        return
    try:
        there = datetime.strptime(signed, _SIGNED_AT).replace(tzinfo=UTC)
    except ValueError:
        raise _signature_refused(f"Date is not valid: {signed}") from None
    leeway = timedelta(minutes=SIGNATURE_MINUTES)
    first, last = (f"{moment:{_SIGNED_AT}}" for moment in (here - leeway, here + leeway))
    if there < here - leeway:
        limits = f"{first} ({here:{_SIGNED_AT}} - {SIGNATURE_MINUTES} min.)"
        raise _signature_refused(f"Signature expired: {signed} is now earlier than {limits}")
    if there > here + leeway:
        limits = f"{last} ({here:{_SIGNED_AT}} + {SIGNATURE_MINUTES} min.)"
        raise _signature_refused(f"Signature not yet current: {signed} is still later than {limits}")


def _signature_refused(message: str) -> ServiceError:
    return ServiceError(message, status=403, code="InvalidSignatureException")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationRequest:
    """One valid request.

    :ivar body: the inline payload; None when ``input_location`` names it instead.
    :ivar input_location: ``s3://`` or ``https://`` address of the payload.
    :ivar request_ttl: how long the request may queue, in seconds.
    :ivar invocation_timeout: how long the model may take, in seconds.
    """

    endpoint_name: str
    body: bytes | None = None
    input_location: str | None = None
    content_type: str | None = None
    accept: str | None = None
    custom_attributes: str | None = None
    inference_id: str | None = None
    path_extension: str | None = None
    filename: str | None = None
    request_ttl: int = DEFAULT_REQUEST_TTL_S
    invocation_timeout: int = DEFAULT_INVOCATION_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class _Text:
    """The constraint on a member that is a string.

    ``shown_pattern`` is the service's own (a Java expression), ``pattern`` the same for Python.
    """

    member: str
    max_length: int
    pattern: re.Pattern[str]
    shown_pattern: str
    min_length: int = 0
    sensitive: bool = False

    def violations(self, value: str) -> Iterator[str]:
        """Yield one phrase for each part of the constraint that ``value`` breaks."""
        if len(value) < self.min_length:
            limit = f"greater than or equal to {self.min_length}"
            yield self._phrase(value, f"Member must have length {limit}")
        if len(value) > self.max_length:
            yield self._phrase(value, f"Member must have length less than or equal to {self.max_length}")
        if not self.pattern.fullmatch(value):
            yield self._phrase(value, f"Member must satisfy regular expression pattern: {self.shown_pattern}")

    def _phrase(self, value: str, rule: str) -> str:
        shown = "Value" if self.sensitive else f"Value '{value}'"
        return f"{shown} at '{self.member}' failed to satisfy constraint: {rule}"


@dataclass(frozen=True, slots=True)
class _Number:
    """The constraint on a member that is a whole number."""

    member: str
    minimum: int
    maximum: int

    def violations(self, value: str) -> Iterator[str]:
        """Yield one phrase for each part of the constraint that ``value`` breaks."""
        number = _whole_number(value)
        if number is None:
            yield self._phrase(value, "Member must be a whole number")
        elif number < self.minimum:
            yield self._phrase(value, f"Member must have value greater than or equal to {self.minimum}")
        elif number > self.maximum:
            yield self._phrase(value, f"Member must have value less than or equal to {self.maximum}")

    def _phrase(self, value: str, rule: str) -> str:
        return f"Value '{value}' at '{self.member}' failed to satisfy constraint: {rule}"


_ASCII = re.compile(r"[\x00-\x7f]*")
_ENDPOINT_NAME = _Text(
    "endpointName",
    63,
    re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*"),
    "^[a-zA-Z0-9](-*[a-zA-Z0-9])*",
)
_HEADERS: Mapping[str, _Text | _Number] = {
    "Content-Type": _Text("contentType", 1024, _ASCII, r"\p{ASCII}*"),
    "Accept": _Text("accept", 1024, _ASCII, r"\p{ASCII}*"),
    "Custom-Attributes": _Text("customAttributes", 1024, _ASCII, r"\p{ASCII}*", sensitive=True),
    "Inference-Id": _Text(
        "inferenceId",
        64,
        re.compile(r"[!-~][ -~]*"),
        r"\A\S[\p{Print}]*\z",
        min_length=1,
    ),
    "InputLocation": _Text(
        "inputLocation",
        1024,
        re.compile(r"(https|s3)://([^/]+)/?(.*)"),
        "^(https|s3)://([^/]+)/?(.*)$",
        min_length=1,
    ),
    "S3OutputPathExtension": _Text(
        "s3OutputPathExtension",
        512,
        re.compile(r"(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+"),
        "^(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+$",
        min_length=1,
    ),
    "Filename": _Text(
        "filename",
        32,
        re.compile(r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9_.-]*"),
        r"^(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_\.]*$",
        min_length=1,
    ),
    "RequestTTLSeconds": _Number("requestTTLSeconds", 60, 21_600),
    "InvocationTimeoutSeconds": _Number("invocationTimeoutSeconds", 1, 3_600),
}
_CONSTRAINTS = [(_HEADER_PREFIX + suffix, constraint) for suffix, constraint in _HEADERS.items()]


def parse_request(endpoint_name: str, headers: Mapping[str, str], body: bytes) -> InvocationRequest:
    """Return the request that an HTTP call carries.

    :param headers: looked up by the names in botocore's model; a case-insensitive mapping.
    :param body: the inline payload; empty means that there is none.
    :raises ServiceError: code ``ValidationError``, when the service would refuse the request.
    """
    values = {constraint.member: value for name, constraint in _CONSTRAINTS if (value := headers.get(name)) is not None}
    _check_members(endpoint_name, values)
    _check_payload(body, values.get("inputLocation"))
    return _request(endpoint_name, values, body)


def body_too_long() -> ServiceError:
    """Return the answer to an inline payload over :data:`MAX_BODY_BYTES`."""
    return ServiceError(
        "1 validation error detected: Value at 'body' failed to satisfy constraint: "
        f"Member must have length less than or equal to {MAX_BODY_BYTES}"
    )


def _check_members(endpoint_name: str, values: Mapping[str, str]) -> None:
    violations = list(_ENDPOINT_NAME.violations(endpoint_name))
    for _, constraint in _CONSTRAINTS:
        if constraint.member in values:
            violations.extend(constraint.violations(values[constraint.member]))
    if violations:
        errors = "error" if len(violations) == 1 else "errors"
        raise ServiceError(f"{len(violations)} validation {errors} detected: {'; '.join(violations)}")


def _check_payload(body: bytes, input_location: str | None) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise body_too_long()
    if body and input_location is not None:
        raise ServiceError("Body and InputLocation are mutually exclusive. Provide exactly one of them.")
    if not body and input_location is None:
        raise ServiceError("One of Body and InputLocation is required. Provide exactly one of them.")


def _request(endpoint_name: str, values: Mapping[str, str], body: bytes) -> InvocationRequest:
    return InvocationRequest(
        endpoint_name=endpoint_name,
        body=body or None,
        input_location=values.get("inputLocation"),
        content_type=values.get("contentType"),
        accept=values.get("accept"),
        custom_attributes=values.get("customAttributes"),
        inference_id=values.get("inferenceId"),
        path_extension=values.get("s3OutputPathExtension"),
        filename=values.get("filename"),
        request_ttl=int(values.get("requestTTLSeconds", DEFAULT_REQUEST_TTL_S)),
        invocation_timeout=int(values.get("invocationTimeoutSeconds", DEFAULT_INVOCATION_TIMEOUT_S)),
    )


def _whole_number(value: str) -> int | None:
    # int() also takes "1_000", " 60 " and digits of other scripts, and refuses very long ones loudly.
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
