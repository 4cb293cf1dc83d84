"""Whether an endpoint is in service, asynchronous, and writes where it is expected to; and what it is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.aws.clients import aws_client
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import PreflightError, RoleRefusedError
from osml_tasks.finding import Finding, finding
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    import boto3

_AWS = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})


def check_endpoint(session: boto3.Session, config: AsyncEndpointConfig, endpoint: str) -> Iterator[Finding]:
    """Ask SageMaker for an endpoint.

    :param endpoint: its name.
    """
    name = f"endpoint {endpoint}"
    if os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME") and not _control_plane_named():
        missing = "the runtime has an URL of its own, AWS_ENDPOINT_URL_SAGEMAKER has none"
        yield Finding(name, None, f"not asked: {missing}")
        return
    try:
        described, settings = _described(session, endpoint)
    except ClientError as error:
        yield _refused(name, endpoint, error)
    except BotoCoreError as error:
        yield Finding(name, None, f"cannot be described: {error}")
    except RoleRefusedError as error:
        yield Finding(name, False, str(error))
    else:
        yield finding(name, lambda: _compare(config, endpoint, described, settings))
        yield from _warnings(config, endpoint, settings)


def _described(session: boto3.Session, endpoint: str) -> tuple[Any, Any]:
    """What SageMaker says of an endpoint, and what of that stands in its configuration."""
    client = aws_client(session, "sagemaker", _AWS)
    described = client.describe_endpoint(EndpointName=endpoint)
    if "AsyncInferenceConfig" in described:
        return described, described
    return described, client.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])


def _control_plane_named() -> bool:
    return any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL"))


def _refused(name: str, endpoint: str, error: ClientError) -> Finding:
    if "could not find" in error.response.get("Error", {}).get("Message", "").lower():
        return Finding(
            name, False, f"there is no endpoint {endpoint!r} in this region: correct --endpoint or the region"
        )
    # sagemaker:DescribeEndpoint is not among the permissions that a job needs.
    return Finding(name, None, f"cannot be described: {error}")


def _compare(config: AsyncEndpointConfig, endpoint: str, described: Any, settings: Any) -> str:
    if described["EndpointStatus"] not in ("InService", "Updating"):
        raise PreflightError(f"endpoint {endpoint!r} is {described['EndpointStatus']}, not InService: wait for it")
    output = _output(settings)
    if not output.get("S3OutputPath"):
        raise PreflightError(f"endpoint {endpoint!r} is not asynchronous: it has no AsyncInferenceConfig")
    bucket = S3Uri.parse(output["S3OutputPath"]).bucket
    if bucket != config.output_bucket:
        raise PreflightError(
            f"endpoint {endpoint!r} writes its outputs to bucket {bucket!r}, configured is "
            f"{config.output_bucket!r}: set ASYNC_SM_OUTPUT_BUCKET={bucket}"
        )
    failures = output.get("S3FailurePath")
    if failures and S3Uri.parse(failures).bucket not in config.readable_output_buckets:
        raise PreflightError(
            f"endpoint {endpoint!r} writes its failures to {failures}: "
            f"set ASYNC_SM_FAILURE_BUCKET={S3Uri.parse(failures).bucket}"
        )
    paths = f"outputs to {output['S3OutputPath']}, failures to {failures or 'nowhere'}"
    return f"{described['EndpointStatus']}, {_size(described, settings)}, {paths}"


def _size(described: Any, settings: Any) -> str:
    """How much an endpoint takes at a time."""
    counts = [variant.get("CurrentInstanceCount") for variant in described.get("ProductionVariants", ())]
    instances = sum(count or 0 for count in counts) if counts else "unknown"
    most = settings.get("AsyncInferenceConfig", {}).get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance")
    return f"instances: {instances}, MaxConcurrentInvocationsPerInstance: {most or 'left to SageMaker'}"


def _warnings(config: AsyncEndpointConfig, endpoint: str, settings: Any) -> Iterator[Finding]:
    output = _output(settings)
    if output.get("S3OutputPath") and not output.get("S3FailurePath"):
        yield Finding(
            "failure path",
            None,
            f"endpoint {endpoint!r} has none, so a tile that fails is noticed only after {config.max_wait_time:g} s: "
            "set S3FailurePath in the OutputConfig of its AsyncInferenceConfig",
        )


def _output(settings: Any) -> dict[str, str]:
    return dict(settings.get("AsyncInferenceConfig", {}).get("OutputConfig", {}))
