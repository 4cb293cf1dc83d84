"""SageMaker's runtime: the one call that is made for every tile, of botocore's parts and without its layers.

What boto3 does around a request costs three times what it takes to sign and to send it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
    RemoteDisconnected,
)
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.aws.addresses import Address, Resolver, endpoint_address
from osml_tasks.aws.certificates import ca_context, ca_file
from osml_tasks.aws.clients import aws_client
from osml_tasks.aws.credentials import SessionCredentials
from osml_tasks.aws.proxies import proxy_for
from osml_tasks.errors import AnswerLostError, CredentialsExpiredError, RoleRefusedError

if TYPE_CHECKING:
    import boto3

CONNECT_SECONDS = 5
READ_SECONDS = 60

# 202 of SageMaker itself; boto3 takes any of these from what stands in for it.
_ACCEPTED = range(200, 300)
_OPERATION = "InvokeEndpointAsync"
_ANY = "endpoint"  # all endpoints of a region have one address

logger = logging.getLogger(__name__)


def runtime_client(session: boto3.Session, connections: int, *, says_lost: bool = False) -> Any:
    """What invokes endpoints: boto3's client, with a shorter way for what goes well where there is one.

    :param connections: how many calls may be under way at a time.
    :param says_lost: whether an answer that is lost is an error, rather than tried again at once: for a caller that
        can look whether the call was accepted. Where only boto3 can go, over a proxy for one, it is tried again.
    :return: something with boto3's ``invoke_endpoint_async``, its members, answers and errors.
    :raises ExtensionConfigurationError: there is no such client, or the configured certificates cannot be read.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=connections,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    client = aws_client(session, "sagemaker-runtime", config)
    ca_file(session)
    if session.get_credentials() is None or client.meta.config.signature_version != "v4":
        return client
    return Runtime(client, session, says_lost=says_lost)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where invocations go.

    :ivar connections: to there; None where only boto3's client can go that way.
    """

    address: Address
    connections: _Connections | None


class Runtime:
    """Invokes endpoints with a quarter of boto3's CPU. Thread-safe.

    A request is signed by botocore's signer and sent over a connection that is kept. Whatever comes of it but an
    accepted invocation, boto3's client makes the call once more: it tries again what may pass, and says what is wrong.
    Where a proxy is on the way it makes all calls.

    :param client: boto3's, whose address, region and service model are used.
    :param session: where that client is from, for its credentials and its certificates.
    :param says_lost: see :func:`runtime_client`.
    """

    def __init__(self, client: Any, session: boto3.Session, *, says_lost: bool = False) -> None:
        self._says_lost = says_lost
        self._client = client
        self._session = session
        self._credentials = SessionCredentials(session)
        self._resolver = Resolver(client)
        self._found: _Way | None = None
        self._lock = Lock()
        operation = client.meta.service_model.operation_model(_OPERATION)
        self._path = operation.http["requestUri"]
        self._headers = _header_names(operation.input_shape)
        self._answers = _header_names(operation.output_shape)
        self._base = {"User-Agent": client.meta.config.user_agent}

    @property
    def address(self) -> Address:
        """Where invocations go."""
        return self._way().address

    @property
    def is_direct(self) -> bool:
        """Whether invocations go without boto3's layers: there is no proxy on the way."""
        return self._way().connections is not None

    def invoke_endpoint_async(self, **members: Any) -> dict[str, str]:
        """As boto3's.

        :raises AnswerLostError: the call was sent, and its answer did not come whole: it may have been accepted.
        """
        try:
            if (answer := self._send(members)) is not None:
                return answer
        except (OSError, HTTPException, UnicodeError, LookupError, TypeError, ValueError) as error:
            logger.debug("boto3 makes the call again: %r", error)
        except AnswerLostError as error:
            if self._says_lost:
                raise
            logger.debug("boto3 makes the call again: %s", error)
        except (BotoCoreError, ClientError, CredentialsExpiredError, RoleRefusedError):
            pass  # Of the credentials. boto3's client asks for them again, and says what it is told.
        again: dict[str, str] = self._client.invoke_endpoint_async(**members)
        return again

    def _send(self, members: dict[str, Any]) -> dict[str, str] | None:
        """The answer to an accepted invocation; None if it was not accepted, or cannot be sent this way."""
        way = self._way()
        if way.connections is None:
            return None
        request = self._request(way.address, **members)
        with way.connections.one() as (connection, was_kept):
            path = urlsplit(request.url).path
            connection.request("POST", str(path), body=request.data, headers=dict(request.headers.items()))
            with _lost(members, unless=RemoteDisconnected if was_kept else ()):
                response = connection.getresponse()
                if response.status in _ACCEPTED:
                    return self._accepted(response)
                response.read()
        return None

    def _accepted(self, response: HTTPResponse) -> dict[str, str]:
        """What an answer has in its headers.

        :raises HTTPException: there is nothing that shows that these are all.
        """
        try:
            body = response.read()
        except IncompleteRead as error:
            body = error.partial
        values = ((name, response.headers[header]) for name, header in self._answers.items())
        answer = {name: value for name, value in values if value is not None}
        if "OutputLocation" not in answer or not (body or response.headers["Content-Length"] == "0"):
            raise IncompleteRead(body)
        return answer

    def _way(self) -> _Way:
        # Not before the first call: a role would be assumed for it.
        with self._lock:
            if self._found is None:
                url = endpoint_address(self._resolver, _ANY)
                address = replace(url, url=url.url.removesuffix(self._path.replace("{EndpointName}", _ANY)))
                is_direct = proxy_for(self._client, address.url) is None
                self._found = _Way(address, _Connections(address.url, self._session) if is_direct else None)
            return self._found

    def _request(self, address: Address, *, EndpointName: str, Body: bytes = b"", **members: Any) -> AWSRequest:  # noqa: N803
        headers = self._base | {self._headers[name]: _plain(value) for name, value in members.items()}
        url = address.url + self._path.replace("{EndpointName}", quote(EndpointName, safe="~"))
        request = AWSRequest(method="POST", url=url, headers=headers, data=Body)
        signing_name = self._client.meta.service_model.signing_name
        # Frozen, for they may be renewed while they are used.
        SigV4Auth(self._credentials.frozen(), signing_name, address.region).add_auth(request)
        return request


