"""What a job needs, looked at before it starts: credentials, broker, workers, buckets, endpoint."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from redis.exceptions import RedisError

from osml_tasks.accounts import session_of
from osml_tasks.celery import client_app, state_client
from osml_tasks.celery_settings import QUEUES, tls_complaints
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError, ExtensionError, PreflightError, RoleRefusedError
from osml_tasks.jobs import new_job_id
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.s3_settings import S3Settings
from osml_tasks.worker_presence import find_listeners

if TYPE_CHECKING:
    import boto3

logger = logging.getLogger(__name__)

_KEEPS_ALL = "noeviction"
_AWS = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})


_TRUST = "name its authority's certificate as ssl_ca_certs, or correct the host name in the URL"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    :ivar ok: whether it is as it should be; None where that cannot be told.
    :ivar detail: what was found, in one line.
    :ivar worth_saying: whether somebody who starts a job is to hear of it although the job can start.
    """

    name: str
    ok: bool | None
    detail: str
    worth_saying: bool = False


def require(
    config: AsyncEndpointConfig,
    endpoint: str,
    session: boto3.Session | None = None,
    s3: S3Manager | None = None,
    *,
    warn: Callable[[str], object] = logger.warning,
) -> None:
    """Refuse to start a job that could not go on.

    Other parameters are those of :func:`examine`.

    :param warn: is told, in one line, what may keep the job waiting; default: the log.
    :raises PreflightError: with the first thing that is missing.
    """
    for finding in examine(config, endpoint, session, thorough=False, s3=s3):
        if finding.ok is False:
            raise PreflightError(finding.detail)
        if finding.ok is None and finding.worth_saying:
            warn(finding.detail)


def examine(
    config: AsyncEndpointConfig,
    endpoint: str | None,
    session: boto3.Session | None = None,
    *,
    thorough: bool,
    s3: S3Manager | None = None,
) -> Iterator[Finding]:
    """Look at one thing after the other.

    :param endpoint: its name; None leaves it out.
    :param session: where AWS credentials come from, those that assume a configured role included.
    :param thorough: also write, read and delete an object in the input bucket; and where no worker is known of at
        all, that is an error.
    :param s3: by what S3 is asked; default: a new one of the session.
    """
    session = session_of(config, session)
    credentials = _finding("credentials", lambda: _credentials(session, config.assume_role_arn))
    yield credentials
    broker = _finding("broker", check_broker)
    yield broker
    if broker.ok:
        if thorough:
            yield _memory()
        yield _workers(thorough)
    if credentials.ok:
        yield from _buckets(s3 or S3Manager(session, S3Settings.of(config)), config, thorough)
    if endpoint is not None:
        yield _endpoint(session, config, endpoint)


def _buckets(s3: S3Manager, config: AsyncEndpointConfig, thorough: bool) -> Iterator[Finding]:
    all_answer = True
    for bucket in dict.fromkeys((config.input_bucket, config.output_bucket, config.failure_bucket)):
        if bucket is not None:
            answer = _finding(f"bucket {bucket}", partial(_bucket, s3, bucket))
            all_answer &= answer.ok is True
            yield answer
    if thorough and all_answer:
        yield _finding("objects", lambda: _objects(s3, config))


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except ExtensionError as error:
        return Finding(name, False, str(error))


