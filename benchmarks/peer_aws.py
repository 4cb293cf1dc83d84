"""The AWS calls of the peers: boto3, with one client a process, made at its first use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

CONNECTIONS = 24


def input_bucket() -> str:
    """Where tiles go."""
    return os.environ["ARTIFACT_BUCKET"]


def output_bucket() -> str:
    """Where the endpoint writes."""
    return os.environ["ASYNC_SM_OUTPUT_BUCKET"]


@lru_cache
def s3() -> Any:
    """The client of S3."""
    return boto3.client("s3", config=Config(max_pool_connections=CONNECTIONS))


@lru_cache
def runtime() -> Any:
    """The client of SageMaker's runtime."""
    return boto3.client("sagemaker-runtime", config=Config(max_pool_connections=CONNECTIONS))


def put(key: str, body: bytes) -> None:
    """Upload a tile."""
    s3().put_object(Bucket=input_bucket(), Key=key, Body=body)


def invoke(endpoint: str, extension: str, **source: bytes | str) -> str:
    """Invoke the endpoint with ``Body`` or ``InputLocation``; says which key the output will have."""
    answer = runtime().invoke_endpoint_async(
        EndpointName=endpoint, ContentType="image/png", S3OutputPathExtension=extension, **source
    )
    return str(answer["OutputLocation"]).partition(f"s3://{output_bucket()}/")[2]


def exists(key: str) -> bool:
    """Whether an output is there."""
    try:
        s3().head_object(Bucket=output_bucket(), Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def get(key: str) -> bytes:
    """Read an output."""
    return bytes(s3().get_object(Bucket=output_bucket(), Key=key)["Body"].read())


def list_keys(bucket: str, prefix: str) -> Iterator[str]:
    """The keys under a prefix."""
    for page in s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (found["Key"] for found in page.get("Contents", ()))


def delete(bucket: str, keys: Sequence[str]) -> None:
    """Delete objects, a thousand a request."""
    for start in range(0, len(keys), 1000):
        objects = [{"Key": key} for key in keys[start : start + 1000]]
        s3().delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
