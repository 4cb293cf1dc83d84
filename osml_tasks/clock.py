"""Whether this machine's clock is right enough for a worker.

Over Redis, a worker gives messages back to their queues that others have had for too long, by its own clock. One
whose clock is fast would take from all others what they are at, again and again; and AWS refuses what it signs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from redis.exceptions import RedisError

from osml_tasks.accounts import session_of
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.records import server_time

MOST_SECONDS = 30
"""How far a worker's clock may be off, s."""

logger = logging.getLogger(__name__)


def clock_complaint(redis: Any, s3_time: Callable[[], float], clock: Callable[[], float] = time.time) -> str | None:
    """What to say of a clock that is wrong; None if it is not, or if that cannot be told.

    The server with the fleet's state is asked first; where it disagrees, S3 has the casting vote.

    :param s3_time: asks S3 for the time, s since the epoch.
    :param clock: this machine's, s since the epoch.
    """
    try:
        ahead = clock() - server_time(redis)
    except RedisError:
        return None
    if abs(ahead) <= MOST_SECONDS:
        return None
    try:
        by_s3 = clock() - s3_time()
    except Exception as error:
        logger.warning("S3 does not tell the time: %s", error)
        by_s3 = ahead
    if abs(by_s3) <= MOST_SECONDS:
        logger.warning("the broker's clock is %.0f s off: set it, for instance by NTP", abs(ahead))
        return None
    return (
        f"this machine's clock is {abs(by_s3):.0f} s {'fast' if by_s3 > 0 else 'slow'}: set it, for instance by NTP; "
        "with it, messages would be delivered again and again, and AWS refuses what it signs"
    )


def s3_time(config: AsyncEndpointConfig) -> float:
    """The time of an answer of S3, good or bad, s since the epoch."""
    from botocore.exceptions import ClientError

    from osml_tasks.aws.s3_client import s3_client

    try:
        answer = s3_client(session_of(config, None)).head_bucket(Bucket=config.input_bucket)
    except ClientError as error:
        answer = error.response
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