def _credentials(session: boto3.Session, role_arn: str | None) -> str:
    credentials = session.get_credentials()
    if credentials is None:
        raise PreflightError(
            "no AWS credentials found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if session.region_name is None:
        raise PreflightError("no AWS region is set: set AWS_DEFAULT_REGION to the endpoint's region")
    if role_arn is None:
        return f"found, region {session.region_name}"
    try:
        credentials.get_frozen_credentials()
    except (ClientError, BotoCoreError) as error:
        raise PreflightError(f"role {role_arn} cannot be assumed now: {error}") from error
    return f"role {role_arn} assumed, region {session.region_name}"


def check_broker() -> str:
    """Say where the broker is, if it and the result backend answer.

    :raises PreflightError: one of them does not.
    """
    app = client_app()
    for complaint in tls_complaints(app.conf):
        raise PreflightError(complaint)
    try:
        with app.connection_for_write(connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=0, timeout=5)
            where = connection.as_uri()
    except ExtensionConfigurationError:
        raise
    except Exception as error:
        url = app.connection_for_write().as_uri()
        if _is_distrust(error):
            raise PreflightError(f"the broker {url} is not to be trusted ({error}): {_TRUST}") from error
        raise PreflightError(
            f"the broker {url} does not answer ({error}): start it, or set CELERY_BROKER_URL"
        ) from error
    try:
        state_client(app).ping()
    except ExtensionConfigurationError:
        raise
    except Exception as error:
        if _is_distrust(error):
            where = app.backend.as_uri()
            raise PreflightError(f"the result backend {where} is not to be trusted ({error}): {_TRUST}") from error
        raise PreflightError(
            f"the result backend {app.backend.as_uri()} does not answer ({error}): "
            "start it, or set CELERY_RESULT_BACKEND to a Redis URL"
        ) from error
    return str(where)


def _memory() -> Finding:
    """Whether the server with the jobs' state keeps what it has when its memory is full."""
    try:
        policy = state_client(client_app()).info("memory").get("maxmemory_policy")
    except RedisError as error:
        return Finding("memory", None, f"not asked: {error}")
    if policy in (None, _KEEPS_ALL):
        return Finding("memory", True, "the state's server evicts nothing")
    return Finding(
        "memory",
        False,
        f"the state's server has maxmemory-policy {policy}: set it to {_KEEPS_ALL}, or records of jobs vanish when "
        "its memory is full",
    )


def _is_distrust(error: Exception) -> bool:
    """Whether a server's certificate was refused: redis-py hands on the text alone."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _workers(thorough: bool) -> Finding:
    """Whether each queue has a worker; a job may start where none is known of at all, for it waits and costs nothing.

    Not so where a part of the fleet is there: what that invokes costs, and nobody would fetch it.
    """
    found = find_listeners(client_app())
    if not found.missing:
        counts = ", ".join(f"{found.counts[queue]} on {queue}" for queue in QUEUES)
        return Finding("workers", True, f"every queue is served: {counts}")
    missing = ",".join(found.missing)
    if found.served:
        return Finding(
            "workers",
            False,
            f"no worker listens on {', '.join(found.missing)}, while others do on {', '.join(found.served)}: "
            f"start one with 'osml-tasks worker', or 'celery -A osml_tasks worker -Q {missing}'",
        )
    return Finding(
        "workers",
        False if thorough else None,
        f"no worker is known to listen on {', '.join(found.missing)}: start one with 'osml-tasks worker', "
        "or 'celery -A osml_tasks worker'; a job waits for it",
        worth_saying=True,
    )


def _bucket(s3: S3Manager, bucket: str) -> str:
    s3.validate_bucket(bucket)
    return "answers"


def _objects(s3: S3Manager, config: AsyncEndpointConfig) -> str:
    """Do with one object in the input bucket what a job does, and list both buckets."""
    # Named like a job's, so that the sweep finds it should this process die.
    uri = S3Uri(config.input_bucket, f"{config.input_prefix}{new_job_id(time.time())}/probe")
    s3.put(uri, b"osml-tasks check")
    try:
        s3.get(uri)
        found = list(s3.list(uri.parent))
    finally:
        undeleted = s3.delete([uri])
    for one in undeleted:
        raise PreflightError(f"{one.uri} cannot be deleted: allow s3:DeleteObject there ({one.error})")
    for bucket in config.readable_output_buckets:
        list(s3.list(S3Uri(bucket, uri.parent.key)))
    return f"written, read, listed ({len(found)}) and deleted in {config.input_bucket}; {config.output_bucket} listed"


def _endpoint(session: boto3.Session, config: AsyncEndpointConfig, endpoint: str) -> Finding:
    name = f"endpoint {endpoint}"
    if os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME") and not _control_plane_named():
        return Finding(name, None, "not asked: the runtime has an URL of its own, AWS_ENDPOINT_URL_SAGEMAKER has none")
    try:
        client = session.client("sagemaker", config=_AWS)
        described = settings = client.describe_endpoint(EndpointName=endpoint)
        if "AsyncInferenceConfig" not in described:
            settings = client.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
    except ClientError as error:
        return _refused(name, endpoint, error)
    except BotoCoreError as error:
        return Finding(name, None, f"cannot be described: {error}")
    except RoleRefusedError as error:
        return Finding(name, False, str(error))
    return _finding(name, lambda: _compare(config, endpoint, described, settings))


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
    """Whether the endpoint is in service, asynchronous, and writes where it is expected to."""
    if described["EndpointStatus"] not in ("InService", "Updating"):
        raise PreflightError(f"endpoint {endpoint!r} is {described['EndpointStatus']}, not InService: wait for it")
    output = settings.get("AsyncInferenceConfig", {}).get("OutputConfig", {})
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
    return f"{described['EndpointStatus']}, writes to {output['S3OutputPath']}"
