"""What to change where nobody answers: botocore says what happened, and not why."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, EndpointConnectionError, ProxyConnectionError, SSLError


def explain(error: BotoCoreError, client: Any) -> str:
    """Say in one line what an error of a client's request was, with the variable to change if one is at fault.

    :param client: the boto3 client that made the request.
    """
    text = " ".join(str(error).split())
    if isinstance(error, ProxyConnectionError):
        reason = " ".join(str(error.kwargs.get("error", "")).split())
        return f"{text} ({reason}): correct HTTPS_PROXY, with user and password if the proxy asks for them, or NO_PROXY"
    if isinstance(error, SSLError):
        return f"{text}: name the certificates of the server's authority by AWS_CA_BUNDLE, a PEM file"
    region = str(client.meta.region_name)
    if isinstance(error, EndpointConnectionError) and not _is_known(region):
        return f"{text}: {region!r} is no region that is known here; correct AWS_DEFAULT_REGION"
    return text


def _is_known(region: str) -> bool:
    import botocore.session

    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return any(
        region in session.get_available_regions(service, partition_name=partition)
        for partition in partitions
        for service in ("s3", "ec2")
    )
