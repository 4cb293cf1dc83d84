"""SageMaker's runtime: the one call that is made for every tile, of botocore's parts and without its layers.

What boto3 does around a request costs three times what it takes to sign and to send it.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from osml_tasks.errors import RoleRefusedError

if TYPE_CHECKING:
    import boto3

CONNECT_SECONDS = 5
READ_SECONDS = 60

# 202 of SageMaker itself; boto3 takes any of these from what stands in for it.
_ACCEPTED = range(200, 300)
_OPERATION = "InvokeEndpointAsync"

logger = logging.getLogger(__name__)


def runtime_client(session: boto3.Session, connections: int) -> Any:
    """What invokes endpoints: boto3's client, with a shorter way for what goes well where there is one.

    :param connections: how many calls may be under way at a time.
    :return: something with boto3's ``invoke_endpoint_async``, its members, answers and errors.
    """
    client = session.client(
        "sagemaker-runtime",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=connections,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
        ),
    )
    if not (session.get_credentials() and _has_short_way(client)):
        return client
    try:
        return Runtime(client, session)
    except OSError as error:
        # Of certificates that cannot be read: most of what is done here needs none, and boto3 says what is wrong.
        logger.debug("boto3 makes all calls: %r", error)
        return client


class Runtime:
    """Invokes endpoints with a quarter of boto3's CPU. Thread-safe.

    A request is signed by botocore's signer and sent over a connection that is kept. Whatever comes of it but an
    accepted invocation, boto3's client makes the call once more: it tries again what may pass, and says what is wrong.

    :param client: boto3's, whose address, region and service model are used.
    :param session: where that client is from, for its credentials and its certificates.
    """

    def __init__(self, client: Any, session: boto3.Session) -> None:
        self._client = client
        self._credentials: Any = session.get_credentials()
        self._connections = _Connections(client.meta.endpoint_url, session)
        operation = client.meta.service_model.operation_model(_OPERATION)
        self._path = operation.http["requestUri"]
        self._headers = _header_names(operation.input_shape)
        self._answers = _header_names(operation.output_shape)
        self._base = {"User-Agent": client.meta.config.user_agent}
        self._url = client.meta.endpoint_url.rstrip("/")

    def invoke_endpoint_async(self, **members: Any) -> dict[str, str]:
        """As boto3's."""
        try:
            if (answer := self._send(members)) is not None:
                return answer
        except (OSError, HTTPException, UnicodeError, LookupError, TypeError, ValueError) as error:
            logger.debug("boto3 makes the call again: %r", error)
        except (BotoCoreError, ClientError, RoleRefusedError):
            pass  # Of the credentials. boto3's client asks for them again, and says what it is told.
        again: dict[str, str] = self._client.invoke_endpoint_async(**members)
        return again

    def _send(self, members: dict[str, Any]) -> dict[str, str] | None:
        """The answer to an accepted invocation, None if it was not accepted."""
        request = self._request(**members)
        with self._connections.one() as connection:
            path = urlsplit(request.url).path
            connection.request("POST", str(path), body=request.data, headers=dict(request.headers.items()))
            response = connection.getresponse()
            response.read()
        if response.status not in _ACCEPTED:
            return None
        values = ((name, response.headers[header]) for name, header in self._answers.items())
        return {name: value for name, value in values if value is not None}

    def _request(self, *, EndpointName: str, Body: bytes = b"", **members: Any) -> AWSRequest:  # noqa: N803
        headers = self._base | {self._headers[name]: _plain(value) for name, value in members.items()}
        url = self._url + self._path.replace("{EndpointName}", quote(EndpointName, safe="~"))
        request = AWSRequest(method="POST", url=url, headers=headers, data=Body)
        meta = self._client.meta
        # Frozen, for they may be renewed while they are used.
        credentials = self._credentials.get_frozen_credentials()
        SigV4Auth(credentials, meta.service_model.signing_name, meta.region_name).add_auth(request)
        return request


class _Connections:
    """Connections to one server, as many as there are calls at a time; those that were used last are used first."""

    def __init__(self, url: str, session: boto3.Session) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = _tls(session) if parts.scheme == "https" else None
        self._idle: deque[HTTPConnection] = deque()

    @contextmanager
    def one(self) -> Iterator[HTTPConnection]:
        """A connection for one request and its answer; it is kept if both go well."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # the server has not closed it with its answer
            self._idle.append(connection)

    def _open(self) -> HTTPConnection:
        if self._tls is None:
            connection = HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        else:
            connection = HTTPSConnection(self._host, self._port, timeout=CONNECT_SECONDS, context=self._tls)
        connection.connect()
        connection.sock.settimeout(READ_SECONDS)
        # Not for itself: that would be without the time that is given here for reading.
        connection.auto_open = 0
        return connection


def _header_names(shape: Any) -> Mapping[str, str]:
    """The header that each member of a request or an answer is in."""
    serializations = {name: member.serialization for name, member in shape.members.items()}
    return {name: how["name"] for name, how in serializations.items() if how.get("location") == "header"}


def _plain(value: object) -> str:
    """A header's value, which no two parts of the way read in different ways.

    :raises UnicodeError: it is not ASCII.
    """
    return str(value).encode("ascii").decode()


def _has_short_way(client: Any) -> bool:
    # By botocore's newer rules the dual stack has another name in some partitions than its client says.
    settings = client.meta.config
    return settings.signature_version == "v4" and not settings.use_dualstack_endpoint and not _has_proxy(client)


def _has_proxy(client: Any) -> bool:
    url = client.meta.endpoint_url
    proxies = client.meta.config.proxies or get_environ_proxies(url)
    return urlsplit(url).scheme in proxies


def _tls(session: boto3.Session) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=_certificates(session))
    # Since Python 3.13 this is set, though not by botocore: many an organisation's own authority would not pass.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _certificates(session: boto3.Session) -> str | None:
    """What botocore would check a server's certificate with."""
    chosen: str | None = session._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return chosen or get_cert_path(True)