class _Connections:
    """Connections to one server, as many as there are calls at a time; those that were used last are used first."""

    def __init__(self, url: str, session: boto3.Session) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = ca_context(session) if parts.scheme == "https" else None
        self._idle: deque[HTTPConnection] = deque()

    @contextmanager
    def one(self) -> Iterator[tuple[HTTPConnection, bool]]:
        """A connection for one request and its answer, and whether it was used before; it is kept if both go well."""
        try:
            connection, was_kept = self._idle.pop(), True
        except IndexError:
            connection, was_kept = self._open(), False
        try:
            yield connection, was_kept
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


@contextmanager
def _lost(members: Mapping[str, Any], unless: type[Exception] | tuple[()]) -> Iterator[None]:
    """Say of an answer that does not come whole that it is lost.

    :param unless: how a server leaves that has closed a connection before there was a request.
    """
    try:
        yield
    except unless:
        raise
    except (OSError, HTTPException) as error:
        named = {"endpoint": str(members["EndpointName"]), "inference_id": str(members.get("InferenceId", ""))}
        text = f"endpoint {named['endpoint']!r}: the answer to an invocation is lost: {error!r}"
        raise AnswerLostError(text, **named) from error


def _header_names(shape: Any) -> Mapping[str, str]:
    """The header that each member of a request or an answer is in."""
    serializations = {name: member.serialization for name, member in shape.members.items()}
    return {name: how["name"] for name, how in serializations.items() if how.get("location") == "header"}


def _plain(value: object) -> str:
    """A header's value, which no two parts of the way read in different ways.

    :raises UnicodeError: it is not ASCII.
    """
    return str(value).encode("ascii").decode()
