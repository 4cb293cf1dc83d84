"""boto3's clients, made so that what is wrong with their settings is said in one line."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoRegionError

from osml_tasks.errors import ExtensionConfigurationError

SETTINGS = "AWS_DEFAULT_REGION, AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT or AWS_ENDPOINT_URL_*"
"""What decides where requests go: one of these is wrong where botocore knows no host."""


def aws_client(session: boto3.Session, service: str, config: Config | None = None) -> Any:
    """Make a client.

    :param service: as boto3 calls it.
    :raises ExtensionConfigurationError: botocore knows no such service with the region and the switches that are set.
    """
    try:
        return session.client(service, config=config)  # type: ignore[call-overload]
    except NoRegionError:
        raise ExtensionConfigurationError(
            "no AWS region is set: set AWS_DEFAULT_REGION to the endpoint's region"
        ) from None
    except (BotoCoreError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ExtensionConfigurationError(
            f"no client of {service} can be made ({reason}): correct {SETTINGS}"
        ) from None
