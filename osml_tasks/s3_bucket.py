"""Whether a bucket is there, lets us in, and is in our region."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.aws.credentials import expired
from osml_tasks.aws.s3_access import S3Access
from osml_tasks.aws.unreachable import explain
from osml_tasks.errors import (
    CredentialsExpiredError,
    ObjectNotFoundError,
    S3AccessError,
    S3CredentialsExpiredError,
    S3OperationError,
)


def check_bucket(access: S3Access, bucket: str) -> None:
    """Ask S3 for a bucket.

    :raises ObjectNotFoundError: there is no such bucket.
    :raises BucketRegionError: it is in another region.
    :raises S3AccessError: it refuses access.
    :raises S3CredentialsExpiredError: the credentials have expired.
    :raises S3OperationError: S3 does not answer.
    """
    uri = f"s3://{bucket}"
    try:
        access.credentials.frozen()
        _head(access, bucket)
    except CredentialsExpiredError as error:
        raise S3CredentialsExpiredError(f"bucket {bucket!r} cannot be asked for: {error}", uri=uri) from error
    except ClientError as error:
        raise _refused(access, bucket, error) from error
    except BotoCoreError as error:
        told = explain(error, access.client)
        raise S3OperationError(f"bucket {bucket!r} is out of reach: {told}", uri=uri) from error


def _head(access: S3Access, bucket: str) -> None:
    try:
        access.client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 400:
            raise
        # What is wrong stands in a body, and an answer to HEAD has none.
        access.client.list_objects_v2(Bucket=bucket, MaxKeys=1)
        raise


def _refused(access: S3Access, bucket: str, error: ClientError) -> S3OperationError:
    uri = f"s3://{bucket}"
    if line := expired(error):
        return S3CredentialsExpiredError(f"bucket {bucket!r} cannot be asked for: {line}", uri=uri)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 404:
        return ObjectNotFoundError(f"there is no bucket {bucket!r}: correct its name or create it", uri=uri)
    if status in (401, 403):
        text = f"bucket {bucket!r} refuses access: allow s3:ListBucket on it{_or_owner(access, bucket)} ({error})"
        return S3AccessError(text, uri=uri)
    return S3OperationError(f"bucket {bucket!r} is out of order: {error}", uri=uri)


def _or_owner(access: S3Access, bucket: str) -> str:
    owner = access.settings.owners.get(bucket)
    # S3 says no more than 403, whichever it is.
    return "" if owner is None else f", or correct ASYNC_SM_EXPECTED_BUCKET_OWNER if {owner} does not own it"
