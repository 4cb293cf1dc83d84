"""Every option of osml-tasks, from keywords or from environment variables."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.one_line import in_one_line
from osml_tasks.s3_uri import BUCKET, S3Uri

_BUCKET = rf"^(?:{BUCKET})$"
# What S3 takes without escaping, so that a key reads the same in a URI, a listing and a policy.
_PREFIX = r"^[A-Za-z0-9!_.*'()/-]*$"

# What sts:AssumeRole takes (botocore's service model).
_EXTERNAL_ID = r"^[A-Za-z0-9_+=,.@:/-]{2,1224}$"
# What PutMetricData, the embedded metric format and aws-embedded-metrics all take.
_NAMESPACE = re.compile(r"(?!AWS/|:)[A-Za-z0-9._/#:-]{1,255}")

LONGEST_WAIT_SECONDS = 7 * 24 * 3600
"""The longest time that anything is waited for, s: records of jobs are kept for so long."""
_LONGEST_KEPT_SECONDS = 366 * 24 * 3600
_SHORTEST_POLL_SECONDS = 0.01
_MOST_IN_FLIGHT = 1_000_000
_LONGEST_CUT_SECONDS = 3600
_LEAST_IMAGE_MEMORY = 268_435_456  # what GDAL and numpy take by themselves, and room for a tile

INLINE_BODY_MAX_BYTES = 128_000
"""The largest ``Body`` of ``InvokeEndpointAsync``, in bytes (botocore's service model)."""

_LONGEST_SHOWN = 200
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _LONGEST_SHOWN


class CleanupPolicy(StrEnum):
    """When the S3 objects of a job are deleted."""

    IMMEDIATE = "immediate"
    DELAYED = "delayed"
    DISABLED = "disabled"


class Encryption(StrEnum):
    """How S3 encrypts what is written."""

    S3 = "AES256"
    KMS = "aws:kms"
    KMS_TWICE = "aws:kms:dsse"


class LogFormat(StrEnum):
    """How a log is written."""

    HUMAN = "human"
    JSON = "json"


def _directories(value: object) -> object:
    """Split a list of directories as ``PATH`` is split; leave anything else to pydantic."""
    if isinstance(value, str):
        return tuple(part for part in value.split(os.pathsep) if part)
    if isinstance(value, Path):
        return (value,)
    return value


def _absolute(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    for root in roots:
        shown = in_one_line(repr(str(root)), _LONGEST_SHOWN // 2)
        if not root.is_absolute():
            raise ValueError(f"{shown} is not an absolute path")
        if {os.pathsep, "\0"} & set(str(root)):
            raise ValueError(f"{shown} has a character that no variable can name a directory with")
    return roots


def _prefix(value: object) -> object:
    """Bring a prefix to the form ``a/b/`` (or empty), however it was written."""
    if isinstance(value, str):
        parts = [part for part in value.split("/") if part]
        if {".", ".."} & set(parts):
            raise ValueError("'.' and '..' mean nothing in S3: leave them out")
        return "/".join(parts) + "/" if parts else ""
    return value


def _locations(value: object) -> object:
    """Split a list of S3 URIs at commas and spaces; leave anything else to pydantic."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _as_location(text: str) -> str:
    """Bring ``s3://bucket/prefix`` to the form ``s3://bucket/prefix/``."""
    wrong = f"{text!r} is not an S3 URI: write s3://bucket/prefix"
    try:
        uri = S3Uri.parse(text)
    except ExtensionConfigurationError:
        raise ValueError(wrong) from None
    prefix = str(_prefix(uri.key))
    if not re.match(_PREFIX, prefix):
        raise ValueError(wrong)
    return f"s3://{uri.bucket}/{prefix}"


def _namespace(value: str) -> str:
    if not _NAMESPACE.fullmatch(value):
        raise ValueError("use 1 to 255 of A-Z a-z 0-9 . _ / # : -, and neither 'AWS/' nor ':' at the start")
    return value


def _env(*names: str) -> AliasChoices:
    return AliasChoices(*names)


Bucket = Annotated[str, Field(pattern=_BUCKET)]
Prefix = Annotated[str, BeforeValidator(_prefix), Field(strict=True, pattern=_PREFIX, max_length=256)]
Account = Annotated[str, Field(pattern=r"^[0-9]{12}$")]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False)]
PollSeconds = Annotated[float, Field(ge=_SHORTEST_POLL_SECONDS, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False)]
KeptSeconds = Annotated[float, Field(ge=0, le=_LONGEST_KEPT_SECONDS, allow_inf_nan=False)]


class LogConfig(BaseSettings):
    """What a log is written by, and must keep to itself; a beat without workers needs no more than this.

    :raises ExtensionConfigurationError: with one line for each wrong value.
    """

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, env_ignore_empty=True, extra="forbid")

    log_format: LogFormat = Field(LogFormat.HUMAN, validation_alias=_env("ASYNC_SM_LOG_FORMAT"))
    """How workers and beat write their log: ``human`` (default) or ``json``."""
    external_id: str | None = Field(
        None, repr=False, pattern=_EXTERNAL_ID, validation_alias=_env("ASYNC_SM_EXTERNAL_ID")
    )
    """External id that goes with ``assume_role_arn``."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ExtensionConfigurationError(_explain(error)) from None


class AsyncEndpointConfig(LogConfig):
    """The configuration of clients, workers and detectors. Keywords beat the environment.

    :raises ExtensionConfigurationError: with one line for each wrong or missing value.
    """

    input_bucket: Bucket = Field(validation_alias=_env("ARTIFACT_BUCKET", "ASYNC_SM_INPUT_BUCKET"))
    """Bucket for tiles, parts and results. Required."""
    output_bucket: Bucket = Field(validation_alias=_env("ASYNC_SM_OUTPUT_BUCKET"))
    """Bucket that the endpoint writes its outputs to. Required."""
    input_prefix: Prefix = Field("async-inference/input/", validation_alias=_env("ASYNC_SM_INPUT_PREFIX"))
    """Where in ``input_bucket`` this program keeps its objects. Default ``async-inference/input/``."""
    output_prefix: Prefix = Field("", validation_alias=_env("ASYNC_SM_OUTPUT_PREFIX"))
    """Where in ``output_bucket`` outputs must lie; empty (the default) accepts what the endpoint says."""
    failure_bucket: Bucket | None = Field(None, validation_alias=_env("ASYNC_SM_FAILURE_BUCKET"))
    """Bucket of the endpoint's failure objects, where that is not ``output_bucket``."""

    expected_bucket_owner: Account | None = Field(None, validation_alias=_env("ASYNC_SM_EXPECTED_BUCKET_OWNER"))
    """Account (12 digits) that must own ``input_bucket``, or S3 refuses; and the other buckets, unless
    ``expected_output_bucket_owner`` is set. Default: nothing is asked."""
    expected_output_bucket_owner: Account | None = Field(
        None, validation_alias=_env("ASYNC_SM_EXPECTED_OUTPUT_BUCKET_OWNER")
    )
    """Account that must own ``output_bucket`` and ``failure_bucket``. Default ``expected_bucket_owner``."""
    s3_sse: Encryption | None = Field(None, validation_alias=_env("ASYNC_SM_S3_SSE"))
    """Encryption of what is written: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``. Default: the bucket's own."""
    s3_sse_kms_key_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9:/_-]{1,2048}$", validation_alias=_env("ASYNC_SM_S3_SSE_KMS_KEY_ID")
    )
    """Key of ``aws:kms`` and ``aws:kms:dsse``: an id, an alias or an ARN. Default: AWS's key for S3."""

    request_payer: Literal["requester"] | None = Field(None, validation_alias=_env("ASYNC_SM_REQUEST_PAYER"))
    """``requester`` agrees to pay for requests to requester-pays buckets. Default: such buckets refuse access."""

    max_wait_time: Seconds = Field(3600.0, validation_alias=_env("ASYNC_SM_MAX_WAIT_TIME"))
    """Longest time in seconds from an invocation to its output. Default 3600."""
    polling_interval: PollSeconds = Field(5.0, validation_alias=_env("ASYNC_SM_POLLING_INTERVAL"))
    """Longest time in seconds to the first poll, and between polls while tiles keep arriving. Default 5."""
    max_polling_interval: PollSeconds = Field(60.0, validation_alias=_env("ASYNC_SM_MAX_POLLING_INTERVAL"))
    """Longest time in seconds between two polls. Default 60, or ``polling_interval`` if that is more."""
    exponential_backoff_multiplier: float = Field(
        1.5, ge=1, le=10, validation_alias=_env("ASYNC_SM_BACKOFF_MULTIPLIER")
    )
    """Growth of the time between polls while nothing arrives. Default 1.5."""
    max_retries: int = Field(3, ge=0, le=100, validation_alias=_env("ASYNC_SM_MAX_RETRIES"))
    """How often a failed tile is tried again. Default 3."""

    cleanup_enabled: bool = Field(True, validation_alias=_env("ASYNC_SM_CLEANUP_ENABLED"))
    """Whether objects are deleted at all. Default true."""
    cleanup_policy: CleanupPolicy = Field(CleanupPolicy.IMMEDIATE, validation_alias=_env("ASYNC_SM_CLEANUP_POLICY"))
    """When objects are deleted: ``immediate`` (default), ``delayed`` or ``disabled``."""
    cleanup_delay_seconds: KeptSeconds = Field(300.0, validation_alias=_env("ASYNC_SM_CLEANUP_DELAY_SECONDS"))
    """Age in seconds at which ``delayed`` deletes. Default 300."""
    cleanup_leftover_seconds: KeptSeconds = Field(604_800.0, validation_alias=_env("ASYNC_SM_CLEANUP_LEFTOVER_SECONDS"))
    """Age in seconds at which the sweep deletes what dead jobs and detectors have left; 0 leaves it. Default 7 days."""

    enable_worker_optimization: bool = Field(True, validation_alias=_env("ASYNC_SM_WORKER_OPTIMIZATION"))
    """Whether tiles of a Python caller go through worker pools. Default true."""
    submission_workers: int = Field(4, ge=1, le=1024, validation_alias=_env("ASYNC_SM_SUBMISSION_WORKERS"))
    """Concurrency of a submit worker. Default 4."""
    polling_workers: int = Field(2, ge=1, le=1024, validation_alias=_env("ASYNC_SM_POLLING_WORKERS"))
    """Concurrency of a poll worker. Default 2."""
    max_concurrent_jobs: int = Field(
        100, ge=1, le=_MOST_IN_FLIGHT, validation_alias=_env("ASYNC_SM_MAX_CONCURRENT_JOBS")
    )
    """Most tiles in flight at an endpoint, over the whole fleet. Default 100."""
    job_queue_timeout: Seconds = Field(300.0, validation_alias=_env("ASYNC_SM_JOB_QUEUE_TIMEOUT"))
    """Seconds that a waiting caller gives the fleet to take up a queued job. Default 300."""

    inline_payload_max_bytes: int = Field(
        INLINE_BODY_MAX_BYTES,
        ge=0,
        le=INLINE_BODY_MAX_BYTES,
        validation_alias=_env("ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES"),
    )
    """Largest payload in bytes that travels inside the invocation; 0 turns that off. Default 128,000."""
    max_output_bytes: int = Field(134_217_728, ge=1, validation_alias=_env("ASYNC_SM_MAX_OUTPUT_BYTES"))
    """Largest output in bytes that a worker or a detector reads. Default 134,217,728."""
    max_block_bytes: int = Field(134_217_728, ge=1, validation_alias=_env("ASYNC_SM_MAX_BLOCK_BYTES"))
    """Largest block of pixels in bytes that is decoded of an image. Default 134,217,728."""
    max_image_memory_bytes: int = Field(
        805_306_368, ge=_LEAST_IMAGE_MEMORY, validation_alias=_env("ASYNC_SM_MAX_IMAGE_MEMORY_BYTES")
    )
    """Memory in bytes of each process that reads images. Default 805,306,368."""
    max_cut_seconds: float = Field(
        30.0, ge=1, le=_LONGEST_CUT_SECONDS, allow_inf_nan=False, validation_alias=_env("ASYNC_SM_MAX_CUT_SECONDS")
    )
    """CPU in seconds for cutting a tile; twice that may pass by the clock. Default 30."""
    tile_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_directories), AfterValidator(_absolute)] = Field(
        (), validation_alias=_env("ASYNC_SM_TILE_ROOTS")
    )
    """Directories that a worker may read tiles from; none by default."""
    tile_buckets: Annotated[
        tuple[Annotated[str, AfterValidator(_as_location)], ...], NoDecode, BeforeValidator(_locations)
    ] = Field((), validation_alias=_env("ASYNC_SM_TILE_BUCKETS"))
    """S3 URIs that tiles of jobs may lie under; without any, jobs that are called by name take the input bucket's."""
    assume_role_arn: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+$",
        max_length=2048,
        validation_alias=_env("ASYNC_SM_ASSUME_ROLE_ARN"),
    )
    """Role that is assumed for SageMaker and S3 calls, for endpoints of another account."""

    metrics_enabled: bool = Field(True, validation_alias=_env("ASYNC_SM_METRICS_ENABLED"))
    """Whether workers write CloudWatch embedded metrics. Default true."""
    metrics_namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        "OSML/Tasks", validation_alias=_env("ASYNC_SM_METRICS_NAMESPACE")
    )
    """CloudWatch namespace of these metrics. Default ``OSML/Tasks``."""

    def __init__(self, **options: Any) -> None:  # for type checkers, which else require every field
        super().__init__(**options)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if "max_polling_interval" not in self.model_fields_set and self.max_polling_interval < self.polling_interval:
            object.__setattr__(self, "max_polling_interval", self.polling_interval)
        complaints = [*self._complaints()]
        if complaints:
            raise ValueError("\n".join(complaints))
        return self

    def _complaints(self) -> Iterator[str]:
        """What options break together, a line each."""
        if self.max_polling_interval < self.polling_interval:
            yield (
                f"max_polling_interval (ASYNC_SM_MAX_POLLING_INTERVAL) is {self.max_polling_interval:g} s, less than "
                f"polling_interval ({self.polling_interval:g} s): raise the one or lower the other"
            )
        if 0 < self.cleanup_leftover_seconds < self.max_wait_time:
            yield (
                f"cleanup_leftover_seconds (ASYNC_SM_CLEANUP_LEFTOVER_SECONDS) is {self.cleanup_leftover_seconds:g} s, "
                f"less than max_wait_time ({self.max_wait_time:g} s): what is waited for would be deleted; raise it"
            )
        if self.external_id and not self.assume_role_arn:
            yield "external_id (ASYNC_SM_EXTERNAL_ID) is set without assume_role_arn: name the role to assume, too"
        if self.s3_sse_kms_key_id and self.s3_sse not in (Encryption.KMS, Encryption.KMS_TWICE):
            yield (
                f"s3_sse_kms_key_id (ASYNC_SM_S3_SSE_KMS_KEY_ID) is set, and s3_sse is {self.s3_sse or 'not'}: "
                "set ASYNC_SM_S3_SSE=aws:kms, too"
            )
        owners = {self.expected_bucket_owner, self.expected_output_bucket_owner} - {None}
        if len(owners) > 1 and self.input_bucket in self.readable_output_buckets:
            yield (
                f"expected_output_bucket_owner (ASYNC_SM_EXPECTED_OUTPUT_BUCKET_OWNER) is "
                f"{self.expected_output_bucket_owner}, and expected_bucket_owner {self.expected_bucket_owner}, of "
                f"one bucket, {self.input_bucket!r}: leave the wrong one out"
            )

    @property
    def policy_in_force(self) -> CleanupPolicy:
        """``cleanup_policy``, or ``disabled`` where ``cleanup_enabled`` is off."""
        return self.cleanup_policy if self.cleanup_enabled else CleanupPolicy.DISABLED

    @property
    def input_location(self) -> str:
        """Where this program keeps its objects, as an S3 URI."""
        return f"s3://{self.input_bucket}/{self.input_prefix}"

    @property
    def callable_locations(self) -> tuple[str, ...]:
        """Where tiles of jobs may lie that are called by a message, as S3 URIs."""
        return (self.input_location, *(self.tile_buckets or (f"s3://{self.input_bucket}/",)))

    @property
    def environment(self) -> dict[str, str]:
        """The variables that give another process this configuration."""
        values = {name: getattr(self, name) for name in AsyncEndpointConfig.model_fields}
        # An empty variable counts as none at all, though it hides one of this process; "/" is the same prefix.
        values |= {name: values[name] or "/" for name in ("input_prefix", "output_prefix")}
        fields = AsyncEndpointConfig.model_fields
        return {_variables(fields[name])[0]: _as_text(value) for name, value in values.items()}

    @property
    def bucket_owners(self) -> dict[str, str]:
        """The account that must own a bucket, where one is configured."""
        of_outputs = self.expected_output_bucket_owner or self.expected_bucket_owner
        owners: dict[str, str | None] = dict.fromkeys(self.readable_output_buckets, of_outputs)
        owners[self.input_bucket] = self.expected_bucket_owner or owners.get(self.input_bucket)
        return {bucket: owner for bucket, owner in owners.items() if owner is not None}

    @property
    def readable_output_buckets(self) -> frozenset[str]:
        """The buckets that output and failure objects are read from."""
        return frozenset({self.output_bucket, self.failure_bucket or self.output_bucket})


