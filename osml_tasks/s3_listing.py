"""Listings by boto3, of buckets whose owner is asked for.

obstore leaves headers of its client's own out of the signature of a LIST, and of that request only; S3
refuses headers of its own that are not signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.aws.credentials import expired
from osml_tasks.errors import ObjectNotFoundError, S3AccessError, S3CredentialsExpiredError, S3OperationError
from osml_tasks.s3_uri import S3Uri


def pages(client: Any, prefix: S3Uri, **options: str) -> Iterator[dict[str, Any]]:
    """What S3 answers of the objects under a prefix that ends at a slash, page by page.

    :param client: a boto3 client.
    :param options: more parameters of ``ListObjectsV2``.
    :raises S3OperationError: or one of its kinds.
    """
    folder = f"{prefix.key.rstrip('/')}/".lstrip("/")
    try:
        yield from client.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=folder, **options)
    except ClientError as error:
        if line := expired(error):
            raise S3CredentialsExpiredError(f"LIST {prefix} failed: {line}", uri=str(prefix)) from error
        told, uri = error.response.get("Error", {}), str(prefix)
        said = f"{told.get('Code')}: {told.get('Message')}"
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (401, 403):
            raise S3AccessError(f"LIST {prefix} was denied: {said}", uri=uri) from error
        if status == 404:
            raise ObjectNotFoundError(f"LIST {prefix} failed: no such object or bucket", uri=uri) from error
        raise S3OperationError(f"LIST {prefix} failed: {said}", uri=uri) from error
    except BotoCoreError as error:
        raise S3OperationError(f"LIST {prefix} failed: {error}", uri=str(prefix)) from error
