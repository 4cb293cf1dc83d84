"""What the URL of a broker or of a result backend has to be before anything is connected to it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.one_line import in_one_line
from osml_tasks.redaction import Redaction

_REDIS = ("redis", "rediss")


def check_broker_url(url: str) -> None:
    """Refuse what no broker can be reached by.

    :param url: of one broker, or of several with ``;`` between.
    :raises ExtensionConfigurationError: in one line, without password.
    """
    for one in url.split(";"):
        _check("CELERY_BROKER_URL", one)
        if urlsplit(one).scheme.partition("+")[0] not in TRANSPORT_ALIASES:
            raise _refused("CELERY_BROKER_URL", one, "nothing here speaks that protocol")


def check_result_backend(url: str) -> None:
    """Refuse what no result backend can be reached by; whether it keeps the state of jobs is seen when it is used.

    :raises ExtensionConfigurationError: in one line, without password.
    """
    for one in url.split(";"):
        _check("CELERY_RESULT_BACKEND", one)


def check_master_name(setting: str, url: str, options: Mapping[str, object]) -> None:
    """Refuse servers under Sentinel of which nobody says who is meant.

    :param setting: what the options are called.
    :raises ExtensionConfigurationError: in one line.
    """
    if url.startswith("sentinel:") and not options.get("master_name"):
        raise ExtensionConfigurationError(
            f"master_name in {setting} is not set: set it in celeryconfig.py to what Sentinel calls the master"
        )


def _check(variable: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise _refused(variable, url, str(error)) from None
    if not parts.scheme or "://" not in url:
        raise _refused(variable, url, "it has no ://")
    database = parts.path.strip("/")
    if parts.scheme in _REDIS and database and not (database.isascii() and database.isdigit()):
        raise _refused(variable, url, "a database of Redis is a number")


def _refused(variable: str, url: str, why: str) -> ExtensionConfigurationError:
    shown = in_one_line(repr(Redaction()(url)), 200)
    return ExtensionConfigurationError(
        f"{variable} is {shown}: {why}; write it as redis://HOST:PORT/0, or amqp://USER:PASSWORD@HOST:PORT//"
    )