def _explain(error: ValidationError) -> str:
    """One line for each wrong value: which option, which variable, what it held, what is wrong."""
    return "\n".join(_explain_one(dict(detail)) for detail in error.errors())


def _explain_one(detail: dict[str, Any]) -> str:
    if not detail["loc"]:
        return str(detail["msg"]).removeprefix("Value error, ")
    option, variables = map(in_one_line, _option(str(detail["loc"][0])))
    if detail["type"] == "extra_forbidden":
        return f"{option} is not an option of AsyncEndpointConfig: check its spelling"
    if detail["type"] == "missing":
        return f"{option} is not set: set {variables}, or pass {option}="
    field = AsyncEndpointConfig.model_fields.get(option)
    value = _shown(detail["input"]) if field is None or field.repr else "not as it should be"
    return f"{option} ({variables}) is {value}: {detail['msg'].removeprefix('Value error, ')}"


def _shown(value: object) -> str:
    """A value as Python writes it, in one short line."""
    try:
        text = _REPR.repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    return in_one_line(text, _LONGEST_SHOWN)


def _option(location: str) -> tuple[str, str]:
    """The keyword and the environment variables of an option, found by either."""
    for name, field in AsyncEndpointConfig.model_fields.items():
        variables = _variables(field)
        if location == name or location in variables:
            return name, " or ".join(variables)
    return location, location


def _variables(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, tuple):
        return str(value)
    return (os.pathsep if all(isinstance(one, Path) for one in value) else ",").join(map(str, value))
