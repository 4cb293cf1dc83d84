"""What a server's certificate is checked with: botocore's choice, for every library."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

import boto3
from botocore.httpsession import get_cert_path

from osml_tasks.errors import ExtensionConfigurationError


def ca_file(session: boto3.Session) -> Path:
    """Find the file of certificates that botocore trusts: what is configured, or else what it brings along.

    :raises ExtensionConfigurationError: what is configured is not a file of PEM certificates.
    """
    for name, value in _configured(session):
        if value is not None:
            return _checked(value, name)
    return Path(str(get_cert_path(True)))


def ca_context(session: boto3.Session) -> ssl.SSLContext:
    """Make a TLS context that trusts what botocore trusts.

    :raises ExtensionConfigurationError: as :func:`ca_file`.
    """
    context = ssl.create_default_context(cafile=str(ca_file(session)))
    # Since Python 3.13 this is set, though not by botocore: many an organisation's own authority would not pass.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _configured(session: boto3.Session) -> tuple[tuple[str, str | None], ...]:
    """What may name the file, in botocore's order, by the name to change."""
    chosen = session._session.get_config_variable("ca_bundle")
    name = "AWS_CA_BUNDLE" if "AWS_CA_BUNDLE" in os.environ else "ca_bundle of the AWS profile"
    return (name, chosen), ("REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE"))


def _checked(value: str, name: str) -> Path:
    path = Path(value)
    if not value.strip():
        raise ExtensionConfigurationError(f"{name} is empty: unset it, or name a PEM file")
    try:
        version = path.stat().st_mtime_ns
    except OSError as error:
        raise ExtensionConfigurationError(f"{name} is {str(path)!r}: {error.strerror}; name a PEM file") from None
    if complaint := _complaint(path, version):
        raise ExtensionConfigurationError(f"{name} is {str(path)!r}: {complaint}; name a file of PEM certificates")
    return path


@lru_cache(maxsize=8)
def _complaint(path: Path, version: int) -> str | None:
    """What is wrong with a file, in this version of it; None if it can be used."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "it has no certificates that can be read"
    except OSError as error:
        return str(error.strerror)
    return None
