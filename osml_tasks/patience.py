"""Which errors of AWS pass by themselves, and which are this machine's clock's."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

# Codes with which a service asks for patience.
_TRANSIENT = frozenset(
    {
        "InternalDependencyException",
        "InternalFailure",
        "InternalServerError",
        "ModelNotReadyException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


UNANSWERED = (HTTPClientError, NoConnectionError)
"""botocore's errors of a request that was not answered."""
_SKEWED = ("RequestTimeTooSkewed", "RequestExpired", "Signature expired", "Signature not yet current")


def clock_is_off(refusal: str, server_time: str = "") -> str | None:
    """What to say of a refusal that has to do with the time of a signature, or None of any other.

    :param refusal: code and message of AWS's answer.
    :param server_time: when it was given by AWS's clock, as in the header ``Date`` or in ISO 8601.
    """
    if not any(word in refusal for word in _SKEWED):
        return None
    there = _moment(server_time)
    by = f" by {abs((datetime.now(UTC) - there).total_seconds()):.0f} s" if there else ""
    return f"AWS refuses what this machine signs, its clock is off{by}: set it, for instance by NTP ({refusal})"


def _moment(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text)
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def may_pass(error: ClientError | BotoCoreError) -> bool:
    """Whether the same call to AWS may succeed later, as far as its error tells."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code in _TRANSIENT or status >= 500 or status == 429
    return isinstance(error, UNANSWERED)
