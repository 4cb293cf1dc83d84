"""boto3's client of S3, as everything here uses it: it goes to no region but the session's own."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from osml_tasks.aws.clients import aws_client
from osml_tasks.errors import BucketRegionError
from osml_tasks.s3_settings import S3Settings

_REGION_HEADER = "x-amz-bucket-region"
_ELSEWHERE = frozenset({301, 302, 307, 400})
_MISPLACED = frozenset({"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"})


def s3_client(session: boto3.Session, settings: S3Settings | None = None) -> Any:
    """Make a client of S3.

    :param settings: what goes with each request; default: nothing.
    :return: its calls raise :class:`~osml_tasks.errors.BucketRegionError` of a bucket in another region.
    :raises ExtensionConfigurationError: as :func:`~osml_tasks.aws.clients.aws_client`.
    """
    client = aws_client(session, "s3", _regional(session))
    (settings or S3Settings()).apply_to(client)
    # First: botocore's own handler would make the request again in that region.
    client.meta.events.register_first("needs-retry.s3", _Region(str(client.meta.region_name)).refuse_another)
    return client


def _regional(session: boto3.Session) -> Config | None:
    """Go to us-east-1's own host, unless somebody chose: GDAL cannot be told of the one that all regions share."""
    chosen = session._session.get_config_variable("s3") or {}
    return None if "us_east_1_regional_endpoint" in chosen else Config(s3={"us_east_1_regional_endpoint": "regional"})


class _Region:
    """The region that buckets have to be in."""

    def __init__(self, name: str) -> None:
        self._name = name

    def refuse_another(self, response: Any, request_dict: dict[str, Any], **_: Any) -> None:
        if response is None or response[0].status_code not in _ELSEWHERE:
            return
        said = response[1].get("Error", {})
        told = response[1].get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(_REGION_HEADER)
        region = told or (said.get("Region") if said.get("Code") in _MISPLACED else None)
        if region and region != self._name:
            bucket = str(request_dict.get("context", {}).get("s3_redirect", {}).get("bucket"))
            raise BucketRegionError(other_region(bucket, str(region), self._name), uri=f"s3://{bucket}")


def other_region(bucket: str, region: str, ours: str) -> str:
    """Say that a bucket is in another region, and what to do."""
    return (
        f"bucket {bucket!r} is in region {region}, and this process works in {ours}; a bucket has to be where the "
        f"endpoint is: set AWS_DEFAULT_REGION={region}, or use a bucket in {ours}"
    )
