"""What a job needs, looked at before it starts: credentials, broker, workers, buckets, endpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from redis.exceptions import RedisError

from osml_tasks.accounts import session_of
from osml_tasks.aws.certificates import ca_file
from osml_tasks.aws.credentials import SessionCredentials
from osml_tasks.celery import client_app, state_client
from osml_tasks.celery_settings import QUEUES, tls_complaints
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.endpoint_check import check_endpoint
from osml_tasks.errors import ExtensionConfigurationError, PreflightError
from osml_tasks.finding import Finding, finding
from osml_tasks.s3 import S3Manager
from osml_tasks.s3_settings import S3Settings
from osml_tasks.ways_check import check_runtime, check_ways
from osml_tasks.worker_presence import find_listeners

if TYPE_CHECKING:
    import boto3

logger = logging.getLogger(__name__)

_KEEPS_ALL = "noeviction"
_TRUST = "name its authority's certificate as ssl_ca_certs, or correct the host name in the URL"


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
    for found in examine(config, endpoint, session, thorough=False, s3=s3):
        if found.ok is False:
            raise PreflightError(found.detail)
        if found.ok is None and found.worth_saying:
            warn(found.detail)


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
    :param thorough: also have each library that talks to AWS do what it does in a job; and where no worker is known
        of at all, that is an error.
    :param s3: by what S3 is asked; default: a new one of the session.
    """
    session = session_of(config, session)
    credentials = finding("credentials", lambda: _credentials(session, config.assume_role_arn))
    yield credentials
    broker = finding("broker", check_broker)
    yield broker
    if broker.ok:
        if thorough:
            yield _memory()
        yield _workers(thorough)
    certificates = finding("certificates", lambda: str(ca_file(session)))
    if thorough or not certificates.ok:
        yield certificates
    if credentials.ok and certificates.ok:
        yield from _buckets(s3 or S3Manager(session, S3Settings.of(config)), session, config, thorough)
        if thorough:
            yield check_runtime(session)
    if endpoint is not None:
        yield from check_endpoint(session, config, endpoint)


def _buckets(s3: S3Manager, session: boto3.Session, config: AsyncEndpointConfig, thorough: bool) -> Iterator[Finding]:
    all_answer = True
    for bucket in dict.fromkeys((config.input_bucket, config.output_bucket, config.failure_bucket)):
        if bucket is not None:
            answer = finding(f"bucket {bucket}", partial(_bucket, s3, bucket))
            all_answer &= answer.ok is True
            yield answer
    if thorough and all_answer:
        yield from check_ways(s3, session, config)


def _credentials(session: boto3.Session, role_arn: str | None) -> str:
    credentials = SessionCredentials(session)
    if session.region_name is None:
        raise PreflightError("no AWS region is set: set AWS_DEFAULT_REGION to the endpoint's region")
    if role_arn is None:
        return f"found, region {session.region_name}"
    try:
        credentials.frozen()
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
