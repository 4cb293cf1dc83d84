"""Where requests go, as botocore resolves it.

Endpoint URLs, FIPS, dual stack, partitions, access points, path style: botocore has rules for all of them. So it is
asked, by having it make a request up to the point of sending it.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import local
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

_KEY = "key"


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests go.

    :ivar url: scheme, host and what stands before the rest of the path; without a slash at its end.
    :ivar region: the one that requests are signed for.
    """

    url: str
    region: str

    @property
    def host(self) -> str:
        """The host, with its port if the URL has one."""
        return urlsplit(self.url).netloc

    @property
    def is_encrypted(self) -> bool:
        """Whether requests go by TLS."""
        return self.url.startswith("https://")


@dataclass(slots=True)
class _Request:
    """What is known of a request that is not sent."""

    url: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class _NoBody:
    """The body of an answer that nobody gave."""

    def stream(self, *_: object, **__: object) -> tuple[bytes, ...]:
        return ()

    def close(self) -> None: ...


class Resolver:
    """Tells where a boto3 client sends its requests. Thread-safe; the client may be used at the same time.

    :param client: a boto3 client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asking = _Asking()
        client.meta.events.register("before-sign", self._note_region)
        client.meta.events.register("before-send", self._stop)

    def request(self, operation: str, **parameters: Any) -> Address:
        """Resolve where a call would go, its path included.

        :param operation: the name of the client's method.
        :raises botocore.exceptions.BotoCoreError: no such call can be made, or signed.
        """
        request = self._asking.request = _Request()
        try:
            getattr(self._client, operation)(**parameters)
        finally:
            self._asking.request = None
        return Address(request.url, request.region)

    def _note_region(self, region_name: str, **_: Any) -> None:
        if self._asking.request is not None:
            self._asking.request.region = region_name

    def _stop(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        if self._asking.request is None:
            return None
        self._asking.request.url = str(request.url)
        return AWSResponse(str(request.url), 200, HTTPHeaders(), _NoBody())


class _Asking(local):
    """The request that this thread asks about; None while it makes real ones."""

    request: _Request | None = None


def bucket_address(resolver: Resolver, bucket: str) -> Address:
    """Resolve where the objects of a bucket are: what stands before the slash and the key.

    :param resolver: of a client of S3.
    :param bucket: the bucket's name, an alias, or the ARN of an access point.
    """
    found = resolver.request("head_object", Bucket=bucket, Key=_KEY)
    return Address(found.url.removesuffix(f"/{_KEY}"), found.region)


def endpoint_address(resolver: Resolver, endpoint: str) -> Address:
    """Resolve where an endpoint's invocations go, as a whole URL.

    :param resolver: of a client of the SageMaker runtime.
    """
    return resolver.request("invoke_endpoint_async", EndpointName=endpoint, InputLocation="s3://bucket/key")
