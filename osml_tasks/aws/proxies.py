"""The proxy on the way to a server: botocore's choice, for every library."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies


def proxy_for(client: Any, url: str) -> str | None:
    """Find the proxy for an URL: of a client's configuration, else ``HTTPS_PROXY`` and ``NO_PROXY`` decide.

    ``ALL_PROXY`` has no say, for it has none in botocore.

    :param client: a boto3 client.
    :return: the proxy's URL, with user and password if it has them; None for a direct connection.
    """
    proxies = client.meta.config.proxies or get_environ_proxies(url)
    if not proxies.get(urlsplit(url).scheme):
        return None
    found: str | None = ProxyConfiguration(proxies).proxy_url_for(url)
    return found
