"""GDAL's settings for objects in S3: what boto3 would do, in GDAL's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rasterio.session import Session

from osml_tasks.s3_settings import OWNER_HEADER
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    from osml_tasks.aws.s3_access import Route, S3Access

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_ACCESS_POINT = re.compile(r"arn:[^:]+:s3:[^:]+:(\d+):accesspoint[:/](.+)")


def gdal_path(location: str) -> str:
    """Say what GDAL calls a location."""
    if not location.startswith("s3://"):
        return location
    uri = S3Uri.parse(location)
    return f"/vsis3/{host_label(uri.bucket)}/{uri.key}"


def location_of(path: str) -> str:
    """Say the location that GDAL's name of a file stands for; of other file systems of GDAL's it stays a path."""
    return f"s3://{path.removeprefix('/vsis3/')}" if path.startswith("/vsis3/") else path


def host_label(bucket: str) -> str:
    """Say what a bucket is called in the name of its host; GDAL knows no ARN of an access point."""
    arn = _ACCESS_POINT.fullmatch(bucket)
    return bucket if arn is None else f"{arn[2]}-{arn[1]}"


class GivenSession(Session):  # type: ignore[misc]
    """What GDAL is told of S3, by somebody who knows.

    :param options: as :class:`S3Session` has them.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)

    @property
    def access_key(self) -> str:
        """Whose keys requests are signed with."""
        return str(self._options.get("AWS_ACCESS_KEY_ID", ""))

    @property
    def credentials(self) -> dict[str, Any]:
        """The keys."""
        return {name: value for name, value in self._options.items() if name in _KEYS}

    def get_credential_options(self) -> dict[str, Any]:
        """Return all settings, as rasterio asks for them when an environment begins."""
        return self._options


class S3Session(Session):  # type: ignore[misc]
    """What GDAL is told of one bucket. rasterio's own kind for AWS knows neither hosts nor proxies.

    :param access: the way to S3.
    :raises CredentialsExpiredError: the credentials have expired, and cannot be renewed now.
    :raises botocore.exceptions.BotoCoreError: they cannot be had for now, or there is no such bucket.
    """

    def __init__(self, access: S3Access, bucket: str) -> None:
        self._access = access
        self._route = access.route(bucket)
        self._owner = access.settings.owners.get(bucket)
        self._label = host_label(bucket)
        self._keys = access.credentials.frozen()

    @property
    def access_key(self) -> str:
        """Whose keys requests are signed with."""
        return str(self._keys.access_key)

    @property
    def credentials(self) -> dict[str, str]:
        """The keys."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": str(self._keys.secret_key),
            # Empty, lest one of the environment goes with keys that are not.
            "AWS_SESSION_TOKEN": self._keys.token or "",
        }

    def get_credential_options(self) -> dict[str, Any]:
        """Return all settings, as rasterio asks for them when an environment begins."""
        payer = {"AWS_REQUEST_PAYER": "requester"} if self._access.settings.requester_pays else {}
        owner = {} if self._owner is None else {"GDAL_HTTP_HEADERS": f"{OWNER_HEADER}: {self._owner}"}
        return self.credentials | payer | owner | _host(self._route, self._label) | self._way()

    def _way(self) -> dict[str, Any]:
        # Empty, so that curl does not look into the environment.
        return {"GDAL_CURL_CA_BUNDLE": str(self._access.ca_file), "GDAL_HTTP_PROXY": self._route.proxy or ""}


def _host(route: Route, label: str) -> dict[str, str]:
    """Return the host without the bucket, which GDAL adds."""
    address = route.address
    scheme, _, rest = address.url.partition("://")
    is_virtual = rest.startswith(f"{label}.") and "/" not in rest
    return {
        "AWS_REGION": address.region,
        "AWS_S3_ENDPOINT": rest.removeprefix(f"{label}.") if is_virtual else rest.removesuffix(f"/{label}"),
        "AWS_HTTPS": "YES" if scheme == "https" else "NO",
        "AWS_VIRTUAL_HOSTING": "TRUE" if is_virtual else "FALSE",
    }
