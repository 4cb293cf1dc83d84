"""How one session reaches S3: what boto3, obstore and GDAL are all told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError

from osml_tasks.aws.addresses import Address, Resolver, bucket_address
from osml_tasks.aws.certificates import ca_file
from osml_tasks.aws.clients import SETTINGS
from osml_tasks.aws.credentials import SessionCredentials, expired
from osml_tasks.aws.proxies import proxy_for
from osml_tasks.aws.s3_client import s3_client
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.patience import may_pass
from osml_tasks.s3_settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Store

# Without a proxy, obstore looks for one in the environment. So it gets one that every host is excluded from.
_NO_PROXY: ClientConfig = {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "*,0.0.0.0/0,::/0"}


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a bucket's objects.

    :ivar proxy: the proxy's URL, or None.
    """

    address: Address
    proxy: str | None


class S3Access:
    """The way to S3 for a session. Thread-safe; make it after a fork, not before.

    :param session: where credentials, region and endpoints come from.
    :param settings: what goes with each request; default: nothing.
    :ivar client: boto3's.
    :ivar ca_file: what servers' certificates are checked with.
    :raises ExtensionConfigurationError: the session has no credentials, or its certificates cannot be read.
    """

    def __init__(self, session: boto3.Session, settings: S3Settings | None = None) -> None:
        self.settings = settings or S3Settings()
        self.ca_file: Path = ca_file(session)
        self.client = s3_client(session, self.settings)
        self.credentials = SessionCredentials(session)
        self._resolver = Resolver(self.client)
        self._routes: dict[str, Route] = {}
        self._lock = Lock()

    def route(self, bucket: str) -> Route:
        """Find the way to a bucket.

        :param bucket: its name, an alias, or the ARN of an access point.
        :raises ExtensionConfigurationError: there is no such host, with the region and the switches that are set.
        :raises botocore.exceptions.BotoCoreError: there are no credentials for now.
        """
        with self._lock:
            if bucket not in self._routes:
                self._routes[bucket] = self._find_route(bucket)
            return self._routes[bucket]

    def _find_route(self, bucket: str) -> Route:
        try:
            address = bucket_address(self._resolver, bucket)
        except BotoCoreError as error:
            if may_pass(error) or expired(error):
                raise
            reason = " ".join(str(error).split())
            raise ExtensionConfigurationError(
                f"bucket {bucket!r} has no address ({reason}): correct {SETTINGS}"
            ) from None
        return Route(address, proxy_for(self.client, address.url))

    def open_store(self, bucket: str) -> S3Store:
        """Open a bucket with obstore."""
        from obstore.store import S3Store

        route = self.route(bucket)
        return S3Store(
            bucket,
            # With the bucket in it already, wherever it belongs. The variable of this name would beat "endpoint".
            aws_endpoint_url_s3=route.address.url,
            virtual_hosted_style_request=True,
            region=route.address.region,
            credential_provider=self.credentials,
            client_options=self._client_options(route) | self.settings.headers(bucket),
            config=self.settings.store_options(),
            retry_config={"max_retries": 6, "retry_timeout": timedelta(minutes=2)},
        )

    def _client_options(self, route: Route) -> ClientConfig:
        options: ClientConfig = {
            "allow_http": not route.address.is_encrypted,
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(minutes=10),
        }
        if route.address.is_encrypted:
            options["root_certificate"] = self._certificates
        if route.proxy is None:
            return options | _NO_PROXY
        options["proxy_url"] = route.proxy
        if route.proxy.startswith("https://"):
            options["proxy_ca_certificate"] = self._certificates.decode()
        return options

    @cached_property
    def _certificates(self) -> bytes:
        return self.ca_file.read_bytes()
