"""Whether each library that talks to AWS gets through, and to which host it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.aws.credentials import expired
from osml_tasks.aws.s3_access import Route
from osml_tasks.aws.unreachable import explain
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import PreflightError
from osml_tasks.finding import Finding, finding
from osml_tasks.jobs import new_job_id
from osml_tasks.runtime import Runtime, runtime_client
from osml_tasks.s3 import S3Manager
from osml_tasks.s3_settings import S3Settings
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    import boto3

# A PNG image of one pixel: something that GDAL can open.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
_NOBODY = "osml-tasks-check"
"""An endpoint that is asked for and need not exist: any answer will do."""
# Answers that say no call would be taken.
_NOT_SIGNED = frozenset(
    {"InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidClientTokenId"}
)


def check_ways(s3: S3Manager, session: boto3.Session, config: AsyncEndpointConfig) -> Iterator[Finding]:
    """Have each library do what it does in a job, with one object in the input bucket.

    The bucket has answered to boto3 before.
    """
    route = s3.access.route(config.input_bucket)
    yield Finding("S3 by boto3", True, _where(route))
    # Named like a job's, so that the sweep finds it should this process die.
    uri = S3Uri(config.input_bucket, f"{config.input_prefix}{new_job_id(time.time())}/probe")
    try:
        by_obstore = finding("S3 by obstore", lambda: _obstore(s3, config, uri, route))
        yield by_obstore
        if by_obstore.ok:
            yield _gdal(session, config, uri, route)
    finally:
        undeleted = s3.delete([uri])
    for one in undeleted:
        told = f"{one.uri} cannot be deleted: allow s3:DeleteObject there ({one.error})"
        yield Finding("S3 by boto3", False, told)


def check_runtime(session: boto3.Session) -> Finding:
    """Have the endpoints' host answer."""
    return finding("SageMaker runtime", lambda: _runtime(runtime_client(session, 1)))


def _obstore(s3: S3Manager, config: AsyncEndpointConfig, uri: S3Uri, route: Route) -> str:
    s3.put(uri, _PIXEL)
    s3.get(uri)
    found = list(s3.list(uri.parent))
    for bucket in config.readable_output_buckets:
        list(s3.list(S3Uri(bucket, uri.parent.key)))
    return (
        f"{_where(route)}: written, read and listed ({len(found)}) in {config.input_bucket}; "
        f"{config.output_bucket} listed"
    )


def _gdal(session: boto3.Session, config: AsyncEndpointConfig, uri: S3Uri, route: Route) -> Finding:
    name = "S3 by GDAL"
    if find_spec("rasterio") is None:
        return Finding(name, None, "not asked: rasterio is not installed here, and only images need it")
    from osml_tasks.imagery.datasets import Datasets

    def read() -> str:
        with Datasets(session, settings=S3Settings.of(config), most_open=0).open(str(uri)) as image:
            return f"{_where(route)}: an image of {image.width} px read"

    return finding(name, read)


def _runtime(client: Any) -> str:
    try:
        client.invoke_endpoint_async(EndpointName=_NOBODY, InputLocation="s3://none/none")
    except ClientError as error:
        if line := expired(error):
            raise PreflightError(line) from error
        if error.response.get("Error", {}).get("Code") in _NOT_SIGNED:
            raise PreflightError(f"the SageMaker runtime refuses the credentials: {error}") from error
    except BotoCoreError as error:
        told = expired(error) or explain(error, getattr(client, "_client", client))
        raise PreflightError(f"the SageMaker runtime is out of reach: {told}") from error
    if isinstance(client, Runtime):
        return f"{client.address.host} answers{'' if client.is_direct else ', by boto3 and through a proxy'}"
    return f"{client.meta.endpoint_url} answers, by boto3"


def _where(route: Route) -> str:
    if route.proxy is None:
        return route.address.host
    # Without user and password, if it has them.
    scheme, _, rest = route.proxy.partition("://")
    return f"{route.address.host} through {scheme}://{rest.rpartition('@')[2]}"
